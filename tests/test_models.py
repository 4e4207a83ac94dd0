"""The synthesizer as a whole: independence of padding, alignment noise, durations, conditions, names of weights."""

import json

import numpy as np
import pytest
import tiny
import torch

import discriminators
import models
from checkpoint import UNUSED, reference_state_dict
from flows import FLOWS
from kernels.convolutions import ProductConv1d

FRAMES, TOKENS = (60, 44), (7, 5)
GOLDEN = tiny.ROOT / "tests/golden"


def synthesizer(flow="pre_conv", sdp=False, speakers=0, **model):
    """Return a tiny synthesizer without dropout. All weights are random, also those initialized to zero."""
    changes = {"use_transformer_flows": flow is not None, "transformer_flow_type": flow or "pre_conv", "use_sdp": sdp}
    config = tiny.config(tiny.MANY_VOICES if speakers else {}, {"model": changes | model})
    return tiny.no_dropout(tiny.randomise(models.SynthesizerTrn.from_config(config, 178)))


def inputs(speakers=0, more_tokens=0, more_frames=0):
    """Return a batch of two and its speakers, padded by more tokens and frames than necessary with arbitrary values."""
    draws = torch.Generator().manual_seed(1)
    x = torch.randint(1, 178, (2, TOKENS[0]), generator=draws)
    y = torch.empty(2, 20, FRAMES[0]).normal_(generator=draws)
    x = torch.nn.functional.pad(x, (0, more_tokens), value=3)
    y = torch.nn.functional.pad(y, (0, more_frames), value=2.0)
    sid = torch.tensor([1, 0]) if speakers else None
    return (x, torch.tensor(TOKENS), y, torch.tensor(FRAMES)), sid


def valid(tensor, lengths):
    """Return the values of `[b, ..., t]` within each item's length as one vector."""
    return torch.cat([row[..., :n].flatten() for row, n in zip(tensor, lengths)])


CASES = pytest.mark.parametrize(
    ("flow", "sdp", "speakers"), [(flow, *rest) for flow in FLOWS for rest in ((False, 0), (True, 2))]
)


@CASES
@torch.no_grad()
def test_training_does_not_depend_on_padding(flow, sdp, speakers, no_noise):
    net = synthesizer(flow, sdp, speakers).eval()
    outputs = []
    for padding in ((0, 0), (6, 37)):
        batch, sid = inputs(speakers, *padding)
        outputs.append(net(*batch, sid))
    a, b = outputs
    assert torch.allclose(a.o, b.o, atol=1e-5)
    assert torch.allclose(a.l_length, b.l_length, rtol=1e-5)
    assert torch.equal(a.ids_slice, b.ids_slice)
    for name in a.latents._fields:
        mine, padded = getattr(a.latents, name), getattr(b.latents, name)
        assert torch.allclose(valid(mine, FRAMES), valid(padded, FRAMES), rtol=1e-4, atol=1e-4), name
    for name in a.durations._fields:
        mine, padded = getattr(a.durations, name), getattr(b.durations, name)
        assert torch.allclose(valid(mine, TOKENS), valid(padded, TOKENS), atol=1e-5), name
    attn = b.attn[:, :, : FRAMES[0], : TOKENS[0]]
    assert torch.equal(a.attn, attn) and b.attn.sum() == a.attn.sum() == sum(FRAMES)


@CASES
@torch.no_grad()
def test_synthesis_does_not_depend_on_padding(flow, sdp, speakers, no_noise):
    net = synthesizer(flow, sdp, speakers).eval()
    batch, sid = inputs(speakers)
    padded, _ = inputs(speakers, 6)
    o, attn, y_mask, (z, *_) = net.infer(*batch[:2], sid)
    o_2, attn_2, y_mask_2, (z_2, *_) = net.infer(*padded[:2], sid)
    assert torch.equal(y_mask, y_mask_2) and torch.equal(attn, attn_2[..., : attn.size(3)])
    assert torch.allclose(z, z_2, rtol=1e-4, atol=1e-4) and torch.allclose(o, o_2, atol=1e-4)
    assert not attn_2[..., attn.size(3) :].any()
    for i in range(2):  # each utterance alone
        speaker = sid[i : i + 1] if speakers else None
        alone, _, mask, _ = net.infer(batch[0][i : i + 1, : TOKENS[i]], batch[1][i : i + 1], speaker)
        n = int(mask.sum())
        assert n == y_mask[i].sum()
        inside = max(n - net.dec.context, 0) * tiny.HOP  # the decoder has no mask and reads the padding
        assert torch.allclose(alone[0, 0, :inside], o[i, 0, :inside], atol=1e-4)


