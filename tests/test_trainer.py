"""The training step: every parameter learns, padding changes nothing, durations, bad numbers, parts, two processes."""

import copy
import dataclasses
import json
import weakref
from itertools import islice

import pytest
import tiny
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import config as configs
import distributed
import losses
import train
import trainer
from data_utils import Batch
from discriminators import MultiPeriodDiscriminator
from trainer import Trainer

CPU = torch.device("cpu")
SHIPPED = sorted((tiny.ROOT / "configs").glob("*.json"))
JUDGED = {"model": {"use_duration_discriminator": True}}


def batch(config, frames=(60, 44), tokens=(7, 5), more_tokens=0, more_frames=0):
    """Random texts and noise, padded by so many tokens and frames more than needed."""
    draws = torch.Generator().manual_seed(3)
    hop = config.data.hop_length
    text = torch.zeros(len(frames), max(tokens) + more_tokens).long()
    wav = torch.zeros(len(frames), 1, (max(frames) + more_frames) * hop)
    for i, (n, length) in enumerate(zip(tokens, frames)):
        text[i, :n] = torch.randint(1, 178, (n,), generator=draws)
        wav[i, :, : length * hop].normal_(0, 0.1, generator=draws)
    lengths = torch.tensor(frames) * hop
    voices = config.data.n_speakers
    sid = torch.arange(len(frames)) % voices if voices else None
    return Batch(text, torch.tensor(tokens), wav, lengths, sid, torch.arange(len(frames)))


def snapshot(learner):
    return {name: value.clone() for name, value in learner.network.state_dict().items()}


def changed(before, learner):
    """The first parts of the names of what changed."""
    return {name.split(".")[0] for name, value in learner.network.state_dict().items() if not value.equal(before[name])}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_parameter_of_every_shipped_config_gets_a_gradient(path):
    """One whole step of the networks at their published sizes; the decoded segment is shorter, to be quick."""
    config = configs.load(path)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, segment_size=2048))
    run = Trainer(config, CPU)
    with torch.no_grad():  # some layers start as zero and hide others from the gradient
        for learner in run.learners.values():
            for parameter in learner.network.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
    run.step(batch(config, (12, 10)))
    gradients = {id(p): p.grad for learner in run.learners.values() for p in learner.network.parameters()}
    if config.train.duration_stage_start:  # its judge waits for the last stage
        run.position.step = config.train.duration_stage_start
        run.step(batch(config, (12, 10)))
        judge = run.learners["duration_discriminator"].network
        gradients |= {id(p): p.grad for p in judge.parameters()}
    assert len(run.learners) == 2 + config.model.use_duration_discriminator
    for kind, learner in run.learners.items():
        for name, parameter in learner.network.named_parameters():
            gradient = gradients[id(parameter)]
            assert gradient is not None and gradient.isfinite().all(), f"{kind}: {name}"
            if not name.endswith("conv_k.bias"):  # what moves all keys alike moves no attention
                assert gradient.any(), f"{kind}: {name}"


@pytest.mark.parametrize("voices", [{}, tiny.MANY_VOICES], ids=["one voice", "two voices"])
@pytest.mark.parametrize("sdp", [False, True])
@pytest.mark.parametrize("mel", [True, False])
def test_padding_changes_no_loss_of_the_step(sdp, voices, mel, no_noise):
    spectrogram = {key: {"use_mel_posterior_encoder": mel} for key in ("data", "model")}
    config = tiny.config(JUDGED, voices, spectrogram, model={**JUDGED["model"], **spectrogram["model"], "use_sdp": sdp})
    records = []
    for padding in ((0, 0), (9, 35)):
        run = Trainer(config, CPU)
        for learner in run.learners.values():
            tiny.no_dropout(tiny.randomise(learner.network))
        records.append(run.step(batch(config, more_tokens=padding[0], more_frames=padding[1])))
    plain, padded = records
    assert set(plain) == set(padded) >= {"loss/dur_d/total", "loss/g/dur_gen", "loss/g/fm", "grad_norm_g"}
    for name, value in plain.items():
        rounding = 1e-3 if name.startswith("grad_norm") else 2e-5  # gradients of a spline amplify it
        assert padded[name].item() == pytest.approx(value.item(), rel=rounding, abs=1e-6), name


