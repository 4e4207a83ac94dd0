"""Every setting of a run, with its type, default and meaning, and the checks that keep a wrong one from training.

A config file is VITS's JSON of three sections, `train`, `data` and `model`. Keys that published files hold keep their
names and meanings; keys of our own stand last in each section and have defaults that train those files as they are.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from files import write_text

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
# fmt: off
MAY_BE_ZERO = {  # all other numbers must be above 0
    "seed", "init_lr_ratio", "warmup_epochs", "c_mel", "c_kl", "weight_decay", "bucket_boundaries", "num_workers",
    "keep_checkpoints", "duration_discriminator_start", "duration_stage_start", "mel_fmin", "n_speakers",
    "min_text_len", "p_dropout", "gin_channels", "mas_noise_scale_initial", "noise_scale_delta", "n_layers_q",
}
# fmt: on


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast and in which steps to train."""

    log_interval: int = 200  # steps between lines in train.log and TensorBoard
    eval_interval: int = 1000  # steps between validations, each followed by a checkpoint
    seed: int = 1234
    epochs: int = 20000
    learning_rate: float = 2e-4
    betas: list[float] = field(default_factory=lambda: [0.8, 0.99])
    eps: float = 1e-9
    batch_size: int = 64  # utterances a step on each GPU
    fp16_run: bool = False  # VITS's switch; `precision` says more
    lr_decay: float = 0.999875  # factor on the learning rate after each epoch
    segment_size: int = 8192  # samples decoded from each utterance in a step
    init_lr_ratio: float = 1  # learning rate at the start of a warm-up, as a share of the full one
    warmup_epochs: int = 0  # epochs of linear warm-up
    c_mel: float = 45  # weight of the mel L1 loss
    c_kl: float = 1.0  # weight of the KL divergence
    precision: str = "auto"  # fp32, bf16 or fp16; auto: bf16 where a GPU has it, else fp16 if fp16_run, else fp32
    weight_decay: float = 0.01
    bucket_boundaries: list[int] = field(default_factory=lambda: [0, *range(300, 1001, 100)])  # frames
    cuda_graphs: bool = True  # on a GPU, steps are captured and replayed; false: each operation is launched alone
    fused_kernels: bool = True  # on a GPU, what `fused` holds; false: PyTorch's own operations
    accumulate: int = 1  # equal parts that each process takes its batch in, one by one, in the memory of one part
    recompute: bool = False  # the generator's inner activations are computed again for gradients, not kept
    num_workers: int = 4  # processes that read recordings, on each GPU; no more than there are cores
    keep_checkpoints: int = 3  # newest checkpoints kept beside the best; 0 keeps all
    duration_discriminator_start: int = 0  # step at which the duration discriminator joins
    duration_stage_start: int | None = None  # from this step on only duration predictor and discriminator (VITS2, 3)


@dataclass(frozen=True)
class DataConfig:
    """Which recordings and texts, and how they become spectrograms and tokens."""

    training_files: str = ""
    validation_files: str = ""
    text_cleaners: list[str] = field(default_factory=lambda: ["english_cleaners2"])
    max_wav_value: float = 32768.0  # taken and not used: recordings are read as -1 to 1
    sampling_rate: int = 22050
    filter_length: int = 1024  # n_fft
    hop_length: int = 256
    win_length: int = 1024
    n_mel_channels: int = 80
    mel_fmin: float = 0.0
    mel_fmax: float | None = None  # None: half the sampling rate
    add_blank: bool = True  # a blank between symbols (VITS); VITS2 trains without
    n_speakers: int = 0  # 0: one voice
    cleaned_text: bool = True  # the filelists went through preprocess.py
    use_mel_posterior_encoder: bool = False  # the posterior sees the log-mel (VITS2), not the linear spectrogram
    min_text_len: int = 1  # symbols; shorter and longer texts are left out, counted and named
    max_text_len: int = 190
    resample: bool = True  # recordings at another rate are resampled; false refuses them
    speakers: dict[str, int] = field(default_factory=dict)  # names in the filelists to ids; filled by training
    extra_symbols: str = ""  # characters beyond VITS's table of 178, which take the ids after it


