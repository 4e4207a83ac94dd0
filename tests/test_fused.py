"""The Triton kernels against PyTorch in fp64: on a GPU if there is one, otherwise in Triton's interpreter."""

import copy
import importlib.util
import os
from types import SimpleNamespace

import pytest
import tiny
import torch
from tiny import DURATION_DISCRIMINATOR, MANY_VOICES, batch
from torch.nn.utils.parametrizations import weight_norm

from attentions import LayerNorm
from kernels import convolutions, fused
from kernels.convolutions import Conv1d, Conv2d, ConvTranspose1d

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def noise(*shape):
    """Draw multiples of 1/4. With `draw_weights`, all types represent the terms of a convolution exactly."""
    return torch.randint(-4, 5, shape).double() / 4


def draw_weights(network):
    """Set weights to -1/4, 0 or 1/4 and biases to odd multiples of 1/32, so that no sum is zero.

    Rounding then never changes the sign of the input of an activation, which would change its gradient.
    """
    for parameter in network.parameters():
        drawn = torch.randint(-16, 16, parameter.shape) / 16 + 1 / 32
        parameter.data.copy_(drawn if parameter.dim() == 1 else torch.randint(-1, 2, parameter.shape) / 4)
    return network


def cases():
    """Yield (name, computation, network, inputs in fp64). The channel counts lead to tiles of different widths."""
    mask = (torch.rand(3, 1, 70) > 0.3).double()
    bias_conv = Conv1d(12, 48, 3, padding=1)
    for slope in (1.0, 0.1, 0.0):
        yield f"convolution, slope {slope}", lambda m, x, s=slope: m(x, s), bias_conv, [noise(3, 12, 700)]
        yield (
            f"convolution plus input, slope {slope}",
            lambda m, x, y, s=slope: m(x, s, plus=y),
            bias_conv,
            [noise(2, 12, 70), noise(2, 48, 70)],
        )
        yield (
            f"masked convolution plus input, slope {slope}",
            lambda m, x, y, s=slope: m(x, s, plus=y, mask=mask.to(x)),
            bias_conv,
            [noise(3, 12, 70), noise(3, 48, 70)],
        )
    yield "masked convolution", lambda m, x: m(x, mask=mask.to(x)), bias_conv, [noise(3, 12, 70)]
    yield "one mask for the batch", lambda m, x: m(x, mask=mask[:1].to(x)), bias_conv, [noise(3, 12, 70)]
    yield "boolean mask", lambda m, x: m(x, 0.1, mask=mask.bool().to(x.device)), bias_conv, [noise(3, 12, 70)]
    for slope in (1.0, 0.1):
        yield (
            f"before and after an activation, slope {slope}",
            lambda m, x, y, s=slope: m.before_and_after(x, s, plus=y),
            bias_conv,
            [noise(2, 12, 70), noise(2, 48, 70)],
        )
    yield "two dimensions", lambda m, x: m(x, 0.1), Conv2d(4, 8, (5, 1), (3, 1)), [noise(2, 4, 50, 3)]
    yield "upsampling", lambda m, x: m(x), ConvTranspose1d(12, 6, 4, 2, 1), [noise(2, 12, 50)]
    frozen = Conv1d(12, 48, 3, padding=1).requires_grad_(False)
    for slope in (1.0, 0.1):
        yield f"frozen convolution, slope {slope}", lambda m, x, s=slope: m(x, s), frozen, [noise(2, 12, 70)]
    yield "frozen masked convolution", lambda m, x: m(x, mask=mask.to(x)), frozen, [noise(3, 12, 70)]
    laid_out = convolutions.lay_out(Conv1d(12, 48, 3, padding=1))
    yield "weight in another layout", lambda m, x: m(x), laid_out, [noise(2, 12, 70)]
    normed = {
        "a kernel": Conv1d(24, 48, 5, padding=2),
        "a pointwise kernel": Conv1d(24, 48, 1),
        "a kernel of two dimensions": Conv2d(24, 8, (5, 1), (3, 1)),
        "an upsampling kernel": ConvTranspose1d(24, 6, 4, 2, 1),
    }
    for name, conv in normed.items():
        x = noise(2, 24, 50, 3) if isinstance(conv, Conv2d) else noise(2, 24, 50)
        yield f"weight norm of {name}", lambda m, x: m(x), weight_norm(conv), [x]
    yield "gate", lambda m, x: fused.gate(m, x), Conv1d(48, 96, 5, padding=2), [noise(3, 48, 70)]
    yield "gate with a condition", fused.gate, Conv1d(6, 12, 1), [noise(3, 6, 1100), noise(3, 12, 1)]
    res_skip = Conv1d(24, 48, 1)
    rows = [noise(3, 24, 70) for _ in range(3)]
    yield "residual and skip", lambda m, a, x, s: fused.residual_and_skip(m, a, x, s, mask.to(x)), res_skip, rows
    yield (
        "first residual and skip",
        lambda m, a, x: fused.residual_and_skip(m, a, x, None, mask.to(x)),
        res_skip,
        rows[:2],
    )
    yield "norm", lambda m, x: m(x), LayerNorm(96), [noise(3, 96, 170)]
    yield "norm of a sum", lambda m, x, y: m(x, plus=y), LayerNorm(24), rows[:2]
    real = noise(3, 24, 700)
    yield "L1 distance", lambda m, x: fused.l1_mean(real.to(x), x), torch.nn.Identity(), [noise(3, 24, 700)]


