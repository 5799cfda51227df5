# SPDX-License-Identifier: Apache-2.0
"""``python -m examples.demo``: play the story, show it, draw it.

Exit codes: 0 if every rotation reached every app and no decrypt failed, 1 with a sentence if not, 2 for wrong
usage. Whatever it started is stopped and whatever it wrote is removed, but for the picture.
"""

import argparse
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn

from examples.demo.console import Console
from examples.demo.picture import draw
from examples.demo.pod import Message, Pod
from examples.demo.store import open_store
from examples.demo.story import ACTIVATION_DELAY_SECONDS, DemoError, Story
from examples.demo.timeline import Timeline
from examples.demo.words import summary
from examples.demo.workplace import NoTmpfsError, workplace

PODS = ("a", "b")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the demo and return the exit code."""
    options = parser().parse_args()
    for number in SIGNALS:
        signal.signal(number, interrupt)
    try:
        run(options)
    except (DemoError, NoTmpfsError) as error:
        print(f"demo: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped, and cleaned up", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """Set the stage, play, and strike it."""
    with ExitStack() as stage:
        home = stage.enter_context(workplace(in_memory=options.tmpfs))
        store = stage.enter_context(open_store(options.provider, home, PODS))
        timeline = Timeline(options.provider, PODS, ACTIVATION_DELAY_SECONDS, time.time())
        console = Console(sys.stdout, timeline)
        inbox: SimpleQueue[Message] = SimpleQueue()
        pods = [Pod(name, home / f"pod-{name}", inbox) for name in PODS]
        for pod in pods:
            stage.callback(pod.stop)
        console.title(str(home))
        try:
            Story(store, pods, inbox, timeline, console).tell(
                home / "records.sqlite", in_memory=options.tmpfs
            )
        except DemoError:
            console.end()
            for pod in pods:
                for line in pod.log_tail():
                    print(f"agent {pod.name}: {line}", file=sys.stderr)
            raise
        console.end()
        print(*summary(timeline), sep="\n")
        options.svg.parent.mkdir(parents=True, exist_ok=True)
        options.svg.write_text(draw(timeline))
        print(f"picture: {options.svg}")
        print(f"\ndemo: ok, {len(timeline.rotations) - 1} rotations reached every app and no decrypt failed")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description="Three rotations and an outage, live."
    )
    parser.add_argument(
        "--provider", choices=("file", "vault"), default="file", help="the key store (default: file)"
    )
    parser.add_argument(
        "--no-tmpfs",
        dest="tmpfs",
        action="store_false",
        help="work on a disk, with keys that are thrown away",
    )
    parser.add_argument(
        "--svg",
        type=Path,
        default=Path("build/demo.svg"),
        metavar="PATH",
        help="the picture (default: build/demo.svg)",
    )
    return parser


def interrupt(*_: object) -> NoReturn:
    """Begin to clean up; a second Ctrl-C must not interrupt that."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