@torch.no_grad()
def test_voice_conversion_does_not_depend_on_padding_and_is_invertible(no_noise):
    net = synthesizer(speakers=2).eval()
    (_, _, y, lengths), sid = inputs(2)
    (_, _, padded, _), _ = inputs(2, 0, 37)
    o, y_mask, (z, z_p, z_hat) = net.voice_conversion(y, lengths, sid, 1 - sid)
    o_2, _, _ = net.voice_conversion(padded, lengths, sid, 1 - sid)
    inside = [(n - net.dec.context) * tiny.HOP for n in FRAMES]
    assert torch.allclose(valid(o, inside), valid(o_2, inside), atol=1e-4)
    assert z.shape == z_p.shape == z_hat.shape and y_mask.shape == (2, 1, 60)
    assert not torch.allclose(z_hat, z, atol=1e-3)
    _, _, (z, _, same) = net.voice_conversion(y, lengths, sid, sid)
    assert torch.allclose(same, z * y_mask, atol=1e-4)


def test_a_single_token_is_synthesized():
    with torch.no_grad():
        o, attn, _, _ = synthesizer().eval().infer(torch.tensor([[5]]), torch.tensor([1]))
        short, *_ = synthesizer().eval().infer(torch.tensor([[5]]), torch.tensor([1]), length_scale=1e-9, max_len=1)
    assert o.size(2) == attn.size(2) * tiny.HOP and short.size(2) == tiny.HOP


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [0.0, 0.01])
def test_alignment_noise_is_drawn_only_in_training_and_above_zero(training, scale, monkeypatch):
    net = synthesizer().train(training)
    net.current_mas_noise_scale = scale
    seen = []
    monkeypatch.setattr(models, "maximum_path", lambda value, mask: seen.append(value) or torch.zeros_like(value))
    z_p, m_p, logs_p = torch.randn(1, 8, 9), torch.randn(1, 8, 4), torch.zeros(1, 8, 4)
    state = torch.get_rng_state()
    net.align(z_p, m_p, logs_p, torch.ones(1, 1, 4), torch.ones(1, 1, 9))
    noise = seen[0] - models.log_density(z_p, m_p, logs_p)
    assert bool(noise.any()) == (training and scale > 0) == (not torch.equal(state, torch.get_rng_state()))


def test_alignment_noise_is_scaled_by_the_deviation_of_each_utterance(monkeypatch):
    """The noise is std(P) * N(0, 1) * scale with std over the valid cells of an utterance (VITS2, section 2.2)."""
    net = synthesizer().train()
    net.current_mas_noise_scale = 0.01
    seen = []
    monkeypatch.setattr(models, "maximum_path", lambda value, mask: seen.append(value) or torch.zeros_like(value))
    torch.manual_seed(0)
    z_p, m_p, logs_p = torch.randn(2, 8, 90), torch.randn(2, 8, 40), torch.zeros(2, 8, 40)
    z_p[1] *= 10
    x_mask, y_mask = torch.ones(2, 1, 40), torch.ones(2, 1, 90)
    x_mask[0, :, 30:] = 0
    z_p[0, :, 60:] = 1e3  # padding
    y_mask[0, :, 60:] = 0
    net.align(z_p, m_p, logs_p, x_mask, y_mask)
    density = models.log_density(z_p, m_p, logs_p)
    for i, (frames, tokens) in enumerate(((60, 30), (90, 40))):
        noise = (seen[0] - density)[i, :frames, :tokens]
        cells = density[i, :frames, :tokens]
        assert noise.std().item() == pytest.approx(0.01 * cells.std(correction=0).item(), rel=0.05)


def test_masked_std_equals_the_deviation_of_the_valid_cells():
    values = torch.randn(2, 9, 6)
    mask = torch.zeros(2, 9, 6)
    mask[0], mask[1, :5, :3] = 1, 1
    expected = [values[0].std(correction=0), values[1, :5, :3].std(correction=0)]
    assert torch.allclose(models.masked_std(values, mask).flatten(), torch.stack(expected))
    padded = torch.nn.functional.pad(values, (0, 4, 0, 7), value=50.0)
    padded_mask = torch.nn.functional.pad(mask, (0, 4, 0, 7))
    assert torch.allclose(models.masked_std(padded, padded_mask), models.masked_std(values, mask))


def test_alignment_noise_falls_linearly_to_0_at_step_5000():
    net = synthesizer()
    scales = []
    for step in (0, 1, 2500, 4999, 5000, 10**6):
        net.anneal_mas_noise(step)
        scales.append(net.current_mas_noise_scale)
    assert scales[:4] == pytest.approx([0.01, 0.009998, 0.005, 2e-6])
    assert scales[4:] == [0, 0]
    off = synthesizer(use_noise_scaled_mas=False)
    off.anneal_mas_noise(0)
    assert off.current_mas_noise_scale == 0


def test_log_density_equals_that_of_torch_distributions():
    z_p, m_p, logs_p = torch.randn(2, 8, 9), torch.randn(2, 8, 4), 0.3 * torch.randn(2, 8, 4)
    prior = torch.distributions.Normal(m_p.unsqueeze(2), logs_p.exp().unsqueeze(2))
    exact = prior.log_prob(z_p.unsqueeze(3)).sum(1)
    assert torch.allclose(models.log_density(z_p, m_p, logs_p), exact, atol=1e-4)


