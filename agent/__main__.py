# SPDX-License-Identifier: Apache-2.0
"""The command line: ``keyferry-agent run | once | check | refresh | status | plan | bootstrap | rotate``.

Exit codes: 0 ok, 1 failed, 2 bad configuration or usage, a wrong mount included, 3 not ready in time, or
made and not to be seen yet, 130 interrupted. Errors go to standard error, one sentence a line; standard
output holds only what was asked for, as JSON with ``--json``.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from agent import __version__
from agent.errors import AgentError, ConfigError, MadeError, VolumeError
from agent.exits import Exit
from keyferry.errors import KeyferryError

_DESCRIPTION: Final = "Carries an application's master key from a key store to a shared in-memory volume."
# Beyond any use, and still what the system can wait for.
_LONGEST_SECONDS: Final = 365 * 24 * 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        return _run(_parser().parse_args(arguments))
    except (ConfigError, VolumeError) as error:
        _complain(error)
        return Exit.MISCONFIGURED
    except AgentError as error:
        _complain(error)
        return Exit.NOT_READY if isinstance(error, MadeError) else Exit.FAILED
    except KeyferryError as error:
        from keyferry.__main__ import exit_code

        print(f"keyferry-agent: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; a second complaint at exit would have nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED


def _run(options: argparse.Namespace) -> int:  # noqa: PLR0911 - one a command
    # Each command is imported when chosen: the start-up of `run` must not pay for the others.
    match options.command:
        case "run" | "once":
            from agent.commands import run

            return run.run(options.config, once=options.command == "once")
        case "check":
            from agent.commands import check

            return check.check(options.config, as_json=options.json)
        case "refresh":
            from agent.commands import refresh

            return refresh.refresh(options.config, options.dir, timeout=options.timeout, as_json=options.json)
        case "plan":
            from agent.commands import plan

            return plan.plan(options.config, pods=options.pods, as_json=options.json)
        case "bootstrap":
            from agent.commands import bootstrap

            return bootstrap.bootstrap(options.config, options.key, make=options.create, as_json=options.json)
        case "rotate":
            from agent.commands import rotate

            wanted = rotate.Options(
                activate=options.activate,
                drop_oldest=options.drop_oldest,
                wait=options.wait,
                timeout=options.timeout,
                as_json=options.json,
            )
            return rotate.rotate(options.config, options.dir, options.key, wanted)
        case _:
            from agent.commands import status

            if options.watch:
                return status.watch(
                    options.config, options.dir, as_json=options.json, interval_seconds=options.interval
                )
            return status.status(options.config, options.dir, as_json=options.json, ready=options.ready)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="keyferry-agent", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"keyferry-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="agent.yaml (default: KEYFERRY_CONFIG, else /etc/keyferry/agent.yaml, else the environment)",
    )
    json = argparse.ArgumentParser(add_help=False)
    json.add_argument("--json", action="store_true", help="print JSON")
    volume = argparse.ArgumentParser(add_help=False)
    volume.add_argument("-d", "--dir", type=Path, metavar="DIR", help="the volume (default: as configured)")

    commands.add_parser("run", parents=[config], help="fetch, publish and keep fresh until stopped")
    commands.add_parser(
        "once", parents=[config], help="fetch and publish once, then exit (init containers, jobs)"
    )
    commands.add_parser(
        "check", parents=[config, json], help="check configuration, volume and provider without publishing"
    )
    refresh = commands.add_parser(
        "refresh",
        parents=[config, volume, json],
        help="make the running agent refresh now, and wait for the result",
    )
    refresh.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="give up after (default: 30)"
    )
    status = commands.add_parser("status", parents=[config, volume, json], help="show what is on the volume")
    status.add_argument(
        "--ready", action="store_true", help="exit 3 unless every key can be read; print nothing"
    )
    status.add_argument("--watch", action="store_true", help="show it again and again")
    status.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="SECONDS", help="of --watch (default: 1)"
    )
    plan = commands.add_parser(
        "plan", parents=[config, json], help="tell calls, costs, times and the policies that are needed"
    )
    plan.add_argument("--pods", type=_count, default=1, metavar="N", help="how many pods (default: 1)")
    key = argparse.ArgumentParser(add_help=False)
    key.add_argument("--key", metavar="NAME", help="the key (default: all, or the only one)")
    bootstrap = commands.add_parser(
        "bootstrap", parents=[config, key, json], help="verify that every key is there, or make it"
    )
    bootstrap.add_argument(
        "--create", action="store_true", help="make what is missing; nothing is ever overwritten"
    )
    rotate = commands.add_parser(
        "rotate", parents=[config, volume, key, json], help="make a new version of a key"
    )
    rotate.add_argument(
        "--activate",
        type=_activation,
        metavar="now|TIME",
        help="use it as soon as it is seen instead of after the delay; or, in a keyring file, from this time "
        "on: RFC 3339, or a duration from now such as 2h",
    )
    rotate.add_argument(
        "--drop-oldest", action="store_true", help="even if the store destroys its oldest version for it"
    )
    rotate.add_argument("--wait", action="store_true", help="follow it until it is active on the volume")
    rotate.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="of --wait (default: what a healthy agent needs at most)",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        message = f"{text!r} is not a number of at least 1"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_SECONDS:
        message = f"{text!r} is not a number of seconds above 0, at most {_LONGEST_SECONDS} (a year)"
        raise argparse.ArgumentTypeError(message)
    return seconds


def _activation(text: str) -> Literal["now"] | float:
    """Return ``now``, or Unix seconds."""
    if text == "now":
        return "now"
    from agent.clock import moment
    from agent.parsing import WrongValueError, parse_duration
    from keyferry.times import parse_time

    now = moment().now
    try:
        activates_at = now + parse_duration(text)
    except WrongValueError:
        try:
            activates_at = parse_time(text)
        except ValueError:
            activates_at = math.nan
    if not now < activates_at <= now + _LONGEST_SECONDS:
        message = (
            f"{text!r} is neither now nor a time within the next year: RFC 3339, such as "
            "2026-01-31T08:15:00Z, or a duration from now, such as 2h"
        )
        raise argparse.ArgumentTypeError(message)
    return activates_at


def _complain(error: AgentError) -> None:
    for line in str(error).splitlines():
        print(f"keyferry-agent: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
