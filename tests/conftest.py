"""Fixtures of all tests. PyTorch uses one thread, because the networks of the tests are small."""

import logging
import os
import signal
import threading
from pathlib import Path

import pytest
import tiny
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def clean_process():
    """Restore log handlers, signal handlers and the hook of threads after each test, because training sets them."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers, root.level = handlers, level
    threading.excepthook = threading.__excepthook__
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A working directory with a tiny corpus of one speaker."""
    monkeypatch.chdir(tmp_path)
    tiny.write_corpus(tmp_path)
    return tmp_path


@pytest.fixture
def no_noise(monkeypatch):
    """Make every random draw zero: segments start at frame 0 and samples are means."""
    tiny.no_noise(monkeypatch)


@pytest.fixture(autouse=True)
def no_pretrained_voice(monkeypatch):
    """Hide the pretrained voice, so that tests have only the voices that they make."""
    monkeypatch.setattr("files.PRETRAINED", Path("nowhere/pretrained"))
