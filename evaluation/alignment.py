"""Durations of symbols: those that a voice predicts, and those that it finds in a recording by its alignment search."""

from typing import TYPE_CHECKING, Any

from audio import load_audio
from synthesis.speech import BaseVoice
from text.tokens import clean, token_ids, token_names

if TYPE_CHECKING:  # PyTorch is not needed for exported voices
    from synthesis import Voice


def durations(
    voice: BaseVoice, text: str, recording: str, speaker: str | None, seed: int, draws: int
) -> dict[str, Any]:
    """Return `symbols`, `predicted` and `aligned` of one line for `takes.json`, durations in whole frames.

    The tokens are those of training: the whole line in one piece. An exported voice has no alignment search; its
    predictions are the durations of the pieces that it speaks.
    """
    if hasattr(voice, "net"):
        return network_durations(voice, text, recording, speaker, seed, draws)  # type: ignore[arg-type]
    seeds = range(seed, seed + draws) if takes_seeds(voice) else [None] * draws
    spoken = [voice.speak(text, speaker, seed=one) for one in seeds]
    if any(sentence.durations is None for sentence in spoken[0].sentences):
        return {}
    names = [name for sentence in spoken[0].sentences for name in sentence.names]
    return {"symbols": names, "predicted": [speech.durations.tolist() for speech in spoken]}


def network_durations(
    voice: "Voice", text: str, recording: str, speaker: str | None, seed: int, draws: int
) -> dict[str, Any]:
    """Return `durations` of a PyTorch voice: predictions as they are spoken, and its alignment of the recording.

    Predictions are rounded up to whole frames, as `SynthesizerTrn.plan` does.
    The alignment is the search of training, in evaluation mode: on a sample of the posterior, without alignment noise.
    """
    import torch

    from conditions import resolve
    from synthesis.speech import Scales

    net, device, hop = voice.net, voice.device, voice.data.hop_length
    symbols = clean(text, voice.data)
    ids = token_ids(symbols, voice.data)
    x, x_lengths = torch.tensor([ids], device=device), torch.tensor([len(ids)], device=device)
    values = resolve({"sid": speaker}, voice.data)
    samples = load_audio(recording, voice.sampling_rate)
    y = voice.posterior_input(samples[: len(samples) // hop * hop])
    y_lengths = torch.tensor([y.size(2)], device=device)
    with torch.inference_mode(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        g = net.condition(voice.bundle(values, draws))
        repeated = x.repeat(draws, 1), x_lengths.repeat(draws)
        h, _, _, x_mask = net.enc_p(*repeated, g if net.conditions_text else None)
        logw = net.predict_durations(h, x_mask, g, Scales().noise_scale_w)
        spoken = torch.ceil(logw.float().exp())[:, 0].long()
        found = {"symbols": token_names(symbols, voice.data), "predicted": spoken.tolist()}
        if voice.has_posterior and len(ids) <= y.size(2):  # otherwise there is no alignment
            out = net(x, x_lengths, y, y_lengths, voice.bundle(values, 1))
            found["aligned"] = out.attn.sum(2)[0, 0].long().tolist()
    return found


def takes_seeds(voice: BaseVoice) -> bool:
    """Return whether the voice accepts a seed; exported files do only if the noise is an input."""
    return "noise" in getattr(voice, "inputs", ("noise",))
