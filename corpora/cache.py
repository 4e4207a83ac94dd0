"""Results for recordings, kept in a JSON file until a recording or the settings change."""

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from corpora import shards
from corpora.parts import stored
from files import write_text

SAVE_INTERVAL = 60  # seconds between two saves


def computed(
    paths: Sequence[str],
    compute: Callable[[str], Any],
    cache: str | Path | None,
    settings: Any,
    title: str,
    valid: Callable[[Any], bool],
    workers: int | None = None,
) -> list[Any]:
    """Return `compute(path)` for every path, a value of JSON, and keep the values in the file `cache`.

    A value is computed again if the size or the modification time of the recording has changed, or if the file was
    written with other settings. Files of its parts (see `corpora.parts`) are read as well. The file is saved while the
    work goes on, so that an interrupted program continues. Entries of a damaged file whose values are not `valid` are
    computed again. `title` names the progress bar, and `workers` is the number of threads; None is one more than the
    number of cores, because more of them wait for each other.
    """
    settings = json.loads(json.dumps(settings))
    kept: dict[str, list[Any]] = {}
    parts = list(stored(cache).values()) if cache else []
    for file in [*parts, Path(cache)] if cache else []:
        # missing, or not a cache of this program: replace it
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            content = json.loads(file.read_text("utf-8"))
            found = content["files"].items() if content["settings"] == settings else ()
            kept |= {
                path: entry for path, entry in found if isinstance(entry, list) and len(entry) == 2 and valid(entry[1])
            }
    keys: dict[str, list[int]] = {}
    for path in paths:
        with suppress(OSError):
            status = os.stat(shards.file_of(path))
            keys[path] = [status.st_size, status.st_mtime_ns]
    values = {path: kept[path][1] for path in keys if kept.get(path, [None])[0] == keys[path]}
    fresh = [path for path in dict.fromkeys(paths) if path not in values]

    def save() -> None:
        if cache and (fresh or parts):
            Path(cache).parent.mkdir(parents=True, exist_ok=True)
            new = {path: [keys[path], value] for path, value in values.items() if path in keys}
            write_text(cache, json.dumps({"settings": settings, "files": kept | new}))

    saved = time.monotonic()
    with ThreadPoolExecutor(workers or (os.cpu_count() or 1) + 1) as pool:
        done = tqdm(pool.map(compute, fresh), title, len(fresh), disable=None, leave=False)
        try:
            for path, value in zip(fresh, done, strict=True):
                values[path] = value
                if time.monotonic() > saved + SAVE_INTERVAL:
                    save()
                    saved = time.monotonic()
        finally:  # also after Ctrl-C
            save()
    return [values[path] for path in paths]
