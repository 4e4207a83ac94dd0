"""Adversarial training of VITS2: the step, validation, and everything a run needs to go on where it was."""

import contextlib
import dataclasses
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import checkpoint
import commons
import distributed
import fused
import losses
from config import Config, TrainConfig
from data_utils import Batch
from discriminators import DURATION_DISCRIMINATORS, MultiPeriodDiscriminator
from graphs import DDP_WARM_UP, GraphedSteps
from mel_processing import log_mel, spec_to_mel_torch, spectrogram_of_batch
from models import SynthesizerTrn, TrainingOutput
from modules import set_recompute
from monotonic_align import fastest
from text import table_of_symbols

logger = logging.getLogger(__name__)

LONGEST_SAMPLE = 10  # times a recording's length that its synthesis in training may take


class Learner:
    """A network with its optimizer, wrapped for many processes where there are many."""

    def __init__(self, network: nn.Module, train: TrainConfig, device: torch.device):
        self.network = network.to(device)
        self.weights = list(network.parameters())  # to walk through a network's modules takes the host a while
        self.wrapped = distributed.wrap(self.network, device)
        self.learning_rate = train.learning_rate
        cuda = device.type == "cuda"
        # on a GPU the rate lives there, where a captured step reads it anew
        self.rate = torch.tensor(self.learning_rate, device=device) if cuda else None
        self.optimizer = torch.optim.AdamW(
            self.weights,
            self.rate if cuda else self.learning_rate,
            tuple(train.betas),
            train.eps,
            train.weight_decay,
            fused=cuda,
            capturable=cuda,
        )

    def set_learning_rate(self, learning_rate: float) -> None:
        """Take another learning rate from the next update on."""
        self.learning_rate = learning_rate
        if self.rate is not None:
            self.rate.fill_(learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate if self.rate is None else self.rate

    def accumulate(self, loss: Tensor, scaler: torch.amp.GradScaler) -> None:
        """Add a loss's gradients to those that are there."""
        scaler.scale(loss).backward()

    def update(self, scaler: torch.amp.GradScaler) -> Tensor:
        """Follow the gradients. Returns their norm; where it is not finite, the weights stayed as they were."""
        scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.weights if p.grad is not None])
        scaler.step(self.optimizer)
        return norm

    @contextlib.contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """Lend the network as a judge: gradients pass through it and leave none in it."""
        for weight in self.weights:
            weight.requires_grad_(False)
        try:
            yield self.network
        finally:
            for weight in self.weights:
                weight.requires_grad_(True)


