"""Tests of pictures, and of the program that draws the curves of a run."""

import json
import math

import numpy as np
import pytest
import tiny

import plots
import train
from discriminators import MultiPeriodDiscriminator
from reporting import metric_names
from synthesis.speech import Sentence, Speech

RATE, HOP = 8000, 80  # a frame is 0.01 seconds


def speech(*durations, names):
    """Return a speech of named tokens with durations in frames, with pauses of 0.2 seconds between sentences."""
    sentences, start = [], 0
    for frames in durations:
        audio = np.zeros(sum(frames) * HOP, np.float32)
        said, names = names[: len(frames)], names[len(frames) :]
        sentences.append(Sentence("", "", [1] * len(frames), said, np.array(frames), start, audio))
        start += len(audio) + RATE // 5
    return Speech(np.zeros(start - RATE // 5, np.float32), RATE, HOP, sentences)


def draw(spoken):
    frames = len(spoken.audio) // HOP
    return plots.plot_speech_to_numpy(np.random.default_rng(0).random((20, frames)), spoken)


def test_a_speech_gives_a_picture():
    picture = draw(speech([10, 20], [5], names=["a", "_", "b"]))
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    assert len(np.unique(picture)) > 10


def test_bars_are_at_the_times_of_the_tokens(monkeypatch):
    monkeypatch.setattr(plots, "_pixels", lambda figure: figure)
    above, below = draw(speech([10, 0, 20], [5, 5], names=["a", " ", "_", "b", "c"])).axes
    assert above.images[0].get_extent() == pytest.approx([0, 0.6, 0, 20])
    assert below.get_xlim() == above.get_xlim() == pytest.approx((0, 0.6))
    (bars,) = below.collections
    spans = [(*path.vertices[[0, 1], 0], path.vertices[0, 1]) for path in bars.get_paths()]
    expected = [(0, 0.1, 0), (0.1, 0.1, 1), (0.1, 0.3, 2), (0.5, 0.55, 3), (0.55, 0.6, 4)]
    np.testing.assert_allclose(spans, expected, atol=1e-6)
    strong, pale = bars.get_facecolors()[[0, 1]]
    assert not np.array_equal(strong, pale)
    assert [np.array_equal(color, strong) for color in bars.get_facecolors()] == [True, False, False, True, True]
    assert [text.get_text().strip() for text in below.texts] == ["a", "", "", "b", "c"]
    middles = [((begin + end) / 2, row) for begin, end, row in expected]
    np.testing.assert_allclose([text.xy for text in below.texts], middles, atol=1e-6)  # below the middle of its bar
    assert below.get_ylim()[0] < 0


def test_long_texts_are_not_lettered(monkeypatch):
    monkeypatch.setattr(plots, "_pixels", lambda figure: figure)
    many = plots.MAX_LETTERED + 1
    _, below = draw(speech([3] * many, names=["a"] * many)).axes
    assert not below.texts and below.get_ylabel() == f"{many} symbols"


@pytest.fixture
def figures(monkeypatch):
    """Collect the figures that are drawn, in place of files."""
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    return drawn


def write_run(folder, lines, **train):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"elapsed": 1.0} | line) + "\n" for line in lines))
    tiny.write_config(folder / "config.json", tiny.DURATION_DISCRIMINATOR, train=train)
    return folder


def panel_of(figure, title):
    (axes,) = [axes for axes in figure.axes if axes.get_title("left") == title]
    return axes


VALIDATED = [
    {"step": 1, "loss/g/mel": 9.0, "validation/mel": 3.0, "loss/d/total": 3.0, "grad_norm_g": 1.0},
    {"step": 2, "event": "resumed"},
    {"step": 2, "loss/g/mel": 6.0, "validation/mel": 1.5, "loss/d/total": 2.5, "grad_norm_g": 100.0},
    {"step": 3, "loss/g/mel": 3.0, "validation/mel": 2.0, "loss/d/total": 2.0, "grad_norm_g": 10.0},
]


def test_curves_of_a_run_by_name_and_by_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "logs/voice", VALIDATED)
    for name in ("voice", "logs/voice", str(run)):
        plots.main([name, "curves.png"])
        assert capsys.readouterr().out == "curves: curves.png\n"
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "curves.png").unlink()


def test_training_and_validation_share_a_panel_with_the_best_validation_and_resumptions(tmp_path, figures):
    plots.save_curves("a.png", write_run(tmp_path / "voice", VALIDATED, c_mel=3.0))
    axes = panel_of(figures[0], "Spectrogram")
    training, validation, best, resumed = axes.lines
    assert list(training.get_ydata()) == [3.0, 2.0, 1.0]  # without its weight
    assert list(validation.get_xdata()) == [1, 2, 3] and list(validation.get_ydata()) == [3.0, 1.5, 2.0]
    assert (*best.get_xdata(), *best.get_ydata()) == (2, 1.5) and axes.get_title("right") == "1.5 at step 2"
    assert list(resumed.get_xdata()) == [2, 2]
    assert axes.get_ylabel() == "log-mel L1 distance\nlower is better" and axes.get_xlabel() == "training step"
    assert panel_of(figures[0], "Generator (log scale)").get_yscale() == "log" != axes.get_yscale()
    undecided = panel_of(figures[0], "Waveform").lines[-1]
    assert set(undecided.get_ydata()) == {len(MultiPeriodDiscriminator(channels=64).discriminators) / 2}


