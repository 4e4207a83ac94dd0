"""What every test gets: few threads, and no traces of the programs that ran in the process before it."""

import logging
import os
import signal

import pytest
import tiny
import torch

# Networks of these sizes gain nothing from a second thread, and lose much where others use the processor too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def clean_process():
    """Training sets up logging and signals of its process; the next test must not inherit them."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers, root.level = handlers, level
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A working directory with a tiny corpus of one voice."""
    monkeypatch.chdir(tmp_path)
    tiny.write_corpus(tmp_path)
    return tmp_path


@pytest.fixture
def no_noise(monkeypatch):
    """Every random draw is zero: segments start at frame 0, samples are means."""
    tiny.no_noise(monkeypatch)
