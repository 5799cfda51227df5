# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.daemon.agent_process import eventually


def test_a_wait_in_vain_shows_what_was_told_meanwhile() -> None:
    """Whoever reads a failure on another machine has nothing but its message."""
    log = ["before"]

    def look() -> bool:
        log.append("meanwhile")
        return False

    with pytest.raises(AssertionError, match=r"^not within 0 s: before, meanwhile"):
        eventually(look, within=0, what=lambda: ", ".join(log))