@pytest.mark.parametrize("version", ["dur_disc_1", "dur_disc_2"])
def test_the_judge_of_durations_sees_real_ones_first_and_means_over_tokens(version, monkeypatch):
    config = tiny.config(model={**JUDGED["model"], "duration_discriminator_type": version})
    run = Trainer(config, CPU)
    judge = run.learners["duration_discriminator"]
    judge.network.eval()
    before = copy.deepcopy(judge.network)
    seen = []
    network = judge.wrapped
    judge.wrapped = lambda *arguments: seen.append(arguments) or network(*arguments)
    record = run.step(batch(config))
    ((x, x_mask, real, guess, g),) = seen
    assert torch.allclose(real.exp() * x_mask, (real.exp() * x_mask).round(), atol=1e-3)  # whole frames: the alignment
    assert (real.exp() * x_mask).sum((1, 2)).tolist() == pytest.approx([60, 44], rel=1e-4)
    assert g is None and not guess.requires_grad
    (scores_r,), (scores_g,) = before(x, x_mask, real, guess)
    mask = x_mask.transpose(1, 2).bool()
    expected = (1 - scores_r[mask]).square().mean() + scores_g[mask].square().mean()
    assert record["loss/dur_d/total"].item() == pytest.approx(expected.item(), rel=1e-5)
    (after_scores,) = judge.network(x, x_mask, real, guess)[1]
    assert record["loss/g/dur_gen"].item() == pytest.approx((1 - after_scores[mask]).square().mean().item(), rel=1e-5)


def test_the_judge_of_durations_joins_at_its_step():
    config = tiny.config(JUDGED, train={"duration_discriminator_start": 2})
    run = Trainer(config, CPU)
    seen = []
    for _ in range(4):
        before = snapshot(run.learners["duration_discriminator"])
        record = run.step(batch(config))
        run.position.step += 1
        learnt = bool(changed(before, run.learners["duration_discriminator"]))
        seen.append(("loss/dur_d/total" in record, "loss/g/dur_gen" in record, learnt))
    assert seen == [(False,) * 3, (False,) * 3, (True,) * 3, (True,) * 3]


@pytest.mark.parametrize("voices", [{}, tiny.MANY_VOICES], ids=["one voice", "two voices"])
def test_the_last_stage_teaches_durations_alone(voices):
    """VITS2, section 2.1: with noise and, for many voices, the speaker before the judge."""
    model = {"model": {**JUDGED["model"], **voices.get("model", {}), "use_duration_noise": True}}
    config = tiny.config(voices, model, train={"duration_stage_start": 1})
    run = Trainer(config, CPU)
    judge = run.learners["duration_discriminator"]
    assert hasattr(judge.network, "cond") == bool(voices)
    states = {}
    for step in range(3):
        before = {name: snapshot(learner) for name, learner in run.learners.items()}
        run.step(batch(config))
        run.position.step += 1
        states[step] = {name: changed(before[name], learner) for name, learner in run.learners.items()}
    assert {"dec", "enc_p", "enc_q", "flow", "dp"} <= states[0]["generator"] and states[0]["discriminator"]
    for step in (1, 2):
        assert states[step]["generator"] == {"dp"} and not states[step]["discriminator"]
        assert states[step]["duration_discriminator"] == set(dict(judge.network.named_children())) - {
            name for name, child in judge.network.named_children() if not list(child.parameters())
        }
    net = run.generator.network
    assert net.dp.training and not net.enc_p.training and not net.training
    assert run.evaluate([batch(config)])["mel"] == run.evaluate([batch(config)])["mel"]
    assert net.dp.training and not net.enc_p.training


def test_the_best_of_the_last_stage_is_the_best_at_durations():
    config = tiny.config(JUDGED, train={"duration_stage_start": 2})
    run = Trainer(config, CPU)
    assert run.is_best({"mel": 0.5, "duration_error": 3.0}) and not run.is_best({"mel": 0.6, "duration_error": 1.0})
    run.position.step = 2
    assert run.is_best({"mel": 0.6, "duration_error": 2.0}) and not run.is_best({"mel": 0.4, "duration_error": 2.5})
    assert run.position.best == 2.0


