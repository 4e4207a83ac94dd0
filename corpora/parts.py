"""Parts of a list that several machines prepare at the same time."""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

_OPTION = re.compile(r"(\d+)/(\d+)")


class Part(NamedTuple):
    """Part `number`, from 1, of `total` parts of nearly equal size."""

    number: int
    total: int

    def of(self, length: int) -> slice:
        """Return the positions of this part in a list of `length` items."""
        return slice(length * (self.number - 1) // self.total, length * self.number // self.total)

    def file(self, path: str | Path) -> str:
        """Return the name under which the result of this part of `path` is stored."""
        return f"{path}.{self.number}-of-{self.total}" if self.total > 1 else str(path)


WHOLE = Part(1, 1)


def parse(option: str) -> Part:
    """Read the value of `--shard`. Raises ArgumentTypeError unless it is I/N with I from 1 to N."""
    given = _OPTION.fullmatch(option)
    part = Part(int(given[1]), int(given[2])) if given else Part(0, 0)
    if not 1 <= part.number <= part.total:
        raise argparse.ArgumentTypeError(f"{option!r} is no part I/N, such as 2/8, with I from 1 to N")
    return part


def stored(path: str | Path) -> dict[Part, Path]:
    """Return the stored parts of `path`, in order."""
    path = Path(path)
    named = re.compile(rf"{re.escape(path.name)}\.(\d+)-of-(\d+)")
    found = ((named.fullmatch(file.name), file) for file in path.parent.glob("*-of-*"))
    return dict(sorted((Part(int(match[1]), int(match[2])), file) for match, file in found if match))
