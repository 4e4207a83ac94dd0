"""The network against the reference implementation's numbers: forward, inference, flow, conversion, gradients."""

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
    """Equal within `tolerance` of the golden tensor's largest value."""
    assert ours.shape == golden.shape
    scale = golden.abs().max().clamp_min(1e-12)
    error = ((ours.detach() - golden).abs().max() / scale).item()
    assert error <= tolerance, f"off by {error:.2e} of the largest value"


def one_rounding(tensors, compute):
    """How far one fp32 rounding of each of `tensors` moves `compute()`, as a share of its largest value.

    Where a flow's inverse is ill-conditioned (`fft`, `mono_layer_inter_residual`), that is more than 1e-5: the
    golden number itself, made of hundreds of such roundings, is then no closer to the exact one.
    """
    exact = compute()
    moved = []
    for seed in range(3):
        draws = torch.Generator().manual_seed(seed)
        before = [p.detach().clone() for p in tensors]
        for p in tensors:
            p.mul_(1 + 6e-8 * (2 * torch.empty_like(p).uniform_(generator=draws) - 1))
        moved.append((compute() - exact).abs().max() / exact.abs().max())
        for p, value in zip(tensors, before):
            p.copy_(value)
    return max(moved).item()


@pytest.fixture(autouse=True)
def plain_convolutions():
    """oneDNN picks another algorithm on every processor, and some are less exact than the tolerance here."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.fixture
def no_noise(monkeypatch):
    """Every random draw is zero, as when the golden numbers were made."""
    for name in ("randn", "randn_like", "rand"):
        draw = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, draw=draw, **k: torch.zeros_like(draw(*a, **k)))


@pytest.fixture(params=CASES)
def case(request, no_noise):
    golden = load(request.param)
    return fill(models.SynthesizerTrn(**golden["config"])).eval(), golden


def arguments(golden):
    return [golden[key] for key in ("x", "x_lengths", "y", "y_lengths")], golden.get("sid")


def test_training_forward(case):
    net, golden = case
    inputs, sid = arguments(golden)
    with torch.no_grad():
        o, l_length, attn, ids_slice, _, _, latents, (x, logw, logw_) = net(*inputs, sid)
    assert torch.equal(attn, golden["train_attn"])
    assert torch.equal(ids_slice, golden["train_ids_slice"])
    close(o, golden["train_o"])
    close(l_length, golden["train_l_length"])
    for name, value in zip(("z", "z_p", "m_p", "logs_p", "m_q", "logs_q"), latents):
        close(value, golden[f"train_{name}"])
    close(x, golden["train_hidden"])
    close(logw, golden["train_logw"])
    close(logw_, golden["train_logw_target"])


def test_inference(case):
    net, golden = case
    (x, x_lengths, _, _), sid = arguments(golden)
    with torch.no_grad():
        o, attn, _, (z, z_p, _, _) = net.infer(x, x_lengths, sid, noise_scale=0.5, length_scale=1.3, noise_scale_w=0.7)
    assert torch.equal(attn, golden["infer_attn"])
    close(z_p, golden["infer_z_p"])
    net.double()
    with torch.no_grad():
        spread = one_rounding(list(net.parameters()), lambda: net.infer(x, x_lengths, sid, 0.5, 1.3, 0.7)[3][0])
    close(z, golden["infer_z"], max(1e-5, 5 * spread))
    close(o, golden["infer_o"], max(1e-5, 5 * spread))


def test_flow_inverse(case):
    net, golden = case
    (_, _, y, y_lengths), sid = arguments(golden)
    y_mask = models.commons.sequence_mask(y_lengths, y.size(2)).unsqueeze(1).float()
    net.double()
    z_p, y_mask = golden["train_z_p"].double(), y_mask.double()
    with torch.no_grad():
        z = net.flow(z_p, y_mask, net.speaker(sid), reverse=True)
        spread = one_rounding([z_p, *net.parameters()], lambda: net.flow(z_p, y_mask, net.speaker(sid), reverse=True))
    close(z, golden["flow_inverse"], max(1e-5, 5 * spread))


def test_voice_conversion(case):
    net, golden = case
    (_, _, y, y_lengths), sid = arguments(golden)
    if "vc_o" not in golden:
        if sid is not None:
            pytest.skip("the golden file holds no conversion")
        with pytest.raises(ValueError, match="many speakers"):
            net.voice_conversion(y, y_lengths, torch.zeros(2).long(), torch.zeros(2).long())
        return
    with torch.no_grad():
        o, _, _ = net.voice_conversion(y, y_lengths, sid, golden["vc_sid_tgt"])
    close(o, golden["vc_o"])


def test_gradients(case):
    net, golden = case
    inputs, sid = arguments(golden)
    o, l_length, _, _, _, y_mask, (_, z_p, m_p, logs_p, _, logs_q), (_, logw, _) = net(*inputs, sid)
    kl = losses.kl_loss(z_p, logs_q, m_p, logs_p, y_mask)
    loss = o.square().mean() + l_length.sum() + kl + logw.square().mean()
    loss.backward()
    close(loss, golden["grad_loss"])
    grads = {reference_name(name): p.grad for name, p in net.named_parameters()}
    checked = [key.removeprefix("grad_") for key in golden if key.startswith("grad_") and key != "grad_loss"]
    assert len(checked) >= 6
    for name in checked:
        close(grads[name], golden[f"grad_{name}"])


def test_discriminators():
    golden = load("discriminators")
    mpd = fill(models.MultiPeriodDiscriminator()).eval()
    with torch.no_grad():
        real, generated, fmap_r, fmap_g = mpd(golden["real"], golden["fake"])
    for i in range(6):
        close(real[i], golden[f"real_score_{i}"])
        close(generated[i], golden[f"fake_score_{i}"])
    close(losses.discriminator_loss(real, generated)[0], golden["disc_loss"])
    close(losses.generator_loss(generated)[0], golden["gen_loss"])
    close(losses.feature_loss(fmap_r, fmap_g), golden["feature_loss"])


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_duration_discriminators(version):
    golden = load("duration_discriminators")
    network = fill(getattr(models, f"DurationDiscriminator{version}")(16, 16, 3, 0.1)).eval()
    with torch.no_grad():
        (real,), (fake,) = network(golden["hidden"], golden["mask"], golden["dur_real"], golden["dur_hat"])
    close(real, golden[f"{version.lower()}_real"])
    close(fake, golden[f"{version.lower()}_fake"])


def test_spline():
    golden = load("spline")
    knots = [golden[key] for key in ("widths", "heights", "derivatives")]
    tails = {"tails": "linear", "tail_bound": golden["config"]["tail_bound"]}
    y, logabsdet = piecewise_rational_quadratic_transform(golden["x"], *knots, **tails)
    close(y, golden["y"])
    close(logabsdet, golden["logabsdet"])
    x, inverse_logabsdet = piecewise_rational_quadratic_transform(golden["x"], *knots, inverse=True, **tails)
    close(x, golden["inverse"])
    close(inverse_logabsdet, golden["inverse_logabsdet"])
