"""The training step: gradients, padding, learning durations, skipped updates, accumulation, several processes."""

import copy
import weakref
from itertools import islice

import pytest
import tiny
import torch
from tiny import DURATION_DISCRIMINATOR, MANY_VOICES, batch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import checkpoint
import config as configs
import distributed
import losses
import trainer
from commons import map_tensors
from discriminators import MultiPeriodDiscriminator
from durations import dequantize
from importers import transfer
from synthesis import Voice
from trainer import Trainer
from training.learner import AVERAGE_START
from training.loaders import make_loaders

CPU = torch.device("cpu")
SPEAKERS = pytest.mark.parametrize("speakers", [{}, MANY_VOICES], ids=["one speaker", "two speakers"])
STAGES = pytest.mark.parametrize("stage", [{}, {"train": {"duration_stage_start": 0}}], ids=["joint", "duration stage"])
SHIPPED = sorted(path for path in (tiny.ROOT / "configs").glob("*.json") if path.name != "schema.json")
# parameters of generator, discriminator and duration discriminator in each shipped config
SIZES = {
    "ablation": (23_376_385, 11_797_252, 555_841),
    "demo": (2_243_377, 208_015),
    "demo_ms": (2_389_105, 208_015),
    "ljs_base": (36_321_072, 46_747_132),
    "ljs_nosdp": (35_349_761, 46_747_132),
    "vctk_base": (39_700_208, 46_747_132),
    "vits2_ljs_base": (36_982_896, 46_747_132),
    "vits2_ljs_nosdp": (36_048_641, 46_747_132, 555_841),
    "vits2_ljs_paper": (36_048_641, 46_747_132, 555_841),
    "vits2_small": (9_115_399, 6_679_350, 139_681),
    "vits2_small_mb": (6_645_609, 6_679_350, 139_681),
    "vits2_vctk_base": (39_477_121, 46_747_132, 605_185),
    "vits2_vctk_standard": (41_745_392, 46_747_132),
}


def snapshot(learner):
    return {name: value.clone() for name, value in learner.network.state_dict().items()}


def changed(before, learner):
    """Return the first parts of the names of the weights that differ from a snapshot."""
    return {name.split(".")[0] for name, value in learner.network.state_dict().items() if not value.equal(before[name])}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_parameter_of_every_shipped_config_gets_a_gradient(path):
    """Do one step with networks of their full size, and shorter segments to save time."""
    config = configs.changed(configs.load(path), "train", segment_size=2048)
    run = Trainer(config, CPU)
    sizes = [sum(p.numel() for p in learner.network.parameters()) for learner in run.learners.values()]
    assert tuple(sizes) == SIZES[path.stem]
    with torch.no_grad():  # layers initialized to zero block the gradients of others
        for learner in run.learners.values():
            for parameter in learner.network.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
    if config.train.duration_stage_start is None:
        run.position.step = config.train.duration_discriminator_start
    run.step(batch(config, (12, 10)))
    gradients = {id(p): p.grad for learner in run.learners.values() for p in learner.network.parameters()}
    if config.train.duration_stage_start:  # the duration discriminator starts with that stage
        run.position.step = config.train.duration_stage_start
        run.step(batch(config, (12, 10)))
        network = run.learners["duration_discriminator"].network
        gradients |= {id(p): p.grad for p in network.parameters()}
    for kind, learner in run.learners.items():
        for name, parameter in learner.network.named_parameters():
            gradient = gradients[id(parameter)]
            assert gradient is not None and gradient.isfinite().all(), f"{kind}: {name}"
            if not name.endswith("conv_k.bias"):  # a shift of all keys does not change the attention
                assert gradient.any(), f"{kind}: {name}"


