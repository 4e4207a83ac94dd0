"""The parts of an evaluation: takes, recognition, intervals, durations, distances and reports."""

import json
import math

import numpy as np
import pytest
import soundfile
import tiny

from audio import load_audio, save_audio
from corpora.synthetic import NATIVE_RATE, Synthesizer, compose
from evaluation import (
    RATE,
    acoustics,
    bootstrap,
    durations,
    judges,
    measures,
    needed,
    quantities,
    recognition,
    report,
    takes,
)
from text.symbols import IPA, symbols

GAPS = {"cer": "faster_whisper", "mos": "speechmos", "similarity": "resemblyzer", "mcd": "pyworld"}
SPOKEN = 12  # sentences for the recognizer


def installed(measure: str) -> None:
    """Skip the test if the package of a measure is missing."""
    try:
        needed(GAPS[measure])
    except ValueError as error:
        pytest.skip(str(error))


def take(name="a", text="Hello.", **facts) -> takes.Take:
    return takes.Take(name, text, f"{name}.wav", None, f"{name}.wav", facts)


# Takes


def test_recordings_are_named_by_file_or_by_folder_and_file(tmp_path):
    (tmp_path / "a.txt").write_text("x/1.wav|One.\nx/2.wav|Two.\n", "utf-8")
    assert [line.name for line in takes.recordings(tmp_path / "a.txt")] == ["1", "2"]
    (tmp_path / "b.txt").write_text("x/1.wav|ann|One.\ny/1.wav|bo|Two.\n", "utf-8")
    lines = takes.recordings(tmp_path / "b.txt")
    assert [(line.name, line.speaker) for line in lines] == [("x_1", "ann"), ("y_1", "bo")]
    (tmp_path / "c.txt").write_text("x/1.wav|One.\nx/1.wav|Two.\n", "utf-8")
    with pytest.raises(ValueError, match="2 recordings are named 'x_1'"):
        takes.recordings(tmp_path / "c.txt")


def test_a_list_of_phonemes_is_refused_with_the_list_to_give():
    with pytest.raises(ValueError, match=r"holds phonemes.*give list\.txt$"):
        takes.recordings("folder/list.txt.cleaned")


def test_takes_of_any_system_are_found_by_name(tmp_path):
    lines = [take("a"), take("b")]
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, tiny.speech(0.3), RATE)
    found, settings = takes.read(tmp_path, lines)
    assert [path.audio for path in found] == [str(tmp_path / "a.wav"), str(tmp_path / "b.flac")]
    assert settings == {} and not found[0].facts
    with pytest.raises(ValueError, match=r"no c\.wav"):
        takes.read(tmp_path, [take("c")])
    content = {"model": "x", "sentences": [{"name": "a", "text": "Hello!", "seconds": 1}]}
    (tmp_path / takes.FACTS).write_text(json.dumps(content), "utf-8")
    with pytest.raises(ValueError, match=r"a was spoken from 'Hello!', and the list has 'Hello\.'"):
        takes.read(tmp_path, lines)


# Recognition


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("“Mr. Brown's 2 dogs,” he said—twice.", "mister brown's two dogs he said twice"),
        ("'Tis $12.50, isn’t it?", "tis twelve dollars and fifty cents isn't it"),
        ("In 1468 & later", "in fourteen sixty eight and later"),
        ("  ...  ", ""),
    ],
)
def test_english_is_compared_as_words(text, normal):
    assert recognition.normalize(text) == normal


def test_other_languages_keep_their_letters():
    assert recognition.normalize("Größe: 10 Äpfel!", "de") == "größe äpfel"


