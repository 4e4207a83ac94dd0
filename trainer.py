"""Adversarial training of VITS2: the training step and validation."""

import contextlib
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

import commons
import distributed
import losses
from checkpoint import Position
from config import HIGHER_IS_BETTER, Config, TrainConfig
from data_utils import Batch
from decoders import HarmonicVocos
from discriminators import DURATION_DISCRIMINATORS
from durations import dequantize
from kernels import fused
from kernels.step_graphs import DDP_WARM_UP, GraphedSteps
from mel_processing import fundamental_frequency, log_mel, spec_to_mel_torch, spectrogram_of_batch
from models import SynthesizerTrn, TrainingOutput
from modules import set_recompute
from monotonic_align import fastest
from synthesis.speech import Scales
from training.learner import Learner, accumulating, scale_of
from training.networks import build_discriminator, build_duration_discriminator, build_generator

logger = logging.getLogger(__name__)

MAX_SAMPLE_LENGTH = 10  # times the recording's length, for the sample that training synthesizes
PITCH_WEIGHT = 10.0  # of the loss of the predicted fundamental frequency
STFT_WEIGHT = 0.1  # of the losses by the spectrogram discriminators, as in Vocos
NO_SCALE_GROWTH = 2**31 - 1  # steps after which a scaler of 1 would grow
SMALLEST_SPREAD = 1e-6  # of aligned log durations, to divide by
VALIDATION_SUMS = (  # over all frames or tokens of the validation set
    *("frames", "mel_error", "kl", "tokens", "dur", "duration_error"),
    *("predicted", "predicted_squared", "aligned", "aligned_squared"),  # log durations
)


class Spectra(NamedTuple):
    """What training needs of recordings, zero after the end of each.

    y `[b, spec, t_t]` the posterior's input; mel `[b, bands, t_t]` log-mel; lengths `[b]` in frames; f0 `[b, 1, t_t]`
    the fundamental frequency in cycles a sample, 0 where unvoiced, or None if the decoder does not use it.
    """

    y: Tensor
    mel: Tensor
    lengths: Tensor
    f0: Tensor | None


class Sample(NamedTuple):
    """One utterance synthesized during training, beside its recording."""

    audio: np.ndarray  # [samples]
    alignment: np.ndarray  # [tokens, frames], of the synthesis
    aligned: np.ndarray  # [tokens, frames], of the recording
    mel: np.ndarray  # [bands, frames], log-mel of the recording
    mel_hat: np.ndarray  # [bands, frames], log-mel of the synthesis


