"""Exported voices in Piper and sherpa-onnx, with the front ends of both, equal PyTorch."""

import json
import shlex
import subprocess
import sys
import unicodedata
import wave
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import tiny
import tiny_voices
import torch

import export_onnx
import infer_onnx
from export import runtimes
from mel_processing import log_mel
from synthesis import Voice
from text import espeak, tokens
from text.symbols import symbols

QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0}
ENGLISH = {"text_cleaners": ["english_cleaners2"]}
GERMAN = {"text_cleaners": ["phonemes_de"]}
BLANKS = {"add_blank": True}
PIPER_TABLE = {
    "symbols": {symbol: [i] for i, symbol in enumerate(dict.fromkeys(["_", "^", "$", *symbols])) if symbol != "ʲ"},
    "blank_symbol": "_",
    "begin_symbol": "^",
    "end_symbol": "$",
    "unicode_form": "NFD",
    "n_vocab": 200,
    "add_blank": True,
}
CASES = {
    "deterministic": {"data": ENGLISH},
    "deterministic, blanks": {"data": ENGLISH | BLANKS},
    "stochastic": {"data": ENGLISH, "use_sdp": True},
    "stochastic, blanks, several speakers": {
        "data": ENGLISH | BLANKS,
        "use_sdp": True,
        "speakers": {"anna": 0, "bo": 1},
    },
    "several speakers": {"data": ENGLISH, "speakers": 3},
    "a table of one speaker": {"data": ENGLISH, "speakers": {"anna": 0}},
    "vocos": {"data": ENGLISH, "decoder": "vocos"},
    "harmonic_vocos, several speakers": {
        "data": ENGLISH,
        "decoder": "harmonic_vocos",
        "speakers": {"anna": 0, "bo": 1},
    },
    "a table of Piper": {"data": ENGLISH | PIPER_TABLE, "flow": None},
    "German": {"data": GERMAN},
    "German, blanks": {"data": GERMAN | BLANKS, "flow": None},
}
SLOW = {"mb_istft": {"data": ENGLISH, **tiny.DECODERS["mb_istft"]}}
CHARACTERS = {
    "characters": {"data": {"extra_symbols": "éù"}},
    "characters, blanks": {"data": {"extra_symbols": "éù"} | BLANKS},
}
# All front ends give the same symbols, except that espeak-ng in the runtimes writes a glide in "Maria", and that they
# decompose the ç of "ich".
TEXTS = {
    "en-us": "Maria said hello to the world, did she?",
    "de": "Ich bin nicht da, Maria.",
    "": "Où vas tu, Chloé",
}
# Tolerances for the differences between PyTorch and ONNX Runtime; a step of 16-bit audio is 3e-5.
SAMPLES, SAMPLES_16_BIT = 1e-5, 5e-5
LOG_MEL, LOG_MEL_16_BIT = 1e-3, 0.03


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that returns the voice of a case and its ONNX file, with the files of both runtimes beside it."""
    made = {}

    def get(case, **options):
        key = (case, *options.items())
        if key not in made:
            voice = Voice(tiny_voices.network(conf := settings(case), tokens.vocabulary(conf.data)), conf, step=7)
            path = tmp_path_factory.mktemp("voice") / "voice.onnx"
            export_onnx.export(voice, path, for_runtimes=True, **options)
            for files in runtimes.RUNTIMES.values():
                files(voice, path)
            made[key] = voice, path
        return made[key]

    return get


def settings(case):
    return tiny_voices.settings(**{**CASES, **CHARACTERS, **SLOW}[case])


def last_speaker(voice):
    return voice.data.n_speakers - 1 if voice.data.n_speakers else None


def expected(voice, text=None):
    """Return a text and the speech of PyTorch, without pauses."""
    text = TEXTS[runtimes.front_end(voice)] if text is None else text
    return text, voice.speak(text, last_speaker(voice), pause=0, **QUIET)


def assert_same(audio, speech, voice, samples=SAMPLES, log_mel_error=LOG_MEL):
    assert audio.shape == speech.audio.shape
    assert np.abs(speech.audio).max() > 0.01
    np.testing.assert_allclose(audio, speech.audio, atol=samples)
    mels = [log_mel(torch.from_numpy(a).float().unsqueeze(0), voice.data) for a in (audio, speech.audio)]
    assert (mels[0] - mels[1]).abs().mean() < log_mel_error


def sent(path, *texts):
    """Return ids as the runtimes send them for phonemes, `[b, t]`, and their lengths."""
    config = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
    ids = config["phoneme_id_map"]
    rows = [["^", "_", *(p for point in unicodedata.normalize("NFD", t) for p in (point, "_")), "$"] for t in texts]
    x = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for items, row in zip(x, rows):
        items[: len(row)] = [ids[point][0] for point in row]
    return x, np.array([len(row) for row in rows])


@pytest.mark.parametrize("case", [*CASES, *map(tiny.slow, SLOW)])
def test_the_graph_accepts_the_ids_of_the_runtimes(exported, case):
    voice, path = exported(case)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert ("sid" in [entry.name for entry in session.get_inputs()]) == (voice.data.n_speakers > 1)

    def say(*texts):
        x, lengths = sent(path, *texts)
        feed = {"input": x, "input_lengths": lengths, "scales": np.array([0, 1, 0], np.float32)}
        if voice.data.n_speakers > 1:
            feed["sid"] = np.full(len(texts), last_speaker(voice))
        audio, durations = session.run(None, feed)
        assert durations.shape == x.shape
        return audio[:, 0, 0], durations

    symbols = "".join(sentence.symbols for sentence in expected(voice)[1].sentences)
    texts = symbols, symbols[:9]
    alone = [say(text) for text in texts]
    for text, (audio, durations) in zip(texts, alone):
        assert_same(audio[0], voice.speak(text, last_speaker(voice), phonemes=True, **QUIET), voice)
        assert durations.sum() * voice.data.hop_length == audio.size
    audio, durations = say(*texts)
    np.testing.assert_allclose(audio[0], alone[0][0][0], atol=SAMPLES)
    short = alone[1][1]
    np.testing.assert_array_equal(durations[1, : short.size], short[0])
    assert not durations[1, short.size :].any()


@pytest.mark.parametrize("case", ["stochastic, blanks, several speakers", "a table of one speaker", "a table of Piper"])
def test_infer_onnx_speaks_with_the_same_file(exported, case):
    voice, path = exported(case)
    text, speech = expected(voice)
    ours = infer_onnx.OnnxVoice(path).speak(text, last_speaker(voice), pause=0, **QUIET)
    assert_same(ours.audio, speech, voice)
    np.testing.assert_array_equal(ours.durations, speech.durations)


def test_empty_text_is_not_an_error(exported):
    for case in ("deterministic", "deterministic, blanks"):
        session = onnxruntime.InferenceSession(exported(case)[1], providers=["CPUExecutionProvider"])
        x, lengths = sent(exported(case)[1], "")
        feed = {"input": x, "input_lengths": lengths, "scales": np.array([0, 1, 0], np.float32)}
        assert session.run(None, feed)[0].size < 20 * 64


def read(extra_symbols, text, add_blank=False, cleaners="basic_cleaners", **more):
    """Return the symbols that the network gets for decomposed text, with blanks as "_"."""
    conf = tiny_voices.settings(data={"text_cleaners": [cleaners], "extra_symbols": extra_symbols, **more})
    table = tokens.symbol_table(conf.data).names
    voice = Voice(tiny_voices.network(conf, len(table)), conf)
    inventory, blank = runtimes.inventory(voice), tokens.mark_ids(conf.data)[0][0]
    points = [p for point in unicodedata.normalize("NFD", text) if point in inventory.ids for p in (point, "_")]
    x = torch.tensor([[inventory.ids[p] for p in ["^", "_", *points, "$"]]])
    ids, lengths, place = runtimes.Reader(inventory, add_blank, blank)(x, torch.tensor([x.size(1)]))
    assert place.shape == ids.shape and lengths.tolist() == [ids.size(1)]
    return "".join(table[i] for i in ids[0])


def test_decomposed_symbols_are_joined():
    assert read("", "façade\u0329") == "façade\u0329"
    assert read("éü", "Élan vécu Über") == "élan vécu über"
    assert read("ệẹ", "việt ẹ") == "việt ẹ"
    assert read("ệ", "việt ẹ") == "việt "  # a part of a symbol is dropped
    assert read("한글", "한글 하") == "한글 "
    assert read("é", "né", add_blank=True) == "_n_é_"
    assert read("", "aba", True, symbols=["<pad>", *"ab", "<blank>"], blank_symbol="<blank>") == "".join(
        f"<blank>{symbol}" for symbol in [*"aba", ""]
    )


def test_the_glide_of_newer_espeak_is_dropped_but_palatalization_is_not():
    read_phonemes = lambda text: read("", text, cleaners="phonemes_ru")  # noqa: E731
    assert read_phonemes("mˈiːʲə iʲa ðɪʲ") == "mˈiːə ia ðɪ"
    assert read_phonemes("pʲatʲ tːʲ ʲ") == "pʲatʲ tːʲ ʲ"


def test_the_config_of_piper(exported):
    _, path = exported("stochastic, blanks, several speakers")
    config = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    assert config["audio"]["sample_rate"] == 8000 and config["hop_length"] == 64
    assert config["espeak"]["voice"] == "en-us" and config["language"] == {"code": "en_US", "family": "en"}
    assert config["phoneme_type"] == "espeak" and config["dataset"] == "voice"
    assert config["num_speakers"] == 2 and config["speaker_id_map"] == {"anna": 0, "bo": 1}
    assert config["inference"] == {"noise_scale": 0.667, "length_scale": 1.0, "noise_w": 0.8}
    ids = config["phoneme_id_map"]
    assert ids["_"] == [0] and ids["'"] == [176] and ids["^"][0] >= 178 and ids["$"][0] >= 178
    assert config["num_symbols"] == 1 + max(i for (i,) in ids.values())
    lines = path.with_name("tokens.txt").read_text(encoding="utf-8").splitlines()
    assert "  16" in lines and f"^ {ids['^'][0]}" in lines and len(lines) == len(ids)


def test_languages_have_the_names_that_the_runtimes_know():
    for code, name in {"fr-fr": "fr", "en-gb": "en", "pt-br": "pt-br", "de": "de"}.items():
        conf = tiny_voices.settings(data={"text_cleaners": [f"phonemes_{code}"]})
        assert runtimes.front_end(Voice(tiny_voices.network(conf), conf)) == name


# ---- Piper


@pytest.fixture(scope="module")
def piper():
    return pytest.importorskip("piper", reason="piper-tts is not installed: pip install -r requirements-dev.txt")


def piper_says(piper, voice, path, text):
    loaded = piper.PiperVoice.load(path)
    how = {"noise_scale": 0.0, "noise_w_scale": 0.0, "normalize_audio": False, "speaker_id": last_speaker(voice)}
    return list(loaded.synthesize(text, piper.SynthesisConfig(**how), include_alignments=True))


@pytest.mark.parametrize("case", [*CASES, *CHARACTERS, *map(tiny.slow, SLOW)])
def test_piper_speaks(exported, piper, case):
    voice, path = exported(case)
    text, speech = expected(voice)
    chunks = piper_says(piper, voice, path, text)
    assert [chunk.sample_rate for chunk in chunks] == [8000]
    assert_same(chunks[0].audio_float_array, speech, voice)
    if "ʲ" not in tokens.symbol_table(voice.data).ids:
        return  # Piper leaves the symbol out, and then gives no alignment
    aligned = chunks[0].phoneme_alignments  # from the durations in the file
    assert "".join(a.phoneme for a in aligned[1:-1]) == "".join(chunks[0].phonemes)
    assert sum(a.num_samples for a in aligned) == len(speech.audio)


def test_piper_speaks_sentence_by_sentence(exported, piper):
    voice, path = exported("deterministic, blanks")
    text, speech = expected(voice, "The first one ends. Is this the second one? Here is the third!")
    chunks = piper_says(piper, voice, path, text)
    assert len(chunks) == len(speech.sentences) == 3
    assert_same(np.concatenate([chunk.audio_float_array for chunk in chunks]), speech, voice)


@pytest.mark.parametrize("case", ["deterministic", "stochastic, blanks, several speakers"])
def test_the_command_that_export_prints_for_piper(piper, tmp_path, capsys, case):
    checkpoint = tiny_voices.save(tmp_path / "run", settings(case))
    output = tmp_path / "a voice.onnx"
    export_onnx.main([f"--model-path={checkpoint}", f"--output={output}", "--runtime=piper"])
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[:3] == ["python", "-m", "piper"] and command[-1] == "Some words."
    quiet = ["--noise-scale=0", "--noise-w-scale=0", "--no-normalize"]
    subprocess.run([sys.executable, *command[1:], *quiet], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    with wave.open(str(tmp_path / "speech.wav")) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (8000, 2, 1)
    audio, _ = soundfile.read(tmp_path / "speech.wav", dtype="float32")
    voice = Voice.load(checkpoint)
    speech = voice.speak("Some words.", 0 if voice.data.n_speakers else None, **QUIET)
    assert_same(audio * 32768 / 32767, speech, voice, SAMPLES_16_BIT, LOG_MEL_16_BIT)


def test_pipers_command_line_in_16_bits(exported, piper, tmp_path):
    voice, path = exported("several speakers")
    text, speech = expected(voice)
    command = [sys.executable, "-m", "piper", "-m", str(path), "-s", "2", "-f", str(tmp_path / "o.wav")]
    quiet = ["--noise-scale=0", "--noise-w-scale=0", "--no-normalize"]
    subprocess.run([*command, *quiet], input=text, text=True, check=True, timeout=60, capture_output=True)
    audio, _ = soundfile.read(tmp_path / "o.wav", dtype="float32")
    assert_same(audio * 32768 / 32767, speech, voice, SAMPLES_16_BIT, LOG_MEL_16_BIT)


# ---- sherpa-onnx


@pytest.fixture(scope="module")
def sherpa():
    return pytest.importorskip(
        "sherpa_onnx", reason="sherpa-onnx is not installed: pip install -r requirements-dev.txt"
    )


def sherpa_says(sherpa, voice, path, text):
    """Synthesize with sherpa-onnx. Version 1 reads text with espeak-ng; version 2 takes phonemes of our cleaners."""
    phonemes = bool(runtimes.front_end(voice))
    takes_phonemes = phonemes and hasattr(sherpa.GenerationConfig(), "phoneme_codepoints")
    model = sherpa.OfflineTtsVitsModelConfig(
        model=str(path),
        tokens=str(path.with_name("tokens.txt")),
        data_dir=espeak.find()[1] if phonemes and not takes_phonemes else "",
        noise_scale=0.0,
        noise_scale_w=0.0,
    )
    config = sherpa.OfflineTtsConfig(model=sherpa.OfflineTtsModelConfig(vits=model), silence_scale=1.0)
    assert config.validate()
    tts = sherpa.OfflineTts(config)
    assert tts.num_speakers == voice.data.n_speakers
    sid = last_speaker(voice) or 0
    if not takes_phonemes:
        return tts.generate(text, sid=sid)
    how = sherpa.GenerationConfig()
    how.sid, how.silence_scale = sid, 1.0
    how.phoneme_codepoints = [
        [ord(symbol) for symbol in line.symbols] for line in infer_onnx.OnnxVoice(path).read(text)
    ]
    return tts.generate("", how)


@pytest.mark.parametrize("case", [*CASES, *CHARACTERS, *map(tiny.slow, SLOW)])
def test_sherpa_speaks(exported, sherpa, case):
    voice, path = exported(case)
    text, speech = expected(voice)
    spoken = sherpa_says(sherpa, voice, path, text)
    assert spoken.sample_rate == 8000
    assert_same(np.array(spoken.samples, np.float32), speech, voice)


def test_sherpa_speaks_sentence_by_sentence(exported, sherpa):
    voice, path = exported("deterministic, blanks")
    text, speech = expected(voice, "The first one ends. Is this the second one? Here is the third!")
    assert_same(np.array(sherpa_says(sherpa, voice, path, text).samples, np.float32), speech, voice)


def test_the_command_that_export_prints_for_sherpa(tmp_path, capsys):
    conf = tiny_voices.settings(data=ENGLISH, speakers=2)
    checkpoint = tiny_voices.save(tmp_path / "run", conf)
    output = tmp_path / "voice.onnx"
    export_onnx.main([f"--model-path={checkpoint}", f"--output={output}", "--runtime=sherpa"])
    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("sherpa-onnx-offline-tts"))
    options = dict(word[2:].split("=", 1) for word in shlex.split(command)[1:-1])
    assert options["vits-model"] == str(output) and options["sid"] == "0"
    assert Path(options["vits-tokens"]).is_file() and (Path(options["vits-data-dir"]) / "phontab").is_file()


# ---- Voices that the runtimes do not support


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        ({"text_cleaners": ["english_cleaners"]}, [], "this voice reads the output of english_cleaners"),
        ({"text_cleaners": ["basic_cleaners", "english_cleaners2"]}, [], "basic_cleaners and english_cleaners2, which"),
        ({"text_cleaners": ["phonemes_xx"]}, [], "espeak-ng has no language 'xx'"),
        (ENGLISH, ["--noise-inputs"], "leave out --noise-inputs or --runtime"),
        (ENGLISH, ["--comment=a melodious voice"], "leave 'melo' out of --comment"),
        (ENGLISH, ["--output=."], ". is a folder"),
        ({**ENGLISH, "extra_symbols": "\u0303"}, [], "own table of 178 symbols"),
        ({**ENGLISH, "symbols": symbols, "begin_symbol": ";"}, [], "read tables with begin and end marks"),
        ({**ENGLISH, "symbols": [*symbols[:0:-1], "_"]}, [], "need the id 0 for a pad, and here it is 'ᵻ'"),
        ({**ENGLISH, "symbols": [*symbols[:-1], "xyz"]}, [], "send single characters, not 'xyz'"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, data, arguments, message):
    checkpoint = tiny_voices.save(tmp_path / "run", tiny_voices.settings(data=data))
    output = tmp_path / "out" / "v.onnx"
    with pytest.raises(SystemExit) as end:
        export_onnx.main([f"--model-path={checkpoint}", f"--output={output}", "--runtime=piper", *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1
    assert not output.exists()


def test_the_program_offers_every_runtime():
    assert set(export_onnx.RUNTIMES) == set(runtimes.RUNTIMES)
