# SPDX-License-Identifier: Apache-2.0
"""Readers that read as fast as they can until SIGTERM, each in its own way, and count what should not happen.

Every value on the volume holds the number of its publication, so a mixture of two is seen.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from keyferry import FileAdapter
from keyferry.errors import KeyferryError
from keyferry.layout import DATA_LINK, KEYRING_FILE, Keyring, parse
from keyferry.reader import read_volume

KEYS = ("a", "b", "c")


def value(number: int) -> bytes:
    """Return a value that proves to be whole: its number, a length of its own, and a digest."""
    text = f"{number:08d}" + "x" * (number * 37 % 1000)
    return f"{text}{hashlib.sha256(text.encode()).hexdigest()}".encode()


def number_in(data: bytes) -> int:
    """Return the number in ``value(number)``; ``ValueError`` if it is not whole."""
    number = int(data[:8])
    if value(number) != data:
        message = "torn"
        raise ValueError(message)
    return number


def numbers_in(keyrings: Iterable[Keyring]) -> Iterator[int]:
    for keyring in keyrings:
        for version in keyring.versions:
            yield number_in(version.material.raw)


def reader(root: str) -> set[int]:
    """Read as the agent's commands do."""
    return set(numbers_in(read_volume(root).generation.keys.values()))


def adapter(root: str) -> Callable[[str], set[int]]:
    """Read as an app does, looking each time."""
    keys = FileAdapter(root, key="a", check_interval=0)

    def look(_: str) -> set[int]:
        return {number_in(key.text.encode()) for key in keys.candidates()}

    return look


def documented(root: str) -> set[int]:
    """Read as another language would, plain files included: ``..data`` once, all else through it."""
    directory = os.open(f"{root}/{DATA_LINK}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        generation = parse(_read(KEYRING_FILE, directory))
        plain = {number_in(_read(name, directory)) for name in KEYS}
    finally:
        os.close(directory)
    return plain | set(numbers_in(generation.keys.values()))


def plain(root: str) -> set[int]:
    """Read one file, as a shell script does."""
    return {number_in(Path(root, "b").read_bytes())}


def keyring_file(root: str) -> set[int]:
    """Read the one file that has everything."""
    return set(numbers_in(parse(Path(root, KEYRING_FILE).read_bytes()).keys.values()))


def _read(name: str, directory: int) -> bytes:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=directory), "rb") as file:
        return file.read()


@dataclass
class Tally:
    """What one reader saw."""

    reads: int = 0
    seen: int = 0
    torn: int = 0
    missing: int = 0
    older: int = 0
    newest: int = 0

    def count(self, look: Callable[[str], set[int]], root: str) -> None:
        """Read once."""
        self.reads += 1
        try:
            numbers = look(root)
        except (FileNotFoundError, KeyferryError):
            self.missing += 1
        except ValueError:
            self.torn += 1
        else:
            self.torn += len(numbers) != 1
            self.older += min(numbers) < self.newest
            self.seen += max(numbers) > self.newest
            self.newest = max(self.newest, *numbers)


def main(way: str, root: str) -> None:
    """Read until SIGTERM, once more after it, and print what was seen."""
    stopped = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    # The one writer must get its share of a small machine, or nothing would be there to read.
    os.nice(4)
    look = adapter(root) if way == "adapter" else WAYS[way]
    tally = Tally()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not stopped:
        tally.count(look, root)
    tally.count(look, root)
    json.dump(asdict(tally), sys.stdout)


WAYS = {"reader": reader, "documented": documented, "plain": plain, "keyring_file": keyring_file}

if __name__ == "__main__":
    main(*sys.argv[1:])