@dataclass(frozen=True)
class ModelConfig:
    """The network: arguments of `models.SynthesizerTrn`."""

    inter_channels: int = 192
    hidden_channels: int = 192
    filter_channels: int = 768
    n_heads: int = 2
    n_layers: int = 6
    kernel_size: int = 3
    p_dropout: float = 0.1
    resblock: str = "1"
    resblock_kernel_sizes: list[int] = field(default_factory=lambda: [3, 7, 11])
    resblock_dilation_sizes: list[list[int]] = field(default_factory=lambda: [[1, 3, 5]] * 3)
    upsample_rates: list[int] = field(default_factory=lambda: [8, 8, 2, 2])
    upsample_initial_channel: int = 512
    upsample_kernel_sizes: list[int] = field(default_factory=lambda: [16, 16, 4, 4])
    gin_channels: int = 0  # width of the speaker embedding
    use_sdp: bool = True  # VITS's stochastic duration predictor, else the deterministic one
    use_transformer_flows: bool = False
    transformer_flow_type: str = "pre_conv"  # a key of flows.FLOWS
    use_spk_conditioned_encoder: bool = False
    use_noise_scaled_mas: bool = False
    mas_noise_scale_initial: float = 0.01
    noise_scale_delta: float = 2e-6  # by which the alignment noise falls each step
    n_layers_q: int = 3  # taken and not used: the posterior encoder has 16 layers
    use_spectral_norm: bool = False  # in the discriminators, in place of weight norm
    use_duration_discriminator: bool = False
    duration_discriminator_type: str = "dur_disc_1"  # a key of discriminators.DURATION_DISCRIMINATORS
    use_mel_posterior_encoder: bool = False  # as in `data`
    discriminator_channels: int = 1024  # widest layers of the waveform discriminators, a multiple of 64
    use_duration_noise: bool = False  # the paper's predictor: noise beside the text, and the speaker for its judge


@dataclass(frozen=True)
class Config:
    """A whole run."""

    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    @property
    def spec_channels(self) -> int:
        """Channels of the posterior encoder's input."""
        data = self.data
        return data.n_mel_channels if data.use_mel_posterior_encoder else data.filter_length // 2 + 1

    @property
    def segment_frames(self) -> int:
        """Frames decoded from each utterance in a training step."""
        return self.train.segment_size // self.data.hop_length


def load(path: str | Path) -> Config:
    """Read and check a config file.

    Raises:
        ValueError: the file is missing or no JSON, or a key, type or combination is wrong; the message says which,
            where, and what would be right.
    """
    try:
        sections = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"cannot read the config file {path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    return from_dict(sections, str(path))


def from_dict(sections: dict, where: str = "config") -> Config:
    """Build and check a config from the dict that its JSON holds; `where` begins every error message."""
    parts = {f.name: f.type for f in dataclasses.fields(Config)}
    if not isinstance(sections, dict):
        raise ValueError(f"{where}: a config is an object of the sections {', '.join(parts)}")
    refuse_unknown(sections, parts, where)
    missing = [name for name in parts if name not in sections]
    if missing:
        raise ValueError(f"{where}: the section {missing[0]!r} is missing; a config has {', '.join(parts)}")
    config = Config(**{name: _section(part, sections[name], f"{where}, {name}") for name, part in parts.items()})
    problems = list(_out_of_range(config)) or list(_contradictions(config))
    if problems:
        raise ValueError("\n".join(f"{where}: {problem}" for problem in problems))
    return config


