"""The network against outputs of the reference implementation: training, inference, conversion, gradients."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_parameters import fill, reference_name

import losses
import models
from transforms import piecewise_rational_quadratic_transform

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.npz") if path.stem.startswith(("single_", "multi_")))


def load(name):
    return {
        key: torch.from_numpy(value) if value.ndim or key != "config" else json.loads(str(value))
        for key, value in np.load(GOLDEN / f"{name}.npz").items()
    }


def close(ours, golden, tolerance=1e-5):
    """Compare with a tolerance relative to the largest golden value."""
    assert ours.shape == golden.shape
    scale = golden.abs().max().clamp_min(1e-12)
    error = ((ours.detach() - golden).abs().max() / scale).item()
    assert error <= tolerance, f"the error is {error:.2e} of the largest value"


def tolerances(tensors, compute):
    """Return a tolerance for each result of `compute()`: 1e-5, or five times the effect of fp32 rounding of `tensors`.

    The golden values were computed in fp32. Some results are ill-conditioned, such as the inverse of the flows `fft`
    and `mono_layer_inter_residual`, and their golden values have errors of that size.
    """
    exact = compute()
    moved = dict.fromkeys(exact, 0.0)
    for seed in range(3):
        draws = torch.Generator().manual_seed(seed)
        before = [p.detach().clone() for p in tensors]
        with torch.no_grad():
            for p in tensors:
                p.mul_(1 + 6e-8 * (2 * torch.empty_like(p).uniform_(generator=draws) - 1))
        for name, value in compute().items():
            change = (value - exact[name]).abs().max() / exact[name].abs().max().clamp_min(1e-12)
            moved[name] = max(moved[name], change.item())
        with torch.no_grad():
            for p, value in zip(tensors, before):
                p.copy_(value)
    return {name: max(1e-5, 5 * change) for name, change in moved.items()}


@pytest.fixture(params=CASES)
def case(request, no_noise):
    """A network in fp64, so that only the golden values have rounding errors, and these values."""
    golden = load(request.param)
    return fill(models.SynthesizerTrn(**golden["config"])).eval().double(), golden


def arguments(golden):
    x, x_lengths, y, y_lengths = (golden[key] for key in ("x", "x_lengths", "y", "y_lengths"))
    return [x, x_lengths, y.double(), y_lengths], golden.get("sid")


def test_training_forward(case):
    net, golden = case
    inputs, sid = arguments(golden)
    with torch.no_grad():
        o, l_length, attn, ids_slice, _, _, latents, (x, logw, logw_) = net(*inputs, sid)
    assert torch.equal(attn.float(), golden["train_attn"])
    assert torch.equal(ids_slice, golden["train_ids_slice"])
    close(o, golden["train_o"])
    close(l_length, golden["train_l_length"])
    for name, value in zip(("z", "z_p", "m_p", "logs_p", "m_q", "logs_q"), latents):
        close(value, golden[f"train_{name}"])
    close(x, golden["train_hidden"])
    close(logw, golden["train_logw"])
    close(logw_, golden["train_logw_target"])


def test_training_forward_in_single_precision(case):
    """The tolerance is larger, because the rounding of convolutions depends on the processor."""
    net, golden = case
    (x, x_lengths, y, y_lengths), sid = arguments(golden)
    with torch.no_grad():
        o, l_length, attn, *_ = net.float()(x, x_lengths, y.float(), y_lengths, sid)
    assert o.dtype == torch.float32
    assert torch.equal(attn, golden["train_attn"])
    close(o, golden["train_o"], 1e-4)
    close(l_length, golden["train_l_length"], 1e-4)


@torch.no_grad()
def test_inference(case):
    net, golden = case
    (x, x_lengths, _, _), sid = arguments(golden)

    def infer():
        o, attn, _, (z, z_p, _, _) = net.infer(x, x_lengths, sid, 0.5, 1.3, 0.7)
        return {"o": o, "attn": attn, "z": z, "z_p": z_p}

    ours, tolerance = infer(), tolerances(list(net.parameters()), infer)
    assert torch.equal(ours["attn"].float(), golden["infer_attn"])
    for name in ("z_p", "z", "o"):
        close(ours[name], golden[f"infer_{name}"], tolerance[name])


@torch.no_grad()
def test_flow_inverse(case):
    net, golden = case
    (_, _, y, y_lengths), sid = arguments(golden)
    y_mask = models.commons.sequence_mask(y_lengths, y.size(2)).unsqueeze(1).double()
    z_p = golden["train_z_p"].double()

    def invert():
        return {"z": net.flow(z_p, y_mask, net.condition(sid), reverse=True)}

    close(invert()["z"], golden["flow_inverse"], tolerances([z_p, *net.parameters()], invert)["z"])


def test_voice_conversion(case):
    net, golden = case
    (_, _, y, y_lengths), sid = arguments(golden)
    if sid is None:
        with pytest.raises(ValueError, match="several speakers"):
            net.voice_conversion(y, y_lengths, torch.zeros(2).long(), torch.zeros(2).long())
    elif "vc_o" not in golden:
        pytest.skip("the golden file has no conversion")
    else:
        with torch.no_grad():
            o, _, _ = net.voice_conversion(y, y_lengths, sid, golden["vc_sid_tgt"])
        close(o, golden["vc_o"])


def test_gradients(case):
    net, golden = case
    inputs, sid = arguments(golden)

    def gradients():
        net.zero_grad()
        o, l_length, _, _, _, y_mask, (_, z_p, m_p, logs_p, _, logs_q), (_, logw, _) = net(*inputs, sid)
        kl = losses.kl_loss(z_p, logs_q, m_p, logs_p, y_mask)
        loss = o.square().mean() + l_length.sum() + kl + logw.square().mean()
        loss.backward()
        grads = {reference_name(name): p.grad.clone() for name, p in net.named_parameters()}
        return {"loss": loss.detach(), **{name: grads[name] for name in checked}}

    checked = [key.removeprefix("grad_") for key in golden if key.startswith("grad_") and key != "grad_loss"]
    assert len(checked) >= 6
    ours, tolerance = gradients(), tolerances(list(net.parameters()), gradients)
    for name, value in ours.items():
        close(value, golden[f"grad_{name}"], tolerance[name])


def test_discriminators():
    golden = load("discriminators")
    mpd = fill(models.MultiPeriodDiscriminator()).eval().double()
    with torch.no_grad():
        real, generated, fmap_r, fmap_g = mpd(golden["real"].double(), golden["fake"].double())
    for i in range(6):
        close(real[i], golden[f"real_score_{i}"])
        close(generated[i], golden[f"fake_score_{i}"])
    close(losses.discriminator_loss(real, generated)[0], golden["disc_loss"])
    close(losses.generator_loss(generated)[0], golden["gen_loss"])
    close(losses.feature_loss(fmap_r, fmap_g), golden["feature_loss"])


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_duration_discriminators(version):
    golden = load("duration_discriminators")
    network = fill(getattr(models, f"DurationDiscriminator{version}")(16, 16, 3, 0.1)).eval().double()
    inputs = (golden[name].double() for name in ("hidden", "mask", "dur_real", "dur_hat"))
    with torch.no_grad():
        (real,), (fake,) = network(*inputs)
    close(real, golden[f"{version.lower()}_real"])
    close(fake, golden[f"{version.lower()}_fake"])


def test_spline():
    golden = load("spline")
    given, *knots = (golden[key].double() for key in ("x", "widths", "heights", "derivatives"))
    tails = {"tails": "linear", "tail_bound": golden["config"]["tail_bound"]}
    y, logabsdet = piecewise_rational_quadratic_transform(given, *knots, **tails)
    close(y, golden["y"])
    close(logabsdet, golden["logabsdet"])
    x, inverse_logabsdet = piecewise_rational_quadratic_transform(given, *knots, inverse=True, **tails)
    close(x, golden["inverse"])
    close(inverse_logabsdet, golden["inverse_logabsdet"])
