"""Every setting of a run with its type, default and meaning, and the checks that reject a wrong config.

A config is a JSON file of three sections, `train`, `data` and `model`, as in VITS. Keys of VITS and vits2_pytorch keep
their names and meanings. Keys that only this repository has stand last in each section, and their defaults train files
of VITS and vits2_pytorch as they are. A key that a file leaves out has its default.

Examples:
  python config.py configs/my.json                   check config files
  python config.py --schema > configs/schema.json    write the JSON schema, with which editors complete and check them
"""
# ruff: noqa: RUF009 - `setting` returns a dataclass field

import copy
import dataclasses
import difflib
import json
import math
import operator
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import cli
from files import probable_encoding, write_text
from settings import checks, projects, schemas
from text.markup import read_dictionary
from text.table import read_symbols

# Choices of a setting. Each value but those of `Precision` is a key of the registry that its module declares.
Precision = Literal["auto", "fp32", "bf16", "fp16"]
FlowType = Literal["pre_conv", "pre_conv2", "fft", "mono_layer_inter_residual", "mono_layer_post_residual"]
DurationDiscriminatorType = Literal["dur_disc_1", "dur_disc_2", "dur_disc_3"]
ResblockType = Literal["1", "2"]
DecoderType = Literal["hifigan", "vocos", "harmonic_vocos", "mb_istft"]
UnicodeForm = Literal["", "NFC", "NFD", "NFKC", "NFKD"]
BestMeasure = Literal["auto", "mel", "kl", "dur", "duration_error", "cer", "wer", "dnsmos", "plcmos"]

EVALUATED = ("cer", "wer", "dnsmos", "plcmos")  # measures of evaluate.py; the others are those of a validation
HIGHER_IS_BETTER = ("dnsmos", "plcmos")
PRECISIONS: tuple[str, ...] = get_args(Precision)
YAML = (".yaml", ".yml")
MAX_DIGITS = 30  # of a whole number in a config
MAX_SHOWN = 120  # characters of a value in an error message
BOUNDS: dict[str, tuple[Callable[[float, float], bool], str]] = {  # keywords of JSON Schema: comparison and message
    "minimum": (operator.ge, "{} or more"),
    "exclusiveMinimum": (operator.gt, "above {}"),
    "exclusiveMaximum": (operator.lt, "below {}"),
}