@pytest.mark.parametrize("decoder", ["hifigan", "vocos"])
@pytest.mark.parametrize("rate", configs.RATES)
def test_the_settings_of_every_rate_train_and_synthesize(rate, decoder):
    """The spectrograms, factors and segments are those of the rate; the rest of the network is tiny."""
    settings = configs.RATES[rate]
    small = {"upsample_initial_channel": 16, "decoder": decoder}
    config = tiny.config({"model": small}, settings)
    hop = config.data.hop_length
    assert 10.5 < 1000 * hop / rate < 12.1 and config.segment_frames == 32
    run = Trainer(config, CPU)
    record = run.step(batch(config, (40, 36)))
    assert all(value.isfinite() for value in record.values())
    audio, *_ = run.generator.network.infer(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    assert audio.shape[-1] % hop == 0 and audio.shape[-1] > 0


@SPEAKERS
@pytest.mark.parametrize("sdp", [False, True])
@pytest.mark.parametrize("mel", [True, False])
def test_padding_does_not_change_the_losses_of_a_step(sdp, speakers, mel, no_noise):
    spectrogram = {"use_mel_posterior_encoder": mel}
    config = tiny.config(DURATION_DISCRIMINATOR, speakers, data=spectrogram, model=spectrogram | {"use_sdp": sdp})
    records = []
    for padding in ({}, {"more_tokens": 9, "more_frames": 35}):
        run = Trainer(config, CPU)
        for learner in run.learners.values():
            tiny.no_dropout(tiny.randomise(learner.network))
        records.append(run.step(batch(config, **padding)))
    plain, padded = records
    assert set(plain) == set(padded) >= {"loss/dur_d/total", "loss/g/dur_gen", "loss/g/fm", "grad_norm_g"}
    for name, value in plain.items():
        rounding = 1e-3 if name.startswith("grad_norm") else 2e-5  # gradients of a spline amplify rounding errors
        assert padded[name].item() == pytest.approx(value.item(), rel=rounding, abs=1e-6), name


@pytest.mark.parametrize("version", ["dur_disc_1", "dur_disc_2"])
def test_the_duration_discriminator_learns_from_means_over_tokens(version):
    config = tiny.config(DURATION_DISCRIMINATOR, model={"duration_discriminator_type": version})
    run = Trainer(config, CPU)
    discriminator = run.learners["duration_discriminator"]
    discriminator.network.eval()
    before = copy.deepcopy(discriminator.network)
    seen = []
    network = discriminator.wrapped
    discriminator.wrapped = lambda *arguments: seen.append(arguments) or network(*arguments)
    record = run.step(batch(config))
    ((x, x_mask, real, predicted, g),) = seen
    frames = real.exp() * x_mask  # the alignment's durations come first
    assert torch.allclose(frames, frames.round(), atol=1e-3)
    assert frames.sum((1, 2)).tolist() == pytest.approx([60, 44], rel=1e-4)
    assert g is None and not predicted.requires_grad
    (scores_r,), (scores_g,) = before(x, x_mask, real, predicted)
    mask = x_mask.transpose(1, 2).bool()
    expected = (1 - scores_r[mask]).square().mean() + scores_g[mask].square().mean()
    assert record["loss/dur_d/total"].item() == pytest.approx(expected.item(), rel=1e-5)
    (after,) = discriminator.network(x, x_mask, real, predicted)[1]
    assert record["loss/g/dur_gen"].item() == pytest.approx((1 - after[mask]).square().mean().item(), rel=1e-5)


def test_dur_disc_3_sees_durations_of_the_alignment_as_real_numbers():
    config = tiny.config(DURATION_DISCRIMINATOR, model={"duration_discriminator_type": "dur_disc_3"})
    run = Trainer(config, CPU)
    discriminator = run.learners["duration_discriminator"]
    seen = []
    network = discriminator.wrapped
    discriminator.wrapped = lambda *arguments: seen.append(arguments) or network(*arguments)
    out = run.generate(batch(config))[1]
    list(run.discriminator_losses(batch(config), out))
    ((_, x_mask, real, _, _),) = seen
    valid = x_mask.bool()
    frames, whole = real.exp()[valid], out.attn.sum(2)[valid]
    assert torch.equal((frames - 1e-4).ceil(), whole) and (whole - frames).max() > 0.1  # synthesis rounds up
    assert not real[~valid].any() and not torch.equal(dequantize(out.durations.logw_, x_mask), real)
    scores = discriminator.network(out.durations.x, x_mask, real + 50, real - 50)
    assert max(score.abs().max() for (score,) in scores) > 1  # no sigmoid


def test_a_linear_duration_discriminator_logs_a_warning(caplog):
    Trainer(tiny.config(DURATION_DISCRIMINATOR, model={"duration_discriminator_type": "dur_disc_1"}), CPU)
    assert "dur_disc_1 is linear" in caplog.text
    caplog.clear()
    Trainer(tiny.config(DURATION_DISCRIMINATOR, model={"duration_discriminator_type": "dur_disc_3"}), CPU)
    assert "linear" not in caplog.text


def test_the_duration_discriminator_starts_at_its_step():
    config = tiny.config(DURATION_DISCRIMINATOR, train={"duration_discriminator_start": 2})
    run = Trainer(config, CPU)
    learner = run.learners["duration_discriminator"]
    seen = []
    for _ in range(4):
        before = snapshot(learner)
        active = run.discriminators().get("dur_d") is learner
        record = run.step(batch(config))
        run.position.step += 1
        seen.append((active, "loss/dur_d/total" in record, "loss/g/dur_gen" in record, bool(changed(before, learner))))
    assert seen == [(False,) * 4] * 2 + [(True,) * 4] * 2


@SPEAKERS
def test_the_duration_stage_trains_only_durations(speakers):
    """The paper's predictor has a noise input. Its discriminator is conditioned on the speaker (VITS2, section 2.1)."""
    stage = {"train": {"duration_stage_start": 1}, "model": {"use_duration_noise": True}}
    config = tiny.config(DURATION_DISCRIMINATOR, speakers, stage)
    run = Trainer(config, CPU)
    discriminator = run.learners["duration_discriminator"].network
    assert hasattr(discriminator, "cond") == bool(speakers)
    states = []
    for _ in range(3):
        before = {name: snapshot(learner) for name, learner in run.learners.items()}
        run.step(batch(config))
        run.position.step += 1
        states.append({name: changed(before[name], learner) for name, learner in run.learners.items()})
    first, *others = states
    assert {"dec", "enc_p", "enc_q", "flow", "dp"} <= first["generator"] and first["discriminator"]
    trainable = {name for name, child in discriminator.named_children() if list(child.parameters())}
    for state in others:
        assert state == {"generator": {"dp"}, "discriminator": set(), "duration_discriminator": trainable}
    assert list(run.discriminators()) == ["dur_d"]
    net = run.generator.network
    assert net.dp.training and not net.enc_p.training and not net.training
    assert run.evaluate([batch(config)])["mel"] == run.evaluate([batch(config)])["mel"]
    assert net.dp.training and not net.enc_p.training


def test_the_best_validation_is_chosen_by_duration_error_in_the_duration_stage():
    run = Trainer(tiny.config(DURATION_DISCRIMINATOR, train={"duration_stage_start": 2}), CPU)
    best = run.update_best
    assert best({"mel": 0.5, "duration_error": 3.0}) and not best({"mel": 0.6, "duration_error": 1.0})
    run.position.step = 2
    assert best({"mel": 0.6, "duration_error": 2.0}) and not best({"mel": 0.4, "duration_error": 2.5})
    assert run.position.best == 2.0


def test_the_best_voice_is_chosen_by_any_measure_and_patience_ends_training():
    run = Trainer(tiny.config(train={"best": "dnsmos", "patience": 2}), CPU)
    best = run.update_best
    assert best({"dnsmos": 2.0}) and best({"dnsmos": 3.0}) and not best({"dnsmos": 2.5})
    assert not best({"mel": 0.1}) and not run.is_exhausted()  # not the measure: does not count
    assert not best({"dnsmos": float("nan")}) and run.is_exhausted()
    assert best({"dnsmos": 3.5}) and not run.is_exhausted()
    lower = Trainer(tiny.config(train={"best": "cer"}), CPU)
    best = lower.update_best
    assert best({"cer": 0.2}) and best({"cer": 0.1}) and not best({"cer": 0.3})
    assert not lower.is_exhausted()  # without patience never


def test_averaged_weights_follow_their_definition_and_are_those_of_a_validation():
    config = tiny.config(train={"ema": 0.7})
    run = Trainer(config, CPU)
    expected = None
    for step in range(6):
        run.step(batch(config))
        run.position.step += 1
        weights = torch.cat([weight.detach().flatten() for weight in run.generator.weights])
        decay = min(0.7, (1 + step) / (AVERAGE_START + step))
        expected = weights if expected is None else decay * expected + (1 - decay) * weights
    average = torch.cat([weight.flatten() for weight in run.generator.average])
    assert torch.allclose(average, expected, atol=1e-6) and not torch.allclose(average, weights, atol=1e-4)
    before = snapshot(run.generator)
    with run.evaluating() as net:
        used = torch.cat([weight.flatten() for weight in net.parameters()])
    assert torch.equal(used, average) and not changed(before, run.generator)
    plain = Trainer(tiny.config(), CPU)
    plain.step(batch(config))
    assert plain.generator.average is None


def test_the_duration_stage_freezes_the_averaged_weights():
    changes = {"train": {"ema": 0.5, "duration_stage_start": 2}}
    run = Trainer(tiny.config(DURATION_DISCRIMINATOR, changes), CPU)
    for _ in range(2):
        run.step(batch(run.config))
        run.position.step += 1
    frozen = [name for name, _ in run.generator.network.named_parameters() if not name.startswith("dp.")]
    names = [name for name, _ in run.generator.network.named_parameters()]
    average = {name: value.clone() for name, value in zip(names, run.generator.average)}
    for _ in range(3):
        run.step(batch(run.config))
        run.position.step += 1
    weights = dict(run.generator.network.named_parameters())
    later = dict(zip(names, run.generator.average))
    assert all(torch.equal(weights[name], average[name]) for name in frozen)
    assert all(torch.allclose(later[name], average[name], atol=1e-7) for name in frozen)
    assert not all(torch.equal(later[name], average[name]) for name in names)  # durations learn


def test_synthesis_and_fine_tuning_use_the_averaged_weights(tmp_path):
    run = Trainer(tiny.config(train={"ema": 0.7}), CPU)
    for _ in range(3):
        run.step(batch(run.config))
        run.position.step += 1
    checkpoint.save_run(run, tmp_path)
    checkpoint.save_voice(run, tmp_path / "G_best.pth")
    names = [checkpoint.reference_name(name) for name, _ in run.generator.network.named_parameters()]
    average = dict(zip(names, run.generator.average))
    content = checkpoint.read(tmp_path / "G_3.pth")
    assert tiny.equal(content["ema"], average) and not content["model"][names[0]].equal(average[names[0]])
    best = checkpoint.read(tmp_path / "G_best.pth")
    assert all(best["model"][name].equal(average[name]) for name in names) and best["optimizer"] is None
    spoken = [Voice.load(tmp_path / file).speak("hˈa.", seed=1).audio for file in ("G_3.pth", "G_best.pth")]
    assert (spoken[0] == spoken[1]).all()
    other = Trainer(tiny.config(), CPU)
    transfer.apply(other.generator.network, transfer.plan(other.generator.network, content, other.config, "G_3.pth"))
    assert tiny.equal(dict(zip(names, (weight.detach() for weight in other.generator.weights))), average)


def test_parts_learn_alone_at_first_and_at_their_own_rates():
    """`train.warm_up_parts` learn alone for `train.warm_up_steps`; then 0 in `train.lr_scale` freezes a part."""
    scales = {"dec.": 0.5, "dec.conv_pre": 0.0, "enc_p.": 0.0}
    run = Trainer(tiny.config(train={"warm_up_steps": 2, "lr_scale": scales}), CPU)
    net, changes = run.generator.network, []
    for _ in range(3):
        before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        run.step(batch(run.config))
        run.position.step += 1
        changes.append({n.split(".")[0] for n, w in net.named_parameters() if not w.equal(before[n])})
    assert changes[0] == changes[1] == {"enc_q"} and changes[2] == {"enc_q", "flow", "dp", "dec"}
    assert net.dec.conv_pre.weight.equal(before["dec.conv_pre.weight"]) and not net.enc_p.training and net.dec.training
    rates = {group["lr"] for group in run.generator.optimizer.param_groups}
    assert rates == {rate * run.config.train.learning_rate for rate in (1, 0.5, 0)}


def test_an_optimizer_of_several_rates_is_saved_as_one(tmp_path):
    config = tiny.config(train={"lr_scale": {"dec.": 0.5}})
    run, again = Trainer(config, CPU), Trainer(config, CPU)
    run.step(batch(config))
    run.position.step = 1
    checkpoint.save_run(run, tmp_path)
    (group,) = checkpoint.read(tmp_path / "G_1.pth")["optimizer"]["param_groups"]
    assert group["params"] == list(range(len(run.generator.weights))) and group["lr"] == run.generator.learning_rate
    assert checkpoint.resume_run(again, tmp_path)
    states = [learner.optimizer.state_dict()["state"] for learner in (run.generator, again.generator)]
    assert tiny.equal(*states)
    plain = Trainer(tiny.config(), CPU)  # the same file continues without the rates
    assert checkpoint.resume_run(plain, tmp_path)
    moment = plain.generator.optimizer.state[plain.generator.network.dec.conv_pre.weight]["exp_avg"]
    assert moment.equal(run.generator.optimizer.state[run.generator.network.dec.conv_pre.weight]["exp_avg"])


def test_a_run_continues_its_average(tmp_path):
    config = tiny.config(train={"ema": 0.7})
    run = Trainer(config, CPU)
    run.step(batch(config))
    run.position.step = 1
    checkpoint.save_run(run, tmp_path)
    again = Trainer(config, CPU)
    assert checkpoint.resume_run(again, tmp_path) and tiny.equal(again.generator.average, run.generator.average)
    without = Trainer(tiny.config(), CPU)  # `train.ema` was set to 0
    assert checkpoint.resume_run(without, tmp_path) and without.generator.average is None


def test_a_run_that_resumes_in_fp16_keeps_its_own_scale(tmp_path):
    def fp16():
        run = Trainer(config, CPU)
        run.scales, run.scaler = True, torch.amp.GradScaler("cpu")
        return run

    config = tiny.config()
    run = Trainer(config, CPU)
    run.position.step = 1
    checkpoint.save_run(run, tmp_path)
    second = fp16()
    assert checkpoint.resume_run(second, tmp_path)
    assert second.scaler.get_scale() == torch.amp.GradScaler("cpu").get_scale() > 1  # that of fp32 is not taken
    second.scaler.scale(torch.ones(()))
    second.scaler.update(512.0)
    checkpoint.save_run(second, tmp_path)
    third = fp16()
    assert checkpoint.resume_run(third, tmp_path)
    assert third.scaler.get_scale() == 512.0


def test_a_duration_discriminator_with_the_stochastic_predictor_logs_a_warning(caplog):
    Trainer(tiny.config(DURATION_DISCRIMINATOR, model={"use_sdp": True}), CPU)
    assert "unsteady" in caplog.text
    caplog.clear()
    Trainer(tiny.config(DURATION_DISCRIMINATOR), CPU)
    assert "unsteady" not in caplog.text


def test_a_step_that_is_not_finite_changes_no_weights():
    config = tiny.config(DURATION_DISCRIMINATOR)
    run = Trainer(config, CPU)
    good, bad = batch(config), batch(config)
    bad.wav[0, 0, 50] = float("nan")
    run.step(good)
    before = {name: snapshot(learner) for name, learner in run.learners.items()}
    state = copy.deepcopy(run.generator.optimizer.state_dict())
    record = run.step(bad)
    assert not record["loss/g/total"].isfinite() and not record["grad_norm_g"].isfinite()
    assert not changed(before["generator"], run.generator)
    assert tiny.equal(run.generator.optimizer.state_dict(), state)
    assert all(value.isfinite().all() for learner in run.learners.values() for value in learner.network.parameters())
    assert run.scaler.get_scale() == 1  # otherwise many such steps would reduce it to 0
    assert run.step(good)["loss/g/total"].isfinite()
    assert changed(before["generator"], run.generator)


def test_evaluation_is_repeatable_and_does_not_affect_training():
    config = tiny.config(MANY_VOICES, model={"use_sdp": True})
    run = Trainer(config, CPU)
    before, state = snapshot(run.generator), torch.get_rng_state()
    batches = [batch(config), batch(config, (33,), (4,))]
    first = run.evaluate(batches)
    assert first == run.evaluate(batches)
    assert set(first) == {"mel", "kl", "dur", "duration_error", "duration_std_ratio"} and all(first.values())
    run.synthesize(batch(config, (40,), (4,)))
    assert torch.equal(state, torch.get_rng_state()) and not changed(before, run.generator)
    with pytest.raises(ZeroDivisionError), run.evaluating() as net:
        assert not net.training
        raise ZeroDivisionError
    assert torch.equal(state, torch.get_rng_state()) and run.generator.network.training


@pytest.mark.parametrize("bias", [30.0, float("inf"), float("nan")])
def test_the_length_of_a_sample_is_limited(bias):
    """An untrained duration predictor may predict any number of frames."""
    config = tiny.config()
    run = Trainer(config, CPU)
    run.generator.network.dp.proj.bias.data.fill_(bias)
    sample = run.synthesize(batch(config, (40,), (4,)))
    frames = sample.mel_hat.shape[1]
    assert 4 <= frames <= trainer.MAX_SAMPLE_LENGTH * 40
    assert sample.alignment.shape == (4, frames) and sample.audio.shape == (frames * config.data.hop_length,)
    assert sample.aligned.shape == (4, 40) and sample.mel.shape == (20, 40)


def test_validation_results_are_means_over_frames_and_tokens():
    config = tiny.config()
    run = Trainer(config, CPU)
    without_posterior_noise(run)
    one, other = batch(config, (50,), (6,)), batch(config, (33,), (4,))
    a, b, both = run.evaluate([one]), run.evaluate([other]), run.evaluate([one, other])
    for name in set(a) - {"duration_std_ratio"}:
        weights = (50, 33) if name in ("mel", "kl") else (6, 4)
        expected = (a[name] * weights[0] + b[name] * weights[1]) / sum(weights)
        assert both[name] == pytest.approx(expected, rel=1e-4), name


def test_the_duration_spread_is_a_ratio_of_standard_deviations_over_all_tokens():
    config = tiny.config(model={"use_sdp": False})
    run = Trainer(config, CPU)
    without_posterior_noise(run)
    batches = [batch(config, (50,), (6,)), batch(config, (33,), (4,))]
    predicted, aligned = [], []
    with run.evaluating() as net, torch.no_grad():
        for one in batches:
            spectra = run.spectra(one.wav, one.wav_lengths)
            out = net(one.text, one.text_lengths, spectra.y, spectra.lengths, one.conditions)
            predicted.append(out.durations.logw.flatten())
            aligned.append(out.attn.sum(2).flatten().log())
    expected = torch.cat(predicted).std(correction=0) / torch.cat(aligned).std(correction=0)
    assert run.evaluate(batches)["duration_std_ratio"] == pytest.approx(expected.item(), rel=1e-4)


def test_learning_rates_warm_up_and_then_decay_by_epochs():
    warm_up = {"warmup_epochs": 2, "init_lr_ratio": 0.2}
    settings = tiny.config(train=warm_up | {"lr_decay": 0.5, "learning_rate": 1.0}).train
    assert [trainer.learning_rate(settings, epoch) for epoch in range(4)] == pytest.approx([0.2, 0.3, 0.25, 0.125])
    run = Trainer(tiny.config(DURATION_DISCRIMINATOR, train=warm_up), CPU)
    assert all(learner.optimizer.param_groups[0]["lr"] == 2e-4 for learner in run.learners.values())
    run = Trainer(tiny.config(DURATION_DISCRIMINATOR, train={"lr_decay": 0.5}), CPU)
    run.set_epoch(3)
    for learner in run.learners.values():
        assert learner.optimizer.param_groups[0]["lr"] == learner.learning_rate == 1e-3 / 8


def test_the_cpu_trains_in_fp32_with_every_config():
    for precision in configs.PRECISIONS:
        assert trainer.choose_precision(tiny.config(train={"precision": precision}).train, CPU) == "fp32"


def test_spectral_norm_keeps_full_precision_under_autocast():
    net = MultiPeriodDiscriminator(use_spectral_norm=True, channels=64)
    with torch.autocast("cpu", torch.bfloat16):
        scores, *_ = net(torch.randn(1, 1, 2048), torch.randn(1, 1, 2048))
    sum(score.float().sum() for score in scores).backward()
    conv = net.discriminators[0].convs[1]
    assert conv.weight.dtype == conv.weight_u.dtype == torch.float32 and conv.weight_orig.grad.isfinite().all()


@pytest.mark.parametrize("speakers", [{}, {**MANY_VOICES, "model": {"gin_channels": 8, "use_duration_noise": True}}])
def test_the_duration_discriminator_computes_in_fp32_under_autocast(speakers):
    config = tiny.config(DURATION_DISCRIMINATOR, speakers)
    run, seen = Trainer(config, CPU), {"durations": [], "decoder": []}
    run.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    layers = {
        "durations": run.learners["duration_discriminator"].network.conv_1,
        "decoder": run.generator.network.dec.conv_pre,
    }
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, inputs, out, name=name: seen[name].append(out.dtype))
    assert all(value.isfinite() for value in run.step(batch(config)).values())
    # the discriminator runs once to learn and once in the generator's loss
    assert seen == {"durations": [torch.float32] * 2, "decoder": [torch.bfloat16]}


