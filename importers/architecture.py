"""The architecture of a network, read from the names and shapes of its weights.

What shapes do not show are the strides and dilations of HiFi-GAN; they come from a config or a graph. What the network
of this repository does not have is reported by name.
"""

import re
from typing import Any

from torch import Tensor

import checkpoint
from attentions import RELATIVE_WINDOW

UNKNOWN = {  # beginnings of names of parts that this repository does not have, and what they are
    "enc_p.emo_proj": "an emotion embedding (emotional-vits)",
    "enc_p.emotion_emb": "an emotion embedding (emotional-vits)",
    "enc_p.bert_proj": "text features of BERT (Bert-VITS2)",
    "enc_p.ja_bert_proj": "text features of BERT (Bert-VITS2)",
    "enc_p.en_bert_proj": "text features of BERT (Bert-VITS2)",
    "enc_p.tone_emb": "an embedding of tones (Bert-VITS2)",
    "enc_p.language_emb": "an embedding of languages (Bert-VITS2)",
    "enc_p.lang_emb": "an embedding of languages",
    "emb_l": "an embedding of languages (Coqui)",
    "ref_enc": "a reference encoder of speakers",
    "sdp.": "two duration predictors at once (Bert-VITS2)",
    "dec.subband_conv_post": "a decoder of sub-bands with the filter bank and the phases of MB-iSTFT-VITS",
    "dec.multistream_conv_post": "a decoder of several streams (MS-iSTFT-VITS)",
    "dec.reflection_pad": "a decoder with an inverse STFT (iSTFT-VITS)",
    "dec.conds": "a condition in every layer of the decoder",
}


def indices(weights: dict[str, Tensor], pattern: str) -> int:
    """Return how many numbers the first group of a pattern matches at the beginning of the names: 0 to n - 1."""
    found = {int(match[1]) for name in weights if (match := re.match(pattern, name))}
    return max(found, default=-1) + 1