def setting(default: Any, meaning: str, minimum: float | None = None, below: float = math.inf) -> Any:
    """Declare a field of a section: its default, and its meaning with the unit, as the schema describes it.

    Numbers must be at least `minimum`, or above 0 if it is None, and less than `below`.
    """
    bounds: dict[str, float] = {"exclusiveMinimum": 0} if minimum is None else {"minimum": minimum}
    if below < math.inf:
        bounds["exclusiveMaximum"] = below
    metadata = {"meaning": meaning, "bounds": bounds}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """Optimization, losses, and how a run uses the machine."""

    log_interval: int = setting(200, "steps between lines of train.log and entries in TensorBoard")
    eval_interval: int = setting(1000, "steps between validations; a checkpoint is saved after each")
    seed: int = setting(1234, "seed of all random numbers", minimum=0)
    epochs: int = setting(20000, "passes over the training data")
    learning_rate: float = setting(2e-4, "initial learning rate of AdamW, before warm-up and decay")
    betas: list[float] = setting([0.8, 0.99], "AdamW's two decay rates of running averages")
    eps: float = setting(1e-9, "AdamW's constant for numerical stability")
    batch_size: int = setting(64, "utterances per step on each GPU")
    fp16_run: bool = setting(False, "with precision auto, train in fp16 on GPUs without bf16")
    lr_decay: float = setting(0.999875, "factor on the learning rate after each epoch")
    segment_size: int = setting(8192, "samples decoded from each utterance per step")
    init_lr_ratio: float = setting(1, "first learning rate of the warm-up, as a share of the full one", minimum=0)
    warmup_epochs: int = setting(0, "epochs of linear warm-up", minimum=0)
    c_mel: float = setting(45, "weight of the mel L1 loss", minimum=0)
    c_kl: float = setting(1.0, "weight of the KL divergence", minimum=0)
    precision: Precision = setting("auto", "auto: bf16 if the GPU has it, else fp16 if fp16_run, else fp32")
    weight_decay: float = setting(0.01, "weight decay of AdamW", minimum=0)
    bucket_boundaries: list[int] = setting([0, *range(300, 1001, 100)], "edges of length buckets, in frames", minimum=0)
    cuda_graphs: bool = setting(True, "GPUs only: capture training steps as CUDA graphs and replay them")
    fused_kernels: bool = setting(True, "GPUs only: fuse elementwise operations in Triton kernels")
    accumulate: int = setting(1, "gradient accumulation: equal parts into which each process splits its batch")
    recompute: bool = setting(False, "activation checkpointing in the generator: less memory, more time")
    num_workers: int = setting(4, "processes per GPU that read recordings; at most one per CPU core", minimum=0)
    ema: float = setting(0.0, "decay of the average of the weights that synthesis uses; 0: none", minimum=0, below=1)
    best: BestMeasure = setting(
        "auto",
        "measure of G_best.pth; auto: mel, and duration_error in the last stage; "
        "cer to plcmos need --evaluate-every, and plcmos rates silence high",
    )
    patience: int | None = setting(None, "stop after this number of measurements without a better one, or null")
    keep_checkpoints: int = setting(3, "newest checkpoints kept besides the best; 0 keeps all", minimum=0)
    duration_discriminator_start: int = setting(0, "first step of the duration discriminator", minimum=0)
    duration_stage_start: int | None = setting(None, "step from which only durations train (VITS2), or null", minimum=0)
    lr_scale: dict[str, float] = setting(
        {}, "factors on the learning rate of parts of the generator, named by the beginning of their weights; 0: frozen"
    )
    c_stft: float = setting(0.0, "weight of the distance of spectrograms at three FFT sizes; 0: none", minimum=0)
    warm_up_steps: int | None = setting(
        None, "steps in which only warm_up_parts train; null: 1000 after --init-from without a posterior", minimum=0
    )
    warm_up_parts: list[str] = setting(
        ["enc_q.", "dp.post_", "dp.flows.1."], "parts of the generator that train alone at first, as in lr_scale"
    )


@dataclass(frozen=True)
class DataConfig:
    """Recordings and texts, and how they become spectrograms and tokens."""

    training_files: str = setting("", "filelist of the training data")
    validation_files: str = setting("", "filelist of the validation data")
    text_cleaners: list[str] = setting(["english_cleaners2"], "cleaners of text/cleaners.py, applied in this order")
    max_wav_value: float = setting(32768.0, "not used: recordings are read as -1 to 1")
    sampling_rate: int = setting(22050, "samples per second, in Hz")
    filter_length: int = setting(1024, "FFT size, in samples")
    hop_length: int = setting(256, "samples from one frame to the next")
    win_length: int = setting(1024, "length of the Hann window, in samples")
    n_mel_channels: int = setting(80, "mel bands")
    mel_fmin: float = setting(0.0, "lowest frequency of the mel bands, in Hz", minimum=0)
    mel_fmax: float | None = setting(None, "highest frequency of the mel bands, in Hz; null: half the sampling rate")
    add_blank: bool = setting(True, "insert a blank token between symbols (VITS); VITS2 trains without")
    n_speakers: int = setting(0, "number of speakers; 0: a single-speaker model without embedding", minimum=0)
    cleaned_text: bool = setting(True, "the filelists are output of preprocess.py, so no cleaner is applied to them")
    use_mel_posterior_encoder: bool = setting(False, "the posterior encoder reads log-mel, not linear, spectrograms")
    min_text_len: int = setting(1, "fewest symbols of a text; shorter ones are left out and reported", minimum=0)
    max_text_len: int = setting(190, "most symbols of a text; longer ones are left out and reported")
    resample: bool = setting(True, "resample recordings at other rates; false rejects them")
    speakers: dict[str, int] = setting({}, "ids of speaker names; training fills it in")
    default_speaker: str = setting("", "speaker, by name or id, where none is given; empty: one must be given")
    extra_symbols: str = setting("", "characters added to the table of symbols; they take the ids after it")
    symbols: list[str] | dict[str, list[int] | int] | str = setting(
        [], "table of symbols, in the order of their ids, or the ids of each symbol, or a JSON file; []: VITS's 178"
    )
    blank_symbol: str = setting("", "symbol of the blank that add_blank inserts; empty: id 0")
    begin_symbol: str = setting("", "symbol before every text (Piper: ^); empty: none")
    end_symbol: str = setting("", "symbol after every text (Piper: $); empty: none")
    unicode_form: UnicodeForm = setting(
        "", "Unicode normalization form of texts in the table (Piper: NFD); empty: none"
    )
    normalize: bool = setting(False, "numbers, dates, amounts and units in words before phonemes; English, German")
    dictionary: dict[str, str] | str = setting(
        {}, "words and what replaces them, [[phonemes]] or a respelling; or a file"
    )
    n_vocab: int = setting(0, "rows of the text embedding (Piper: 256); 0: as many as the table has ids", minimum=0)