def test_a_run_that_goes_on_in_fp16_finds_a_scale_of_its_own(tmp_path):
    config = tiny.config()
    run = Trainer(config, CPU)
    run.position.step = 1
    run.save(tmp_path)
    other = Trainer(config, CPU)
    other.scales, other.scaler = True, torch.amp.GradScaler("cpu")
    other.resume(tmp_path)
    assert other.scaler.get_scale() == torch.amp.GradScaler("cpu").get_scale() > 1
    other.scaler.scale(torch.ones(()))
    other.scaler.update(512.0)
    other.save(tmp_path)
    third = Trainer(config, CPU)
    third.scales, third.scaler = True, torch.amp.GradScaler("cpu")
    third.resume(tmp_path)
    assert third.scaler.get_scale() == 512.0


def test_judging_durations_of_the_stochastic_predictor_is_warned_of(caplog):
    Trainer(tiny.config(JUDGED, model={**JUDGED["model"], "use_sdp": True}), CPU)
    assert "unsteady" in caplog.text
    caplog.clear()
    Trainer(tiny.config(JUDGED), CPU)
    assert "unsteady" not in caplog.text


def test_bad_numbers_leave_the_weights_and_the_scale_as_they_were():
    config = tiny.config(JUDGED)
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
    assert run.scaler.get_scale() == 1  # without fp16 it has no scale to find, and many bad steps must not end at 0
    assert run.step(good)["loss/g/total"].isfinite()
    assert changed(before["generator"], run.generator)


def test_measuring_changes_nothing_and_is_repeatable():
    config = tiny.config(tiny.MANY_VOICES, model={**tiny.MANY_VOICES["model"], "use_sdp": True})
    run = Trainer(config, CPU)
    before, state = snapshot(run.generator), torch.get_rng_state()
    batches = [batch(config), batch(config, (33,), (4,))]
    first = run.evaluate(batches)
    assert first == run.evaluate(batches)
    assert set(first) == {"mel", "kl", "dur", "duration_error"} and all(map(torch.tensor(0.0).ne, first.values()))
    run.synthesise(batch(config, (40,), (4,)))
    assert torch.equal(state, torch.get_rng_state()) and not changed(before, run.generator)
    assert run.generator.network.training


@pytest.mark.parametrize("bias", [30.0, float("inf"), float("nan")])
def test_a_sample_of_an_untrained_predictor_is_cut(bias):
    config = tiny.config()
    run = Trainer(config, CPU)
    run.generator.network.dp.proj.bias.data.fill_(bias)
    audio, (attn, _), _, mel = run.synthesise(batch(config, (40,), (4,)))
    frames = mel.shape[1]
    assert 4 <= frames <= trainer.LONGEST_SAMPLE * 40
    assert attn.shape == (4, frames) and audio.shape == (frames * config.data.hop_length,)


def test_measures_are_means_over_frames_and_tokens():
    config = tiny.config()
    run = Trainer(config, CPU)
    without_posterior_noise(run)
    one, other = batch(config, (50,), (6,)), batch(config, (33,), (4,))
    a, b, both = run.evaluate([one]), run.evaluate([other]), run.evaluate([one, other])
    for name in a:
        weights = (50, 33) if name in ("mel", "kl") else (6, 4)
        expected = (a[name] * weights[0] + b[name] * weights[1]) / sum(weights)
        assert both[name] == pytest.approx(expected, rel=1e-4), name


def test_learning_rates_decay_by_epochs_after_a_warm_up():
    settings = tiny.config(
        train={"lr_decay": 0.5, "learning_rate": 1.0, "warmup_epochs": 2, "init_lr_ratio": 0.2}
    ).train
    assert [trainer.learning_rate(settings, epoch) for epoch in range(4)] == pytest.approx([0.2, 0.3, 0.25, 0.125])
    run = Trainer(tiny.config(JUDGED, train={"warmup_epochs": 2, "init_lr_ratio": 0.2}), CPU)
    assert all(learner.optimizer.param_groups[0]["lr"] == 2e-4 for learner in run.learners.values())
    run = Trainer(tiny.config(JUDGED, train={"lr_decay": 0.5}), CPU)
    run.set_epoch(3)
    for learner in run.learners.values():
        assert learner.optimizer.param_groups[0]["lr"] == learner.learning_rate == 1e-3 / 8


