"""VITS of Coqui TTS: a file of weights and a config.json."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from importers.source import Imported, read_config, read_pickled

# Beginnings of names there and here
PARTS = {
    "text_encoder.": "enc_p.",
    "posterior_encoder.": "enc_q.",
    "waveform_decoder.cond_layer.": "dec.cond.",
    "waveform_decoder.": "dec.",
    "duration_predictor.": "dp.",
}
FIXED: dict[str, Any] = {  # arguments of the network that the one here has no choice of
    "kernel_size_posterior_encoder": 5,
    "dilation_rate_posterior_encoder": 1,
    "kernel_size_flow": 5,
    "dilation_rate_flow": 1,
    "num_layers_flow": 4,
    "use_d_vector_file": False,
    "use_language_embedding": False,
    "encoder_sample_rate": None,
    "condition_dp_on_speaker": True,
}
ARGUMENTS = {  # of `VitsArgs`, and keys of `model` here
    "dropout_p_text_encoder": "p_dropout",
    "dropout_p_duration_predictor": "duration_p_dropout",
    "upsample_rates_decoder": "upsample_rates",
    "resblock_dilation_sizes_decoder": "resblock_dilation_sizes",
}
DEFAULTS = {"upsample_rates": [8, 8, 2, 2], "resblock_dilation_sizes": [[1, 3, 5]] * 3}
AUDIO = {  # of the section `audio`, and keys of `data` here
    "sample_rate": "sampling_rate",
    "fft_size": "filter_length",
    "hop_length": "hop_length",
    "win_length": "win_length",
    "num_mels": "n_mel_channels",
    "mel_fmin": "mel_fmin",
    "mel_fmax": "mel_fmax",
}
ENGLISH = ("english_cleaners", "phoneme_cleaners", "en_cleaners")  # of which the phonemes of English here are nearest
OWN_BLANK = "<BLNK>"  # of the class `VitsCharacters`, whatever the config says
SPEAKER_FILES = ("speakers.pth", "speakers.json", "speaker_ids.json")


def our_name(name: str) -> str | None:
    """Return VITS's name of a weight, or None if speech does not need it."""
    if name.startswith(("disc.", "speaker_manager.", "audio_transform.")):
        return None
    for theirs, ours in PARTS.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    # there, the flips are not in the list of flows
    name = re.sub(r"^(flow\.flows)\.(\d+)", lambda m: f"{m[1]}.{2 * int(m[2])}", name)
    name = re.sub(r"^(dp\.(?:post_)?flows)\.(\d+)", lambda m: f"{m[1]}.{max(2 * int(m[2]) - 1, 0)}", name)
    name = re.sub(r"^(dp\.(?:post_)?flows\.0)\.translation$", r"\1.m", name)
    return re.sub(r"^(dp\.(?:post_)?flows\.0)\.log_scale$", r"\1.logs", name)


def convert(
    path: Path, content: Any, weights: dict[str, Tensor], config: Mapping[str, Any], files: Mapping[str, Path]
) -> Imported:
    """Return the voice of Coqui TTS. Raises ValueError if the network here cannot be like it, or without a config."""
    arguments, audio = config.get("model_args"), config.get("audio")
    if not isinstance(arguments, Mapping) or not isinstance(audio, Mapping):
        raise ValueError(f"{path}: there is no config of Coqui (model_args, audio) beside it: name it with --config")
    other = [f"{key} {arguments[key]}" for key, value in FIXED.items() if arguments.get(key, value) != value]
    if other:
        raise ValueError(f"{path}: the network here cannot have {', '.join(other)}")
    named = {our_name(name): value for name, value in weights.items()}
    ours = {n: w.flatten() if n.endswith((".gamma", ".beta")) else w for n, w in named.items() if n is not None}
    voice = Imported("Coqui TTS", ours)
    voice.model = DEFAULTS | {here: arguments[there] for there, here in ARGUMENTS.items() if there in arguments}
    voice.data = {here: audio[there] for there, here in AUDIO.items() if audio.get(there) is not None}
    voice.data |= _text(config, len(ours["enc_p.emb.weight"]), voice.notes)
    if "emb_g.weight" in ours:
        voice.data["speakers"] = _speakers(files)
    return voice


def _text(config: Mapping[str, Any], rows: int, notes: list[str]) -> dict[str, Any]:
    """Return the symbols, cleaners and marks of the tokenizer."""
    characters = config.get("characters")
    cleaner, language = str(config.get("text_cleaner")), config.get("phoneme_language") or "en-us"
    if config.get("use_phonemes"):
        english = cleaner in ENGLISH and language.startswith("en")
        cleaners = ["english_cleaners2" if english and language == "en-us" else f"phonemes_{language}"]
    else:
        cleaners = ["basic_cleaners"]
        if cleaner not in ("basic_cleaners", "multilingual_cleaners"):
            notes.append(f"its text_cleaner {cleaner!r} is not here: basic_cleaners takes its place")
    found: dict[str, Any] = {
        "text_cleaners": cleaners,
        "cleaned_text": False,
        "add_blank": bool(config.get("add_blank")),
    }
    if not isinstance(characters, Mapping):
        notes.append("its config has no characters: it speaks token ids only, unless --symbols names its table")
        return found
    table = vocabulary(characters)
    blank = OWN_BLANK if _is_of(characters, "VitsCharacters") else characters.get("blank")
    marks = {"blank_symbol": blank or characters.get("pad") or ""}
    if config.get("enable_eos_bos_chars"):
        marks |= {"begin_symbol": characters.get("bos") or "", "end_symbol": characters.get("eos") or ""}
    return {**found, **marks, "symbols": table, "n_vocab": rows}


def _is_of(characters: Mapping[str, Any], name: str) -> bool:
    """Return whether the symbols are of a class of Coqui's."""
    return str(characters.get("characters_class", "")).endswith(name)


def vocabulary(characters: Mapping[str, Any]) -> list[str]:
    """Return the symbols in the order of their ids."""
    letters, marks = characters.get("characters") or "", characters.get("punctuations") or ""
    pad, blank = characters.get("pad"), characters.get("blank")
    if _is_of(characters, "VitsCharacters"):
        return [pad or "", *marks, *letters, *(characters.get("phonemes") or ""), OWN_BLANK]
    if _is_of(characters, "IPAPhonemes") and characters.get("phonemes"):
        letters = characters["phonemes"]
    if characters.get("is_unique"):
        letters = "".join(dict.fromkeys(letters))
    if characters.get("is_sorted", True):
        letters = "".join(sorted(letters))
    first = [symbol for symbol in (pad, characters.get("eos"), characters.get("bos"), blank) if symbol]
    return [*first, *letters, *marks]


def _speakers(files: Mapping[str, Path]) -> dict[str, int]:
    """Return the names of the speakers, if a file has them."""
    for name in SPEAKER_FILES:
        if name in files:
            table = read_config(files[name]) if name.endswith(".json") else read_pickled(files[name])
            if isinstance(table, Mapping) and all(isinstance(number, int) for number in table.values()):
                return {str(speaker): number for speaker, number in table.items()}
    return {}
