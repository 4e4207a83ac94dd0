"""Lengths and rates of many recordings, kept in a file so that training with millions of recordings starts quickly."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path

import numpy as np

from audio import read_header
from corpora import shards
from files import replacing

CHUNK = 1 << 15  # recordings that are looked up at once
PART = 64  # headers that a thread reads at once
ROW = np.dtype([("key", "<u8"), ("size", "<i8"), ("time", "<i8"), ("samples", "<i8"), ("rate", "<i4")])


def headers(paths: Iterable[str], cache: str | Path | None = None) -> Iterator[tuple[int, int]]:
    """Yield the samples per channel and the rate in Hz of every recording, in order.

    A header is read again only if the size or the modification time of its file has changed since it was stored in
    `cache`, which is written when all have been yielded. A damaged cache is replaced. Raises ValueError as
    `audio.read_header`.
    """
    known = _stored(cache)
    changed = False
    paths = iter(paths)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(paths, CHUNK)):
            rows = _files(chunk)
            found = _find(known, rows)
            _, first = np.unique(rows["key"], return_index=True)
            new = first[found[first] < 0]
            if len(new):
                parts = [[chunk[i] for i in new[start : start + PART]] for start in range(0, len(new), PART)]
                read = np.array([*chain(*pool.map(_read, parts))])
                rows["samples"][new], rows["rate"][new] = read.T
                kept = known[~np.isin(known["key"], rows["key"][new])]  # without earlier states of the same files
                known = np.sort(np.concatenate([kept, rows[new]]), order="key")
                found, changed = _find(known, rows), True
                if (found < 0).any():
                    raise ValueError(f"{chunk[np.argmin(found)]}: the file has changed while its header was read")
            yield from known[["samples", "rate"]][found].tolist()
    if cache and changed:
        Path(cache).parent.mkdir(parents=True, exist_ok=True)
        with replacing(cache) as unfinished, unfinished.open("wb") as file:
            np.save(file, known)


def _read(paths: list[str]) -> list[tuple[int, int]]:
    return [read_header(path) for path in paths]


def _stored(cache: str | Path | None) -> np.ndarray:
    """Return the rows of a cache, sorted by key."""
    try:
        rows = np.load(cache) if cache else np.zeros(0, ROW)
    except (OSError, ValueError, EOFError):
        return np.zeros(0, ROW)
    return rows if rows.dtype == ROW and rows.ndim == 1 else np.zeros(0, ROW)


def _files(paths: list[str]) -> np.ndarray:
    """Return rows without headers."""
    rows = np.zeros(len(paths), ROW)
    keys = [blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest() for path in paths]
    rows["key"] = np.frombuffer(b"".join(keys), "<u8")
    rows["size"], rows["time"] = np.array([_status(shards.file_of(path)) for path in paths]).T
    return rows


def _status(file: str) -> tuple[int, int]:
    """Return size and time. A missing file has the size -1, so that it is not found and an error names it."""
    try:
        status = os.stat(file)
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _find(known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the position in `known` of each row with the same key, size and time, -1 if there is none."""
    if not len(known):
        return np.full(len(rows), -1)
    at = np.minimum(np.searchsorted(known["key"], rows["key"]), len(known) - 1)
    same = np.all([known[name][at] == rows[name] for name in ("key", "size", "time")], axis=0)
    return np.where(same, at, -1)
