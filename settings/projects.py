"""The projects of the VITS family by the keys of their configs: what of each works here, and what does not."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

IMPORTS = "import_voice.py imports its voices"


class Project(NamedTuple):
    """A project whose configs are not configs of this one."""

    name: str
    signs: tuple[str, ...]  # keys of which each alone distinguishes it, `section.key`
    works: str
    lacks: str


PROJECTS = (  # in the order in which they are tried
    Project(
        "Piper",
        ("phoneme_id_map",),
        IMPORTS,
        "the config describes a finished voice, not its training",
    ),
    Project(
        "Hugging Face's Transformers",
        ("model_type", "transformers_version"),
        f"{IMPORTS} if it is a VitsModel",
        "it has no settings for training",
    ),
    Project(
        "Coqui TTS",
        ("model_args", "characters", "run_name", "phonemizer", "use_phonemes"),
        f"{IMPORTS} of VITS, with characters and speakers",
        "its configs do not train here, nor do its speaker vectors, languages and other models",
    ),
    Project(
        "daniilrobnikov/vits2",
        ("model.speaker_cond_layer", "model.n_flows", "data.vocab_file", "data.n_fft"),
        "its recordings and filelists of plain text train here with a config of this repository",
        "its networks have other layers, so its checkpoints and configs do not load",
    ),
    Project(
        "so-vits-svc",
        ("model.ssl_dim", "data.unit_interpolate_mode", "spk"),
        "its recordings train here, with texts",
        "it converts voices from speech units without text, which no network here does",
    ),
    Project(
        "Bert-VITS2",
        ("data.spk2id", "train.freeze_ZH_bert", "train.c_commit", "train_ms", "emo_gen", "bert_gen"),
        "its recordings and texts train here with a config of this repository",
        "its networks read BERT features, tones and languages, so its checkpoints and configs do not load",
    ),
    Project(
        "MB-iSTFT-VITS",
        (
            *("model.istft", "model.mb_istft_vits", "model.ms_istft_vits", "model.istft_vits"),
            *("model.gen_istft_n_fft", "model.gen_istft_hop_size", "train.fft_sizes"),
        ),
        "its recordings and filelists train here; the decoder mb_istft (model.decoder) is of the same kind",
        "its decoders have other filter banks, phases and layers, so its checkpoints and configs do not load",
    ),
    Project(
        "emotional-vits",
        ("model.emotion_embedding", "data.emotion_embedding", "data.emotion", "emotion_embedding"),
        "without the embedding, its recordings and filelists train here",
        "its embedding of emotions is not read, so its checkpoints do not load",
    ),
    Project(
        "Plachtaa/VITS-fast-fine-tuning",
        ("symbols", "speakers"),
        f"{IMPORTS} with symbols and speakers",
        "to train, move the lists into data.symbols and data.speakers",
    ),
)
# Cleaners that are not here, and the projects that have them. Their filelists train here once they are cleaned.
FOREIGN_CLEANERS = {
    "japanese_cleaners": "CjangCjengh/vits, emotional-vits and Plachtaa/VITS-fast-fine-tuning",
    "japanese_cleaners2": "CjangCjengh/vits, emotional-vits and Plachtaa/VITS-fast-fine-tuning",
    **dict.fromkeys(
        (
            *("chinese_cleaners", "korean_cleaners", "zh_ja_mixture_cleaners", "sanskrit_cleaners", "thai_cleaners"),
            *("cjks_cleaners", "cjke_cleaners", "cjke_cleaners2", "shanghainese_cleaners", "chinese_dialect_cleaners"),
        ),
        "CjangCjengh/vits and Plachtaa/VITS-fast-fine-tuning",
    ),
}
VITS2_KEYS = (  # of `model`, with which vits2_pytorch extended VITS
    *("use_transformer_flows", "transformer_flow_type", "use_spk_conditioned_encoder", "use_noise_scaled_mas"),
    *("use_duration_discriminator", "duration_discriminator_type", "use_mel_posterior_encoder"),
)


def recognize(config: Mapping[str, Any]) -> str | None:
    """Return a sentence on the project that a config is of, or None if it may be one of VITS or of this repository."""
    for project in PROJECTS:
        if found := [sign for sign in project.signs if _has(config, sign)]:
            shown = ", ".join(found[:3])
            return f"a config of {project.name} ({shown}). Works: {project.works}. Does not: {project.lacks}"
    return None


def _has(config: Mapping[str, Any], sign: str) -> bool:
    section, _, key = sign.partition(".")
    inner = config.get(section)
    return section in config if not key else isinstance(inner, Mapping) and key in inner


def origin(config: Mapping[str, Any], own: Mapping[str, list[str]]) -> str:
    """Return whose a valid config is, empty for one of this repository alone.

    `own` are the keys of each section that only this repository has.
    """
    if any(key in config[section] for section, keys in own.items() for key in keys):
        return ""
    project = "vits2_pytorch" if any(key in config["model"] for key in VITS2_KEYS) else "VITS"
    return f", a config of {project}, which trains here as it is"


def foreign_cleaners(names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each cleaner of another project."""
    for name in names:
        if name in FOREIGN_CLEANERS:
            yield (
                f"{name} is a cleaner of {FOREIGN_CLEANERS[name]}. Filelists that were cleaned there train here, and "
                "voices read their phonemes, but no plain text. Embeddings of emotions (emotional-vits) are not read"
            )