def test_a_step_with_spectral_norm_is_finite():
    config = tiny.config(model={"use_spectral_norm": True})
    assert all(value.isfinite() for value in Trainer(config, CPU).step(batch(config)).values())


def test_a_frozen_discriminator_passes_gradients_and_gets_none():
    run = Trainer(tiny.config(), CPU)
    with run.learners["discriminator"].frozen() as network:
        wav = torch.randn(1, 1, 2048, requires_grad=True)
        losses.generator_loss(network.discriminate(wav)[0])[0].backward()
    assert wav.grad.any() and all(p.grad is None and p.requires_grad for p in network.parameters())


# Gradient accumulation


def steady(config, discriminators_rate=0.1):
    """Return a trainer without dropout that uses SGD, so that rounding errors stay small."""
    run = Trainer(config, CPU)
    for learner in run.learners.values():
        tiny.no_dropout(tiny.randomise(learner.network))
        rate = 0.1 if learner is run.generator else discriminators_rate
        learner.optimizer = torch.optim.SGD(learner.network.parameters(), rate)
    return run


def gradients(run):
    return {
        f"{kind}: {name}": torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for kind, learner in run.learners.items()
        for name, p in learner.network.named_parameters()
    }


def assert_close(found, expected):
    """Compare tensors with a tolerance in proportion to each tensor's largest value."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-3 * value.abs().max() + 1e-6, name


@STAGES
def test_accumulation_equals_the_whole_batch(stage, no_noise):
    """The mean of the parts' losses equals the loss of the whole batch if all utterances have the same length."""
    config = tiny.config(DURATION_DISCRIMINATOR, stage, train={"batch_size": 4})
    runs = [steady(configs.changed(config, "train", accumulate=n)) for n in (1, 2, 4)]
    start = {name: snapshot(learner) for name, learner in runs[0].learners.items()}
    data = batch(config, (60,) * 4, (7,) * 4)
    record, *records = [run.step(data) for run in runs]
    for other, values in zip(runs[1:], records):
        assert list(values) == list(record)
        assert_close(values, record)
        assert_close(gradients(other), gradients(runs[0]))
        for name, learner in runs[0].learners.items():
            assert_close(other.learners[name].network.state_dict(), learner.network.state_dict())
    learning = set(runs[0].learners) - ({"discriminator"} if stage else set())
    assert learning == {name for name, learner in runs[0].learners.items() if changed(start[name], learner)}


