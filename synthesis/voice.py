"""Synthesis with PyTorch: text to speech and voice conversion with trained checkpoints.

`Voice.load("logs/NAME").speak("Hello.")` is sufficient for most callers. The network synthesizes in three steps: `plan`
(text encoder and durations), `latent` (prior and flow) and `dec` (decoder).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import soxr
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import checkpoint
import config as configs
from audio import load_audio
from cli import did_you_mean
from conditions import CONDITIONS, Bundle, Values, resolve
from config import Config
from files import PRETRAINED, RUNS, VOICE, pretrained_voice
from kernels.convolutions import lay_out
from mel_processing import log_mel, spectrogram_torch
from models import SynthesizerTrn
from modules import remove_weight_norm
from synthesis.graphs import GraphedNet
from synthesis.speech import BaseVoice, Latent, Scales, Seeds, check_seed

logger = logging.getLogger(__name__)

# Speech has 5 to 10 frames per token. An untrained predictor asks for far more, which would fill any memory.
MAX_FRAMES_PER_TOKEN = 200
GPU_BATCH = 64  # pieces that pass the text encoder and the flow together on a GPU
MAX_DECODED = 1 << 14  # frames that a GPU decodes at once: HiFi-GAN takes up to 100 kB for each


class MissingPosterior(nn.Module):
    """The posterior encoder of a voice without one, such as an imported voice of Piper, which can only speak."""

    def forward(self, *inputs: object) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(
            "this voice has no posterior encoder, which reads recordings: it speaks, but it does not convert voices "
            "or align recordings. Training with --init-from adds one"
        )


class ItemDraws(TorchFunctionMode):
    """Gives each item of a batch the noise that it would have alone: drawn with its own seed, for its own length.

    Set `lengths` to those of the items before each step of the network; noise beyond them is 0.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device):
        super().__init__()
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.lengths: Sequence[int] = ()

    def __torch_function__(
        self, function: Callable[..., Any], types: object, args: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch, or draw noise of the same shape, memory layout and type `[b, c, t]`."""
        if function not in (torch.randn, torch.randn_like):
            return function(*args, **(options or {}))
        like = args[0] if function is torch.randn_like else torch.empty(*args, **(options or {}))
        noise = torch.zeros_like(like)
        for i, (generator, length) in enumerate(zip(self.generators, self.lengths)):
            item = like[i : i + 1, :, :length]
            noise[i : i + 1, :, :length] = torch.empty_like(item).normal_(generator=generator)
        return noise


class Voice(BaseVoice):
    """A trained network with its config. `load` reads it from a checkpoint."""

    n_vocab: int

    def __init__(
        self, net: SynthesizerTrn, config: Config, step: int | None = None, graphs: bool = True, half: bool = True
    ):
        super().__init__(config.data, net.enc_p.emb.num_embeddings, step)
        remove_weight_norm(net).eval().requires_grad_(False)
        self.net, self.config = net, config
        self.context = net.dec.context
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            lay_out(net)
            self.batch = GPU_BATCH
        self.half = net.dec.half_copy() if half and on_gpu else None
        self.graphed = GraphedNet(net, self.half) if graphs and on_gpu else None

    @classmethod
    def load(
        cls,
        path: str | Path = PRETRAINED.name,
        config_path: str | Path | None = None,
        device: str = "cpu",
        graphs: bool = True,
        half: bool = True,
    ) -> "Voice":
        """Load a voice.

        Args:
            path: a run's folder or its name in `logs`, whose newest `G_STEP.pth` is loaded, or a checkpoint; by default
                the pretrained voice.
            config_path: config file; by default the config in the checkpoint, or `config.json` beside it.
            device: "cpu", "cuda", "cuda:1", or "auto" for a GPU if there is one.
            graphs: on a GPU, use CUDA graphs. They are several times faster after the first sentence of a length.
            half: on a GPU, decode in fp16, which is faster and about as accurate as TF32. Audio for which fp16
                overflows is decoded again in fp32. Voice conversion stays in fp32.

        If the weights of the posterior encoder are in a second file, they are read when they are first used.

        Raises ValueError if there is no such file, it is of another kind, it has no config, or its weights do not fit.
        """
        file, place = find_checkpoint(path), find_device(device)
        content = checkpoint.read(file)
        config = _find_config(file, content, config_path)
        weights = checkpoint.voice_weights(content)
        embedding = weights.get("enc_p.emb.weight")
        n_vocab = 1 if embedding is None else len(embedding)  # without it, load_weights reports what the file holds
        with torch.random.fork_rng([]):  # the initial weights are drawn and replaced
            net = SynthesizerTrn.from_config(config, n_vocab)
        if checkpoint.rest_of(file):
            _read_posterior_later(net, file, content)
        elif not any(name.startswith(checkpoint.POSTERIOR) for name in weights):
            net.add_module("enc_q", MissingPosterior())
        checkpoint.load_weights(net, weights, str(file), speech=True)
        checkpoint.refuse_other_flow(content, asdict(config.model), str(file))
        step = content.get("step", checkpoint.step_of(file))
        return cls(net.to(place), config, step if step >= 0 else None, graphs, half)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.net.enc_p.emb.weight.device

    @property
    def has_posterior(self) -> bool:
        """Whether the voice can read recordings: to convert them, and to align them with a text."""
        return not isinstance(self.net.enc_q, MissingPosterior)

    def example_conditions(self) -> Values:
        """Return a valid value of each condition, such as the first speaker: for export and measurements."""
        return {name: CONDITIONS[name].example(size) for name, size in self.net.conditions.items()}

    def convert(
        self,
        sound: str | Path | np.ndarray,
        source: str | int,
        target: str | int,
        sampling_rate: int | None = None,
        seed: int | None = None,
        conditions: Mapping[str, Any] | None = None,
    ) -> np.ndarray:
        """Convert a recording of speaker `source` to the voice of speaker `target` (VITS, section 4.4).

        `sound` is a file, or mono samples `[samples]`, float from -1 to 1, at `sampling_rate` in Hz; None is the
        voice's own rate. `seed` and `conditions` are as in `speak`. Returns audio at the voice's sampling rate, float32
        `[samples]`, a whole number of hops. Raises ValueError for a single-speaker voice, an unknown speaker, or a
        recording that is unreadable, not finite or shorter than a hop.
        """
        if not self.data.n_speakers:
            raise ValueError("voice conversion needs a model of several speakers, and this model has a single voice")
        check_seed(seed)
        values = [resolve({**(conditions or {}), "sid": speaker}, self.data) for speaker in (source, target)]
        spec = self.posterior_input(self._samples(sound, sampling_rate))
        lengths = torch.tensor([spec.size(2)], device=self.device)
        with self._lock, self._draws(seed), torch.inference_mode():
            audio = self.net.voice_conversion(spec, lengths, *(self.bundle(value, 1) for value in values))[0]
        return audio[0, 0].cpu().numpy()

    def posterior_input(self, samples: np.ndarray) -> Tensor:
        """Return the posterior encoder's input `[1, spec, t]` for samples `[samples]`, on the voice's device."""
        wav = torch.from_numpy(np.ascontiguousarray(samples, np.float32)).to(self.device).unsqueeze(0)
        data = self.data
        if data.use_mel_posterior_encoder:
            return log_mel(wav, data)
        return spectrogram_torch(wav, data.filter_length, data.sampling_rate, data.hop_length, data.win_length)

    def _samples(self, sound: str | Path | np.ndarray, sampling_rate: int | None) -> np.ndarray:
        """Return a recording as samples `[samples]` at the voice's rate. Raises ValueError as `convert`."""
        name = "the recording"
        if isinstance(sound, (str, Path)):
            samples, name = load_audio(sound, self.sampling_rate), str(sound)
        else:
            samples = np.asarray(sound)
            if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
                raise ValueError(f"expected mono float samples, got {samples.dtype} of shape {samples.shape}")
            if sampling_rate not in (None, self.sampling_rate):
                samples = soxr.resample(samples, sampling_rate, self.sampling_rate, quality="HQ")
        if len(samples) < self.data.hop_length:
            raise ValueError(f"{name}: {len(samples)} samples are too short to convert")
        if not np.isfinite(samples).all():
            raise ValueError(f"{name} contains NaN or infinity")
        return samples

    def bundle(self, values: Values, n: int) -> Bundle:
        """Repeat the values of the conditions for a batch of `n`, on the voice's device."""
        return {name: torch.from_numpy(np.stack([value] * n)).to(self.device) for name, value in values.items()}

    @torch.inference_mode()
    def _latents(self, tokens: list[list[int]], values: Values, scales: Scales, seeds: Seeds) -> list[Latent]:
        given = [seed for seed in seeds if seed is not None]
        if len(given) > 1:
            with ItemDraws(given, self.device) as draws:
                return self._drawn_latents(tokens, values, scales, draws)
        with self._draws(given[0] if given else None):
            return self._drawn_latents(tokens, values, scales)

    def _drawn_latents(
        self, tokens: list[list[int]], values: Values, scales: Scales, draws: ItemDraws | None = None
    ) -> list[Latent]:
        lengths = [len(t) for t in tokens]
        if draws:
            draws.lengths = lengths
        x = torch.tensor([t + [0] * (max(lengths) - len(t)) for t in tokens], device=self.device)
        x_lengths = torch.tensor(lengths, device=self.device)
        net = self.graphed or self.net
        planned = net.plan(x, x_lengths, self.bundle(values, len(tokens)), scales.length_scale, scales.noise_scale_w)
        durations = planned.durations.cpu().numpy()
        for total, length in zip(durations.sum(1), lengths):
            if not total <= MAX_FRAMES_PER_TOKEN * length:  # also true for NaN
                seconds = total * self.data.hop_length / self.sampling_rate
                asked = f"the duration predictor asks for {seconds:.0f} seconds for {length} tokens"
                cause = f"the checkpoint is hardly trained, or length_scale ({scales.length_scale}) is too large"
                raise ValueError(f"{asked}: {cause}")
        frames = [max(1, int(d.sum())) for d in durations]
        if draws:
            draws.lengths = frames
        z = net.latent(planned, scales.noise_scale, max(frames))[0]
        g = None if planned.g is None else planned.g[:1]
        d = [durations[i, :length].astype(np.int64) for i, length in enumerate(lengths)]
        return [Latent((z[i : i + 1], g), frames[i], d[i]) for i in range(len(tokens))]

    @torch.inference_mode()
    def _decode(self, latent: Latent, start: int, end: int) -> np.ndarray:
        z, g = latent.content
        z = z[:, :, start:end]  # without the padding of the batch, on which the last frames would depend
        decode = self.graphed.dec if self.graphed else self.half or self.net.dec
        audio = decode(z, g)[0, 0].cpu().numpy()
        if self.half is None or np.isfinite(audio).all():
            return audio
        exact = self.net.dec(z, g)[0, 0].cpu().numpy()
        if np.isfinite(exact).all():
            logger.warning("fp16 overflowed, so the audio was decoded again in fp32; half=False (--fp32) avoids that")
        return exact

    def _decode_whole(self, latents: list[Latent]) -> list[np.ndarray]:
        count = MAX_DECODED // max(latent.frames for latent in latents)
        if self.device.type == "cpu" or count < 2 or min(latent.frames for latent in latents) <= 2 * self.context:
            return super()._decode_whole(latents)
        batches = [latents[begin : begin + count] for begin in range(0, len(latents), count)]
        return [audio for batch in batches for audio in self._decode_together(batch)]

    @torch.inference_mode()
    def _decode_together(self, latents: list[Latent]) -> list[np.ndarray]:
        """Decode latents of more than `2 * context` frames in two passes.

        The last frames of a shorter latent would depend on its padding. Therefore the second pass decodes the ends of
        all latents again, with the frames before them.
        """
        end, lengths = 2 * self.context, [latent.frames for latent in latents]
        zs, g = [latent.content[0] for latent in latents], latents[0].content[1]
        g = None if g is None else g.expand(len(zs), -1, -1)
        decode = self.half or self.net.dec
        audios = decode(torch.cat([z[:, :, : max(lengths)] for z in zs]), g)[:, 0].cpu().numpy()
        ends = decode(torch.cat([z[:, :, n - end : n] for z, n in zip(zs, lengths)]), g)[:, 0].cpu().numpy()
        hop = self.data.hop_length
        for audio, last, n in zip(audios, ends, lengths):
            audio[(n - self.context) * hop : n * hop] = last[self.context * hop :]
        made = [audio[: n * hop] for audio, n in zip(audios, lengths)]
        whole = [np.isfinite(audio).all() for audio in made]
        return [audio if ok else self._decode(x, 0, x.frames) for audio, ok, x in zip(made, whole, latents)]

    @contextmanager
    def _draws(self, seed: int | None) -> Iterator[None]:
        """Let random draws follow from the seed, and restore the global random state. None changes nothing."""
        if seed is None:
            yield
            return
        gpus = [self.device] if self.device.type == "cuda" else []
        # by generator, because torch.manual_seed changes the state of every GPU
        generators = [torch.random.default_generator, *(torch.cuda.default_generators[gpu.index] for gpu in gpus)]
        with torch.random.fork_rng(gpus):
            for generator in generators:
                generator.set_state(torch.Generator(generator.device).manual_seed(seed).get_state())
            yield


def _read_posterior_later(net: SynthesizerTrn, file: Path, content: dict[str, Any]) -> None:
    """Let the first use of the posterior encoder read its weights from the second file of a voice.

    `content` is that of the first. The use raises ValueError if the second is damaged or of another voice.
    """
    step = content.get("step")  # the hook does not keep the weights

    def read(encoder: nn.Module, _inputs: object) -> None:
        rest, more = checkpoint.read_rest(file, step)
        prefix = checkpoint.POSTERIOR
        weights = {name.removeprefix(prefix): x for name, x in more["model"].items() if name.startswith(prefix)}
        checkpoint.load_weights(encoder, weights, str(rest))
        hook.remove()

    hook = net.enc_q.register_forward_pre_hook(read)


def find_checkpoint(path: str | Path) -> Path:
    """Return the generator's file for a run's folder, for its name in `logs`, or for the file itself.

    "pretrained" is the pretrained voice. Raises ValueError, naming the nearest run, if there is none.
    """
    path = Path(path)
    if path == Path(PRETRAINED.name):
        return pretrained_voice()
    empty = []
    for folder in (path, RUNS / path):  # a folder without checkpoints must not hide a run of the same name
        if folder.is_file():
            return folder
        if folder.is_dir():
            with suppress(ValueError):
                return Path(checkpoint.latest_checkpoint_path(folder))
            for name in ("G_best.pth", VOICE):
                if (folder / name).is_file():
                    return folder / name
            empty.append(folder)
    if empty:
        raise ValueError(f"{empty[-1]} holds no checkpoint G_*.pth")
    runs = [run.name for run in RUNS.iterdir() if run.is_dir()] if RUNS.is_dir() else []
    raise ValueError(f"there is no checkpoint or run {path}, here or in {RUNS}/{did_you_mean(path.name, runs)}")


def find_device(name: str) -> torch.device:
    """Return a device by name; "auto" is a GPU if there is one. Raises ValueError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"there is no device {name!r}: use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"synthesis does not run on {name!r}: use auto, cpu or cuda")
    if device.type == "cpu":
        return device
    if (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {name!r}: PyTorch sees {torch.cuda.device_count()} CUDA GPUs")
    return torch.device("cuda", device.index or 0)


def _find_config(file: Path, content: dict[str, Any], config_path: str | Path | None) -> Config:
    """Return the config at `config_path`, in the checkpoint or beside it. Raises ValueError if there is none."""
    if config_path is None:
        if isinstance(content.get("config"), dict):
            return configs.from_dict(content["config"], str(file))
        config_path = file.with_name("config.json")
        if not config_path.is_file():
            raise ValueError(f"{file} holds no config, and there is no config.json beside it: give its config file")
    return configs.load(config_path)