@dataclass(frozen=True)
class ModelConfig:
    """The network, as the arguments of `models.SynthesizerTrn`."""

    inter_channels: int = setting(192, "channels of the latent")
    hidden_channels: int = setting(192, "hidden channels of text encoder, posterior encoder and flow")
    filter_channels: int = setting(768, "hidden channels of the text encoder's feed-forward layers")
    n_heads: int = setting(2, "attention heads of the text encoder")
    n_layers: int = setting(6, "transformer layers of the text encoder")
    kernel_size: int = setting(3, "kernel size of the text encoder's feed-forward layers, in tokens")
    p_dropout: float = setting(0.1, "dropout probability of the text encoder", minimum=0, below=1)
    resblock: ResblockType = setting("1", "HiFi-GAN, MB-iSTFT: type of the residual blocks")
    resblock_kernel_sizes: list[int] = setting([3, 7, 11], "HiFi-GAN, MB-iSTFT: kernel size of each residual block")
    resblock_dilation_sizes: list[list[int]] = setting(
        [[1, 3, 5]] * 3, "HiFi-GAN, MB-iSTFT: dilations of each residual block"
    )
    upsample_rates: list[int] = setting(
        [8, 8, 2, 2],
        "upsampling factors; their product is data.hop_length for HiFi-GAN, and for MB-iSTFT if multiplied by "
        "istft_hop_length and subbands",
    )
    upsample_initial_channel: int = setting(
        512, "HiFi-GAN, MB-iSTFT: channels before the first upsampling; each halves them"
    )
    upsample_kernel_sizes: list[int] = setting([16, 16, 4, 4], "HiFi-GAN, MB-iSTFT: kernel size of each upsampling")
    gin_channels: int = setting(0, "size of the speaker embedding", minimum=0)
    use_sdp: bool = setting(True, "stochastic duration predictor (VITS), not the deterministic one")
    use_transformer_flows: bool = setting(False, "transformer blocks in the flow (VITS2)")
    transformer_flow_type: FlowType = setting("pre_conv", "type of the transformer flow; pre_conv is VITS2's figure 1b")
    use_spk_conditioned_encoder: bool = setting(False, "give the speaker embedding to the text encoder (VITS2)")
    use_noise_scaled_mas: bool = setting(False, "add noise to the alignment search early in training (VITS2)")
    mas_noise_scale_initial: float = setting(0.01, "scale of the alignment noise at step 0", minimum=0)
    noise_scale_delta: float = setting(2e-6, "decrease of the scale of the alignment noise per step", minimum=0)
    n_layers_q: int = setting(3, "not used: see posterior_layers", minimum=0)
    use_spectral_norm: bool = setting(False, "spectral norm in the discriminators, in place of weight norm")
    use_duration_discriminator: bool = setting(False, "train durations adversarially (VITS2)")
    duration_discriminator_type: DurationDiscriminatorType = setting(
        "dur_disc_1", "type of duration discriminator; dur_disc_1 is linear and for old checkpoints only"
    )
    use_mel_posterior_encoder: bool = setting(False, "as in data; the two must be equal")
    discriminator_channels: int = setting(1024, "widest layers of the waveform discriminators, a multiple of 64")
    use_duration_noise: bool = setting(False, "the paper's duration predictor with a noise input; needs use_sdp false")
    duration_p_dropout: float = setting(0.5, "dropout probability of the duration predictor", minimum=0, below=1)
    decoder: DecoderType = setting("hifigan", "the decoder, from the latent to the waveform")
    convnext_channels: int = setting(512, "Vocos: channels of the ConvNeXt blocks")
    convnext_layers: int = setting(8, "Vocos: number of ConvNeXt blocks")
    istft_n_fft: int = setting(
        1024, "Vocos, MB-iSTFT: FFT size of the inverse STFT, a multiple of istft_hop_length, in samples of a band"
    )
    istft_hop_length: int = setting(
        256, "Vocos, MB-iSTFT: hop length of the inverse STFT in samples of a band; for Vocos, data.hop_length"
    )
    posterior_channels: int | None = setting(None, "hidden channels of the posterior encoder; null: hidden_channels")
    posterior_layers: int = setting(16, "WaveNet layers of the posterior encoder")
    stft_discriminator_channels: int = setting(
        0, "channels of the three discriminators of spectrograms, which train in addition; 0: none", minimum=0
    )
    subbands: int = setting(4, "MB-iSTFT: number of frequency bands with an inverse STFT each", minimum=2)