@STAGES
def test_accumulated_gradients_and_losses_are_means_over_parts(stage, no_noise):
    config = tiny.config(DURATION_DISCRIMINATOR, stage, train={"batch_size": 4, "accumulate": 2})
    data = batch(config, (60, 50, 44, 31), (7, 5, 3, 6))
    run = steady(config, discriminators_rate=0.0)
    run.scales, run.scaler = True, torch.amp.GradScaler("cpu", init_scale=64.0)  # as in fp16
    record = run.step(data)
    alone = []
    for part in (slice(0, 2), slice(2, 4)):
        one = steady(configs.changed(config, "train", accumulate=1), 0.0)
        alone.append((one.step(map_tensors(lambda x, part=part: x[part], data)), gradients(one)))
    (record_1, gradients_1), (record_2, gradients_2) = alone
    assert_close(gradients(run), {name: (g + gradients_2[name]) / 2 for name, g in gradients_1.items()})
    means = {name: (value + record_2[name]) / 2 for name, value in record_1.items() if name.startswith("loss")}
    assert_close({name: record[name] for name in means}, means)
    assert set(record) == set(record_1)


def test_a_batch_smaller_than_the_number_of_parts_trains():
    config = tiny.config(train={"batch_size": 4, "accumulate": 4})
    run = Trainer(config, CPU)
    for size in (3, 1):
        data = batch(config, (60, 44, 38)[:size], (7, 5, 6)[:size])
        assert [len(part.text) for part in data.parts(4)] == [1] * size
        assert all(value.isfinite() for value in run.step(data).values())
    assert [len(part.text) for part in batch(config, (60, 44, 38), (7, 5, 6)).parts(2)] == [2, 1]


