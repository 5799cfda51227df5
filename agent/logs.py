# SPDX-License-Identifier: Apache-2.0
"""Tells events as lines on standard error: JSON for machines, or columns for people.

Rules:

- No exception is ever formatted here: a traceback with local variables would print what they hold.
- What libraries would log by themselves is not told: nobody has checked it for secrets, and it is no JSON.
- A log that cannot be written (a closed pipe, a full disk, a reader that has stalled) never stops the agent:
  lines are dropped, and their number is told when there is room again.
- Audit events are told at every level.
"""

import logging
import select
import sys
from contextlib import suppress
from typing import Final

import structlog

from agent.events import Event, Sink
from agent.settings import LogSettings
from keyferry.times import format_time

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def sink(settings: LogSettings) -> Sink:
    """Return what writes events of ``settings.level`` and above in ``settings.format``."""
    logging.lastResort = logging.NullHandler()
    # Closed by whoever started the agent; structlog would turn to standard output.
    if sys.stderr is None:
        return lambda _event: None
    least = _LEVELS[settings.level]
    if settings.format == "json":
        render: structlog.typing.Processor = structlog.processors.JSONRenderer()
    else:
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=20)
    logger = structlog.wrap_logger(structlog.WriteLogger(sys.stderr), processors=[_in_reading_order, render])
    dropped = 0

    def write(event: Event) -> None:
        fields = dict(event.fields) | ({"audit": True} if event.audit else {})
        logger.info(event.name, timestamp=format_time(event.at), level=event.level, **fields)

    def tell(event: Event) -> None:
        nonlocal dropped
        if _LEVELS[event.level] < least and not event.audit:
            return
        # OSError: the pipe or disk behind stderr; ValueError: it was closed.
        with suppress(OSError, ValueError):
            # A pipe is writable while it has room for 4 KiB (pipe(7)): for any line but a rare one.
            if not select.select([], [sys.stderr], [], 0)[1]:
                dropped += 1
                return
            if dropped:
                write(Event("log.dropped", "warning", event.at, audit=False, fields={"lines": dropped}))
                dropped = 0
            write(event)

    return tell


def _in_reading_order(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    return {**first, **event}
