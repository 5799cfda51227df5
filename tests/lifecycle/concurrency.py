# SPDX-License-Identifier: Apache-2.0
"""Calls that all begin at the same moment."""

import threading
from typing import Any

from agent.errors import AgentError


def at_once(*calls: Any) -> list[Any]:
    """Return what the calls return or raise, all begun at the same moment."""
    barrier = threading.Barrier(len(calls))
    answers: dict[int, Any] = {}

    def call(index: int) -> None:
        barrier.wait()
        try:
            answers[index] = calls[index]()
        except AgentError as error:
            answers[index] = error

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[index] for index in range(len(calls))]