@dataclass(frozen=True)
class Config:
    """A whole run."""

    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    @property
    def spec_channels(self) -> int:
        """Number of channels of the posterior encoder's input."""
        data = self.data
        return data.n_mel_channels if data.use_mel_posterior_encoder else data.filter_length // 2 + 1

    @property
    def segment_frames(self) -> int:
        """Number of frames decoded from each utterance in a training step."""
        return self.train.segment_size // self.data.hop_length


# Settings of each sampling rate in Hz, for the decoders hifigan and vocos. As at 22,050 Hz in VITS, a frame lasts 10.7
# to 12 ms, an FFT has four hops, a segment 32, and each upsampling kernel has twice the length of its factor.
RATES: dict[int, dict[str, dict[str, Any]]] = {
    rate: {
        "train": {"segment_size": 32 * hop},
        "data": {
            "sampling_rate": rate,
            "filter_length": 4 * hop,
            "hop_length": hop,
            "win_length": 4 * hop,
            "n_mel_channels": bands,
        },
        "model": {
            "upsample_rates": factors,
            "upsample_kernel_sizes": [2 * factor for factor in factors],
            "istft_n_fft": 4 * hop,
            "istft_hop_length": hop,
        },
    }
    for rate, hop, factors, bands in (
        (16000, 192, [8, 6, 2, 2], 80),
        (22050, 256, [8, 8, 2, 2], 80),
        (24000, 256, [8, 8, 2, 2], 80),
        (44100, 512, [8, 8, 4, 2], 128),
        (48000, 512, [8, 8, 4, 2], 128),
    )
}
SECTIONS: dict[str, type] = {"train": TrainConfig, "data": DataConfig, "model": ModelConfig}
OWN_KEYS = {  # that no config of VITS or vits2_pytorch has
    name: field_names[field_names.index(first) :]
    for name, first in (("train", "precision"), ("data", "resample"), ("model", "discriminator_channels"))
    for field_names in [[declared.name for declared in dataclasses.fields(SECTIONS[name])]]
}
CHOICES: dict[str, tuple[str, ...]] = {  # of every setting that has a list of them, by "section.key"
    f"{section}.{declared.name}": get_args(declared.type)
    for section, part in SECTIONS.items()
    for declared in dataclasses.fields(part)
    if get_origin(declared.type) is Literal
}


