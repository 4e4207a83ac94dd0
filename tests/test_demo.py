"""Tests of the demo, from the corpus to the picture, with two training steps."""

import numpy as np
import pytest
import soundfile
import tiny

import config as configs
import demo
from audio import load_audio
from corpus import read_filelist
from reporting import read_metrics


@pytest.mark.parametrize(("speakers", "name"), [(1, "demo"), tiny.slow(2, "demo_ms")])
def test_the_demo_trains_speaks_and_resumes(tmp_path, monkeypatch, capsys, speakers, name):
    monkeypatch.chdir(tmp_path)
    arguments = ["--speakers", str(speakers), "--clips", "24", "--text", "On the bridge.", "--device", "cpu"]
    folder = demo.main(["--steps", "2", *arguments])
    told = capsys.readouterr().out
    config = configs.load(folder / "config.json")
    assert folder.name == name and f"{folder}/demo.wav" in told and f"{folder}/demo.png" in told
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    sound = load_audio(folder / "demo.wav", config.data.sampling_rate)
    assert soundfile.info(folder / "demo.wav").samplerate == config.data.sampling_rate
    assert np.abs(sound).max() > 0
    assert read_metrics(folder, "validation/mel")[0] == [2]

    (folder / "demo.wav").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.pth")}
    demo.main(["--steps", "2", *arguments])  # nothing is left to train: the demo only speaks, with the same result
    assert np.array_equal(sound, load_audio(folder / "demo.wav", config.data.sampling_rate))
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.glob("*.pth")}
    demo.main(["--steps", "3", *arguments])
    assert read_metrics(folder, "validation/mel")[0] == [2, 3]


@pytest.mark.parametrize("name", ["demo", "demo_ms"])
def test_the_corpus_fits_the_config_and_does_not_have_the_sentence(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = configs.load(demo.CONFIGS / f"{name}.json")
    demo.make_lists(config, demo.CLIPS, max(config.data.n_speakers, 1))
    clips = [
        clip for path in (config.data.training_files, config.data.validation_files) for clip in read_filelist(path)
    ]
    plain = [clip for path in tmp_path.glob("corpora/*/*.txt") for clip in read_filelist(path)]
    assert demo.SENTENCE not in {clip.text for clip in plain}
    words = {word for clip in plain for word in clip.text.lower().strip(".?!").replace(",", "").split()}
    assert set(demo.SENTENCE.lower().strip(".").split()) <= words
    assert len({clip.speaker for clip in clips}) == max(config.data.n_speakers, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--speakers", "9"], "9 speakers are too many: configs/demo_ms.json has room for 4"),
        (["--clips", "2"], "utterances are too few"),
    ],
)
def test_user_errors_take_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        demo.main(arguments)
    error = capsys.readouterr().err
    assert error.startswith("demo: ") and message in error and error.count("\n") == 1