def test_the_cpu_trains_in_fp32_whatever_the_config_says():
    for precision in configs.PRECISIONS:
        assert trainer.choose_precision(tiny.config(train={"precision": precision}).train, CPU) == "fp32"


def test_spectral_norm_keeps_full_precision_under_autocast():
    net = MultiPeriodDiscriminator(use_spectral_norm=True, channels=64)
    with torch.autocast("cpu", torch.bfloat16):
        scores, *_ = net(torch.randn(1, 1, 2048), torch.randn(1, 1, 2048))
    sum(score.float().sum() for score in scores).backward()
    conv = net.discriminators[0].convs[1]
    assert conv.weight.dtype == conv.weight_u.dtype == torch.float32 and conv.weight_orig.grad.isfinite().all()


@pytest.mark.parametrize("voices", [{}, {**tiny.MANY_VOICES, "model": {"gin_channels": 8, "use_duration_noise": True}}])
def test_the_judge_of_durations_computes_in_fp32_under_autocast(voices):
    config = tiny.config(JUDGED, voices)
    run, seen = Trainer(config, CPU), {"judge": [], "decoder": []}
    run.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    layers = {
        "judge": run.learners["duration_discriminator"].network.conv_1,
        "decoder": run.generator.network.dec.conv_pre,
    }
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, inputs, out, name=name: seen[name].append(out.dtype))
    assert all(value.isfinite() for value in run.step(batch(config)).values())
    assert seen["judge"] == [torch.float32] * 2  # as it learns, and as the generator does
    assert seen["decoder"] == [torch.bfloat16]


def test_spectral_norm_trains():
    config = tiny.config(model={"use_spectral_norm": True})
    assert all(value.isfinite() for value in Trainer(config, CPU).step(batch(config)).values())


def test_the_judge_lent_to_the_generator_learns_nothing_from_it():
    run = Trainer(tiny.config(), CPU)
    with run.learners["discriminator"].frozen() as judge:
        wav = torch.randn(1, 1, 2048, requires_grad=True)
        losses.generator_loss(judge.judge(wav)[0])[0].backward()
    assert wav.grad.any() and all(p.grad is None and p.requires_grad for p in judge.parameters())


LAST_STAGE = {"train": {"duration_stage_start": 0}}
STAGES = pytest.mark.parametrize("stage", [{}, LAST_STAGE], ids=["joint", "last stage"])


def steady(config, judges_rate=0.1):
    """A run without dropout that goes down its gradients in proportion, so that rounding stays rounding."""
    run = Trainer(config, CPU)
    for learner in run.learners.values():
        tiny.no_dropout(tiny.randomise(learner.network))
        rate = 0.1 if learner is run.generator else judges_rate
        learner.optimizer = torch.optim.SGD(learner.network.parameters(), rate)
    return run


def gradients(run):
    return {
        f"{kind}: {name}": torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for kind, learner in run.learners.items()
        for name, p in learner.network.named_parameters()
    }


def assert_close(found, expected):
    """To rounding, in proportion to each tensor's largest number."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-3 * value.abs().max() + 1e-6, name


@STAGES
def test_parts_of_a_batch_teach_what_all_of_it_teaches(stage, no_noise):
    """Where all utterances are of one length, the mean of the parts' losses is that of the whole."""
    runs = [steady(tiny.config(JUDGED, stage, train={"batch_size": 4, "accumulate": n})) for n in (1, 2, 4)]
    start = {name: snapshot(learner) for name, learner in runs[0].learners.items()}
    data = batch(runs[0].config, (60,) * 4, (7,) * 4)
    record, *records = [run.step(data) for run in runs]
    for other, values in zip(runs[1:], records):
        assert list(values) == list(record)
        assert_close(values, record)
        assert_close(gradients(other), gradients(runs[0]))
        for name, learner in runs[0].learners.items():
            assert_close(other.learners[name].network.state_dict(), learner.network.state_dict())
    judged = set(runs[0].learners) - ({"discriminator"} if stage else set())
    assert judged == {name for name, learner in runs[0].learners.items() if changed(start[name], learner)}


