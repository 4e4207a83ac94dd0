"""`VitsModel` of Hugging Face's Transformers, MMS included: folders with weights, config.json and a tokenizer."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import checkpoint
import cli
from config import Config, ModelConfig
from files import write_text
from importers.source import Imported, read_config
from synthesis.speech import Scales

TITLE = "Hugging Face VitsModel"
FIXED: dict[str, Any] = {  # settings that the network here has no choice of
    "window_size": 4,
    "use_bias": True,
    "hidden_act": "relu",
    "layer_norm_eps": 1e-5,
    "leaky_relu_slope": 0.1,
    "depth_separable_channels": 2,
    "depth_separable_num_layers": 3,
    "duration_predictor_flow_bins": 10,
    "duration_predictor_tail_bound": 5.0,
    "duration_predictor_kernel_size": 3,
    "duration_predictor_num_flows": 4,
    "duration_predictor_filter_channels": 256,
    "prior_encoder_num_flows": 4,
    "prior_encoder_num_wavenet_layers": 4,
    "wavenet_kernel_size": 5,
    "wavenet_dilation_rate": 1,
}
SETTINGS = {  # of `VitsConfig`, and keys of `model` here
    "flow_size": "inter_channels",
    "hidden_size": "hidden_channels",
    "ffn_dim": "filter_channels",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "ffn_kernel_size": "kernel_size",
    "hidden_dropout": "p_dropout",
    "duration_predictor_dropout": "duration_p_dropout",
    "resblock_kernel_sizes": "resblock_kernel_sizes",
    "resblock_dilation_sizes": "resblock_dilation_sizes",
    "upsample_rates": "upsample_rates",
    "upsample_initial_channel": "upsample_initial_channel",
    "upsample_kernel_sizes": "upsample_kernel_sizes",
    "use_stochastic_duration_prediction": "use_sdp",
    "posterior_encoder_num_wavenet_layers": "posterior_layers",
    "speaker_embedding_size": "gin_channels",
}
# Parts of the network with the name of each module, here and there. Other names are the same.
ATTENTION = {"conv_q": "q_proj", "conv_k": "k_proj", "conv_v": "v_proj", "conv_o": "out_proj"}
LAYERS = {
    "attn_layers": "attention",
    "ffn_layers": "feed_forward",
    "norm_layers_1": "layer_norm",
    "norm_layers_2": "final_layer_norm",
}
WAVENET = {"pre": "conv_pre", "enc": "wavenet", "post": "conv_post", "proj": "conv_proj"}
STOCHASTIC = {
    "pre": "conv_pre",
    "convs": "conv_dds",
    "proj": "conv_proj",
    "post_pre": "post_conv_pre",
    "post_convs": "post_conv_dds",
    "post_proj": "post_conv_proj",
    "convs_sep": "convs_dilated",
    "convs_1x1": "convs_pointwise",
    "m": "translate",
    "logs": "log_scale",
}
PARTS: dict[str, tuple[str, dict[str, str]]] = {
    "enc_p": ("text_encoder", {"emb": "embed_tokens", "proj": "project"}),
    "enc_q": ("posterior_encoder", WAVENET),
    "flow": ("flow", WAVENET),
    "dp": ("duration_predictor", STOCHASTIC),
    "dec": ("decoder", {"ups": "upsampler"}),
    "emb_g": ("embed_speaker", {}),
}
NORM = {"gamma": "weight", "beta": "bias"}


def their_name(name: str, use_sdp: bool) -> str:
    """Return the name in `VitsModel` of a weight under VITS's name."""
    part, *modules = name.split(".")
    theirs, table = PARTS[part]
    if part == "enc_p" and modules[0] == "encoder":
        _, layers, number, *inner = modules
        inner = [ATTENTION.get(module, NORM.get(module, module)) for module in inner]
        return ".".join([theirs, "encoder", "layers", number, LAYERS[layers], *inner])
    if modules[0] in ("flows", "post_flows"):  # there, the flips are not in the list
        place = int(modules[1])
        modules[1] = str((place + 1) // 2 if part == "dp" else place // 2)
    if part != "dp" or use_sdp:
        modules = [table.get(module, module) for module in modules]
    return ".".join([theirs, *(NORM.get(module, module) for module in modules)])


def our_name(name: str) -> str:
    """Return VITS's name of a weight of `VitsModel`, the inverse of `their_name`."""
    (part, (_, table)) = next(((p, t) for p, t in PARTS.items() if name.startswith(f"{t[0]}.")), ("", ("", {})))
    _, *modules = name.split(".")
    back = {theirs: ours for ours, theirs in table.items()}
    if part == "enc_p" and modules[0] == "encoder":
        _, _, number, layer, *inner = modules
        ours = {theirs: ours for ours, theirs in {**LAYERS, **ATTENTION}.items()}
        modules = ["encoder", ours[layer], number, *(ours.get(module, module) for module in inner)]
    elif modules[0] in ("flows", "post_flows"):
        place = int(modules[1])
        modules[1] = str(max(2 * place - 1, 0) if part == "dp" else 2 * place)
    modules = [back.get(module, module) for module in modules]
    if any("norm" in module for module in modules):
        modules[-1] = {"weight": "gamma", "bias": "beta"}.get(modules[-1], modules[-1])
    return ".".join([part, *modules])


def convert(
    path: Path, content: Any, weights: dict[str, Tensor], config: Mapping[str, Any], files: Mapping[str, Path]
) -> Imported:
    """Return the voice of a folder of Transformers. Raises ValueError if the network here cannot be like it."""
    refuse_other_settings(config, path)
    ours = {}
    for name, value in weights.items():
        renamed = our_name(checkpoint.reference_name(name))
        ours[renamed] = value.unsqueeze(2) if ".attn_layers." in renamed and value.dim() == 2 else value
    model = {here: config[there] for there, here in SETTINGS.items() if there in config}
    bins = int(config.get("spectrogram_bins", 513))
    voice = Imported(TITLE, ours, model)
    voice.data = {
        "sampling_rate": config.get("sampling_rate", 16000),
        "filter_length": 2 * (bins - 1),
        "win_length": 2 * (bins - 1),
        "hop_length": math.prod(config.get("upsample_rates", [8, 8, 2, 2])),
        "cleaned_text": False,
        **_text(files, len(ours["enc_p.emb.weight"]), voice.notes),
    }
    if speakers := config.get("speaker_id_map"):
        voice.data["speakers"] = speakers
    _note_scales(config, voice.notes)
    return voice


def refuse_other_settings(config: Mapping[str, Any], where: Path) -> None:
    """Raise ValueError that names the settings whose values the network here does not have."""
    needed = dict(FIXED)
    if config.get("use_stochastic_duration_prediction", True):
        del needed["duration_predictor_filter_channels"]
    other = [f"{key} {config[key]} (not {value})" for key, value in needed.items() if config.get(key, value) != value]
    if other:
        raise ValueError(f"{where}: the network here cannot have {', '.join(other)}")


def _text(files: Mapping[str, Path], rows: int, notes: list[str]) -> dict[str, Any]:
    """Return the symbols, cleaners and blanks of the tokenizer."""
    if "vocab.json" not in files:
        notes.append("there is no vocab.json: it speaks token ids only, unless --symbols names a file with its symbols")
        return {}
    tokenizer = read_config(files["tokenizer_config.json"]) if "tokenizer_config.json" in files else {}
    vocabulary = {symbol: i for symbol, i in read_config(files["vocab.json"]).items() if i < rows}
    special = {tokenizer.get("pad_token"), tokenizer.get("unk_token"), "<unk>", "<pad>"}
    # special tokens do not occur in texts, except that one may be the blank, which has id 0
    symbols = {symbol: i for symbol, i in vocabulary.items() if symbol not in special or i == 0}
    if tokenizer.get("phonemize", True):
        cleaners = ["phonemes_en-us"]
    elif tokenizer.get("is_uroman"):
        cleaners = ["transliteration_cleaners"]
        notes.append("its owner romanizes text with uroman; transliteration_cleaners is similar, not the same")
    else:
        cleaners = ["basic_cleaners"]
    blank = tokenizer.get("add_blank", True)
    return {"symbols": symbols, "n_vocab": rows, "text_cleaners": cleaners, "add_blank": blank}


def _note_scales(config: Mapping[str, Any], notes: list[str]) -> None:
    """Note the scales with which the owner of a voice speaks, where they differ from those here."""
    ours = Scales()
    theirs = Scales(
        config.get("noise_scale", ours.noise_scale),
        1 / config.get("speaking_rate", 1.0),
        config.get("noise_scale_duration", ours.noise_scale_w),
    )
    if theirs != ours:
        pairs = zip(theirs._asdict().items(), ours)
        options = [f"--{name.replace('_', '-')} {value:g}" for (name, value), own in pairs if value != own]
        notes.append(f"its owner speaks with {' '.join(options)}")


def write(folder: Path, weights: dict[str, Tensor], config: Config, table: Mapping[str, int]) -> list[Path]:
    """Write a voice as a folder that `VitsModel.from_pretrained` loads; `table` maps its symbols to ids.

    Returns the files. Raises ValueError if `VitsModel` has no such network.
    """
    model, data = config.model, config.data
    problems = {
        "the transformer flow": model.use_transformer_flows,
        f"the decoder {model.decoder}": model.decoder != "hifigan",
        "resblock 2": model.resblock != "1",
        "the speaker in the text encoder": model.use_spk_conditioned_encoder and data.n_speakers,
        "duration noise": model.use_duration_noise,
        "posterior_channels": model.posterior_channels not in (None, model.hidden_channels),
        "a posterior encoder of mel spectrograms": data.use_mel_posterior_encoder,
        "marks at the beginning or the end of texts": data.begin_symbol or data.end_symbol,
    }
    if lacking := [what for what, present in problems.items() if present]:
        raise ValueError(
            f"VitsModel of Hugging Face does not have {', '.join(lacking)}, so this voice has no such form"
        )
    # there, weight norm is folded in the decoder, and parametrized elsewhere
    in_decoder = [n.removesuffix("_g") for n in weights if n.startswith("dec.") and n.endswith("weight_g")]
    norms = {ours: theirs for theirs, ours in checkpoint.WEIGHT_NORM.items()}
    theirs = {}
    for name, value in checkpoint.fitted(weights, in_decoder).items():
        linear = ".attn_layers." in name and name.endswith("weight")
        stem, _, last = their_name(name, model.use_sdp).rpartition(".")
        theirs[f"{stem}.{norms.get(last, last)}"] = (value.squeeze(2) if linear else value).contiguous()
    defaults = dataclasses.asdict(ModelConfig())
    settings = {there: dataclasses.asdict(model).get(here, defaults[here]) for there, here in SETTINGS.items()}
    scales = Scales()
    settings |= FIXED | {
        "architectures": ["VitsModel"],
        "model_type": "vits",
        "vocab_size": len(weights["enc_p.emb.weight"]),
        "spectrogram_bins": config.spec_channels,
        "num_speakers": max(data.n_speakers, 1),
        "sampling_rate": data.sampling_rate,
        "noise_scale": scales.noise_scale,
        "noise_scale_duration": scales.noise_scale_w,
        "speaking_rate": 1.0,
    }
    if data.speakers:
        settings["speaker_id_map"] = data.speakers
    phonemes = data.text_cleaners not in (["basic_cleaners"], ["transliteration_cleaners"])
    tokenizer = {
        "tokenizer_class": "VitsTokenizer",
        "add_blank": data.add_blank,
        "normalize": not phonemes,
        "phonemize": phonemes,
        "is_uroman": False,
        "pad_token": next((symbol for symbol, i in table.items() if i == 0), "<pad>"),
        "unk_token": "<unk>",
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    cli.extra("safetensors.torch").save_file(theirs, file, {"format": "pt"})
    written = {"config.json": settings, "tokenizer_config.json": tokenizer, "vocab.json": dict(table)}
    for name, content in written.items():
        write_text(folder / name, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    return [file, *(folder / name for name in written)]