def save(config: Config, path: str | Path) -> None:
    """Write a config, complete with defaults, as JSON."""
    text = json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise ValueError for the first given key that is not known, naming the nearest known one."""
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {key!r}; {hint}")


def _section(part: type, values: dict, where: str):
    if not isinstance(values, dict):
        raise ValueError(f"{where}: a section is an object of keys and values, not {json.dumps(values)}")
    kinds = {f.name: f.type for f in dataclasses.fields(part)}
    refuse_unknown(values, kinds, where)
    for key, value in values.items():
        if not _is_a(value, kinds[key]):
            name = getattr(kinds[key], "__name__", str(kinds[key])) if kinds[key] in (int, str) else str(kinds[key])
            name = name.replace("<class '", "").replace("'>", "")
            raise ValueError(f"{where}: {key} is {json.dumps(value)}, and should be of type {name}")
    return part(**values)


def _is_a(value, kind) -> bool:
    """Whether a JSON value has the annotated type; a whole number is a float too, a boolean is no number."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return any(_is_a(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(_is_a(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(k, args[0]) and _is_a(v, args[1]) for k, v in value.items())
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _out_of_range(config: Config) -> Iterable[str]:
    """Numbers of which neither a network nor a loop can be made, a sentence each."""
    for section, values in dataclasses.asdict(config).items():
        for key, value in values.items():
            least = "0 or more" if key in MAY_BE_ZERO else "above 0"
            if not all(0 <= n < math.inf and (n or key in MAY_BE_ZERO) for n in _numbers(value)):
                yield f"{section}.{key} is {json.dumps(value)}, and should be {least}"
    if config.train.seed >= 2**63:
        yield f"train.seed is {config.train.seed}, and should be below 2 to the power of 63"