def shape_of(weights: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    """Return the shape of a weight, in whichever form of weight norm, or None if it is not there."""
    for form in (f"{name}.weight", f"{name}.weight_v", f"{name}.parametrizations.weight.original1"):
        if form in weights:
            return tuple(weights[form].shape)
    return None


def refuse_unknown_parts(weights: dict[str, Tensor], where: str) -> None:
    """Raise ValueError for parts of other projects that this network does not have."""
    for beginning, what in UNKNOWN.items():
        if any(name.startswith(beginning) for name in weights):
            raise ValueError(f"{where} has {what}, which the network here does not have")


def model_section(weights: dict[str, Tensor], given: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the `model` section of a config for weights under VITS's names.

    Shapes decide where they can, and `given`, a section of a config, decides the rest. Raises ValueError, beginning
    with `where`, that names what is unknown or not supported.
    """
    refuse_unknown_parts(weights, where)
    embedding, projection = weights["enc_p.emb.weight"], shape_of(weights, "enc_p.proj")
    relative = weights.get("enc_p.encoder.attn_layers.0.emb_rel_k")
    feed_forward = shape_of(weights, "enc_p.encoder.ffn_layers.0.conv_1")
    if projection is None or relative is None or feed_forward is None:
        raise ValueError(f"{where} has no text encoder of VITS: it lacks its projection, its attention or its layers")
    if relative.shape[1] != 2 * RELATIVE_WINDOW + 1:
        raise ValueError(f"{where}: its attention has a window of {relative.shape[1] // 2} positions, not of 4")
    hidden = embedding.shape[1]
    found: dict[str, Any] = {
        "inter_channels": projection[0] // 2,
        "hidden_channels": hidden,
        "filter_channels": feed_forward[0],
        "kernel_size": feed_forward[2],
        "n_heads": hidden // relative.shape[2],
        "n_layers": indices(weights, r"enc_p\.encoder\.attn_layers\.(\d+)\."),
        "use_sdp": "dp.flows.0.m" in weights,
        "use_duration_noise": "dp.noise.weight" in weights,
        "use_spk_conditioned_encoder": "enc_p.encoder.spk_emb_linear.weight" in weights,
        **_conditions(weights, where),
        **_posterior(weights, hidden),
        **_flow(weights, given, where),
        **_decoder(weights, given, where),
    }
    return {**given, **found}


def _conditions(weights: dict[str, Tensor], where: str) -> dict[str, Any]:
    if "emb_g.weight" in weights:
        return {"gin_channels": weights["emb_g.weight"].shape[1]}
    if shape_of(weights, "dec.cond") is not None:
        raise ValueError(f"{where} is conditioned on speakers, but has no table of them: a speaker encoder is needed")
    return {"gin_channels": 0}


def _posterior(weights: dict[str, Tensor], hidden: int) -> dict[str, Any]:
    first = shape_of(weights, "enc_q.pre")
    if first is None:
        return {}
    layers = indices(weights, r"enc_q\.enc\.in_layers\.(\d+)\.")
    return {"posterior_layers": layers, "posterior_channels": None if first[0] == hidden else first[0]}


def _flow(weights: dict[str, Tensor], given: dict[str, Any], where: str) -> dict[str, Any]:
    kind = checkpoint.flow_of(weights)
    if kind == "no transformer":
        return {"use_transformer_flows": False}
    if kind == checkpoint.MONO_LAYER:
        kind = str(given.get("transformer_flow_type", ""))
        if not kind.startswith("mono_layer_"):
            raise ValueError(f"{where}: its weights do not tell which mono_layer flow it has: give its config")
    return {"use_transformer_flows": True, "transformer_flow_type": kind}


def _decoder(weights: dict[str, Tensor], given: dict[str, Any], where: str) -> dict[str, Any]:
    if "dec.norm_pre.gamma" in weights:
        post = shape_of(weights, "dec.conv_post") or (0,)
        channels, layers = weights["dec.norm_pre.gamma"].shape[0], indices(weights, r"dec\.blocks\.(\d+)\.")
        harmonic = "dec.pitch.proj.weight" in weights  # twice the outputs: harmonics and a free part
        n_fft = post[0] // (2 if harmonic else 1) - 2
        sizes = {"convnext_channels": channels, "convnext_layers": layers, "istft_n_fft": n_fft}
        return {"decoder": "harmonic_vocos" if harmonic else "vocos", **sizes}
    first, ups = shape_of(weights, "dec.conv_pre"), indices(weights, r"dec\.ups\.(\d+)\.")
    blocks = indices(weights, r"dec\.resblocks\.(\d+)\.")
    if first is None or not ups or blocks % ups:
        raise ValueError(f"{where} has no decoder of HiFi-GAN, Vocos or MB-iSTFT that can be told from its weights")
    single = any(name.startswith("dec.resblocks.0.convs.") for name in weights)
    inner = "convs" if single else "convs1"
    kernels, depths = [], []
    for i in range(blocks // ups):
        kernels.append((shape_of(weights, f"dec.resblocks.{i}.{inner}.0") or (0, 0, 0))[2])
        depths.append(indices(weights, rf"dec\.resblocks\.{i}\.{inner}\.(\d+)\."))
    outputs = (shape_of(weights, "dec.conv_post") or (1,))[0]
    unknown = {"upsample_rates": "strides", "resblock_dilation_sizes": "dilations"}
    if outputs > 1:
        unknown |= {"subbands": "number of bands", "istft_hop_length": "hop length"}
    for key, what in unknown.items():
        if not given.get(key):
            raise ValueError(f"{where}: its weights do not tell the {what} of its decoder ({key}): give its config")
    rates, dilations = list(given["upsample_rates"]), [list(d) for d in given["resblock_dilation_sizes"]]
    if len(rates) != ups or [len(d) for d in dilations] != depths:
        raise ValueError(
            f"{where}: its decoder has {ups} upsamplings and residual blocks of {depths} layers, "
            f"but its config has upsample_rates {rates} and resblock_dilation_sizes {dilations}"
        )
    return {
        **_output(outputs, given, where),
        "resblock": "2" if single else "1",
        "resblock_kernel_sizes": kernels,
        "resblock_dilation_sizes": dilations,
        "upsample_rates": rates,
        "upsample_initial_channel": first[0],
        "upsample_kernel_sizes": [(shape_of(weights, f"dec.ups.{i}") or (0, 0, 0))[2] for i in range(ups)],
    }


def _output(outputs: int, given: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the settings of a decoder with the trunk of HiFi-GAN after its last convolution."""
    if outputs == 1:
        return {"decoder": "hifigan"}
    bands = given["subbands"]
    if outputs % bands:
        raise ValueError(f"{where}: its decoder has {outputs} outputs, but its config has {bands} subbands")
    return {"decoder": "mb_istft", "subbands": bands, "istft_n_fft": outputs // bands - 2}


def data_section(weights: dict[str, Tensor], given: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the keys of the `data` section that the weights decide, `given` a section of a config.

    Raises ValueError, beginning with `where`, if the posterior's input is neither of the spectrograms of the config.
    """
    found: dict[str, Any] = {"n_speakers": weights["emb_g.weight"].shape[0] if "emb_g.weight" in weights else 0}
    if (first := shape_of(weights, "enc_q.pre")) is not None:
        linear, mel = given.get("filter_length", 1024) // 2 + 1, given.get("n_mel_channels", 80)
        if first[1] not in (linear, mel):
            raise ValueError(f"{where}: its posterior reads {first[1]} channels; its config has {linear} or {mel}")
        found["use_mel_posterior_encoder"] = first[1] == mel != linear
    return found
