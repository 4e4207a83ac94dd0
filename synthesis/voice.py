"""Trained checkpoints to sound: text to speech and voice conversion, through one object.

`Voice.load("logs/NAME").speak("Hello.")` is all that most callers need. The way from tokens to sound has three steps
of the network that can be taken one by one: `plan` (text encoder and durations), `latent` (prior and flow) and `dec`.
"""

import copy
import difflib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor, nn

import checkpoint
import config as configs
from audio import load_audio
from convolutions import lay_out
from files import RUNS
from mel_processing import log_mel, spectrogram_torch
from models import Generator, SynthesizerTrn
from modules import remove_weight_norm
from speech import BaseVoice, Latent, Scales, check_seed
from synthesis_graphs import GraphedNet

logger = logging.getLogger(__name__)

# Speech has 5 to 10 frames a token. Far more comes from an untrained predictor, whose exponentials fill any memory.
MOST_FRAMES_PER_TOKEN = 200


class Voice(BaseVoice):
    """A trained network that speaks; made by `load`."""

    def __init__(
        self,
        net: SynthesizerTrn,
        config: configs.Config,
        step: int | None = None,
        graphs: bool = True,
        half: bool = True,
    ):
        super().__init__(config.data, net.enc_p.emb.num_embeddings, step)
        self.net = remove_weight_norm(net).eval().requires_grad_(False)
        self.config = config
        self.context = net.dec.context
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            lay_out(self.net)
        self.half = HalfDecoder(self.net.dec) if half and on_gpu else None
        self.graphed = GraphedNet(self.net, self.half) if graphs and on_gpu else None

    @classmethod
    def load(
        cls,
        path: str | Path,
        config_path: str | Path | None = None,
        device: str = "cpu",
        graphs: bool = True,
        half: bool = True,
    ) -> "Voice":
        """Load a voice.

        Args:
            path: a run's folder or its name in `logs` (the newest `G_STEP.pth` speaks), or a checkpoint itself.
            config_path: for files of VITS code; left out, the checkpoint's own config or `config.json` beside it.
            device: "cpu", "cuda", "cuda:1", or "auto" for the GPU where there is one.
            graphs: on a GPU, speak by CUDA graphs: in a fraction of the time, after the first sentence of a length.
            half: on a GPU, speak with a copy of the decoder in fp16: faster, and about as exact as TF32, which newer
                GPUs compute fp32 in. What is too large for it is decoded again in fp32. Conversion stays in fp32.

        Raises:
            ValueError: no such file, another kind of file, no config, or weights that do not fit it.
        """
        file = find_checkpoint(path)
        place = find_device(device)
        content = checkpoint.read(file)
        config = _find_config(file, content, config_path)
        embedding = content["model"].get("enc_p.emb.weight")
        n_vocab = 1 if embedding is None else len(embedding)  # without it load_weights says what the file holds
        with torch.random.fork_rng([]):  # initial weights are drawn and thrown away
            net = SynthesizerTrn.from_config(config, n_vocab)
        checkpoint.load_weights(net, content["model"], str(file))
        checkpoint.refuse_other_flow(content, asdict(config.model), str(file))
        step = content.get("step", checkpoint.step_of(file))
        return cls(net.to(place), config, step if step >= 0 else None, graphs, half)

    @property
    def device(self) -> torch.device:
        return self.net.enc_p.emb.weight.device

    def convert(
        self,
        sound: str | Path | np.ndarray,
        source: str | int,
        target: str | int,
        sampling_rate: int | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """Say what speaker `source` says in a recording with the voice of `target` (VITS, section 4.4).

        Args:
            sound: a recording's path, or mono samples `[samples]`, float in -1..1, at `sampling_rate` (None: the
                voice's own).

        Returns:
            Audio at the voice's rate, float32 `[samples]`, a whole number of hops.

        Raises:
            ValueError: one voice only, unknown speakers, or a sound that cannot be read, is not finite or too short.
        """
        if not self.data.n_speakers:
            raise ValueError("voice conversion needs a model of many speakers, and this one has a single voice")
        check_seed(seed)
        speakers = [torch.tensor([self.speaker_id(name)], device=self.device) for name in (source, target)]
        spec = self.posterior_input(self._samples(sound, sampling_rate))
        lengths = torch.tensor([spec.size(2)], device=self.device)
        with self._lock, self._draws(seed)(), torch.inference_mode():
            audio = self.net.voice_conversion(spec, lengths, *speakers)[0]
        return audio[0, 0].cpu().numpy()

    def posterior_input(self, samples: np.ndarray) -> Tensor:
        """The posterior encoder's input `[1, spec, t]` on the voice's device; samples `[samples]`, float."""
        wav = torch.from_numpy(np.ascontiguousarray(samples, np.float32)).to(self.device).unsqueeze(0)
        if self.data.use_mel_posterior_encoder:
            return log_mel(wav, self.data)
        data = self.data
        return spectrogram_torch(wav, data.filter_length, data.sampling_rate, data.hop_length, data.win_length)

    def _samples(self, sound: str | Path | np.ndarray, sampling_rate: int | None) -> np.ndarray:
        if isinstance(sound, (str, Path)):
            samples = load_audio(sound, self.sampling_rate)
        else:
            samples = np.asarray(sound)
            if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
                raise ValueError(f"expected mono float samples, got {samples.dtype} of shape {samples.shape}")
            if sampling_rate not in (None, self.sampling_rate):
                samples = soxr.resample(samples, sampling_rate, self.sampling_rate, quality="HQ")
        if len(samples) < self.data.hop_length:
            raise ValueError(f"a recording of {len(samples)} samples is too short to convert")
        if not np.isfinite(samples).all():
            raise ValueError("the recording holds NaN or infinity")
        return samples

    @torch.inference_mode()
    def _latents(self, tokens: list[list[int]], sid: int | None, scales: Scales) -> list[Latent]:
        lengths = [len(t) for t in tokens]
        x = torch.tensor([t + [0] * (max(lengths) - len(t)) for t in tokens], device=self.device)
        x_lengths = torch.tensor(lengths, device=self.device)
        sids = None if sid is None else torch.full((len(tokens),), sid, device=self.device)
        net = self.graphed or self.net
        planned = net.plan(x, x_lengths, sids, scales.length_scale, scales.noise_scale_w)
        durations = planned.durations.cpu().numpy()
        self._check_length(durations, lengths, scales)
        frames = [max(1, int(d.sum())) for d in durations]
        z = net.latent(planned, scales.noise_scale, max(frames))[0]
        g = None if planned.g is None else planned.g[:1]
        # each item without its padding: a vocoder hears it, and the last frames would depend on the batch
        return [
            Latent((z[i : i + 1, :, :n], g), n, d[:length].astype(np.int64))
            for i, (n, d, length) in enumerate(zip(frames, durations, lengths))
        ]

    @torch.inference_mode()
    def _decode(self, latent: Latent, start: int, end: int) -> np.ndarray:
        z, g = latent.content
        z = z[:, :, start:end]
        decode = self.graphed.dec if self.graphed else self.half or self.net.dec
        audio = decode(z, g)[0, 0].cpu().numpy()
        if self.half is None or np.isfinite(audio).all():
            return audio
        exact = self.net.dec(z, g)[0, 0].cpu().numpy()
        if np.isfinite(exact).all():
            logger.warning("too large for fp16, so decoded again in fp32; with half=False (--fp32) at once")
        return exact

    def _check_length(self, durations: np.ndarray, lengths: list[int], scales: Scales) -> None:
        for frames, tokens in zip(durations.sum(1), lengths):
            if not frames <= MOST_FRAMES_PER_TOKEN * tokens:  # NaN fails too
                seconds = frames * self.data.hop_length / self.sampling_rate
                raise ValueError(
                    f"the duration predictor asks for {seconds:.0f} seconds for {tokens} tokens: the checkpoint is "
                    f"hardly trained, or length_scale ({scales.length_scale}) is too large"
                )

    def _draws(self, seed: int | None) -> Callable[[], AbstractContextManager]:
        if seed is None:
            return nullcontext
        gpus = [self.device] if self.device.type == "cuda" else []
        # by generator: torch.manual_seed would reach the GPUs of others
        generators = [torch.random.default_generator, *(torch.cuda.default_generators[gpu.index] for gpu in gpus)]
        states = [torch.Generator(generator.device).manual_seed(seed).get_state() for generator in generators]

        @contextmanager
        def drawing() -> Iterator[None]:
            with torch.random.fork_rng(gpus):
                for generator, state in zip(generators, states):
                    generator.set_state(state)
                yield
                states[:] = [generator.get_state() for generator in generators]

        return drawing


class HalfDecoder(nn.Module):
    """A copy of a decoder that computes in fp16, all but its last convolution; takes and returns fp32."""

    def __init__(self, dec: Generator):
        super().__init__()
        self.dec = copy.deepcopy(dec).half()
        self.dec.conv_post = copy.deepcopy(dec.conv_post)
        # infinity, which tanh would make a click of, becomes NaN
        self.dec.conv_post.register_forward_hook(lambda module, inputs, output: output + 0 * output)

    def forward(self, x: Tensor, g: Tensor | None = None) -> Tensor:
        """As `Generator`. Where fp16 was too small, the audio is not finite."""
        return self.dec(x.half(), None if g is None else g.half())


def find_checkpoint(path: str | Path) -> Path:
    """The generator's file for a run's folder, its name in `logs`, or the file itself.

    Raises:
        ValueError: nothing there; the message names the nearest run.
    """
    path = Path(path)
    empty = []
    for folder in (path, RUNS / path):  # a folder of another kind must not hide a run of its name
        if folder.is_file():
            return folder
        if folder.is_dir():
            with suppress(ValueError):
                return Path(checkpoint.latest_checkpoint_path(folder))
            if (folder / "G_best.pth").is_file():
                return folder / "G_best.pth"
            empty.append(folder)
    if empty:
        raise ValueError(f"{empty[-1]} holds no checkpoint G_*.pth")
    runs = [run.name for run in RUNS.iterdir() if run.is_dir()] if RUNS.is_dir() else []
    near = difflib.get_close_matches(path.name, runs, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"there is no checkpoint or run {path}, here or in {RUNS}/{hint}")


def find_device(name: str) -> torch.device:
    """A device by name; "auto" is the GPU where there is one. Raises ValueError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"there is no device {name!r}: use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"there is no way to speak on {name!r}: use auto, cpu or cuda")
    if device.type == "cuda":
        index = device.index or 0
        if index >= torch.cuda.device_count():
            raise ValueError(f"there is no device {name!r}: PyTorch sees {torch.cuda.device_count()} CUDA GPUs")
        return torch.device("cuda", index)
    return device


def _find_config(file: Path, content: dict, config_path: str | Path | None) -> configs.Config:
    if config_path is not None:
        return configs.load(config_path)
    if isinstance(content.get("config"), dict):
        return configs.from_dict(content["config"], str(file))
    beside = file.with_name("config.json")
    if beside.is_file():
        return configs.load(beside)
    raise ValueError(f"{file} holds no config, and there is no config.json beside it: name its config file")
