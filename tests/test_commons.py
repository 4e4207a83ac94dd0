"""Masks, alignment paths, segments and nested tensors against values computed by hand."""

from typing import NamedTuple

import pytest
import torch

import commons
import text


def test_intersperse():
    assert commons.intersperse([1, 2], 0) == [0, 1, 0, 2, 0]
    assert commons.intersperse([], 0) == [0]
    assert commons.intersperse is text.intersperse


@pytest.mark.parametrize("kind", [torch.long, torch.float])
def test_sequence_mask(kind):
    lengths = torch.tensor([3, 0, 1], dtype=kind)
    expected = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0]]).bool()
    assert torch.equal(commons.sequence_mask(lengths), expected)
    assert torch.equal(commons.sequence_mask(lengths, 2), expected[:, :2])


def test_subsequent_mask():
    assert commons.subsequent_mask(3).tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]]


def test_generate_path():
    duration = torch.tensor([[[2.0, 0.0, 1.0]], [[1.0, 1.0, 0.0]]])
    mask = torch.ones(2, 1, 4, 3)
    mask[1, :, 2:] = 0
    path = commons.generate_path(duration, mask)
    assert path[0, 0].tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert path[1, 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_slices_begin_at_the_given_index():
    x = torch.arange(2 * 3 * 10.0).view(2, 3, 10)
    slices = commons.slice_segments(x, torch.tensor([0, 7]), 3)
    assert torch.equal(slices[0], x[0, :, :3]) and torch.equal(slices[1], x[1, :, 7:])
    assert torch.equal(commons.slice_segments(x, torch.tensor([0, 0]), 99), x)


def test_random_slices_take_every_start_within_the_length():
    torch.manual_seed(0)
    x = torch.arange(12.0).expand(3, 1, 12)
    lengths = torch.tensor([12, 6, 2])
    starts = [commons.rand_slice_segments(x, lengths, 4)[1].tolist() for _ in range(400)]
    assert [set(column) for column in zip(*starts)] == [set(range(9)), {0, 1, 2}, {0}]
    slices, ids = commons.rand_slice_segments(x, lengths, 4)
    assert torch.equal(slices, commons.slice_segments(x, ids, 4))


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])
def test_extreme_random_numbers_keep_the_slice_within_the_utterance(draw, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.full((1,), draw))
    x = torch.zeros(1, 1, 100_000)
    _, start = commons.rand_slice_segments(x, torch.tensor([100_000]), 32)
    assert start.item() == (0 if draw == 0 else 100_000 - 32)


def test_a_segment_longer_than_the_batch_returns_the_whole_batch():
    slices, ids = commons.rand_slice_segments(torch.zeros(2, 1, 5), torch.Tensor([5, 3]), 4096)
    assert slices.shape == (2, 1, 5) and ids.tolist() == [0, 0]


def test_gate():
    a, b = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    gate = commons.fused_add_tanh_sigmoid_multiply(a, b, torch.IntTensor([3]))
    assert torch.allclose(gate, torch.tanh(a + b)[:, :3] * torch.sigmoid(a + b)[:, 3:])


def test_clip_grad_value():
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, -4.0])
    assert commons.clip_grad_value_([weight, torch.nn.Parameter(torch.zeros(1))], None) == pytest.approx(5.0)
    assert commons.clip_grad_value_(weight, 1.0) == pytest.approx(5.0)
    assert weight.grad.tolist() == [1, -1]
    assert commons.clip_grad_value_([], 1.0) == 0.0


def test_padding_keeps_the_length():
    for kernel, dilation in ((3, 1), (5, 3), (11, 5)):
        conv = torch.nn.Conv1d(1, 1, kernel, dilation=dilation, padding=commons.get_padding(kernel, dilation))
        assert conv(torch.zeros(1, 1, 60)).size(2) == 60
        commons.init_weights(conv)
        assert conv.weight.abs().max() < 0.1


def test_half_precision_becomes_fp32_and_fp64_stays():
    for given, kept in ((torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64,) * 2):
        assert commons.at_least_fp32(torch.zeros(1, dtype=given)).dtype == kept


class Pair(NamedTuple):
    first: object
    second: object


def test_functions_apply_to_every_tensor_of_a_nest():
    a, b, c = (torch.tensor(float(i)) for i in range(3))
    nest = Pair({"a": a, "none": None}, [b, (c, "text")])
    doubled = commons.map_tensors(lambda x: 2 * x, nest)
    assert doubled == Pair({"a": 2 * a, "none": None}, [2 * b, (2 * c, "text")])
    assert isinstance(doubled, Pair) and isinstance(doubled.second[1], tuple)
    assert commons.map_tensors(lambda x: 2 * x, b) == 2 * b
    assert all(found is x for found, x in zip(commons.tensors_in(nest), (a, b, c), strict=True))
    assert commons.tensors_in(None) == []