def load(path: str | Path) -> Config:
    """Read and check a config file.

    Raises ValueError if the file is missing, not UTF-8 or not JSON, or if a key, type, value or combination is wrong.
    The message states which one, where it is, and what would be right.
    """
    sections = read_sections(path)
    try:
        config = from_dict(sections, str(path), Path(path).parent)
    except OverflowError:
        raise ValueError(f"{path} has a number that is too large to compute with") from None
    if problems := list(checks.unknown_cleaners(config.data)):
        raise ValueError("\n".join(f"{path}: {problem}" for problem in problems))
    for note in projects.foreign_cleaners(config.data.text_cleaners):
        warnings.warn(f"{path}: {note}", stacklevel=2)
    return config


def read_sections(path: str | Path) -> dict[str, Any]:
    """Return the sections of a config file as they are written. Raises ValueError if the file cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if Path(path).suffix in YAML:  # of other projects
            return _from_yaml(text)
        return json.loads(text, object_pairs_hook=_without_repetition, parse_int=_whole_number)
    except OSError as error:
        raise ValueError(f"cannot read the config file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        probable = probable_encoding(error.object)
        raise ValueError(f"{path} is not a text file in UTF-8, but probably {probable}: save it in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except _Unreadable as error:
        raise ValueError(f"{path}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply: a config has sections, and lists and tables in them") from None


class _Unreadable(ValueError):
    """JSON that can be read, but is no config."""


def _from_yaml(text: str) -> Any:
    """Return the content of a YAML file. Raises _Unreadable if it is none."""
    yaml = cli.extra("yaml")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _Unreadable(f"not valid YAML: {' '.join(str(error).split())}") from None


def _whole_number(digits: str) -> int:
    """Return a whole number of JSON. Raises _Unreadable if it has more digits than any setting."""
    if len(digits) > MAX_DIGITS:
        raise _Unreadable(f"the number {digits[:MAX_DIGITS]}... is too large")
    return int(digits)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON as a dict. Raises _Unreadable if it contains a key twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Unreadable(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return found


def from_dict(sections: dict[str, Any], where: str = "config", folder: Path = Path()) -> Config:
    """Build and check a config from the dict of its JSON; `where` begins every error message.

    Files that it names as `data.symbols` and `data.dictionary` are read into it; their paths are relative to the
    working directory or to `folder`. Raises ValueError as `load`. All values out of range are reported together, and so
    are all contradictions.
    """
    if not isinstance(sections, dict):
        raise ValueError(f"{where}: a config is an object of the sections {', '.join(SECTIONS)}")
    if foreign := projects.recognize(sections):
        raise ValueError(f"{where}: this is {foreign}")
    given = {name: section for name, section in sections.items() if name != "$schema"}
    refuse_unknown(given, SECTIONS, where)
    for name in SECTIONS:
        if name not in given:
            raise ValueError(f"{where}: the section {name!r} is missing; a config has {', '.join(SECTIONS)}")
    config = Config(**{name: read_section(part, given[name], f"{where}, {name}") for name, part in SECTIONS.items()})
    data, folders = config.data, (Path(), folder)
    if isinstance(data.symbols, str):
        data = dataclasses.replace(data, symbols=read_symbols(find(data.symbols, folders)))
    if isinstance(data.dictionary, str):
        data = dataclasses.replace(data, dictionary=read_dictionary(find(data.dictionary, folders)))
    config = dataclasses.replace(config, data=data)
    combined = (_check_choices, *checks.CHECKS, *checks.DECODER_CHECKS.get(config.model.decoder, ()))
    problems = list(_out_of_range(config)) or [problem for check in combined for problem in check(config)]
    if problems:
        raise ValueError("\n".join(f"{where}: {problem}" for problem in problems))
    return config


def find(name: str, folders: Sequence[Path]) -> Path:
    """Return the path of a file in the first folder that has it; in the first folder if none has it."""
    return next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)


def changed(config: Config, section: str, **values: Any) -> Config:
    """Return the config with other values in one section."""
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


def save(config: Config, path: str | Path) -> None:
    """Write a config, complete with defaults, as JSON."""
    write_text(path, json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False) + "\n")


def field_names(section: Any) -> list[str]:
    """Return the keys of a section, given as its class or an instance."""
    return [declared.name for declared in dataclasses.fields(section)]


def data_setting(data: Any, name: str) -> Any:
    """Return a setting of the data section, or its default if `data` lacks it, as an `HParams` of VITS code may."""
    return getattr(data if hasattr(data, name) else DataConfig(), name)


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise ValueError for the first given key that is not known, naming the nearest known one."""
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {_shortened(repr(key))}; {hint}")


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 7) of config files: keys, types, bounds, choices, defaults and meanings."""
    return schemas.build(SECTIONS, CHOICES)


def read_section(part: type, values: dict[str, Any], where: str) -> Any:
    """Build a section from its JSON. Raises ValueError for an unknown key or a value of the wrong type."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: a section is an object of keys and values, not {_shortened(json.dumps(values))}")
    kinds: dict[str, Any] = {declared.name: declared.type for declared in dataclasses.fields(part)}
    refuse_unknown(values, kinds, where)
    for key, value in values.items():
        kind = str if get_origin(kinds[key]) is Literal else kinds[key]  # a wrong choice is reported by _check_choices
        if not _is_a(value, kind):
            name = str(kind) if get_origin(kind) else kind.__name__
            raise ValueError(f"{where}: {key} is {_shortened(json.dumps(value))}, and should be of type {name}")
    return part(**values)


