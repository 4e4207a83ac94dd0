"""The files of a corpus: recordings, which are found by name or path, and files with texts."""

import os
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from unicodedata import normalize

# Suffixes of the formats that libsndfile reads, and of other formats.
READ_SUFFIXES = {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64"),
    *(".rf64", ".sph", ".nist", ".voc"),
}
UNREAD_SUFFIXES = {
    *(".m4a", ".webm", ".aac", ".wma", ".amr", ".mp4", ".ape", ".wv", ".mka", ".mkv", ".3gp", ".mp2", ".ac3", ".weba"),
    *(".mov", ".tta", ".shn", ".mpc", ".spx"),
}


class Files:
    """Every file below a folder. `recordings` and `others` are sorted; `unread` counts formats that are not read.

    Raises ValueError if there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.exists():
            raise ValueError(f"{root}: no such folder")
        if not root.is_dir():
            raise ValueError(f"{root} is a file, not a folder: unpack an archive and give the folder that it contains")
        self.root = root
        self.recordings: list[Path] = []
        self.others: list[Path] = []
        self.unread: Counter[str] = Counter()
        for path in sorted(_walk(root)):
            suffix = path.suffix.lower()
            if suffix in UNREAD_SUFFIXES:
                self.unread[suffix] += 1
            else:
                (self.recordings if suffix in READ_SUFFIXES else self.others).append(path)
        self._by_name = by_name(self.recordings)

    def named(self, *patterns: str) -> list[Path]:
        """Return the files other than recordings whose names match a pattern, regardless of case."""
        return [path for path in self.others if any(fnmatchcase(path.name.lower(), pattern) for pattern in patterns)]

    def find(self, name: str, base: Path, where: str) -> Path | None:
        """Return the recording of a file name or path, or None.

        The suffix may be missing or be another one. Paths begin at the folder `base` or above it. Raises ValueError,
        which begins with `where`, if several recordings fit.
        """
        called = Path(normalize("NFC", name.replace("\\", "/")))
        stem = called.stem if called.suffix.lower() in READ_SUFFIXES | UNREAD_SUFFIXES else called.name
        candidates = self._by_name.get(called.name) or self._by_name.get(stem, [])
        called = called.with_name(stem) if called.name else called
        inside = [path for path in candidates if base in path.parents]
        candidates = inside or candidates
        if len(candidates) > 1:
            names = {path: _without_suffix(path, base) for path in candidates}
            exact = [path for path, known in names.items() if known == called]
            candidates = exact or [path for path, known in names.items() if _overlap(known, called)] or candidates
        if len(candidates) > 1:
            several = " or ".join(str(path) for path in candidates[:3])
            raise ValueError(f"{where}: {name} may be {several}: give its path from {base}")
        return candidates[0] if candidates else None


def by_name(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Map names in Unicode form NFC, with and without suffix, to files. macOS stores accents as separate characters."""
    found: dict[str, list[Path]] = {}
    for path in files:
        for name in (path.name, path.stem):
            found.setdefault(normalize("NFC", name), []).append(path)
    return found


def _walk(root: Path) -> Iterable[Path]:
    """Yield the files below a folder. A folder that several links name is read once, because links may form a loop."""
    known = {os.path.realpath(root)}
    for parent, folders, names in os.walk(root, followlinks=True):
        places = {name: os.path.realpath(Path(parent, name)) for name in sorted(folders)}
        folders[:] = [name for name, place in places.items() if name != "__MACOSX" and place not in known]
        known.update(places.values())
        for name in names:
            if not name.startswith("._"):  # macOS adds such a file for each file of a zip file
                yield Path(parent, name)


def _without_suffix(path: Path, base: Path) -> Path:
    inside = path.relative_to(base) if base in path.parents else path
    return Path(normalize("NFC", str(inside.with_suffix(""))))


def _overlap(path: Path, called: Path) -> bool:
    """Return whether the shorter of two paths is the end of the longer."""
    shared = min(len(path.parts), len(called.parts))
    return called.parts[-shared:] == path.parts[-shared:]