class SavedBytes:
    """Counts the bytes that autograd saves for backward passes, without weights: now, and the most so far."""

    class Saved:
        def __init__(self, value):
            self.value = value

    def __init__(self):
        self.now = self.most = 0

    def counting(self):
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda saved: getattr(saved, "value", saved))

    def _pack(self, value):
        if isinstance(value, torch.nn.Parameter):
            return value
        saved = SavedBytes.Saved(value.detach())
        self._add(value.nbytes)
        weakref.finalize(saved, self._add, -value.nbytes)
        return saved

    def _add(self, n):
        self.now += n
        self.most = max(self.most, self.now)


def test_accumulation_reduces_the_memory_of_activations():
    most = {}
    for n in (1, 2, 4):
        config = tiny.config(DURATION_DISCRIMINATOR, train={"batch_size": 16, "accumulate": n})
        run, saved = Trainer(config, CPU), SavedBytes()
        with saved.counting():
            run.step(batch(config, (60,) * 16, (7,) * 16))
        assert saved.now == 0
        most[n] = saved.most
    assert most[2] < 0.6 * most[1] and most[4] < 0.4 * most[1]


@pytest.mark.parametrize("flow, parts", [("pre_conv", 1), ("pre_conv", 2), ("mono_layer_post_residual", 1)])
def test_activation_checkpointing_is_exact_and_halves_the_memory(flow, parts):
    """Noise and dropout are on, so a second random draw would change the results."""
    model = {"transformer_flow_type": flow, "resblock": "1"}
    model |= {"resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3, 5]] * 2}
    results, saved_bytes = [], []
    for recompute in (False, True):
        options = {"recompute": recompute, "accumulate": parts}
        config = tiny.config(DURATION_DISCRIMINATOR, MANY_VOICES, model=model, train=options)
        run, saved = Trainer(config, CPU), SavedBytes()
        with saved.counting():
            record = run.step(batch(config))
            out = run.generate(batch(config))
        results.append((record, gradients(run), torch.get_rng_state()))
        saved_bytes.append(saved.now)  # for `out`
        del out
    assert tiny.equal(*results)
    assert saved_bytes[1] < 0.5 * saved_bytes[0]


# Several processes


def test_a_single_process_is_not_wrapped(monkeypatch):
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 1)  # as torchrun starts it
    network = torch.nn.Linear(1, 1)
    assert distributed.wrap(network, CPU) is network