@pytest.mark.parametrize("sdp", [False, True])
@torch.no_grad()
def test_duration_losses_are_means_over_tokens(sdp, no_noise):
    net = synthesizer(sdp=sdp).eval()
    batch, _ = inputs()
    once = net(*batch).l_length
    twice = net(*(t.repeat(2, *[1] * (t.dim() - 1)) for t in batch)).l_length
    assert once.shape == (2,) and twice.shape == (4,)
    assert torch.allclose(twice.sum(), once.sum(), rtol=1e-5)
    alone = [net(*(t[i : i + 1] for t in batch)).l_length.sum() * TOKENS[i] for i in range(2)]
    assert torch.allclose(sum(alone) / sum(TOKENS), once.sum(), rtol=1e-4)


@pytest.mark.parametrize("sdp", [False, True])
def test_the_duration_loss_trains_only_the_predictor(sdp):
    net = synthesizer(sdp=sdp, speakers=2)
    batch, sid = inputs(2)
    net(*batch, sid).l_length.sum().backward()
    learns = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert learns == {"dp"}


def test_the_predictor_with_noise_varies_durations():
    net = synthesizer(use_duration_noise=True).eval()
    x, mask = torch.randn(1, 8, 5), torch.ones(1, 1, 5)
    with torch.no_grad():
        noisy = [net.predict_durations(x, mask, None, 1.0) for _ in range(2)]
        plain = [net.predict_durations(x, mask, None, 0.0) for _ in range(2)]
    assert not torch.equal(*noisy) and torch.equal(*plain)


@pytest.mark.parametrize("version", models.AVAILABLE_DURATION_DISCRIMINATOR_TYPES)
@pytest.mark.parametrize("gin", [0, 6])
@torch.no_grad()
def test_duration_discriminators_do_not_depend_on_padding(version, gin):
    net = tiny.randomise(discriminators.DURATION_DISCRIMINATORS[version](8, 8, 3, 0.1, gin)).eval()
    x, real, predicted, g = torch.randn(2, 8, 7), torch.randn(2, 1, 7), torch.randn(2, 1, 7), torch.randn(2, 6, 1)
    mask = (torch.arange(7) < torch.tensor(TOKENS)[:, None]).unsqueeze(1).float()
    g = g if gin else None
    (scores_r,), (scores_g,) = net(x, mask, real, predicted, g)
    assert scores_r.shape == scores_g.shape == (2, 7, 1)
    bounded = bool(scores_r.min() > 0 and scores_r.max() < 1)
    assert bounded == net.bounded == (version != "dur_disc_3")
    swapped, _ = net(x, mask, predicted, real, g)
    assert torch.equal(swapped[0], scores_g)

    def pad(t):
        return torch.nn.functional.pad(t, (0, 5), value=0.0 if t is mask else 9.0)

    (padded,), _ = net(pad(x), pad(mask), pad(real), pad(predicted), g)
    assert torch.allclose(valid(padded.transpose(1, 2), TOKENS), valid(scores_r.transpose(1, 2), TOKENS), atol=1e-6)


def test_duration_discriminators_use_convolutions_without_cudnn():
    for kind in discriminators.DURATION_DISCRIMINATORS.values():
        layers = [module for module in kind(8, 8, 3, 0.1, 6).modules() if isinstance(module, torch.nn.Conv1d)]
        assert len(layers) == 6 and all(isinstance(layer, ProductConv1d) for layer in layers)


SMALL = json.loads((GOLDEN / "state_dict_small.json").read_text("utf-8"))
OTHERS = {
    "mpd": lambda: models.MultiPeriodDiscriminator(),
    "dur_v1": lambda: models.DurationDiscriminatorV1(16, 16, 3, 0.1),
    "dur_v2": lambda: models.DurationDiscriminatorV2(16, 16, 3, 0.1),
}


@pytest.mark.parametrize("case", SMALL)
def test_names_shapes_and_order_of_weights_equal_the_references(case):
    if case in OTHERS:
        net = OTHERS[case]()
    else:
        net = models.SynthesizerTrn(**json.loads(str(np.load(GOLDEN / f"{case}.npz")["config"])))
    ours = [[name, list(value.shape)] for name, value in reference_state_dict(net).items()]
    names = {name for name, _ in ours}
    assert ours == [[name, shape] for name, shape in SMALL[case] if name in names or not UNUSED.match(name)]


def test_folding_weight_norm_does_not_change_the_output():
    net = synthesizer().eval()
    x = torch.randn(1, 8, 9)
    with torch.no_grad():
        before = net.dec(x)
        net.dec.remove_weight_norm()
        assert torch.allclose(net.dec(x), before, atol=1e-5)
    assert not any("parametrizations" in name for name in net.dec.state_dict())
