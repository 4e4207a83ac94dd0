"""A decoder and conditions that only this test knows: trained, saved, loaded, synthesized, streamed and exported."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
import torch.nn.functional as F
from test_synthesis_graphs import Rerun
from torch import nn

import checkpoint
import conditions
import config as configs
import decoders
import export_onnx
from data_utils import Collate, SpeechDataset
from export import metadata
from infer_onnx import OnnxVoice
from synthesis import Voice, speech
from synthesis.graphs import GraphedNet
from trainer import Trainer

TEXT = "hˈɛloʊ wˈɜld. tˈɛn tˈoʊnz!"
QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0, "length_scale": 8.0, "phonemes": True}
GERMAN = {"language": "de", "style": [0.0, 1.0, 0.0]}
ENGLISH = GERMAN | {"language": "en"}


class Upsampler(decoders.Decoder):
    """Repeats every frame `hop` times and applies one convolution."""

    flatten_convolutions = False  # the upsampling needs three dimensions
    context = 1

    def __init__(self, channels: int, hop: int, gin_channels: int):
        super().__init__()
        self.hop = hop
        self.cond = nn.Conv1d(gin_channels, channels, 1)
        self.conv = nn.Conv1d(channels, 1, 2 * hop + 1, padding=hop)

    @classmethod
    def from_config(cls, model, gin_channels):
        return cls(model.inter_channels, math.prod(model.upsample_rates), gin_channels)

    def forward(self, z, g=None):
        return torch.tanh(self.conv(F.interpolate(z + self.cond(g), scale_factor=float(self.hop), mode="nearest")))

    def onnx_form(self):
        return Scaled(self)


class Scaled(nn.Module):
    """A form for ONNX that is recognized by its audio, which is half as loud."""

    def __init__(self, dec):
        super().__init__()
        self.dec = dec

    def forward(self, z, g=None):
        return self.dec(z, g) / 2


class Language(conditions.Condition):
    """An id: even numbers in names of recordings are German, odd ones English."""

    module = "emb_language"
    settings = ("languages",)

    def size(self, data):
        return len(data.languages)

    def of_clips(self, clips, data):
        return [int(Path(clip.path).stem[-1]) % 2 for clip in clips]

    def resolve(self, given, data):
        table = data.languages | {i: i for i in data.languages.values()}
        if given not in table:
            raise ValueError(f"there is no language {given!r}; choices: {', '.join(data.languages)}")
        return table[given]


class Style(conditions.Condition):
    """A vector of three numbers."""

    module = "emb_style"

    def size(self, data):
        return 3

    def of_clips(self, clips, data):
        return [np.array([1.0, 0.1 * i, 0.0], np.float32) for i in range(len(clips))]

    def resolve(self, given, data):
        return np.asarray([0.0, 0.0, 1.0] if given is None else given, np.float32)

    def example(self, size):
        return np.zeros(size, np.float32)

    def embedding(self, size, gin_channels):
        return nn.Linear(size, gin_channels)


@dataclass(frozen=True)
class DataConfig(configs.DataConfig):
    """The settings of data with those of `Language`."""

    languages: dict[str, int] = configs.setting({}, "ids of languages")  # noqa: RUF009


@pytest.fixture(scope="module")
def extended():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(decoders.DECODERS, "upsampler", Upsampler)
        patch.setitem(configs.CHOICES, "model.decoder", ("hifigan", "upsampler"))
        patch.setitem(configs.SECTIONS, "data", DataConfig)
        patch.setattr(metadata, "DataConfig", DataConfig)
        patch.setitem(conditions.CONDITIONS, "language", Language())
        patch.setitem(conditions.CONDITIONS, "style", Style())
        patch.setattr(speech, "FIRST_CHUNK", 2)
        patch.setattr(speech, "MAX_CHUNK", 8)
        yield patch


@pytest.fixture(scope="module")
def run(extended, tmp_path_factory):
    """A trainer after three steps, saved in a folder."""
    folder = tmp_path_factory.mktemp("run")
    tiny.write_corpus(folder, speakers=2)
    more = {"data": {"languages": {"de": 0, "en": 1}}, "model": {"decoder": "upsampler"}}
    config = tiny.config(tiny.MANY_VOICES, more)
    trainer = Trainer(config, torch.device("cpu"))
    dataset = SpeechDataset(folder / "train.txt", config.data)
    batch = Collate(config.data.hop_length)([dataset[i] for i in range(4)])
    assert batch.conditions["language"].tolist() == [0, 1, 0, 1] and batch.conditions["style"].shape == (4, 3)
    before = {name: value.clone() for name, value in trainer.generator.network.named_parameters()}
    for _ in range(3):
        assert all(torch.isfinite(value) for value in trainer.step(batch).values())
        trainer.position.step += 1
    for name, value in trainer.generator.network.named_parameters():
        if name.startswith(("dec.", "emb_")):
            assert not torch.equal(value, before[name]), name
    checkpoint.save_run(trainer, folder)
    return folder


@pytest.fixture(scope="module")
def voice(run):
    return Voice.load(run)


def test_every_value_of_a_condition_has_its_audio(voice):
    assert isinstance(voice.net.dec, Upsampler) and voice.net.conditions == {"sid": 2, "language": 2, "style": 3}
    german = voice.speak(TEXT, 0, **QUIET, conditions=GERMAN)
    assert len(german.sentences) == 2 and german.audio.std() > 1e-3
    for speaker, given in [
        (0, ENGLISH),
        (1, GERMAN),
        (0, GERMAN | {"style": [0.0, 0.0, 5.0]}),
        (0, {"language": "de"}),
    ]:
        other = voice.speak(TEXT, speaker, **QUIET, conditions=given)
        assert other.audio.shape != german.audio.shape or not np.allclose(other.audio, german.audio, atol=1e-4)
    batch = voice.speak_batch([TEXT, "tˈɛn"], 0, **QUIET, conditions=GERMAN)
    np.testing.assert_allclose(batch[0].audio, german.audio, atol=1e-5)


def test_wrong_conditions_are_errors(voice):
    for given, message in [
        (None, "there is no language None; choices: de, en"),
        ({"language": "fr"}, "there is no language 'fr'"),
        (GERMAN | {"mood": "sad"}, "there is no condition 'mood'; choices: sid, language, style"),
    ]:
        with pytest.raises(ValueError, match=message):
            voice.speak(TEXT, 0, **QUIET, conditions=given)


def test_a_stream_equals_the_whole(voice):
    whole = voice.speak(TEXT, 0, **QUIET, conditions=GERMAN).audio
    parts = list(voice.speak(TEXT, 0, **QUIET, conditions=GERMAN, stream=True))
    assert len(parts) > 10
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_graphs_and_half_precision_equal_the_network(run, voice):
    expected = voice.speak(TEXT, 1, **QUIET, conditions=ENGLISH).audio
    graphed = Voice.load(run)
    graphed.graphed = GraphedNet(graphed.net, capture=Rerun())
    np.testing.assert_allclose(graphed.speak(TEXT, 1, **QUIET, conditions=ENGLISH).audio, expected, atol=1e-5)
    assert {key[0] for key in graphed.graphed.graphs} == {"plan", "latent", "dec"}
    half = Voice.load(run)
    half.half = half.net.dec.half_copy()
    assert 0 < np.abs(half.speak(TEXT, 1, **QUIET, conditions=ENGLISH).audio - expected).max() < 5e-3


def test_conversion_keeps_other_conditions(voice):
    samples = tiny.speech(0.5)
    german, english = (voice.convert(samples, 0, 1, conditions=given, seed=1) for given in (GERMAN, ENGLISH))
    assert len(german) == len(english) and not np.allclose(german, english, atol=1e-4)


@pytest.mark.parametrize("split", [False, True], ids=["one file", "two files"])
def test_an_exported_voice_has_the_conditions(voice, tmp_path, split):
    path = tmp_path / "v.onnx"
    (export_onnx.export_split if split else export_onnx.export)(voice, path)
    model = onnx.load(path.with_suffix(".encoder.onnx") if split else path)
    inputs = {entry.name: entry.type.tensor_type.shape.dim for entry in model.graph.input}
    assert list(inputs) == ["input", "input_lengths", "scales", "sid", "language", "style"]
    assert inputs["language"][0].dim_param == inputs["style"][0].dim_param == "batch_size"
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}["languages"]) == {"de": 0, "en": 1}
    exported = OnnxVoice(path)
    assert exported.data.languages == voice.data.languages
    for given in (GERMAN, ENGLISH):
        expected = voice.speak(TEXT, 1, **QUIET, conditions=given)
        np.testing.assert_allclose(
            exported.speak(TEXT, 1, **QUIET, conditions=given).audio, expected.audio / 2, atol=1e-4
        )
    with pytest.raises(ValueError, match="choices: de, en"):
        exported.speak(TEXT, 1, **QUIET)


def test_files_from_before_a_condition_have_its_defaults(voice, extended):
    facts = metadata.facts(voice)
    del facts["languages"]
    assert metadata.read(facts).data.languages == {}


def test_piper_and_sherpa_refuse_other_conditions(voice, tmp_path):
    with pytest.raises(ValueError, match="no condition but the speaker: not language, style"):
        export_onnx.export(voice, tmp_path / "v.onnx", for_runtimes=True)
    assert not list(tmp_path.iterdir())
