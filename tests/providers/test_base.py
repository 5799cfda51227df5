# SPDX-License-Identifier: Apache-2.0
"""What comes out of the port, whatever a provider raises."""

import pytest

from agent.errors import UnavailableError
from agent.offer import Known, Offer
from agent.providers.base import fetch


def test_what_nobody_foresaw() -> None:
    """Only the error's type is told, and its text hangs on to nothing: it may quote a token or the value."""

    class Broken:
        def fetch(self, known: Known) -> Offer:
            message = "Invalid header value b'the token'"
            raise ValueError(message)

        def close(self) -> None: ...

    with pytest.raises(UnavailableError, match=r"^unexpected builtins.ValueError in the provider$") as caught:
        fetch(Broken(), {})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