@STAGES
def test_gradients_and_losses_of_parts_are_means_of_what_each_gives_alone(stage, no_noise):
    config = tiny.config(JUDGED, stage, train={"batch_size": 4, "accumulate": 2})
    data = batch(config, (60, 50, 44, 31), (7, 5, 3, 6))
    run = steady(config, judges_rate=0.0)
    run.scales, run.scaler = True, torch.amp.GradScaler("cpu", init_scale=64.0)  # as fp16 has it
    record = run.step(data)
    alone = []
    for part in (slice(0, 2), slice(2, 4)):
        one = steady(dataclasses.replace(config, train=dataclasses.replace(config.train, accumulate=1)), 0.0)
        alone.append((one.step(Batch(*(x if x is None else x[part] for x in data))), gradients(one)))
    (record_1, gradients_1), (record_2, gradients_2) = alone
    assert_close(gradients(run), {name: (g + gradients_2[name]) / 2 for name, g in gradients_1.items()})
    means = {name: (value + record_2[name]) / 2 for name, value in record_1.items() if name.startswith("loss")}
    assert_close({name: record[name] for name in means}, means)
    assert set(record) == set(record_1)


def test_a_corpus_smaller_than_a_batch_is_taken_in_parts_too():
    config = tiny.config(train={"batch_size": 4, "accumulate": 4})
    run = Trainer(config, CPU)
    for size in (3, 1):
        data = batch(config, (60, 44, 38)[:size], (7, 5, 6)[:size])
        assert [len(part.text) for part in data.parts(4)] == [1] * size
        assert all(value.isfinite() for value in run.step(data).values())
    assert [len(part.text) for part in batch(config, (60, 44, 38), (7, 5, 6)).parts(2)] == [2, 1]


class Kept:
    """Bytes of tensors that autograd keeps for backward passes, weights left out: now, and the most there were."""

    class Tensor:
        def __init__(self, value):
            self.value = value

    def __init__(self):
        self.now = self.most = 0

    def counting(self):
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: getattr(kept, "value", kept))

    def _pack(self, value):
        if isinstance(value, torch.nn.Parameter):
            return value
        kept = Kept.Tensor(value.detach())
        self._add(value.nbytes)
        weakref.finalize(kept, self._add, -value.nbytes)
        return kept

    def _add(self, n):
        self.now += n
        self.most = max(self.most, self.now)


def test_a_part_takes_its_share_of_memory():
    most = {}
    for n in (1, 2, 4):
        config = tiny.config(JUDGED, train={"batch_size": 16, "accumulate": n})
        run, kept = Trainer(config, CPU), Kept()
        with kept.counting():
            run.step(batch(config, (60,) * 16, (7,) * 16))
        assert kept.now == 0
        most[n] = kept.most
    assert most[2] < 0.6 * most[1] and most[4] < 0.4 * most[1]


@pytest.mark.parametrize("flow, parts", [("pre_conv", 1), ("pre_conv", 2), ("mono_layer_post_residual", 1)])
def test_what_is_forgotten_is_computed_again_to_the_last_bit(flow, parts):
    """Noise and dropout are on, which a second draw would show. The generator keeps less than half of what it did."""
    model = {**JUDGED["model"], **tiny.MANY_VOICES["model"], "transformer_flow_type": flow}
    model |= {"resblock": "1", "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3, 5]] * 2}
    results, bytes_kept = [], []
    for recompute in (False, True):
        config = tiny.config(tiny.MANY_VOICES, model=model, train={"recompute": recompute, "accumulate": parts})
        run, kept = Trainer(config, CPU), Kept()
        with kept.counting():
            record = run.step(batch(config))
            out = run.generate(batch(config))
        results.append((record, gradients(run), torch.get_rng_state()))
        bytes_kept.append(kept.now)  # for `out`
        del out
    plain, again = results
    assert tiny.equal(plain, again)
    assert bytes_kept[1] < 0.5 * bytes_kept[0]


def test_a_process_that_is_alone_is_not_wrapped(monkeypatch):
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 1)  # as torchrun starts it
    network = torch.nn.Linear(1, 1)
    assert distributed.wrap(network, CPU) is network