def test_several_runs_share_panels_and_a_run_may_lack_numbers(tmp_path, figures):
    runs = [
        write_run(tmp_path / "one", VALIDATED, c_mel=0.0),
        write_run(tmp_path / "two", [{"step": 5, "loss/g/mel": math.nan, "validation/mel": math.nan, "new": 1}]),
    ]
    plots.save_curves("a.png", *runs)
    (legend,) = figures[0].legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:2] == ["one: 1.5 at step 2", "two"]
    assert {line.get_color() for line in panel_of(figures[0], "Spectrogram").lines} == set(plots.COLORS[:2])
    assert panel_of(figures[0], "new").get_ylabel() == "value, unit unknown"


@pytest.mark.parametrize(
    ("settings", "step", "measure"),
    [
        ({}, 1, "mel"),
        ({"best": "kl"}, 3, "kl"),
        ({"best": "dnsmos"}, 2, "dnsmos"),
        ({"duration_stage_start": 9}, 1, "mel"),
        ({"duration_stage_start": 2}, 2, "duration_error"),  # the first step is not of the last stage
    ],
)
def test_the_star_marks_the_step_that_the_config_chooses(settings, step, measure, tmp_path, figures):
    columns = {
        "validation/mel": (1.0, 2.0, 3.0),
        "validation/kl": (3.0, 2.0, 1.0),
        "validation/duration_error": (0.1, 0.2, 0.3),
        "evaluation/dnsmos": (1.0, 4.0, 2.0),
    }
    lines = [{"step": i + 1, **{name: values[i] for name, values in columns.items()}} for i in range(3)]
    del lines[2]["evaluation/dnsmos"]
    plots.save_curves("a.png", write_run(tmp_path / "voice", lines, **settings))
    stars = {axes.get_title("left"): axes.lines[2:] for axes in figures[0].axes if axes.axison}
    assert all(list(star.get_xdata()) == [step] for lines in stars.values() for star in lines)
    assert len(stars["Spectrogram"]) == 1 and len(stars["Quality"]) == (step < 3)
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert f"best validation by {measure}" in texts


def test_every_number_of_training_has_a_panel_with_a_unit(workspace, figures):
    config = tiny.write_config(workspace / "tiny.json", tiny.DURATION_DISCRIMINATOR)
    train.main(["-c", config, "-m", "voice", "--max-steps", "2", "--device", "cpu"])
    plots.save_curves("a.png", "logs/voice")
    drawn = [panel for panel in plots.PANELS if panel.group != "Evaluation"]  # which needs --evaluate-every
    drawn = [panel for panel in drawn if not panel.trained.startswith("memory/gpu")]
    assert len(metric_names("logs/voice")) == sum(bool(name) for panel in drawn for name in panel[3:5])
    labels = [axes.get_ylabel() for axes in figures[0].axes if axes.axison]
    assert len(labels) == len(drawn) and all("\n" in label for label in labels)
    plots.main(["voice", "--pictures", "b.png"])
    titles = [axes.get_title() for axes in figures[1].axes]
    assert titles == list(plots.PICTURES.values()) and "step 2; a frame is 4.0 ms" in figures[1].get_suptitle()


def test_groups_start_in_new_rows_unless_they_fit():
    a, b, c, d = (plots.Panel(group, group, "") for group in "abcd")
    assert plots._rows([a, a, b, b, c, d, d, d], 3) == [[a, a, None], [b, b, c], [d, d, d]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["voise", "a.png"], "logs/voise holds no metrics.jsonl: it is not a run, or has not reached its first"),
        (["voise", "a.png"], "did you mean voice?"),
        (["voice"], "name the picture to write"),
        (["voice", "voice"], "voice names no picture"),
        (["voice", "voice", "--output", "a.png", "--pictures", "b.png"], "--pictures shows one run, and 2 were given"),
        (
            ["voice", "a.png", "--metrics", "loss/d/totl"],
            "there is no number 'loss/d/totl'; did you mean loss/d/total?",
        ),
        (["voice", "--pictures", "b.png"], "has no picture mel/recording"),
        (["empty", "a.png"], "logs/empty/metrics.jsonl has no numbers yet"),
    ],
)
def test_user_errors(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "logs/voice", VALIDATED)
    write_run(tmp_path / "logs/empty", [])
    with pytest.raises(SystemExit, match="2"):
        plots.main(arguments)
    assert message in capsys.readouterr().err