def without_posterior_noise(run):
    """Set the posterior's standard deviation to almost 0, so that its random draws do not matter."""
    proj = run.generator.network.enc_q.proj
    with torch.no_grad():
        proj.weight[8:] = 0
        proj.bias[8:] = -30


def on_each_rank(device, folder, stage):
    """Do some training steps in one of several processes, and save its state."""
    torch.set_num_threads(1)
    start = {"train": {"duration_stage_start": 2 if stage else None}}
    config = tiny.config(DURATION_DISCRIMINATOR, MANY_VOICES, start)
    _, epochs, loader, validation = make_loaders(config, device)
    run = Trainer(config, device)
    note = {"draw": torch.rand(4), "records": [], "batches": []}
    for data in islice(loader, len(epochs.sampler)):
        note["records"].append({name: value.item() for name, value in run.step(data).items()})
        note["batches"].append(data.index.tolist())
        run.position.step += 1
    note["weights"] = {name: learner.network.state_dict() for name, learner in run.learners.items()}
    note["optimizers"] = {name: learner.optimizer.state_dict() for name, learner in run.learners.items()}
    fresh = Trainer(config, device)
    without_posterior_noise(fresh)
    note["results"] = fresh.evaluate(validation)
    note["validated"] = [i for data in validation for i in data.index.tolist()]
    torch.save(note, f"{folder}/{distributed.world_size()}_{distributed.rank()}.pt")


