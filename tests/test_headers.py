"""Headers of recordings are read once, kept in a file, and read again if a recording has changed."""

import os

import numpy as np
import pytest
import soundfile

import audio
from corpora import headers


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """Three recordings in chunks of two."""
    monkeypatch.setattr(headers, "CHUNK", 2)
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(100 * i + 100), 8000)
    return [str(tmp_path / f"{i}.wav") for i in range(3)]


@pytest.fixture
def read(monkeypatch):
    """The paths whose headers are read."""
    found = []
    monkeypatch.setattr(headers, "read_header", lambda path: found.append(path) or audio.read_header(path))
    return found


def test_headers_are_in_the_order_of_the_paths_and_read_once(paths, read, tmp_path):
    cache = tmp_path / "run" / "headers.npy"
    listed = [paths[2], paths[0], paths[2], paths[1], paths[0]]
    expected = [(300, 8000), (100, 8000), (300, 8000), (200, 8000), (100, 8000)]
    assert list(headers.headers(listed)) == list(headers.headers(listed, cache)) == expected
    assert sorted(read) == sorted(2 * paths)
    read.clear()
    assert list(headers.headers(paths[::-1], cache)) == [(300, 8000), (200, 8000), (100, 8000)] and not read
    soundfile.write(paths[1], np.zeros(50), 16000)
    assert list(headers.headers(paths, cache))[1] == (50, 16000) and read == [paths[1]]
    os.utime(paths[0], ns=(1, 1))
    first, *_ = headers.headers(paths, cache)
    assert first == (100, 8000) and read == [paths[1], paths[0]]
    assert len(np.load(cache)) == 3


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_damaged_cache_is_replaced(paths, read, tmp_path, content):
    cache = tmp_path / "headers.npy"
    np.save(cache, np.zeros(3)) if content is None else cache.write_bytes(content)
    first, *_ = headers.headers(paths, cache)
    assert first == (100, 8000)
    assert len(np.load(cache)) == len(read) == 3


def test_a_missing_recording_is_named_also_if_it_is_in_the_cache(paths, tmp_path):
    cache = tmp_path / "headers.npy"
    list(headers.headers(paths, cache))
    os.unlink(paths[1])
    with pytest.raises(ValueError, match=r"1\.wav: no such file"):
        list(headers.headers(paths, cache))
