"""The memory that a run logs."""

import multiprocessing
import sys

import pytest
import torch

from training import memory

MEGABYTE = 1 << 20


def hold(connection, count):
    block = bytearray(b"x") * count
    connection.send(len(block))
    connection.recv()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_memory_of_this_process_and_of_its_workers_is_measured():
    before = memory.in_use(torch.device("cpu"))
    block = bytearray(b"x") * (200 * MEGABYTE)
    after = memory.in_use(torch.device("cpu"))
    assert after["memory/process_gb"] - before["memory/process_gb"] == pytest.approx(len(block) / 1e9, rel=0.1)
    assert before["memory/workers_gb"] == after["memory/workers_gb"] == 0

    del block
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=hold, args=(theirs, 100 * MEGABYTE))
    worker.start()
    assert ours.recv() == 100 * MEGABYTE
    assert memory.in_use(torch.device("cpu"))["memory/workers_gb"] > 100 * MEGABYTE / 1e9
    ours.send(None)
    worker.join()
    assert memory.in_use(torch.device("cpu"))["memory/workers_gb"] == 0


def test_systems_without_proc_and_gpus(monkeypatch):
    monkeypatch.setattr(memory, "_resident", lambda process: None)
    assert memory.in_use(torch.device("cpu")) == {}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3e9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4e9)
    assert memory.in_use(torch.device("cuda")) == {"memory/gpu_allocated_gb": 3.0, "memory/gpu_reserved_gb": 4.0}
