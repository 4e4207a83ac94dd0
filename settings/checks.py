"""Checks of combinations of settings. Each yields a sentence for each error and assumes values within their bounds."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from settings import projects
from text.cleaners import NORMALIZERS, get_cleaner, language_of
from text.markup import check_dictionary
from text.table import MAX_SYMBOLS, SymbolTable

if TYPE_CHECKING:
    from config import Config, DataConfig

    Check = Callable[[Config], Iterator[str]]

FLOW_HEADS = {"pre_conv2": 2, "fft": 4}  # attention heads that share the hidden channels, for each flow that has them


def training(config: "Config") -> Iterator[str]:
    train, hop = config.train, config.data.hop_length
    betas, boundaries = train.betas, train.bucket_boundaries
    if train.seed >= 2**63:
        yield f"train.seed is {train.seed}, and should be below 2 to the power of 63"
    for part, scale in train.lr_scale.items():
        if not 0 <= scale < math.inf:
            yield f"train.lr_scale of {part!r} is {scale}, and should be 0 or more"
    if len(betas) != 2 or max(betas) >= 1:
        yield f"train.betas is {betas}, and should be two numbers below 1"
    if boundaries != sorted(set(boundaries)) or len(boundaries) < 2:
        yield f"train.bucket_boundaries must be two or more rising numbers, not {boundaries}"
    if train.batch_size % train.accumulate:
        yield f"train.batch_size ({train.batch_size}) cannot be shared by train.accumulate ({train.accumulate}) parts"
    if train.segment_size % hop:
        yield f"train.segment_size ({train.segment_size}) is not a whole number of hops of {hop}"


def spectrograms(config: "Config") -> Iterator[str]:
    data = config.data
    for name in ("win_length", "hop_length"):
        if getattr(data, name) > data.filter_length:
            yield f"data.{name} ({getattr(data, name)}) is longer than data.filter_length ({data.filter_length})"
    highest = data.sampling_rate / 2 if data.mel_fmax is None else data.mel_fmax
    if highest > data.sampling_rate / 2:
        yield f"data.mel_fmax ({data.mel_fmax}) lies above half of data.sampling_rate ({data.sampling_rate})"
    if data.mel_fmin >= highest:
        yield f"data.mel_fmin ({data.mel_fmin:g}) is not below the highest frequency of the mel bands, {highest:g}"
    if data.use_mel_posterior_encoder != config.model.use_mel_posterior_encoder:
        yield "use_mel_posterior_encoder differs between data and model; both decide the posterior's input"


def texts(config: "Config") -> Iterator[str]:
    data = config.data
    if data.min_text_len > data.max_text_len:
        yield f"data.min_text_len ({data.min_text_len}) is above data.max_text_len ({data.max_text_len})"
    if not data.text_cleaners:
        yield 'data.text_cleaners is empty: name one, such as "english_cleaners2" or "phonemes_de"'
    if data.normalize and (language := language_of(data.text_cleaners).partition("-")[0]) not in NORMALIZERS:
        rules = ", ".join(NORMALIZERS)
        yield f"data.normalize has rules for {rules}, and the cleaners are for {language or 'any language'}"
    try:
        check_dictionary(data.dictionary, "data.dictionary")
    except ValueError as error:
        yield str(error)
    try:
        table = SymbolTable(data.symbols, data.extra_symbols)
    except ValueError as error:
        yield f"data.symbols: {error}"
        return
    for mark in ("blank_symbol", "begin_symbol", "end_symbol"):
        if (symbol := getattr(data, mark)) and symbol not in table.ids:
            yield f"data.{mark} is {symbol!r}, which is not in the table of symbols"
    if data.n_vocab and not len(table.names) <= data.n_vocab <= MAX_SYMBOLS:
        yield f"data.n_vocab is {data.n_vocab}; with this table it may be from {len(table.names)} to {MAX_SYMBOLS}"


def speakers(config: "Config") -> Iterator[str]:
    data, chosen = config.data, config.data.default_speaker
    known = chosen in data.speakers or (chosen.isdecimal() and int(chosen) < data.n_speakers)
    if chosen and not known and (data.speakers or not data.n_speakers):  # training fills in an empty table
        yield f"data.default_speaker is {chosen!r}; the speakers are {', '.join(data.speakers) or 'not named'}"


def network(config: "Config") -> Iterator[str]:
    data, model = config.data, config.model
    heads = FLOW_HEADS.get(model.transformer_flow_type, 1) if model.use_transformer_flows else 1
    if data.n_speakers and not model.gin_channels:
        yield f"data.n_speakers is {data.n_speakers}: model.gin_channels must be above 0 (VITS takes 256)"
    if data.n_speakers and model.use_spk_conditioned_encoder and model.n_layers < 3:
        yield f"a speaker enters the text encoder before its third layer; model.n_layers is {model.n_layers}"
    if model.hidden_channels % model.n_heads:
        yield f"model.hidden_channels ({model.hidden_channels}) cannot be shared by model.n_heads ({model.n_heads})"
    if model.hidden_channels % heads:
        yield f"model.hidden_channels ({model.hidden_channels}) cannot be shared by the {heads} heads of its flow"
    if model.inter_channels % 4:
        yield f"model.inter_channels ({model.inter_channels}) must divide by 4: each half goes to two heads"
    if model.discriminator_channels % 64:
        yield f"model.discriminator_channels ({model.discriminator_channels}) must be a multiple of 64"


def durations(config: "Config") -> Iterator[str]:
    train, model = config.train, config.model
    if model.use_sdp and model.use_duration_noise:
        yield "model.use_duration_noise is the paper's deterministic predictor with noise; it needs use_sdp false"
    if train.duration_stage_start is not None:
        if not model.use_duration_discriminator:
            yield "train.duration_stage_start needs model.use_duration_discriminator"
        if train.duration_discriminator_start > train.duration_stage_start:
            yield "train.duration_discriminator_start must not be later than train.duration_stage_start, which needs it"


def hifigan(config: "Config") -> Iterator[str]:
    rates, hop = config.model.upsample_rates, config.data.hop_length
    yield from _upsampling(config)
    if rates and hop != math.prod(rates):
        yield f"data.hop_length is {hop}, but model.upsample_rates make {_product(rates)}"


def vocos(config: "Config") -> Iterator[str]:
    model, hop = config.model, config.data.hop_length
    if model.istft_hop_length != hop:
        yield f"data.hop_length is {hop}, but model.istft_hop_length is {model.istft_hop_length}"
    yield from _inverse_stft(config)


def mb_istft(config: "Config") -> Iterator[str]:
    model, hop = config.model, config.data.hop_length
    factors = [*model.upsample_rates, model.istft_hop_length, model.subbands]
    yield from _upsampling(config)
    yield from _inverse_stft(config)
    if hop != math.prod(factors):
        names = "model.upsample_rates, istft_hop_length and subbands"
        yield f"data.hop_length is {hop}, but {names} make {_product(factors)}"


def _product(factors: list[int]) -> str:
    return f"{' x '.join(map(str, factors))} = {math.prod(factors)}"


def _upsampling(config: "Config") -> Iterator[str]:
    """Yield errors of the upsampling stages of HiFi-GAN."""
    model = config.model
    rates, kernels, channels = model.upsample_rates, model.upsample_kernel_sizes, model.upsample_initial_channel
    if not (rates and model.resblock_kernel_sizes and all(model.resblock_dilation_sizes)):
        yield "model.upsample_rates, resblock_kernel_sizes and each of resblock_dilation_sizes must not be empty"
        return
    if len(rates) != len(kernels):
        yield "model.upsample_rates and model.upsample_kernel_sizes have different lengths"
    for rate, kernel in zip(rates, kernels):
        if kernel < rate or (kernel - rate) % 2:
            yield f"an upsampling kernel of {kernel} cannot upsample by {rate}: it must exceed it by an even number"
    if channels % 2 ** len(rates):
        yield (
            f"model.upsample_initial_channel ({channels}) is halved by each of "
            f"{len(rates)} upsamplings: it must be a multiple of {2 ** len(rates)}"
        )
    if len(model.resblock_kernel_sizes) != len(model.resblock_dilation_sizes):
        yield "model.resblock_kernel_sizes and model.resblock_dilation_sizes have different lengths"
    if any(kernel % 2 == 0 for kernel in model.resblock_kernel_sizes):
        yield f"model.resblock_kernel_sizes are {model.resblock_kernel_sizes}; only odd ones keep the length"


def _inverse_stft(config: "Config") -> Iterator[str]:
    n_fft, hop = config.model.istft_n_fft, config.model.istft_hop_length
    if n_fft % hop or n_fft // hop < 2 or n_fft % 2:
        yield f"model.istft_n_fft ({n_fft}) must be even and two or more times model.istft_hop_length ({hop})"


def unknown_cleaners(data: "DataConfig") -> Iterator[str]:
    """Yield a sentence for each cleaner that does not exist, except for those of other projects if texts are clean."""
    for name in data.text_cleaners:
        try:
            get_cleaner(name)
        except ValueError as error:
            theirs = projects.FOREIGN_CLEANERS.get(name)
            if theirs is None:
                yield f"data.text_cleaners: {error}"
            elif not data.cleaned_text:
                yield f"data.text_cleaners: {name} is a cleaner of {theirs}: clean the filelists there"


CHECKS: "tuple[Check, ...]" = (training, spectrograms, texts, speakers, network, durations)
DECODER_CHECKS: "dict[str, tuple[Check, ...]]" = {  # in addition
    "hifigan": (hifigan,),
    "vocos": (vocos,),
    "harmonic_vocos": (vocos,),
    "mb_istft": (mb_istft,),
}