def results(compute, network, inputs, dtype, device):
    """Return outputs and the gradients of inputs and weights, in fp64 on the CPU."""
    network = copy.deepcopy(network).to(device, dtype)
    inputs = [x.detach().to(device, dtype).requires_grad_() for x in inputs]
    outputs = compute(network, *inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = torch.Generator().manual_seed(1)
    total = sum((out * torch.randn(out.shape, generator=weights, dtype=torch.float64).to(out)).sum() for out in outputs)
    total.backward()
    gradients = [x.grad for x in inputs] + [p.grad for p in network.parameters() if p.requires_grad]
    return [x.detach().double().cpu() for x in (*outputs, *gradients)]


def check_kernels(device, dtype, tolerance):
    """Compare all cases with fp64 on the CPU; `tolerance` is relative to the norm."""
    torch.manual_seed(0)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for name, compute, network, inputs in cases():
            network = draw_weights(network).double()
            assert fused.supports(inputs[0].to(device, dtype)) and not fused.supports(inputs[0])
            ours = results(compute, network, inputs, dtype, device)
            expected = results(compute, network, inputs, torch.float64, "cpu")
            assert len(ours) == len(expected)
            for i, (a, b) in enumerate(zip(ours, expected)):
                assert (a - b).norm() <= tolerance * b.norm(), f"{name}, {i}"
    for rows, channels in ((3, 5), (600, 24)):
        partial = noise(rows, channels).to(device, torch.float32)
        assert torch.allclose(fused._kernels().column_sums(partial), partial.sum(0), atol=1e-4)


def check_step(**model):
    """Compare losses and gradients of a training step with and without kernels."""
    from trainer import Trainer

    tiny.no_noise(pytest.MonkeyPatch())
    losses, gradients = [], []
    for kernels in (False, True):
        config = tiny.config(DURATION_DISCRIMINATOR, MANY_VOICES, train={"fused_kernels": kernels}, model=model)
        run = Trainer(config, torch.device("cpu"))
        for learner in run.learners.values():
            tiny.no_dropout(tiny.randomise(learner.network))
        losses.append(run.step(batch(config)))
        gradients.append({n: p.grad for net in run.learners.values() for n, p in net.network.named_parameters()})
    for name, value in losses[0].items():
        assert abs(value - losses[1][name]) <= 1e-4 * abs(value) + 1e-6, name
    for name, value in gradients[0].items():
        if not name.endswith("conv_k.bias"):  # attention does not depend on it: these are rounding errors
            assert (value - gradients[1][name]).norm() <= 1e-3 * value.norm() + 1e-6, name


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the tests below use the GPU")
@pytest.mark.parametrize(
    "call",
    [
        "check_kernels('cpu', tests.torch.float32, 1e-5)",
        tiny.slow("check_kernels('cpu', tests.torch.bfloat16, 1e-2)"),
        tiny.slow("check_step()"),
    ],
)
def test_kernels_match_pytorch_in_the_interpreter(call):
    tiny.in_triton_interpreter(f"import test_fused as tests; tests.{call}")


POINTERS = {"h": "*bf16", "f": "*fp32", "i": "i32", "r": "fp32"}
COMPILED = [  # kernel, types of its arguments in a training step, constants
    ("_column_sums", "ffii", 256, 16),
    ("_bias_act", "hhffhhiir", True, True, True, 64, 64),
    ("_bias_act_backward", "hhhfhfiiri", True, True, True, 64, 64),
    ("_gate", "hfhiiii", 64, 64),
    ("_gate_backward", "hhfhfiiiii", 32, 64),
    ("_residual_and_skip", "hfhffhfii", True, 64, 64),
    ("_residual_and_skip_backward", "hffhhfiii", 32, 64),
    ("_add_norm", "hhffhhffiir", True, 8, 256),
    ("_add_norm_backward", "hhfffhfiii", 8, 256),
    ("_l1", "hhfi", 4, 4096),
    ("_l1_backward", "fhhhi", 4096),
    ("_weight", "ffhfiii", True, 8192),
    ("_weight_backward", "hfffffiii", True, 8192),
]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("name, types, constants", [(name, types, rest) for name, types, *rest in COMPILED])
def test_kernels_compile_for_hopper_gpus(name, types, constants, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget

    from kernels import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(triton_kernels, name)
    names = kernel.arg_names
    signature = dict(zip(names, [POINTERS[t] for t in types] + ["constexpr"] * len(constants), strict=True))
    source = triton.compiler.ASTSource(kernel, signature, dict(zip(names[len(types) :], constants)))
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["cubin"]


@on_gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_kernels_match_pytorch_on_the_gpu(dtype, tolerance):
    check_kernels("cuda", dtype, tolerance)


@on_gpu
def test_strided_grouped_convolutions_match_the_cpu_on_the_gpu():
    torch.manual_seed(0)
    conv = Conv1d(16, 64, 41, 4, 20, groups=4).double()
    x = noise(2, 16, 333)
    ours = results(lambda m, x: m(x), conv, [x], torch.float64, "cuda")
    for a, b in zip(ours, results(lambda m, x: m(x), conv, [x], torch.float64, "cpu")):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_pytorch_replaces_kernels_if_triton_fails(monkeypatch, caplog):
    def broken():
        raise RuntimeError("no compiler\nto be found")

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(fused, "_kernels", broken)
    fused._runs.cache_clear()
    try:
        assert not fused.supports(torch.ones(1)) and not fused.supports(torch.ones(1))
        assert caplog.text.count("no compiler") == 1
    finally:
        fused._runs.cache_clear()


@pytest.mark.parametrize("conv", [Conv1d(4, 6, 5), weight_norm(Conv1d(4, 6, 5)), Conv2d(4, 6, (5, 1))])
def test_without_kernels_the_weight_is_cast_to_the_type_and_layout_of_the_input_on_a_gpu(conv):
    fused.enable(conv, False)
    x = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16, device=torch.device("cuda"))
    cast = fused.weight(conv, x)
    assert torch.equal(cast, conv.weight.bfloat16())
    tall = cast if cast.dim() == 4 else cast.unsqueeze(2)
    assert tall.is_contiguous(memory_format=torch.channels_last)
    if isinstance(conv.weight, torch.nn.Parameter):
        cast.sum().backward()
        assert torch.equal(conv.weight.grad, torch.ones_like(conv.weight))
        x.dtype = torch.float32
        assert fused.weight(conv, x).data_ptr() == conv.weight.data_ptr()
    assert fused.weight(conv, torch.zeros(2, 4, 9, dtype=torch.bfloat16)).dtype == torch.float32


def test_kernels_are_selected_for_each_network():
    one, other = (torch.nn.Sequential(Conv1d(6, 4, 1), LayerNorm(4)) for _ in range(2))
    fused.enable(one, False)
    assert [layer.use_kernels for layer in (*one, *other)] == [False, False, True, True]


def test_kernels_are_not_used_on_the_cpu():
    assert not fused.supports(torch.ones(1)) or os.environ.get("TRITON_INTERPRET") == "1"