def _shortened(text: str) -> str:
    """Return the text of a value for an error message."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _is_a(value: Any, kind: Any) -> bool:
    """Return whether a JSON value has the annotated type. Integers are floats too; booleans are not numbers."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return any(_is_a(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(_is_a(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(k, args[0]) and _is_a(v, args[1]) for k, v in value.items())
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _out_of_range(config: Config) -> Iterator[str]:
    """Yield a sentence for each value with a number outside the bounds of its declaration."""
    for section, part in SECTIONS.items():
        for declared in dataclasses.fields(part):
            value = getattr(getattr(config, section), declared.name)
            for name, bound in declared.metadata["bounds"].items():
                holds, expected = BOUNDS[name]
                if not all(n < math.inf and holds(n, bound) for n in _numbers(value)):
                    shown = _shortened(json.dumps(value))
                    yield f"{section}.{declared.name} is {shown}, and should be {expected.format(bound)}"
                    break


def _numbers(value: Any) -> list[float]:
    """Return the numbers in a value and in nested lists of them. Booleans are not numbers."""
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def _check_choices(config: Config) -> Iterator[str]:
    for key, allowed in CHOICES.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, 1, 0.3)
            hint = f"did you mean {near[0]!r}? " if near else ""
            yield f"{key} is {_shortened(repr(value))}; {hint}It may be {', '.join(allowed)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Check config files or print their JSON schema."""
    parser = cli.Parser(__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="config files to check")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of config files")
    args = parser.parse_args(arguments)
    if not args.files and not args.schema:
        parser.error("name a config file, or use --schema")
    if args.schema:
        print(json.dumps(schema(), indent=2))
    wrong = []
    for path in args.files:
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                load(path)
            print(f"{path}: valid{projects.origin(read_sections(path), OWN_KEYS)}")
            print(*(note.message for note in notes), sep="\n", end="\n" if notes else "")
        except ValueError as error:
            wrong.append(path)
            print(error, file=sys.stderr)
    if wrong:
        sys.exit(2)


if __name__ == "__main__":
    main()