@pytest.mark.parametrize("stage", [False, tiny.slow(True)], ids=["joint", "duration stage"])
def test_two_processes_have_equal_weights_and_share_the_data(workspace, monkeypatch, stage):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny.write_corpus(workspace, 12, 5, speakers=2)
    distributed.launch(on_each_rank, "cpu", 2, str(workspace), stage)
    distributed.launch(on_each_rank, "cpu", 1, str(workspace), stage)
    a, b, alone = (torch.load(workspace / f"{name}.pt", weights_only=True) for name in ("2_0", "2_1", "1_0"))
    assert tiny.equal(a["weights"], b["weights"]) and tiny.equal(a["optimizers"], b["optimizers"])
    assert not torch.equal(a["draw"], b["draw"])
    assert len(a["records"]) == len(b["records"]) >= 3
    for mine, other in zip(a["records"], b["records"]):
        norms = [name for name in mine if name.startswith("grad_norm")]
        assert len(norms) >= 2 and all(mine[name] == other[name] for name in norms)
        assert mine["loss/g/total"] != other["loss/g/total"]
    for mine, other in zip(a["batches"], b["batches"]):
        assert not set(mine) & set(other)
    assert a["results"] == b["results"]
    assert sorted(a["validated"] + b["validated"]) == sorted(alone["validated"]) == list(range(5))
    for name, value in alone["results"].items():
        # the decoder reads padding beyond the end of an utterance, and its amount depends on the batch
        assert a["results"][name] == pytest.approx(value, rel=2e-2 if name == "mel" else 1e-4), name


