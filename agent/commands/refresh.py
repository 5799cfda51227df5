# SPDX-License-Identifier: Apache-2.0
"""``refresh``: signal the running agent and wait for what comes of it.

In an image without a shell there is no ``kill``, and a signal alone does not tell whether it helped.
"""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.clock import moment
from agent.commands.volume_path import volume_path
from agent.errors import AgentError
from agent.exits import Exit
from agent.lock import holder
from keyferry.reader import read_status
from keyferry.status import KeyStatus, Status

_LOOK_EVERY_SECONDS: Final = 0.01


def refresh(config: Path | None, directory: Path | None, *, timeout: float, as_json: bool) -> int:
    """Let the agent read its configuration and ask its providers now.

    Return 0 if all is right, there and published, 1 if not, 3 if late.
    """
    path = volume_path(config, directory)
    pid = _agent_pid(path)
    began = moment()
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        message = (
            f"the agent (pid {pid}) cannot be signalled ({error.strerror}); run this in its container "
            "and as its uid"
        )
        raise AgentError(message) from error
    status = _wait(path, began.now, began.boot + timeout)
    if status is None:
        message = f"the agent (pid {pid}) had no result for every key within {timeout:g} s"
        print(f"keyferry-agent: {message}", file=sys.stderr)
        return Exit.NOT_READY
    if as_json:
        document = {
            "generation": status.generation,
            "config_problems": status.config_problems,
            "publish_problem": status.publish_problem,
            "keys": _documents(status.keys),
        }
        print(json.dumps(document, indent=1))
    else:
        for name, key in status.keys.items():
            print(f"{name}: {key.outcome}" + (f" ({key.reason})" if key.reason else ""))
        if status.publish_problem is not None:
            print(f"not published: {status.publish_problem}")
        for problem in status.config_problems:
            print(f"configuration refused: {problem}")
    failed = (
        status.publish_problem is not None
        or status.config_problems
        or any(key.failures for key in status.keys.values())
    )
    return Exit.FAILED if failed else Exit.OK


def _agent_pid(path: Path) -> int:
    pid = holder(path)
    if pid is None:
        message = f"no agent runs on {path}; start one, or give its volume by --dir"
        raise AgentError(message)
    return pid


def _wait(path: Path, since: float, until_boot: float) -> Status | None:
    """Return the heartbeat in which each key was tried after ``since``, ``None`` if it is late."""
    # The heartbeat's times are milliseconds.
    since = math.floor(since * 1000) / 1000
    while moment().boot < until_boot:
        status = read_status(str(path))
        if status is not None and all((key.last_attempt_at or 0.0) >= since for key in status.keys.values()):
            return status
        time.sleep(_LOOK_EVERY_SECONDS)
    return None


def _documents(keys: Mapping[str, KeyStatus]) -> dict[str, object]:
    return {
        name: {"outcome": key.outcome, "reason": key.reason, "failures": key.failures}
        for name, key in keys.items()
    }
