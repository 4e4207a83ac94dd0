"""The algorithms that convolutions use on a GPU against those of PyTorch. They run on the CPU here, most in fp64."""

import pytest
import torch

from kernels import convolutions
from kernels.convolutions import Conv1d, Conv2d, ConvTranspose1d, Dropout, ProductConv1d, cat_channels


@pytest.mark.parametrize(
    "conv, t",
    [
        (Conv1d(6, 10, 1), 33),
        (Conv1d(6, 10, 5, padding=2), 33),
        (Conv1d(6, 10, 4, 2, 1), 33),
        (Conv1d(16, 64, 41, 4, 20, groups=4), 333),
        (Conv1d(4, 32, 3, 4, 0, dilation=3, groups=2), 38),
        (Conv1d(6, 10, 11, dilation=5, padding=25), 33),
        (Conv1d(6, 10, 11, dilation=5, padding=25), 60),
        (Conv1d(6, 10, 11, dilation=6, padding=30, bias=False), convolutions.MAX_FOLDED_LENGTH + 1),
        (Conv1d(6, 10, 11, dilation=5, padding=20), 80),
        (ProductConv1d(16, 10, 3, padding=1), 33),
        (ProductConv1d(6, 10, 3, padding=1), 33),
        (ProductConv1d(1, 10, 1), 33),
        (ConvTranspose1d(6, 10, 16, 8, 4), 33),
        (ConvTranspose1d(6, 10, 4, 3, 1, output_padding=1), 33),
    ],
    ids=str,
)
def test_channels_last_convolutions_match_pytorch(conv, t):
    conv = conv.double()
    torch.manual_seed(0)
    x = torch.randn(2, conv.in_channels, t, dtype=torch.float64, requires_grad=True)
    results = []
    for compute in (conv._conv_forward, conv._channels_last):
        out = compute(x, conv.weight, conv.bias)
        leaves = [p for p in (x, conv.weight, conv.bias) if p is not None]
        results.append([out, *torch.autograd.grad((out * out.detach().cos()).sum(), leaves)])
    for expected, ours in zip(*results):
        torch.testing.assert_close(ours, expected)


def test_wide_kernels_are_folded_and_pointwise_ones_are_matrix_products(monkeypatch):
    conv = Conv1d(6, 10, 11, dilation=5, padding=25)
    shapes = []
    conv2d, linear = torch.nn.functional.conv2d, torch.nn.functional.linear
    monkeypatch.setattr(
        "kernels.convolutions.F.conv2d", lambda x, *more, **named: shapes.append(x.shape) or conv2d(x, *more, **named)
    )
    conv._channels_last(torch.randn(2, 6, 33), conv.weight, conv.bias)
    conv._channels_last(torch.randn(2, 6, convolutions.MAX_FOLDED_LENGTH + 1), conv.weight, conv.bias)
    assert shapes == [(2, 6, 7, 5), (2, 6, 1, convolutions.MAX_FOLDED_LENGTH + 1)]
    monkeypatch.setattr("kernels.convolutions.F.linear", lambda x, *more: shapes.append(x.shape) or linear(x, *more))
    conv, x = Conv1d(6, 10, 1).bfloat16(), torch.randn(2, 6, 33).bfloat16()
    out = conv._channels_last(x, conv.weight, conv.bias)
    assert shapes[2] == (2, 33, 6)
    torch.testing.assert_close(out, conv(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "conv, shape",
    [
        (Conv1d(1, 10, 15, 1, 7), (50,)),
        (Conv1d(1, 10, 1), (50,)),
        (Conv2d(1, 10, (5, 1), (3, 1), (2, 0)), (50, 3)),
        (Conv2d(1, 10, (8, 1)), (50, 2)),
    ],
    ids=str,
)
def test_convolutions_of_one_channel_in_half_precision_are_one_matrix_product(conv, shape, monkeypatch):
    multiplied, linear = [], torch.nn.functional.linear
    monkeypatch.setattr("kernels.convolutions.F.linear", lambda x, *more: multiplied.append(x) or linear(x, *more))
    torch.manual_seed(0)
    conv.reset_parameters()
    conv = conv.bfloat16()
    x = torch.randn(2, 1, *shape).bfloat16()
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in (x, conv.weight, conv.bias)]
        out = (conv._conv_forward if dtype == torch.float64 else conv._channels_last)(*leaves)
        results.append([out, *torch.autograd.grad((out.double() * out.detach().double().cos()).sum(), leaves)])
    for expected, ours in zip(*results):
        assert (ours.double() - expected).norm() <= 0.01 * expected.norm()
    assert [x.is_contiguous() for x in multiplied] == [True]


def test_lay_out_changes_weights_in_place():
    net = torch.nn.Sequential(Conv1d(6, 10, 5, padding=2), ConvTranspose1d(10, 4, 4, 2))
    x = torch.randn(2, 6, 9)
    before = net(x)
    assert convolutions.lay_out(net) is net
    assert all(layer.weight.transpose(1, 2).is_contiguous() for layer in net)
    torch.testing.assert_close(net(x), before)


def test_outputs_on_the_cpu_are_contiguous():
    x = torch.randn(2, 6, 9)
    for module in (Conv1d(6, 4, 3), ConvTranspose1d(6, 4, 4, 2), Dropout(0.5)):
        assert module(x).is_contiguous()
    assert torch.equal(cat_channels(x, x), torch.cat([x, x], 1)) and cat_channels(x, x).is_contiguous()