def accumulate_on_each_rank(device, folder):
    """Train on two of four utterances, as a whole and in two parts. Save the weights and count gradient exchanges."""
    torch.set_num_threads(1)
    tiny.no_noise(pytest.MonkeyPatch())
    rank, note = distributed.rank(), {}
    for n in (1, 2):
        run = steady(tiny.config(DURATION_DISCRIMINATOR, train={"accumulate": n}))
        exchanges = []
        for learner in run.learners.values():
            learner.wrapped.register_comm_hook(None, lambda _, bucket, done=exchanges: count(done, bucket))
        data = batch(run.config, (60,) * 4, (7,) * 4)
        run.step(map_tensors(lambda x: x[2 * rank : 2 * rank + 2], data))
        weights = {name: learner.network.state_dict() for name, learner in run.learners.items()}
        note[n] = {"weights": weights, "exchanges": len(exchanges)}
    torch.save(note, f"{folder}/{rank}.pt")


def count(done, bucket):
    done.append(bucket.index())
    return allreduce_hook(None, bucket)


@pytest.mark.slow
def test_two_processes_exchange_gradients_once_per_step_with_accumulation(tmp_path, monkeypatch, no_noise):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    distributed.launch(accumulate_on_each_rank, "cpu", 2, str(tmp_path))
    a, b = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert tiny.equal(a, b) and a[2]["exchanges"] == a[1]["exchanges"] > 0
    alone = steady(tiny.config(DURATION_DISCRIMINATOR, train={"batch_size": 4}))
    alone.step(batch(alone.config, (60,) * 4, (7,) * 4))
    for name, learner in alone.learners.items():
        assert_close(a[2]["weights"][name], learner.network.state_dict())


def interrupted_on_each_rank(device):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupt_in_several_processes_reaches_the_program():
    with pytest.raises(KeyboardInterrupt):
        distributed.launch(interrupted_on_each_rank, "cpu", 2)


def test_helpers_for_several_processes_work_in_one(monkeypatch):
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    calls = []
    distributed.in_main(lambda: calls.append(1))
    assert calls == [1]
    assert distributed.sum_over_ranks(torch.tensor(2.0)) == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="PyTorch sees no GPU"):
        distributed.launch(print, "cuda", 1)


def test_the_distance_of_spectrograms_is_a_term_where_it_has_a_weight():
    config = tiny.config(train={"c_stft": 2.5})
    run, data = Trainer(config, CPU), tiny.batch(config)
    spectra, out = run.generate(data)
    expected = losses.stft_loss(run.real_segments(data.wav, out).squeeze(1), out.o.squeeze(1))
    torch.testing.assert_close(run.generator_losses(data, spectra, out)["stft"], 2.5 * expected)
    plain = Trainer(tiny.config(), CPU)
    assert "stft" not in plain.generator_losses(data, spectra, out)