def _numbers(value) -> list:
    """The numbers in a value and in lists of them; booleans are none."""
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def _contradictions(config: Config) -> Iterable[str]:
    """What each section allows and the whole does not, a sentence each."""
    from discriminators import AVAILABLE_DURATION_DISCRIMINATOR_TYPES
    from flows import AVAILABLE_FLOW_TYPES, FLOWS, Coupling
    from modules import RESBLOCKS
    from text import repeated_symbols

    train, data, model = config.train, config.data, config.model
    hop = math.prod(model.upsample_rates)
    if data.hop_length != hop:
        rates = " x ".join(map(str, model.upsample_rates))
        yield f"data.hop_length is {data.hop_length}, but model.upsample_rates make {rates} = {hop}"
    if train.segment_size % data.hop_length or train.segment_size < data.hop_length:
        yield f"train.segment_size ({train.segment_size}) is not a whole number of hops of {data.hop_length}"
    if data.win_length > data.filter_length:
        yield f"data.win_length ({data.win_length}) is longer than data.filter_length ({data.filter_length})"
    if data.hop_length > data.filter_length:
        yield f"data.hop_length ({data.hop_length}) is longer than data.filter_length ({data.filter_length})"
    highest = data.sampling_rate / 2 if data.mel_fmax is None else data.mel_fmax
    if highest > data.sampling_rate / 2:
        yield f"data.mel_fmax ({data.mel_fmax}) lies above half of data.sampling_rate ({data.sampling_rate})"
    if data.mel_fmin >= highest:
        yield f"data.mel_fmin ({data.mel_fmin:g}) is not below the highest frequency of the mel bands, {highest:g}"
    if data.min_text_len > data.max_text_len:
        yield f"data.min_text_len ({data.min_text_len}) is above data.max_text_len ({data.max_text_len})"
    if not data.text_cleaners:
        yield 'data.text_cleaners is empty: name one, such as "english_cleaners2" or "phonemes_de"'
    repeated = sorted(set(repeated_symbols(data.extra_symbols)))
    if repeated:
        yield f"data.extra_symbols names {', '.join(map(repr, repeated))} which the table has already"
    if model.p_dropout >= 1:
        yield f"model.p_dropout is {model.p_dropout}, and should be below 1"
    if data.use_mel_posterior_encoder != model.use_mel_posterior_encoder:
        yield "use_mel_posterior_encoder differs between data and model; both decide the posterior's input"
    if data.n_speakers and not model.gin_channels:
        yield f"data.n_speakers is {data.n_speakers}: model.gin_channels must be above 0 (VITS takes 256)"
    if data.n_speakers and model.use_spk_conditioned_encoder and model.n_layers < 3:
        yield f"a speaker enters the text encoder before its third layer; model.n_layers is {model.n_layers}"
    if len(model.upsample_rates) != len(model.upsample_kernel_sizes):
        yield "model.upsample_rates and model.upsample_kernel_sizes have different lengths"
    for rate, kernel in zip(model.upsample_rates, model.upsample_kernel_sizes):
        if kernel < rate or (kernel - rate) % 2:
            yield f"an upsampling kernel of {kernel} cannot upsample by {rate}: it must exceed it by an even number"
    if len(model.resblock_kernel_sizes) != len(model.resblock_dilation_sizes):
        yield "model.resblock_kernel_sizes and model.resblock_dilation_sizes have different lengths"
    if model.hidden_channels % model.n_heads:
        yield f"model.hidden_channels ({model.hidden_channels}) cannot be shared by model.n_heads ({model.n_heads})"
    narrowest = 2 ** len(model.upsample_rates)
    if model.upsample_initial_channel % narrowest:
        yield (
            f"model.upsample_initial_channel ({model.upsample_initial_channel}) is halved by each of "
            f"{len(model.upsample_rates)} upsamplings: it must be a multiple of {narrowest}"
        )
    flow = FLOWS.get(model.transformer_flow_type, ()) if model.use_transformer_flows else ()
    heads = max((layer.n_heads for layer in flow if issubclass(layer, Coupling)), default=1)
    if model.hidden_channels % heads:
        yield f"model.hidden_channels ({model.hidden_channels}) cannot be shared by the {heads} heads of its flow"
    if model.inter_channels % 4:
        yield f"model.inter_channels ({model.inter_channels}) must divide by 4: each half goes to two heads"
    if model.discriminator_channels < 64 or model.discriminator_channels % 64:
        yield f"model.discriminator_channels ({model.discriminator_channels}) must be a multiple of 64"
    if any(kernel % 2 == 0 for kernel in model.resblock_kernel_sizes):
        yield f"model.resblock_kernel_sizes are {model.resblock_kernel_sizes}; only odd ones keep the length"
    if train.batch_size % train.accumulate:
        yield f"train.batch_size ({train.batch_size}) cannot be shared by train.accumulate ({train.accumulate}) parts"
    if len(train.betas) != 2 or max(train.betas) >= 1:
        yield f"train.betas is {train.betas}, and should be two numbers below 1"
    if train.bucket_boundaries != sorted(set(train.bucket_boundaries)) or len(train.bucket_boundaries) < 2:
        yield f"train.bucket_boundaries must be two or more rising numbers, not {train.bucket_boundaries}"
    if model.use_sdp and model.use_duration_noise:
        yield "model.use_duration_noise is the paper's deterministic predictor with noise; it needs use_sdp false"
    if train.duration_stage_start is not None and not model.use_duration_discriminator:
        yield "train.duration_stage_start needs model.use_duration_discriminator"
    if train.duration_stage_start is not None and train.duration_discriminator_start > train.duration_stage_start:
        yield "train.duration_discriminator_start must not be later than train.duration_stage_start, which needs it"
    choices = {
        "model.transformer_flow_type": (model.transformer_flow_type, AVAILABLE_FLOW_TYPES),
        "model.duration_discriminator_type": (
            model.duration_discriminator_type,
            AVAILABLE_DURATION_DISCRIMINATOR_TYPES,
        ),
        "model.resblock": (model.resblock, list(RESBLOCKS)),
        "train.precision": (train.precision, list(PRECISIONS)),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, 1, 0.3)
            hint = f"did you mean {near[0]!r}? " if near else ""
            yield f"{key} is {value!r}; {hint}It may be {', '.join(allowed)}"