@dataclass
class Position:
    """Where a run stands: steps done, and the epoch and batch that come next."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = float("inf")  # lowest validation measure so far
    measure: str = "mel"  # which one that is
    seconds: float = 0.0  # that the run has taken, over all its processes' lives


class Trainer:
    """The networks of a run and what one does with them. All processes call its methods together, but `synthesise`."""

    FILES = {"generator": "G", "discriminator": "D", "duration_discriminator": "DUR"}

    def __init__(self, config: Config, device: torch.device):
        self.config, self.device = config, device
        train, model = config.train, config.model
        self.position = Position()
        precision = choose_precision(train, device)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.autocast = lambda: torch.autocast(device.type, dtype, enabled=dtype is not None)
        # In every precision the scaler leaves out updates with gradients that are not finite, without asking the
        # device. Only fp16 needs a scale above 1.
        self.scales = precision == "fp16"
        settings = {} if self.scales else {"init_scale": 1.0, "growth_interval": 2**31 - 1}
        self.scaler = torch.amp.GradScaler(device.type, **settings)
        logger.info("training on %s in %s, %d process(es)", device, precision, distributed.world_size())
        if train.precision not in ("auto", precision):
            logger.warning("the CPU trains in fp32, not in %s", train.precision)

        fused.enable(train.fused_kernels)

        torch.manual_seed(train.seed)
        self.learners = {
            "generator": Learner(build_generator(config), train, device),
            "discriminator": Learner(build_discriminator(config), train, device),
        }
        if model.use_duration_discriminator:
            self.learners["duration_discriminator"] = Learner(build_duration_discriminator(config), train, device)
            if model.use_sdp:
                logger.warning(
                    "use_duration_discriminator with the stochastic duration predictor (use_sdp) gives unsteady "
                    "rhythm in many users' ears; use_sdp false goes well with it"
                )
        self.set_epoch(0)
        self.generator.network.draw_logw = model.use_duration_discriminator
        set_recompute(self.generator.network, train.recompute)
        self.set_training()
        self.graphs = self.graphed_steps()
        torch.manual_seed(train.seed + distributed.rank())  # each process draws its own noise and segments

    @property
    def generator(self) -> Learner:
        return self.learners["generator"]

    def graphed_steps(self) -> GraphedSteps | None:
        """What captures training steps on a GPU; None where they run as they are written."""
        if self.device.type != "cuda" or not self.config.train.cuda_graphs:
            return None
        on_default = torch.cuda.current_stream(self.device) == torch.cuda.default_stream(self.device)
        if on_default or fastest("cuda") != "triton":
            what = "the current stream is the default one" if on_default else "the alignment search runs on the CPU"
            logger.warning("no CUDA graphs of training steps, because %s", what)
            return None
        return GraphedSteps(self.device, DDP_WARM_UP if distributed.world_size() > 1 else 0)

    def set_epoch(self, epoch: int) -> None:
        """Give every optimizer the learning rate of an epoch."""
        for learner in self.learners.values():
            learner.set_learning_rate(learning_rate(self.config.train, epoch))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One training step on a batch on any device. Returns losses and gradient norms, on the training's device."""
        if self.in_duration_stage() and self.generator.network.enc_p.proj.weight.requires_grad:
            self.enter_duration_stage()
        self.generator.network.anneal_mas_noise(self.position.step)
        if self.graphs is None:
            return self.learn(batch.to(self.device, non_blocking=True))
        noisy = self.generator.network.current_mas_noise_scale > 0
        return self.graphs(self.learn, batch, (noisy, *self.judges()))

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """One update of each discriminator, then one of the generator.

        A random segment of every utterance is decoded; the discriminators learn to tell it from the recording; the
        generator learns from the new discriminators, the mel spectrogram, the prior and the durations.

        In the last stage of VITS2 the duration predictor and its discriminator learn alone (section 2.1).

        With `train.accumulate` the gradients are means over parts of the batch, and the activations of one part at a
        time are kept. The discriminators hear all parts before the generator learns from them, so it passes over each
        part anew, with other noise and segments.
        """
        parts = batch.parts(self.config.train.accumulate)
        whole = self.config.train.accumulate == 1  # not what this batch has: all processes go the same way
        judges = self.judges()
        record = defaultdict(list)

        for part in gathering(parts, judges.values()):
            with torch.set_grad_enabled(whole):
                mel, out = self.generate(part)
            for name, loss in self.judge_losses(part, out):
                judges[name].accumulate(loss / len(parts), self.scaler)
                record[f"loss/{name}/total"].append(loss.detach())
        for name, judge in judges.items():
            record[f"grad_norm_{name}"].append(judge.update(self.scaler))

        for part in gathering(parts, [self.generator]):
            if not whole:
                mel, out = self.generate(part)
            terms = self.generator_losses(part, mel, out)
            self.generator.accumulate(terms["total"] / len(parts), self.scaler)
            for name, loss in terms.items():
                record[f"loss/g/{name}"].append(loss.detach())
        record["grad_norm_g"].append(self.generator.update(self.scaler))
        # outside fp16 the scale stays 1: halved at each update that is left out, it would end at 0
        self.scaler.update(None if self.scales else 1.0)
        return {name: torch.stack(values).mean() for name, values in record.items()}

    def is_best(self, results: dict[str, float]) -> bool:
        """Whether a validation is the best yet: by mel L1 or, in the last stage, which leaves that be, by durations."""
        measure = "duration_error" if self.in_duration_stage() else "mel"
        if measure != self.position.measure:
            self.position.measure, self.position.best = measure, float("inf")
        better = results[measure] < self.position.best
        self.position.best = min(self.position.best, results[measure])
        return better

    def in_duration_stage(self) -> bool:
        """Whether everything but the durations has been learnt."""
        start = self.config.train.duration_stage_start
        return start is not None and self.position.step >= start

    def enter_duration_stage(self) -> None:
        """Freeze the generator around its duration predictor."""
        net = self.generator.network
        net.requires_grad_(False)
        net.dp.requires_grad_(True)
        self.generator.wrapped = distributed.wrap(net, self.device)
        self.graphs = self.graphed_steps()
        self.set_training()

    def set_training(self) -> None:
        """Turn dropout and alignment noise on, in what still learns."""
        self.generator.network.train(not self.in_duration_stage())
        self.generator.network.dp.train()
        for learner in self.learners.values():
            if learner is not self.generator:
                learner.network.train()

    def judges(self) -> dict[str, Learner]:
        """The discriminators that take part in the step, under the names of their numbers in its record."""
        judges = {
            "d": None if self.in_duration_stage() else self.learners["discriminator"],
            "dur_d": self.duration_judge(),
        }
        return {name: judge for name, judge in judges.items() if judge}

    def duration_judge(self) -> Learner | None:
        """The duration discriminator, once it has joined."""
        joined = self.position.step >= self.config.train.duration_discriminator_start
        return self.learners.get("duration_discriminator") if joined else None

    def generate(self, batch: Batch) -> tuple[Tensor, TrainingOutput]:
        """The log-mel of the recordings `[b, bands, t_t]`, and what the generator makes of them and their texts."""
        spec, mel, spec_lengths = self.spectrograms(batch.wav, batch.wav_lengths)
        with self.autocast():
            return mel, self.generator.wrapped(batch.text, batch.text_lengths, spec, spec_lengths, batch.sid)

    def judge_losses(self, batch: Batch, out: TrainingOutput) -> Iterator[tuple[str, Tensor]]:
        """How far each of the judges is from telling real from generated; each listens when its turn comes."""
        judges = self.judges()
        if "d" in judges:
            with self.autocast():
                scores_r, scores_g, _, _ = judges["d"].wrapped(self.real_segments(batch.wav, out), out.o.detach())
            yield "d", losses.discriminator_loss(scores_r, scores_g)[0]
        if "dur_d" in judges:  # every valid token counts the same
            x, logw, logw_ = map(commons.at_least_fp32, out.durations)
            condition = self.duration_condition(batch)
            scores_r, scores_g = judges["dur_d"].wrapped(x, out.x_mask, logw_, logw.detach(), condition)
            yield "dur_d", losses.discriminator_loss(scores_r, scores_g, out.x_mask.transpose(1, 2))[0]

    def generator_losses(self, batch: Batch, mel: Tensor, out: TrainingOutput) -> dict[str, Tensor]:
        """All that the generator learns from in this step, weighted, after their sum, `total`."""
        judges = self.judges()
        terms = self.acoustic_losses(mel, out) if "d" in judges else {}
        terms["dur"] = out.l_length.sum()
        if "d" in judges:
            terms |= self.adversarial_losses(judges["d"], batch, out)
        if "dur_d" in judges:
            terms["dur_gen"] = self.duration_adversarial_loss(judges["dur_d"], batch, out)
        weights = {"mel": self.config.train.c_mel, "kl": self.config.train.c_kl}
        weighted = {name: weights.get(name, 1.0) * loss for name, loss in terms.items()}
        return {"total": torch.stack(list(weighted.values())).sum()} | weighted

    def acoustic_losses(self, mel: Tensor, out: TrainingOutput) -> dict[str, Tensor]:
        """Mel L1 of the decoded segment and KL divergence of the whole utterance; mel `[b, bands, t_t]`."""
        z = out.latents
        mel_slice = commons.slice_segments(mel, out.ids_slice, self.config.segment_frames)
        return {
            "mel": losses.mel_loss(mel_slice, log_mel(out.o.squeeze(1), self.config.data)),
            "kl": losses.kl_loss(z.z_p, z.logs_q, z.m_p, z.logs_p, out.y_mask),
        }

    def adversarial_losses(self, judge: Learner, batch: Batch, out: TrainingOutput) -> dict[str, Tensor]:
        """How far the decoded segment is from passing as real, and from the recording in what the judge hears."""
        with judge.frozen() as network, self.autocast():
            with torch.no_grad():
                _, maps_r = network.judge(self.real_segments(batch.wav, out))
            scores_g, maps_g = network.judge(out.o)
            return {"gen": losses.generator_loss(scores_g)[0], "fm": losses.feature_loss(maps_r, maps_g)}

    def duration_adversarial_loss(self, judge: Learner, batch: Batch, out: TrainingOutput) -> Tensor:
        """How far the predicted durations are from passing as real."""
        x, logw, _ = map(commons.at_least_fp32, out.durations)
        with judge.frozen() as network:
            features = network.text_features(x, out.x_mask, self.duration_condition(batch))
            score = network.score(features, out.x_mask, logw)
        return losses.generator_loss([score], out.x_mask.transpose(1, 2))[0]

    def duration_condition(self, batch: Batch) -> Tensor | None:
        """The speaker for the duration discriminator: in the paper's form only, the reference never gives it."""
        if not self.config.model.use_duration_noise:
            return None
        with torch.no_grad():
            return self.generator.network.speaker(batch.sid)

    def spectrograms(self, wav: Tensor, wav_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The posterior's input and the log-mel of `[b, 1, samples]`, each `[b, c, t_t]`, and lengths in frames."""
        data = self.config.data
        spec, lengths = spectrogram_of_batch(
            wav.squeeze(1), wav_lengths, data.filter_length, data.hop_length, data.win_length
        )
        mel = spec_to_mel_torch(
            spec, data.filter_length, data.n_mel_channels, data.sampling_rate, data.mel_fmin, data.mel_fmax
        )
        return (mel if data.use_mel_posterior_encoder else spec), mel, lengths

    def real_segments(self, wav: Tensor, out: TrainingOutput) -> Tensor:
        """What the recordings `[b, 1, samples]` hold where the generator decoded: `[b, 1, segment]`."""
        return commons.slice_segments(wav, out.ids_slice * self.config.data.hop_length, out.o.size(2))

    @contextlib.contextmanager
    def looking(self) -> Iterator[SynthesizerTrn]:
        """Lend the generator to be looked at, with the same draws each time; the training's own go on untouched."""
        autotunes = torch.backends.cudnn.benchmark
        try:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                # whole utterances come in many lengths, which cuDNN should not try all its algorithms on
                torch.backends.cudnn.benchmark = False
                torch.manual_seed(self.config.train.seed)
                yield self.generator.network.eval()
        finally:
            torch.backends.cudnn.benchmark = autotunes
            self.set_training()

    @torch.no_grad()
    def evaluate(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Measure whole utterances: mel L1 of audio decoded from the posterior, KL, and durations in frames.

        The noise is the same at every call and the training's own draws are untouched. Sums run over all processes,
        so every utterance counts once.
        """
        sums = torch.zeros(6, device=self.device)
        with self.looking() as net:
            for batch in batches:
                batch = batch.to(self.device)
                spec, mel, spec_lengths = self.spectrograms(batch.wav, batch.wav_lengths)
                with self.autocast():
                    out = net(batch.text, batch.text_lengths, spec, spec_lengths, batch.sid)
                    g = net.speaker(batch.sid)
                    o = net.dec(out.latents.z, g)
                    logw = net.predict_durations(out.durations.x, out.x_mask, g, 0.0)
                mel_hat = self.spectrograms(o, batch.wav_lengths)[1]
                z, y_mask, x_mask = out.latents, out.y_mask, out.x_mask
                frames, tokens = y_mask.sum(), x_mask.sum()
                error = ((mel - mel_hat).abs() * y_mask).mean(1).sum()
                kl = losses.kl_loss(z.z_p, z.logs_q, z.m_p, z.logs_p, y_mask) * frames
                w, w_hat = out.attn.sum(2), logw.float().exp() * x_mask
                missed = ((w - w_hat).abs() * x_mask).sum()
                sums += torch.stack([error, kl, frames, missed, tokens, out.l_length.sum() * tokens])
        error, kl, frames, missed, tokens, dur = distributed.sum_over_ranks(sums).tolist()
        return {
            "mel": error / frames,
            "kl": kl / frames,
            "dur": dur / tokens,
            "duration_error": missed / tokens,
        }

    @torch.no_grad()
    def synthesise(self, batch: Batch) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
        """Speak the text of a batch of one recording.

        Returns audio `[samples]`, alignments `[tokens, frames]` of the synthesis and of the recording, and log-mels
        `[bands, frames]` of the recording and of the synthesis.
        """
        with self.looking() as net, self.autocast():
            spec, mel, spec_lengths = self.spectrograms(batch.wav, batch.wav_lengths)
            planned = net.plan(batch.text, batch.text_lengths, batch.sid, noise_scale_w=0.8)
            # an untrained predictor's exponentials fill any memory
            most = (LONGEST_SAMPLE * spec_lengths / batch.text_lengths).ceil()
            durations = planned.durations.nan_to_num(1.0).minimum(most)
            o, attn, _, _ = net.speak(planned._replace(durations=durations), 0.667)
            out = net(batch.text, batch.text_lengths, spec, spec_lengths, batch.sid)
        frames, tokens = int(spec_lengths[0]), int(batch.text_lengths[0])
        alignments = (attn[0, 0, :, :tokens], out.attn[0, 0, :frames, :tokens])
        return (
            o[0, 0].cpu().numpy(),
            tuple(alignment.T.cpu().numpy() for alignment in alignments),
            mel[0, :, :frames].cpu().numpy(),
            log_mel(o.squeeze(1), self.config.data)[0].cpu().numpy(),
        )

    def save(self, folder: Path) -> None:
        """Write a checkpoint of every network; the generator's, which carries the run's state, comes last."""
        state = {
            "position": dataclasses.asdict(self.position),
            "scaler": self.scaler.state_dict() if self.scales else None,
            "random": distributed.gather(random_state(self.device)),
        }
        if distributed.is_main():
            for name in reversed(self.learners):
                more = {"config": dataclasses.asdict(self.config), "state": state} if name == "generator" else {}
                self._write(name, folder / f"{self.FILES[name]}_{self.position.step}.pth", **more)
            checkpoint.prune(folder, self.config.train.keep_checkpoints, self.position.step)

    def save_best(self, folder: Path) -> None:
        """Keep the generator of the best validation apart, without its optimizer."""
        if distributed.is_main():
            best = {"config": dataclasses.asdict(self.config), "step": self.position.step}
            path = folder / "G_best.pth"
            network, epoch = self.generator.network, self.position.epoch
            checkpoint.save_checkpoint(network, None, self.generator.learning_rate, epoch, path, **best)

    def resume(self, folder: Path) -> bool:
        """Go on from a folder's newest checkpoint, if there is one; returns whether there was.

        Files of VITS, which say less about a run, are gone on from at the start of their epoch. Those of step 0, which
        no run writes, are weights and optimizers that somebody put there to begin with.

        Raises:
            ValueError: a file is missing or does not fit; the message names it.
        """
        steps = checkpoint.steps_in(folder)
        if not steps:
            return False
        *earlier, step = steps
        path = folder / f"{self.FILES['generator']}_{step}.pth"
        try:
            self._load(folder, step)
            content = checkpoint.read(path)
        except checkpoint.Unreadable as error:
            if not earlier:
                raise
            raise ValueError(f"{error}. To go on from step {earlier[-1]}, remove the files of step {step}") from None
        checkpoint.refuse_other_flow(content, dataclasses.asdict(self.config.model), str(path))
        state = content.get("state")
        if step == 0:
            self.position = Position()
        elif state is None:
            logger.warning("%s was not written here: random draws and the order of the data start anew", path)
            self.position = Position(step=step, epoch=max(content.get("iteration") or 1, 1) - 1)
        else:
            self.position = Position(**state["position"])
            if self.scales and state["scaler"]:  # a run that went on in another precision has no scale to give
                self.scaler.load_state_dict(state["scaler"])
            if len(state["random"]) == distributed.world_size():
                set_random_state(self.device, state["random"][distributed.rank()])
            else:
                logger.warning("%s was written by %d process(es): random draws start anew", path, len(state["random"]))
        logger.info("resumed from %s at step %d", path, self.position.step)
        return True

    def _load(self, folder: Path, step: int) -> None:
        """Fill networks and optimizers from the files of a step."""
        for name, learner in self.learners.items():
            file = folder / f"{self.FILES[name]}_{step}.pth"
            if not file.exists() and (step == 0 or name == "duration_discriminator"):
                logger.warning("%s does not exist: that network starts anew", file)
                continue
            checkpoint.load_checkpoint(file, learner.network, learner.optimizer)

    def _write(self, name: str, path: Path, **more) -> None:
        learner = self.learners[name]
        checkpoint.save_checkpoint(
            learner.network, learner.optimizer, learner.learning_rate, self.position.epoch + 1, path, **more
        )


def gathering(parts: Sequence[Batch], learners: Collection[Learner]) -> Iterator[Batch]:
    """Hand out the parts of a batch for learners to accumulate gradients, which processes exchange with the last."""
    for learner in learners:
        learner.optimizer.zero_grad(set_to_none=True)
        distributed.settle(learner.wrapped)
    *others, last = parts
    with contextlib.ExitStack() as stack:
        for learner in learners:
            stack.enter_context(distributed.unexchanged(learner.wrapped))
        yield from others
    yield last


def build_generator(config: Config) -> SynthesizerTrn:
    """The generator that a config describes."""
    return SynthesizerTrn.from_config(config, len(table_of_symbols(config.data.extra_symbols)))


def build_discriminator(config: Config) -> nn.Module:
    """The discriminator of waveforms that a config describes."""
    return MultiPeriodDiscriminator(config.model.use_spectral_norm, config.model.discriminator_channels)


def build_duration_discriminator(config: Config) -> nn.Module:
    """The discriminator of durations that a config describes."""
    model = config.model
    gin_channels = model.gin_channels if model.use_duration_noise and config.data.n_speakers else 0
    kind = DURATION_DISCRIMINATORS[model.duration_discriminator_type]
    return kind(model.hidden_channels, model.hidden_channels, 3, 0.1, gin_channels)


def choose_precision(train: TrainConfig, device: torch.device) -> str:
    """fp32, bf16 or fp16: the config's, or what serves the device best. The CPU always trains in fp32."""
    if device.type == "cpu":
        return "fp32"
    if train.precision != "auto":
        return train.precision
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16" if train.fp16_run else "fp32"


def learning_rate(train: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0: exponential decay, after a linear warm-up if there is one."""
    rate = train.learning_rate * train.lr_decay**epoch
    if epoch < train.warmup_epochs:
        rate *= train.init_lr_ratio + (1 - train.init_lr_ratio) * epoch / train.warmup_epochs
    return rate


def random_state(device: torch.device) -> dict[str, Tensor]:
    """This process's random state, on the CPU and on its GPU."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(device: torch.device, state: dict[str, Tensor]) -> None:
    """Go on drawing where `random_state` was taken."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