class Trainer:
    """The networks of a run, its training step and its validation. All processes call each method together."""

    def __init__(self, config: Config, device: torch.device):
        self.config, self.device = config, device
        train, model = config.train, config.model
        self.position = Position()
        precision = choose_precision(train, device)
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        # In every precision the scaler skips updates with gradients that are not finite, without a host
        # synchronization. Only fp16 needs a scale above 1.
        self.scales = precision == "fp16"
        if self.scales:
            self.scaler = torch.amp.GradScaler(device.type)
        else:
            self.scaler = torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=NO_SCALE_GROWTH)
        logger.info("training on %s in %s, %d process(es)", device, precision, distributed.world_size())
        if train.precision not in ("auto", precision):
            logger.warning("the CPU trains in fp32, not in %s", train.precision)

        torch.manual_seed(train.seed)
        self.learners: dict[str, Learner[Any]] = {
            "generator": Learner(build_generator(config), train, device, train.lr_scale),
            "discriminator": Learner(build_discriminator(config), train, device),
        }
        if model.use_duration_discriminator:
            self.learners["duration_discriminator"] = Learner(build_duration_discriminator(config), train, device)
            if not DURATION_DISCRIMINATORS[model.duration_discriminator_type].nonlinear:
                logger.warning(
                    "dur_disc_1 is linear and learns nothing: set model.duration_discriminator_type dur_disc_3"
                )
            if model.use_sdp:
                logger.warning(
                    "users report unsteady rhythm with use_duration_discriminator and the stochastic duration "
                    "predictor; set use_sdp to false"
                )
        for learner in self.learners.values():
            fused.enable(learner.network, train.fused_kernels)
        self.set_epoch(0)
        self.generator.network.draw_logw = model.use_duration_discriminator
        set_recompute(self.generator.network, train.recompute)
        self.learning: tuple[str, ...] = ("",)  # see `learning_parts`
        self.set_training()
        self.graphs = self.graphed_steps()
        torch.manual_seed(train.seed + distributed.rank())  # each process draws its own noise and segments

    @property
    def generator(self) -> Learner[SynthesizerTrn]:
        """The generator's learner."""
        return self.learners["generator"]

    def autocast(self) -> torch.autocast:
        """Return a context of the training's precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def graphed_steps(self) -> GraphedSteps | None:
        """Return the object that captures training steps on a GPU, or None if they run eagerly."""
        if self.device.type != "cuda" or not self.config.train.cuda_graphs:
            return None
        on_default = torch.cuda.current_stream(self.device) == torch.cuda.default_stream(self.device)
        if on_default or fastest("cuda") != "triton":
            reason = "the current stream is the default one" if on_default else "the alignment search runs on the CPU"
            logger.warning("training steps are not captured as CUDA graphs, because %s", reason)
            return None
        return GraphedSteps(self.device, DDP_WARM_UP if distributed.world_size() > 1 else 0)

    def set_epoch(self, epoch: int) -> None:
        """Set every optimizer's learning rate for an epoch."""
        for learner in self.learners.values():
            learner.set_learning_rate(learning_rate(self.config.train, epoch))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Do one training step on a batch on any device. Returns losses and gradient norms, on the training device."""
        if (parts := self.learning_parts()) != self.learning:
            self.enter_stage(parts)
        self.generator.network.anneal_mas_noise(self.position.step)
        if self.graphs is None:
            record = self.learn(batch.to(self.device, non_blocking=True))
        else:
            noisy = self.generator.network.current_mas_noise_scale > 0
            record = self.graphs(self.learn, batch, (noisy, *self.discriminators()))
        if self.config.train.ema:
            self.generator.update_average(self.config.train.ema, self.position.step)
        return record

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """Update each discriminator once, then the generator once (VITS, section 2.3; VITS2, section 2.1).

        The generator decodes a random segment of every utterance. The discriminators learn to tell it from the
        recording. The generator learns from the updated discriminators, the mel loss, the KL divergence and the
        duration loss. In the last stage of VITS2 only the duration predictor and its discriminator learn.

        With `train.accumulate` the gradients are means over parts of the batch, and only one part's activations are
        kept at a time. The discriminators see all parts before the generator learns from them, so each part passes
        through the generator twice, with different noise and segments.
        """
        parts = batch.parts(self.config.train.accumulate)
        whole = self.config.train.accumulate == 1  # by the config, not by this batch: all processes do the same
        discriminators = self.discriminators()
        record: dict[str, list[Tensor]] = defaultdict(list)

        for part in accumulating(parts, discriminators.values()):
            with torch.set_grad_enabled(whole):
                spectra, out = self.generate(part)
            for name, loss in self.discriminator_losses(part, out):
                discriminators[name].accumulate(loss / len(parts), self.scaler)
                record[f"loss/{name}/total"].append(loss.detach())
        for name, discriminator in discriminators.items():
            record[f"grad_norm_{name}"].append(discriminator.update(self.scaler))

        for part in accumulating(parts, [self.generator]):
            if not whole:
                spectra, out = self.generate(part)
            terms = self.generator_losses(part, spectra, out)
            self.generator.accumulate(terms["total"] / len(parts), self.scaler)
            for name, loss in terms.items():
                record[f"loss/g/{name}"].append(loss.detach())
        record["grad_norm_g"].append(self.generator.update(self.scaler))
        # without fp16 the scale stays 1; otherwise each skipped update would halve it
        self.scaler.update(None if self.scales else 1.0)
        return {name: torch.stack(values).mean() for name, values in record.items()}

    def best_measure(self) -> str:
        """Return the name of the measure by which `G_best.pth` is chosen."""
        if self.config.train.best != "auto":
            return self.config.train.best
        return "duration_error" if self.in_duration_stage() else "mel"

    def update_best(self, results: dict[str, float]) -> bool:
        """Record a measurement. Return whether its `best_measure`, if it has that, is better than all before it."""
        measure, position = self.best_measure(), self.position
        if measure not in results:
            return False
        if measure != position.measure:
            position.measure, position.best, position.waited = measure, float("inf"), 0
        value = -results[measure] if measure in HIGHER_IS_BETTER else results[measure]
        better = value < position.best
        position.best = min(position.best, value)
        position.waited = 0 if better else position.waited + 1
        return better

    def is_exhausted(self) -> bool:
        """Return whether `train.patience` measurements have not been better. Processes agree."""
        patience = self.config.train.patience
        exhausted = patience is not None and self.position.waited >= patience
        return distributed.sum_over_ranks(torch.tensor(float(exhausted), device=self.device)).item() > 0

    def in_duration_stage(self) -> bool:
        """Return whether training has reached the last stage, in which only durations are learned."""
        start = self.config.train.duration_stage_start
        return start is not None and self.position.step >= start

    def learning_parts(self) -> tuple[str, ...]:
        """Return the beginnings of the names of the generator's weights that learn at the current step.

        The durations learn in the last stage, `train.warm_up_parts` in the first one, and all in between.
        """
        train = self.config.train
        if self.position.step < (train.warm_up_steps or 0):
            return tuple(train.warm_up_parts)
        return ("dp.",) if self.in_duration_stage() else ("",)

    def enter_stage(self, parts: tuple[str, ...]) -> None:
        """Freeze the generator except for the weights whose names begin with `parts`."""
        net, scales = self.generator.network, self.config.train.lr_scale
        if self.generator.average and self.position.step == self.config.train.duration_stage_start:
            with torch.no_grad():  # freeze the weights that synthesis uses
                torch._foreach_copy_(self.generator.weights, self.generator.average)
        for name, weight in net.named_parameters():
            weight.requires_grad_(name.startswith(parts) and scale_of(name, scales) > 0)
            weight.grad = None
        self.learning = parts
        self.generator.wrapped = distributed.wrap(net, self.device)
        self.graphs = self.graphed_steps()
        self.set_training()

    def set_training(self) -> None:
        """Switch the networks that learn to training mode: dropout and alignment noise."""
        net = self.generator.network.train(not self.in_duration_stage())
        for part in net.children():
            part.train(any(weight.requires_grad for weight in part.parameters()))
        for learner in self.learners.values():
            if learner is not self.generator:
                learner.network.train()

    def discriminators(self) -> dict[str, Learner[Any]]:
        """Return the discriminators of the current step, by the names of their losses in its record."""
        active = {} if self.in_duration_stage() else {"d": self.learners["discriminator"]}
        started = self.position.step >= self.config.train.duration_discriminator_start
        if started and "duration_discriminator" in self.learners:
            active["dur_d"] = self.learners["duration_discriminator"]
        return active

    def generate(self, batch: Batch) -> tuple[Spectra, TrainingOutput]:
        """Return the spectra of the recordings and the generator's output."""
        spectra = self.spectra(batch.wav, batch.wav_lengths)
        given = batch.text, batch.text_lengths, spectra.y, spectra.lengths, batch.conditions, spectra.f0
        with self.autocast():
            return spectra, self.generator.wrapped(*given)

    def discriminator_losses(self, batch: Batch, out: TrainingOutput) -> Iterator[tuple[str, Tensor]]:
        """Yield name and loss of each discriminator; each is computed when it is requested."""
        discriminators = self.discriminators()
        if "d" in discriminators:
            with self.autocast():
                real = self.real_segments(batch.wav, out)
                scores_r, scores_g, _, _ = discriminators["d"].wrapped(real, out.o.detach())
            yield "d", losses.discriminator_loss(scores_r, scores_g)[0]
        if "dur_d" in discriminators:  # the mean over all valid tokens
            x, logw, logw_ = map(commons.at_least_fp32, cast(tuple[Tensor, Tensor, Tensor], out.durations))
            if discriminators["dur_d"].network.dequantizes:
                logw_ = dequantize(logw_, out.x_mask)
            condition = self.duration_condition(batch)
            scores_r, scores_g = discriminators["dur_d"].wrapped(x, out.x_mask, logw_, logw.detach(), condition)
            yield "dur_d", losses.discriminator_loss(scores_r, scores_g, out.x_mask.transpose(1, 2))[0]

    def generator_losses(self, batch: Batch, spectra: Spectra, out: TrainingOutput) -> dict[str, Tensor]:
        """Return the generator's weighted losses by name, after their sum `total`."""
        discriminators = self.discriminators()
        terms = self.acoustic_losses(batch, spectra, out) if "d" in discriminators else {}
        terms["dur"] = out.l_length.sum()
        if "d" in discriminators:
            terms |= self.adversarial_losses(discriminators["d"], batch, out)
        if "dur_d" in discriminators:
            terms["dur_gen"] = self.duration_adversarial_loss(discriminators["dur_d"], batch, out)
        train = self.config.train
        weights = {"mel": train.c_mel, "kl": train.c_kl, "stft": train.c_stft}
        weights |= {"gen_stft": STFT_WEIGHT, "fm_stft": STFT_WEIGHT, "pitch": PITCH_WEIGHT}
        weighted = {name: weights.get(name, 1.0) * loss for name, loss in terms.items()}
        return {"total": torch.stack(list(weighted.values())).sum()} | weighted

    def acoustic_losses(self, batch: Batch, spectra: Spectra, out: TrainingOutput) -> dict[str, Tensor]:
        """Return the distances of the decoded segment to the recording.

        The KL divergence and the error of the fundamental frequency, if the decoder predicts it, are those of the whole
        utterance. `spectra` are those of the recordings.
        """
        z, y_hat = out.latents, out.o.squeeze(1)
        mel_slice = commons.slice_segments(spectra.mel, out.ids_slice, self.config.segment_frames)
        terms = {
            "mel": losses.mel_loss(mel_slice, log_mel(y_hat, self.config.data)),
            "kl": losses.kl_loss(z.z_p, z.logs_q, z.m_p, z.logs_p, out.y_mask),
        }
        if self.config.train.c_stft:
            terms["stft"] = losses.stft_loss(self.real_segments(batch.wav, out).squeeze(1), y_hat)
        if spectra.f0 is not None:
            net = self.generator.network
            with self.autocast():
                g = net.condition(batch.conditions)
                terms["pitch"] = cast(HarmonicVocos, net.dec).pitch_loss(z.z, out.y_mask, g, spectra.f0)
        return terms

    def adversarial_losses(self, discriminator: Learner[Any], batch: Batch, out: TrainingOutput) -> dict[str, Tensor]:
        """Return the adversarial and the feature matching losses of the decoded segment."""
        with discriminator.frozen() as network, self.autocast():
            with torch.no_grad():
                _, maps_r = network.discriminate(self.real_segments(batch.wav, out))
            scores_g, maps_g = network.discriminate(out.o)
            n, terms = network.n_waveform, {}
            for name, part in (("", slice(n)), ("_stft", slice(n, None))):
                if scores_g[part]:
                    terms[f"gen{name}"] = losses.generator_loss(scores_g[part])[0]
                    terms[f"fm{name}"] = losses.feature_loss(
                        maps_r[part], maps_g[part], self.config.train.fused_kernels
                    )
            return terms

    def duration_adversarial_loss(self, discriminator: Learner[Any], batch: Batch, out: TrainingOutput) -> Tensor:
        """Return the adversarial loss of the predicted durations (VITS2, equation 2)."""
        x, logw, _ = map(commons.at_least_fp32, cast(tuple[Tensor, Tensor, Tensor], out.durations))
        with discriminator.frozen() as network:
            features = network.text_features(x, out.x_mask, self.duration_condition(batch))
            score = network.score(features, out.x_mask, logw)
        return losses.generator_loss([score], out.x_mask.transpose(1, 2))[0]

    def duration_condition(self, batch: Batch) -> Tensor | None:
        """Return g for the duration discriminator in the paper's form; the reference never conditions it."""
        if not self.config.model.use_duration_noise:
            return None
        with torch.no_grad():
            return self.generator.network.condition(batch.conditions)

    def spectra(self, wav: Tensor, wav_lengths: Tensor) -> Spectra:
        """Compute what training needs of recordings `[b, 1, samples]`."""
        data = self.config.data
        spec, mel, lengths = self.spectrograms(wav, wav_lengths)
        uses_f0 = isinstance(self.generator.network.dec, HarmonicVocos)
        f0 = fundamental_frequency(spec, data.sampling_rate) / data.sampling_rate if uses_f0 else None
        return Spectra(mel if data.use_mel_posterior_encoder else spec, mel, lengths, f0)

    def spectrograms(self, wav: Tensor, wav_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the linear and log-mel spectrograms of `[b, 1, samples]`, `[b, c, t_t]` each, and frame counts."""
        data = self.config.data
        spec, lengths = spectrogram_of_batch(
            wav.squeeze(1), wav_lengths, data.filter_length, data.hop_length, data.win_length
        )
        mel = spec_to_mel_torch(
            spec, data.filter_length, data.n_mel_channels, data.sampling_rate, data.mel_fmin, data.mel_fmax
        )
        return spec, mel, lengths

    def real_segments(self, wav: Tensor, out: TrainingOutput) -> Tensor:
        """Cut from recordings `[b, 1, samples]` the segments that the generator decoded, `[b, 1, segment]`."""
        return commons.slice_segments(wav, out.ids_slice * self.config.data.hop_length, out.o.size(2))

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[SynthesizerTrn]:
        """Yield the generator in evaluation mode with its averaged weights and the same random draws each time.

        Afterwards restore training.
        """
        autotunes = torch.backends.cudnn.benchmark
        try:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                # whole utterances have many lengths, and autotuning each would be slow
                torch.backends.cudnn.benchmark = False
                torch.manual_seed(self.config.train.seed)
                with self.generator.averaged() as net:
                    yield net.eval()
        finally:
            torch.backends.cudnn.benchmark = autotunes
            self.set_training()

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Measure whole utterances: mel L1 of audio decoded from the posterior, KL divergence, and durations in frames.

        `duration_std_ratio` is the standard deviation of predicted log durations divided by that of the aligned ones.
        The noise is the same at every call. Sums run over all processes, so every utterance counts once.
        """
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        with self.evaluating() as net:
            for batch in batches:
                for name, value in self._validation_sums(net, batch.to(self.device)).items():
                    sums[name] += value
        totals = distributed.sum_over_ranks(torch.stack([sums[name] for name in VALIDATION_SUMS])).tolist()
        total = dict(zip(VALIDATION_SUMS, totals))
        frames, tokens = total["frames"], total["tokens"]
        predicted, aligned = (
            math.sqrt(max(total[f"{name}_squared"] / tokens - (total[name] / tokens) ** 2, 0))
            for name in ("predicted", "aligned")
        )
        return {
            "mel": total["mel_error"] / frames,
            "kl": total["kl"] / frames,
            "dur": total["dur"] / tokens,
            "duration_error": total["duration_error"] / tokens,
            "duration_std_ratio": predicted / max(aligned, SMALLEST_SPREAD),
        }

    def _validation_sums(self, net: SynthesizerTrn, batch: Batch) -> dict[str, Tensor]:
        """Return sums over the frames and tokens of a batch, by the names in `VALIDATION_SUMS`."""
        spectra = self.spectra(batch.wav, batch.wav_lengths)
        mel = spectra.mel
        with self.autocast():
            out = net(batch.text, batch.text_lengths, spectra.y, spectra.lengths, batch.conditions)
            g = net.condition(batch.conditions)
            o = net.dec(net.dec.excite(out.latents.z, out.y_mask, g), g)
            x, logw_ = out.durations.x, out.durations.logw_
            mean = net.predict_durations(x, out.x_mask, g, 0.0).float()
            logw = net.predict_durations(x, out.x_mask, g, Scales().noise_scale_w).float()
        mel_hat = self.spectrograms(o, batch.wav_lengths)[1]
        z, y_mask, x_mask = out.latents, out.y_mask, out.x_mask
        frames, tokens = y_mask.sum(), x_mask.sum()
        w = out.attn.sum(2)
        return {
            "frames": frames,
            "tokens": tokens,
            "mel_error": ((mel - mel_hat).abs() * y_mask).mean(1).sum(),
            "kl": losses.kl_loss(z.z_p, z.logs_q, z.m_p, z.logs_p, y_mask) * frames,
            "dur": out.l_length.sum() * tokens,
            "duration_error": ((w - mean.exp()).abs() * x_mask).sum(),
            "predicted": (logw * x_mask).sum(),
            "predicted_squared": (logw.square() * x_mask).sum(),
            "aligned": (logw_ * x_mask).sum(),
            "aligned_squared": (logw_.square() * x_mask).sum(),
        }

    @torch.no_grad()
    def synthesize(self, batch: Batch) -> Sample:
        """Synthesize the text of a batch of one recording, in one process."""
        scales = Scales()
        with self.evaluating() as net, self.autocast():
            spectra = self.spectra(batch.wav, batch.wav_lengths)
            mel, spec_lengths = spectra.mel, spectra.lengths
            planned = net.plan(batch.text, batch.text_lengths, batch.conditions, noise_scale_w=scales.noise_scale_w)
            # the durations of an untrained predictor may exceed any memory
            longest = (MAX_SAMPLE_LENGTH * spec_lengths / batch.text_lengths).ceil()
            durations = planned.durations.nan_to_num(1.0).minimum(longest)
            o, attn, _, _ = net.speak(planned._replace(durations=durations), scales.noise_scale)
            out = net(batch.text, batch.text_lengths, spectra.y, spec_lengths, batch.conditions, spectra.f0)
        frames, tokens = int(spec_lengths[0]), int(batch.text_lengths[0])
        return Sample(
            audio=o[0, 0].cpu().numpy(),
            alignment=attn[0, 0, :, :tokens].T.cpu().numpy(),
            aligned=out.attn[0, 0, :frames, :tokens].T.cpu().numpy(),
            mel=mel[0, :, :frames].cpu().numpy(),
            mel_hat=log_mel(o.squeeze(1), self.config.data)[0].cpu().numpy(),
        )


def choose_precision(train: TrainConfig, device: torch.device) -> str:
    """Return fp32, bf16 or fp16: the config's, or for auto bf16 if the GPU has it. The CPU always trains in fp32."""
    if device.type == "cpu":
        return "fp32"
    if train.precision != "auto":
        return train.precision
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16" if train.fp16_run else "fp32"


def learning_rate(train: TrainConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0: linear warm-up, if any, then exponential decay."""
    rate = train.learning_rate * train.lr_decay**epoch
    if epoch < train.warmup_epochs:
        rate *= train.init_lr_ratio + (1 - train.init_lr_ratio) * epoch / train.warmup_epochs
    return rate