def without_posterior_noise(run):
    """Give the posterior so little spread that its draws do not matter."""
    proj = run.generator.network.enc_q.proj
    with torch.no_grad():
        proj.weight[8:] = 0
        proj.bias[8:] = -30


def on_each_rank(device, folder, stage):
    """Train some steps as one of several processes, and note what this one has then."""
    torch.set_num_threads(1)
    start = {"train": {"duration_stage_start": 2 if stage else None}}
    config = tiny.config(tiny.MANY_VOICES, start, model={**JUDGED["model"], **tiny.MANY_VOICES["model"]})
    _, epochs, loader, validation = train.make_loaders(config, device)
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
    note["measures"] = fresh.evaluate(validation)
    note["seen"] = [i for data in validation for i in data.index.tolist()]
    torch.save(note, f"{folder}/{distributed.world_size()}_{distributed.rank()}.pt")


@pytest.mark.parametrize("stage", [False, True], ids=["joint", "last stage"])
def test_two_processes_stay_equal_and_share_the_work(workspace, monkeypatch, stage):
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
    assert a["measures"] == b["measures"]
    assert sorted(a["seen"] + b["seen"]) == sorted(alone["seen"]) == list(range(5))
    for name, value in alone["measures"].items():
        # the decoder reaches from an utterance's end into the padding, which depends on the batch
        assert a["measures"][name] == pytest.approx(value, rel=2e-2 if name == "mel" else 1e-4), name


def in_parts_on_each_rank(device, folder):
    """Two utterances of four on each of two processes, in two parts; notes weights, and exchanges of gradients."""
    torch.set_num_threads(1)
    tiny.no_noise(pytest.MonkeyPatch())
    rank, note = distributed.rank(), {}
    for n in (1, 2):
        run = steady(tiny.config(JUDGED, train={"accumulate": n}))
        exchanges = []
        for learner in run.learners.values():
            learner.wrapped.register_comm_hook(None, lambda _, bucket, done=exchanges: count(done, bucket))
        data = batch(run.config, (60,) * 4, (7,) * 4)
        run.step(Batch(*(x if x is None else x[2 * rank : 2 * rank + 2] for x in data)))
        weights = {name: learner.network.state_dict() for name, learner in run.learners.items()}
        note[n] = {"weights": weights, "exchanges": len(exchanges)}
    torch.save(note, f"{folder}/{rank}.pt")


def count(done, bucket):
    done.append(bucket.index())
    return allreduce_hook(None, bucket)


def test_two_processes_exchange_gradients_once_a_step_and_learn_from_all_parts(tmp_path, monkeypatch, no_noise):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    distributed.launch(in_parts_on_each_rank, "cpu", 2, str(tmp_path))
    a, b = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert tiny.equal(a, b) and a[2]["exchanges"] == a[1]["exchanges"] > 0
    alone = steady(tiny.config(JUDGED, train={"batch_size": 4}))
    alone.step(batch(alone.config, (60,) * 4, (7,) * 4))
    for name, learner in alone.learners.items():
        assert_close(a[2]["weights"][name], learner.network.state_dict())


def interrupted_on_each_rank(device):
    raise KeyboardInterrupt


def test_ctrl_c_in_many_processes_is_told_to_the_program():
    with pytest.raises(KeyboardInterrupt):
        distributed.launch(interrupted_on_each_rank, "cpu", 2)


def test_a_summary_of_ranks_says_which_process_this_is():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    calls = []
    distributed.in_main(lambda: calls.append(1))
    assert calls == [1]
    assert distributed.sum_over_ranks(torch.tensor(2.0)) == 2
    with pytest.raises(ValueError, match="PyTorch sees no GPU"):
        distributed.launch(print, "cuda", 1)


def test_the_shipped_configs_have_the_sizes_that_were_meant():
    """A typo in a config is not a contradiction; these numbers are VITS's and the README's."""
    for path in SHIPPED:
        model = json.loads(path.read_text("utf-8"))["model"]
        assert model["hidden_channels"] == (64 if path.stem.startswith("demo") else 192), path.name
