"""CUDA graphs of training steps: which steps are captured, and captured steps against eager ones."""

import dataclasses
import math

import pytest
import tiny
import torch
from tiny import DURATION_DISCRIMINATOR, MANY_VOICES, batch

import distributed
from decoders import DECODERS
from kernels import step_graphs
from trainer import Trainer

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Captured:
    """Replaces `Graph`; its record shows that it ran."""

    def __init__(self, step, batch, device, pool):
        self.shape = batch.wav.shape

    def __call__(self, batch):
        assert batch.wav.shape == self.shape
        return {"captured": self.shape[-1]}


@pytest.mark.parametrize("patience, eager", [(0, 1), (3, 3)])
def test_second_step_of_a_shape_is_captured(monkeypatch, patience, eager):
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(step_graphs, "Graph", Captured)
    steps = step_graphs.GraphedSteps(torch.device("cpu"), patience)
    short, long = (batch(tiny.config(), more_frames=n) for n in (0, 7))

    def step(data):
        return {"eager": data.wav.size(2)}

    expected = [["eager"]] * eager + [["captured"]] * (5 - eager)
    assert [list(steps(step, short, "joint")) for _ in range(5)] == expected
    assert steps(step, long, "joint") == {"eager": long.wav.size(2)}
    assert steps(step, long, "joint") == {"captured": long.wav.size(2)}
    # another kind of step has the same patience, because another network may be wrapped anew for it
    assert [list(steps(step, short, "last stage")) for _ in range(5)] == expected
    assert steps(step, long, "last stage") == {"eager": long.wav.size(2)}


def test_error_of_a_failed_capture_names_the_option_without_graphs(monkeypatch):
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(step_graphs, "Graph", refuse)
    steps = step_graphs.GraphedSteps(torch.device("cpu"))
    data = batch(tiny.config())
    steps(lambda _: {}, data, "joint")
    with pytest.raises(RuntimeError, match=r"train\.py --plain"):
        steps(lambda _: {}, data, "joint")


@torch.no_grad()
def copy_state(source: Trainer, target: Trainer) -> None:
    """Copy weights and optimizer states in place, because captured steps keep using the same tensors."""
    for name, learner in source.learners.items():
        other = target.learners[name]
        for mine, theirs in zip(learner.network.parameters(), other.network.parameters()):
            theirs.copy_(mine)
            for key, value in learner.optimizer.state[mine].items():
                if key in other.optimizer.state[theirs]:
                    other.optimizer.state[theirs][key].copy_(value)
    target.position.step = source.position.step


def differences(config, batches, device, precision, steps):
    """Train some steps on batches of one shape, plain and fast, each step from equal weights and random states.

    Returns the largest relative difference of each loss, and the smallest cosine between gradients of a network.
    """
    runs = []
    for fast in (False, True):
        train = dataclasses.replace(config.train, precision=precision, cuda_graphs=fast, fused_kernels=fast)
        runs.append(Trainer(dataclasses.replace(config, train=train), device))
        for learner in runs[-1].learners.values():
            tiny.no_dropout(learner.network)  # its draws depend on the memory layout, which may differ
    plain, fast = runs
    largest, cosine = {}, 1.0
    for step in range(steps):
        copy_state(plain, fast)
        data = batches[step % len(batches)]
        records = []
        for run in runs:
            torch.cuda.manual_seed(step)
            records.append({name: value.item() for name, value in run.step(data).items()})
            assert all(map(math.isfinite, records[-1].values())), records[-1]
            run.position.step += 1
        for name, value in records[0].items():
            difference = abs(records[1][name] - value) / abs(value)
            largest[name] = max(largest.get(name, 0.0), difference)
        for name in plain.learners:
            a, b = (
                torch.cat([p.grad.double().flatten() for p in run.learners[name].network.parameters()]) for run in runs
            )
            assert a.isfinite().all() and b.isfinite().all(), name
            cosine = min(cosine, torch.cosine_similarity(a, b, 0).item())
    assert any(fast.graphs.graphs.values())
    return largest, cosine


@on_gpu
@pytest.mark.parametrize("precision, most, least", [("fp32", 1e-4, 0.9999), ("bf16", 0.03, 0.99)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_fast_and_plain_steps_agree(precision, most, least, decoder):
    device = distributed._device("cuda", 0)
    config = tiny.config(DURATION_DISCRIMINATOR, MANY_VOICES, model=tiny.DECODERS[decoder])
    torch.backends.cudnn.benchmark = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            largest, cosine = differences(config, [batch(config)], device, precision, 5)
    finally:
        torch.cuda.set_stream(torch.cuda.default_stream())
    assert max(value for name, value in largest.items() if name.startswith("loss")) <= most, largest
    assert cosine >= least, cosine