@pytest.mark.parametrize(
    ("expected", "found", "count"),
    [("", "", 0), ("a b c", "a b c", 0), ("a b c", "a c", 1), ("a b", "x a b y", 2), ("a b c", "c b a", 2)],
)
def test_edits_are_the_levenshtein_distance(expected, found, count):
    assert recognition.distance(expected.split(), found.split()) == count
    assert recognition.edits(expected, found)[2:] == (count, len(expected.split()))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Sentences that espeak-ng speaks, as takes, with a recognizer that hears each file once."""
    installed("cer")
    folder = tmp_path_factory.mktemp("spoken")
    synthesizer = Synthesizer(1)
    lines = []
    for i, text in enumerate(compose(SPOKEN, 3)):
        path = folder / f"{i}.wav"
        save_audio(path, synthesizer.speak(text, "gmw/en-US", NATIVE_RATE), NATIVE_RATE)
        lines.append(takes.Take(str(i), text, str(path), None, str(path)))
    return lines, measures.Recognition(measures.Options(lines))


def rate(measure, lines, audio=None) -> float:
    """Return the character error rate; `audio` replaces that of all takes."""
    rows = []
    for line in lines:
        heard = load_audio(line.audio, RATE) if audio is None else audio
        rows.append(measure.score(line, measures.Sound(heard, None)).terms["cer"])
    return bootstrap.estimate(np.array(rows), bootstrap.ratio).value


def test_the_recognizer_understands_synthetic_speech(spoken):
    lines, measure = spoken
    assert rate(measure, lines) < 0.3


@pytest.mark.parametrize("level", [0.0, 0.1], ids=["silence", "white noise"])
def test_the_recognizer_hears_no_text_in_silence_and_noise(spoken, level):
    lines, measure = spoken
    audio = np.random.default_rng(1).standard_normal(4 * RATE).astype(np.float32) * level
    assert rate(measure, lines, audio) >= 0.9


def test_the_texts_of_other_sentences_have_many_errors(spoken):
    lines, measure = spoken
    shuffled = [takes.Take(a.name, b.text, a.recording, None, a.audio) for a, b in zip(lines, lines[1:] + lines[:1])]
    assert rate(measure, shuffled) >= 0.6


# Intervals


def test_intervals_of_a_mean_have_the_width_of_its_standard_error():
    x = np.random.default_rng(5).normal(3, 2, 400)
    value, low, high = bootstrap.estimate(np.stack([x, np.ones(400)], 1), bootstrap.ratio)
    assert value == pytest.approx(x.mean())
    assert [low, high] == pytest.approx([x.mean() - 1.96 * x.std() / 20, x.mean() + 1.96 * x.std() / 20], abs=0.02)


def test_quantities_of_sums_equal_numpy():
    x, y = np.random.default_rng(6).normal(1, (0.5, 2), (50, 2)).T
    rows = np.stack([np.ones(50), x, x**2, y, y**2], 1)
    assert bootstrap.ratio_of_stds(rows.sum(0)) == pytest.approx(x.std() / y.std())
    assert bootstrap.root_of_ratio(rows[:, [2, 0]].sum(0)) == pytest.approx(np.sqrt((x**2).mean()))
    assert bootstrap.ratio_of_ratios(np.array([6.0, 2.0, 1.0, 2.0])) == 6


def test_a_quantity_without_terms_is_not_a_number():
    value = bootstrap.estimate(np.zeros((3, 2)), bootstrap.ratio)
    assert all(map(math.isnan, value))


# Durations


def test_blanks_belong_to_the_symbol_before_them():
    names, merged = durations.merge_blanks("_a_b_", np.array([[1, 2, 3, 4, 5], [1, 1, 1, 1, 1]]))
    assert names == ["a", "b"] and merged.tolist() == [[5, 9], [2, 2]]
    names, merged = durations.merge_blanks("ab", np.array([3, 4]))
    assert names == ["a", "b"] and merged.tolist() == [3, 4]


def test_every_symbol_has_a_class():
    kinds = durations.classes_of(symbols)
    assert set(kinds) == {*durations.CLASSES, durations.MARK}
    assert durations.classes_of("aːt, ŋ") == ["vowel", "mark", "stop", "pause", "pause", "nasal"]
    assert durations.classes_of("at y", phonemes=False) == ["vowel", "consonant", "pause", "vowel"]
    letters = "".join(symbol for symbol in IPA if symbol.isalpha() and symbol not in "ːˑˈˌʼʴʰʱʲʷˠˤ˞")
    assert durations.MARK not in durations.classes_of(letters)
    assert not any(durations.classes_of(members).count(durations.MARK) for members in durations.CLASSES.values())


def test_characters_and_phonemes_are_told_apart():
    assert durations.are_phonemes("həlˈoʊ") and not durations.are_phonemes("hello, you_")


def test_statistics_of_each_class():
    predicted, aligned = np.random.default_rng(2).normal(2, 1, (2, 30))
    kinds = ["vowel"] * 10 + ["stop"] * 20
    result = durations.statistics(predicted, aligned, kinds)
    assert list(result) == ["vowel", "stop", "all"] and [row["count"] for row in result.values()] == [10, 20, 30]
    assert result["stop"]["predicted_mean"] == pytest.approx(predicted[10:].mean())
    assert result["vowel"]["std_ratio"] == pytest.approx(predicted[:10].std() / aligned[:10].std())
    assert result["all"]["aligned_std"] == pytest.approx(aligned.std())
    assert math.isnan(durations.statistics(predicted[:1], aligned[:1], ["stop"])["stop"]["std_ratio"])


def test_duration_measures_of_known_durations():
    """Predictions are the aligned durations, squared for the variation, and 2 % apart between the draws."""
    aligned = np.array([2.0, 4, 8, 16])
    drawn = [(aligned**2 * factor).tolist() for factor in (1.0, 1.02)]
    audio = np.zeros(RATE, np.float32)
    audio[RATE // 4 : RATE // 2] = 0.5
    sound = measures.Sound(audio, np.tile(audio, 2)[: RATE * 3 // 2])
    facts = {"symbols": list("abba"), "predicted": drawn, "aligned": aligned.tolist()}
    terms = measures.Durations(measures.Options([])).score(take(text="Ab, ba.", **facts), sound).terms
    value = {
        name: bootstrap.estimate(np.array([row]), quantities.QUANTITIES[name].of_sums).value
        for name, row in terms.items()
    }
    assert value["duration_std_ratio"] == pytest.approx(2, rel=1e-3)
    assert value["duration_spread"] == pytest.approx(math.log(1.02) / math.sqrt(2))
    assert value["speaking_rate"] == pytest.approx(4 / 0.25, rel=0.15)  # in frames of 25 ms
    assert value["speaking_rate_ratio"] == pytest.approx(1.25 / 0.25, rel=0.15)


# Distances


def freqt(cepstrum: np.ndarray, order: int, alpha: float) -> np.ndarray:
    """Warp a cepstrum by the recursion of Oppenheim and Johnson (1972)."""
    warped = np.zeros(order + 1)
    for value in cepstrum[::-1]:
        before, warped = warped, np.zeros(order + 1)
        warped[0] = value + alpha * before[0]
        warped[1] = (1 - alpha**2) * before[0] + alpha * before[1]
        for m in range(2, order + 1):
            warped[m] = before[m - 1] + alpha * (before[m] - warped[m - 1])
    return warped


def test_mel_cepstra_are_those_of_the_recursion():
    bins = 513
    wave = np.cos(np.outer(np.arange(bins) * np.pi / (bins - 1), np.arange(1, 9)))
    log_power = wave @ np.random.default_rng(3).standard_normal(8)
    cepstrum = np.fft.irfft(log_power)[:bins]
    cepstrum[0] /= 2
    expected = freqt(cepstrum, acoustics.ORDER, acoustics.ALPHA)[1:]
    assert np.allclose(log_power @ acoustics.mel_cepstrum(bins), expected, atol=2e-3)


def frames(length: int, seed: int = 0) -> acoustics.Frames:
    draw = np.random.default_rng(seed)
    return acoustics.Frames(draw.uniform(100, 200, length), draw.standard_normal((length, acoustics.ORDER)))


def test_time_warping_removes_slowness():
    fast = frames(20)
    slow = acoustics.Frames(np.repeat(fast.f0, 2), np.repeat(fast.cepstra, 2, 0))
    distance = acoustics.compare(fast, slow)
    assert distance.pairs == 40 and distance.distortion == 0 == distance.squared_log_f0 == distance.voicing_errors
    assert acoustics.compare(fast, frames(20, 1)).distortion > 100


def test_distances_of_known_frames():
    a, b = (
        acoustics.Frames(np.array([100.0, 0, 100]), np.eye(3, 24)),
        acoustics.Frames(np.array([110.0, 90, 0]), np.eye(3, 24)),
    )
    b.cepstra[:, 23] += 0.1
    distance = acoustics.compare(a, b)
    assert (distance.pairs, distance.voiced_pairs, distance.voicing_errors) == (3, 1, 2)
    assert distance.squared_log_f0 == pytest.approx(math.log(1.1) ** 2)
    assert distance.distortion == pytest.approx(3 * 10 / math.log(10) * math.sqrt(2 * 0.1**2))


def test_pitch_of_a_known_voice():
    installed("mcd")
    buzz = 2 * (np.arange(RATE) * 150 / RATE % 1) - 1
    frames = acoustics.analyze(np.concatenate([0.3 * buzz, np.zeros(RATE)]))
    assert len(frames.f0) == len(frames.cepstra) == pytest.approx(1000 / acoustics.PERIOD, rel=0.05)  # without silence
    assert np.median(frames.f0) == pytest.approx(150, rel=0.02)


def test_a_level_is_no_distance():
    installed("mcd")
    speech = Synthesizer(1).speak("The baker painted the garden gate.", "gmw/en-US", RATE)
    loud, quiet = (acoustics.analyze(speech * gain) for gain in (1, 0.3))
    assert acoustics.compare(loud, quiet).distortion / len(loud.f0) < 0.1


def test_similarity_is_the_cosine_to_the_mean():
    x, y = np.eye(2)
    assert judges.cosine_to_mean(x, [x, y]) == pytest.approx(math.sqrt(0.5))
    assert judges.cosine_to_mean(0 * x, [x]) == 0


def test_recordings_are_not_compared_with_themselves_and_speakers_not_with_each_other(monkeypatch):
    class Encoder:
        def embed(self, samples):
            return np.eye(4)[int(samples)]

    lines = [takes.Take(str(i), "", str(i), who, str(i)) for i, who in enumerate(["ann", "ann", "bo", "bo"])]
    monkeypatch.setattr(measures, "SpeakerEncoder", Encoder)
    monkeypatch.setattr(measures, "load_audio", lambda path, rate: int(path))

    def similarity(line, sound):
        measure = measures.Similarity(measures.Options(lines))
        measure.check([line])
        return measure.score(line, measures.Sound(sound, None)).terms["similarity"]

    assert similarity(lines[0], 0) == (0, 1)  # of the other recording of ann
    assert similarity(takes.Take("0", "", "0", "ann", "new.wav"), 0) == (pytest.approx(math.sqrt(0.5)), 1)
    assert similarity(takes.Take("0", "", "0", "ann", "new.wav", {"speaker": "bo"}), 0) == (0, 1)
    with pytest.raises(ValueError, match=r"no recording of speaker 'cy'.*--reference"):
        similarity(takes.Take("0", "", "0", "cy", "new.wav"), 0)


def test_judges_prefer_speech_to_noise():
    installed("mos")
    speech = Synthesizer(1).speak("The teacher found the blue umbrella near the river.", "gmw/en-US", RATE)
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32) * 0.05
    for judge in (kind() for kind in judges.JUDGES.values()):
        scores = [judge.score(audio) for audio in (speech, noise, speech)]
        assert 1 <= scores[1] < scores[0] <= 5 and scores[2] == scores[0]


def test_similarity_tells_two_synthetic_voices_apart():
    installed("similarity")
    encoder, synthesizer = judges.SpeakerEncoder(), Synthesizer(1)
    texts = compose(3, 1)
    one = [encoder.embed(synthesizer.speak(text, "gmw/en-US", RATE)) for text in texts]
    other = encoder.embed(synthesizer.speak(texts[0], "gmw/en-US+f3", RATE))
    assert judges.cosine_to_mean(one[0], one[1:]) > judges.cosine_to_mean(other, one[1:]) + 0.05
    assert not encoder.embed(np.zeros(RATE, np.float32)).any()


# Reports


def test_a_comparison_has_a_column_for_each_report(tmp_path):
    number = {"value": 0.01234, "low": 0.0, "high": None}
    for name, more in (("one", {}), ("two", {"first_sound": number})):
        (tmp_path / name).mkdir()
        content = {"cer": number, "mcd": {"value": 5.678, "low": 5, "high": 6}, **more, "sentences": [{}] * 3}
        (tmp_path / name / report.JSON).write_text(json.dumps(content), "utf-8")
    lines = report.compare([tmp_path / "one", tmp_path / "two"]).splitlines()
    assert lines[0] == "| | one | two |"
    assert "| character error rate | 1.23 % (0.00 % to -) | 1.23 % (0.00 % to -) |" in lines
    assert "| first sound, s |  | 0.0123 (0 to -) |" in lines and "| sentences | 3 | 3 |" in lines
    with pytest.raises(ValueError, match=r"three has no report\.json"):
        report.compare([tmp_path / "three"])


def test_reports_are_named_by_distinct_ends_of_their_paths_and_other_sentences_are_reported(tmp_path):
    for name, text in (("x/a", "One."), ("y/a", "Two."), ("y/b", "Two.")):
        (tmp_path / name).mkdir(parents=True)
        content = {"sentences": [{"name": "1", "text": text}]}
        (tmp_path / name / report.JSON).write_text(json.dumps(content), "utf-8")
    with pytest.warns(UserWarning, match="y/a and .*x/a are reports of different sentences"):
        table = report.compare([tmp_path / "x/a", tmp_path / "y/a"])
    assert table.startswith("| | x/a | y/a |")
    assert report.compare([tmp_path / "y/a", tmp_path / "y/b"]).startswith("| | a | b |")


def test_a_report_is_valid_json_without_numbers_that_are_not_finite(tmp_path):
    """One symbol has no standard deviation of durations, and one sentence no interval."""
    facts = {"symbols": ["a"], "predicted": [[3]], "aligned": [2], "frame_ms": 10.0}
    terms = {"duration_std_ratio": np.array([[1.0, 2, 4, 2, 4]])}
    content = report.build(terms, [{"name": "a", "text": "A", "mcd": math.nan}], [take(**facts)], command="x")
    report.write(content, tmp_path, [])
    read = json.loads((tmp_path / report.JSON).read_text("utf-8"), parse_constant=pytest.fail)
    assert read["details"]["durations"]["all"]["std_ratio"] is None and read["sentences"][0]["mcd"] is None
    assert "| - |" in (tmp_path / report.MARKDOWN).read_text("utf-8")
