"""Both notebooks run from top to bottom with small settings, and are stored without outputs."""

import base64
import io
import re
import shutil
import subprocess
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import tiny_voices

import config as configs
from monotonic_align import extension
from reporting import read_metrics
from synthesis import Voice

nbclient = pytest.importorskip("nbclient", reason="nbclient is an extra: pip install -r requirements-extras.txt")
nbformat = pytest.importorskip("nbformat", reason="nbformat is for the tests: pip install -r requirements-dev.txt")
pytest.importorskip("ipykernel", reason="ipykernel is an extra: pip install -r requirements-extras.txt")

NAMES = ("inference", "training")
TRACEBACK = "Traceback (most recent call last)"
# How a program of this repository begins a line with an error or a warning
MESSAGE = re.compile(rf"^({'|'.join(path.stem for path in tiny.ROOT.glob('*.py'))}): .*", re.MULTILINE)
DATA_CELLS = ("setup", "settings", "drive", "data-demo", "data-ljspeech", "data-own")
SMALL = {"VITS_CLIPS": 12, "VITS_STEPS": 2, "VITS_MORE_STEPS": 1, "VITS_BATCH": 4, "VITS_TENSORBOARD": 0}


def read(name: str, *kept: str):
    """Read a notebook, or only its cells with these ids."""
    notebook = nbformat.read(tiny.ROOT / f"{name}.ipynb", as_version=4)
    if kept:
        notebook.cells = [cell for cell in notebook.cells if cell.id in kept]
        assert [cell.id for cell in notebook.cells] == list(kept)
    return notebook


def code(notebook) -> dict:
    """Return the code cells by id."""
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Set the environment of the kernels that a test starts: one thread, no GPU, default settings."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in (*SMALL, "VITS_DATA", "VITS_NAME", "VITS_OWN", "VITS_REPO", "VITS_DRIVE", "VITS_INIT_FROM"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def run(notebook, folder: Path):
    """Execute the cells in a folder until one fails, as "Run all" does. Returns the code cells by id."""
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(notebook, timeout=240, resources=resources)
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        print(error)
    return code(notebook)


def copy_of_the_repository(folder: Path) -> Path:
    """Copy the files that a user has cloned; training writes filelists, a config and a run into the copy."""
    extension.load()  # compiles the search before it is copied
    unneeded = shutil.ignore_patterns(".*", "tests", "benchmarks", "docs", "logs", "corpora", "__pycache__", "build")
    return Path(shutil.copytree(tiny.ROOT, folder / "vits2", ignore=unneeded))


def printed(*cells) -> str:
    """Return the text that the cells printed, with error messages."""
    texts = []
    for output in (output for cell in cells for output in cell.outputs):
        texts += [output.get("text", ""), *output.get("traceback", [])]
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(texts))


def sounds(*cells) -> list[np.ndarray]:
    """Return the samples of the audio players."""
    outputs = [out["data"]["text/html"] for cell in cells for out in cell.outputs if "text/html" in out.get("data", {})]
    encoded = [re.search(r'src="data:audio/[\w-]+;base64,([^"]+)"', html)[1] for html in outputs]
    return [soundfile.read(io.BytesIO(base64.b64decode(part)))[0] for part in encoded]


def pictures(*cells) -> list[bytes]:
    """Return the PNG files that the cells show."""
    data = [output.get("data", {}) for cell in cells for output in cell.outputs]
    return [base64.b64decode(part["image/png"]) for part in data if "image/png" in part]


def assert_all_succeeded(cells: dict, log: Path | None = None) -> None:
    """Check that all cells ran without errors and warnings, in the kernel, in programs and in a run's `train.log`."""
    assert all(cell.execution_count for cell in cells.values()), [i for i, c in cells.items() if not c.execution_count]
    outputs = [output for cell in cells.values() for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = printed(*cells.values())
    assert TRACEBACK not in text and "Warning" not in text and not MESSAGE.search(text), text
    assert log is None or "\tWARNING\t" not in log.read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_valid_and_has_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4 and notebook.nbformat_minor >= 5
    assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.accelerator == "GPU"
    assert notebook.cells[0].cell_type == "markdown" and "Open notebook > GitHub" in notebook.cells[0].source
    cells = code(notebook).values()
    assert len(cells) > 5
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert not any("VITS_" in cell.source for cell in cells if "os.environ" not in cell.source)


def test_inference_synthesizes_with_one_and_many_speakers(tmp_path, kernel):
    tiny_voices.save(tmp_path / "single", tiny_voices.settings(), with_config=False)
    many = tiny_voices.settings(speakers={"anna": 0, "bo": 1, "carla": 2}, use_sdp=True)
    tiny_voices.save(tmp_path / "many", many, with_config=False)
    kernel.setenv("VITS_VOICE", str(tmp_path / "single"))
    kernel.setenv("VITS_MANY", str(tmp_path / "many"))
    cells = run(read("inference"), tmp_path)
    assert_all_succeeded(cells)
    played = sounds(*cells.values())
    assert len(played) == 10 and all(np.abs(sound).max() > 0 for sound in played)
    assert pictures(cells["picture"])[0].startswith(b"\x89PNG")
    assert "Not on Colab" in printed(cells["setup"]) and not printed(cells["paths"])
    assert "3 speakers: anna, bo, carla" in printed(cells["many"])
    assert "equal to the whole: True" in printed(cells["streaming"])


def test_subtitles_have_the_times_of_sentences_and_words(tmp_path, kernel):
    tiny_voices.save(tmp_path / "single", tiny_voices.settings(data={"add_blank": True}))
    kernel.setenv("VITS_VOICE", str(tmp_path / "single"))
    cells = run(read("inference", "setup", "paths", "load", "single", "long", "subtitles"), tmp_path)
    text = printed(cells["subtitles"])
    times = [[seconds(time) for time in line.split(" --> ")] for line in text.splitlines() if "-->" in line]
    assert len(times) == 3 and times[0][0] == 0
    assert all(later[0] - earlier[1] == pytest.approx(0.3, abs=0.002) for earlier, later in pairwise(times))
    assert times[-1][1] == pytest.approx(len(sounds(cells["long"])[0]) / 8000, abs=0.001)
    words = re.findall(r"([\d.]+) to +([\d.]+) s  (\S+)", text)
    assert " ".join(word for *_, word in words) == "my sister found the blue umbrella near the river."
    assert float(words[0][0]) == 0 and float(words[-1][1]) == pytest.approx(times[0][1], abs=0.01)
    assert all(float(start) < float(end) for start, end, _ in words)


def seconds(clock: str) -> float:
    """Convert a time of SubRip to seconds."""
    hours, minutes, rest = clock.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_inference_skips_missing_voices_with_one_line(tmp_path, kernel):
    kernel.setenv("VITS_VOICE", "logs/nowhere")
    (tmp_path / "empty").mkdir()
    kernel.setenv("VITS_MANY", "empty")
    cells = run(read("inference"), tmp_path)
    assert_all_succeeded(cells)
    assert re.fullmatch(r"Skipped: .*logs/nowhere.* Set another voice.*\n", printed(cells["single"]))
    assert re.fullmatch(r"Skipped: .*empty.* Set another voice.*\n", printed(cells["many"]))
    assert not sounds(*cells.values()) and not pictures(*cells.values())


def test_training_runs_with_the_synthetic_corpus(tmp_path, kernel):
    folder = copy_of_the_repository(tmp_path)
    for name, value in SMALL.items():
        kernel.setenv(name, str(value))
    cells = run(read("training"), folder)
    logs = folder / "logs/my_demo"
    assert_all_succeeded(cells, logs / "train.log")
    assert "Not on Colab" in printed(cells["setup"]) and not printed(cells["drive"])
    assert "nothing to report" in printed(cells["check"])
    assert "did you mean 'batch_size'?" in printed(cells["mistake"])

    assert read_metrics(logs, "validation/mel")[0] == [2, 3]
    assert "resumed from" in printed(cells["resume"]) and (logs / "G_3.pth").is_file()
    assert configs.load(logs / "config.json").train.batch_size == 4
    assert all(np.abs(sound).max() > 0 for sound in sounds(*cells.values()))
    assert {name: len(sounds(cell)) for name, cell in cells.items() if sounds(cell)} == {
        "clip": 1,
        "listen": 1,
        "compare": 2,
        "export": 1,
    }
    assert all(pictures(cells[name])[0].startswith(b"\x89PNG") for name in ("curves", "picture"))
    with zipfile.ZipFile(logs / "my_demo.zip") as packed:
        assert sorted(packed.namelist()) == ["G_3.pth", "config.json", "my_demo.onnx"]
        assert packed.getinfo("G_3.pth").file_size < 0.5 * (logs / "G_3.pth").stat().st_size  # without the optimizer
        packed.extractall(tmp_path / "unpacked")
    assert Voice.load(tmp_path / "unpacked").step == 3


def test_training_keeps_runs_in_the_drive_where_logs_exists(tmp_path, kernel):
    folder, drive = tmp_path / "content", tmp_path / "drive"
    (folder / "logs" / "earlier").mkdir(parents=True)
    kernel.setenv("VITS_KEEP_IN_DRIVE", "1")
    kernel.setenv("VITS_DRIVE", str(drive))
    parts = [
        COLAB,
        "sys.drive = sys\nsys.mount = print",
        *(code(read("training"))[name].source for name in ("settings", "drive")),
    ]
    parts.insert(2, "import os, sys\nfrom pathlib import Path\nON_COLAB = True")
    cells = run(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(part) for part in parts]), folder)
    assert_all_succeeded(cells)
    assert (folder / "logs").resolve() == drive and [path.name for path in drive.iterdir()] == ["earlier"]


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_form_fields(name):
    sources = [cell.source for cell in code(read(name)).values()]
    fields = [line for source in sources for line in source.splitlines() if "# @param" in line]
    assert len(fields) > 4 and all(re.fullmatch(r"[A-Z_]+ = \S.*  # @param [\[{].*[\]}]", line) for line in fields)


def test_training_accepts_a_zip_of_recordings(tmp_path, kernel):
    folder = copy_of_the_repository(tmp_path)
    corpus = tmp_path / "unpacked/my corpus"
    (corpus / "wavs").mkdir(parents=True)
    for i in range(4):
        soundfile.write(corpus / f"wavs/{i}.wav", tiny.speech(2, i, 24000), 24000)
    lines = [f"{i}|{('anna', 'bo')[i % 2]}|Number {i} is a short line.\n" for i in range(4)]
    (corpus / "metadata.csv").write_text("id|speaker|text\n" + "".join(lines), "utf-8")
    kernel.setenv("VITS_DATA", "own")
    kernel.setenv("VITS_OWN", shutil.make_archive(str(tmp_path / "my"), "zip", tmp_path / "unpacked"))
    cells = run(read("training", *DATA_CELLS, "check", "clip", "config"), folder)
    assert_all_succeeded(cells)
    assert "3 recordings" in printed(cells["check"]) and len(sounds(cells["clip"])[0]) == 2 * 24000
    config = configs.load(folder / "configs/my_own.json")
    assert config.data.training_files == "filelists/my_own_audio_sid_text_train_filelist.txt.cleaned"
    assert (folder / config.data.validation_files).is_file()


@pytest.mark.parametrize(
    ("settings", "cell", "line"),
    [
        ({"VITS_DATA": "own", "VITS_OWN": "nowhere.zip"}, "data-own", "Stopped: there is no nowhere.zip: set OWN .*"),
        ({"VITS_DATA": "own", "VITS_OWN": "README.md"}, "data-own", "Stopped: .*README.md.*"),
        ({"VITS_DATA": "lj"}, "settings", 'Stopped: DATA is \'lj\', and should be "demo", "ljspeech" or "own"'),
    ],
)
def test_training_stops_with_one_line_at_wrong_data(tmp_path, kernel, settings, cell, line):
    (tmp_path / "README.md").write_text("no archive", "utf-8")
    for name, value in settings.items():
        kernel.setenv(name, value)
    cells = run(read("training", *DATA_CELLS, "check"), tmp_path)
    assert re.fullmatch(line, printed(cells[cell]).strip())
    after = list(cells)[list(cells).index(cell) + 1 :]
    assert not any(cells[name].execution_count for name in after) and TRACEBACK not in printed(*cells.values())


def test_training_stops_when_a_program_fails(tmp_path, kernel):
    folder = copy_of_the_repository(tmp_path)
    kernel.setenv("VITS_CLIPS", "1")
    cells = run(read("training", *DATA_CELLS, "check"), folder)
    assert "1 utterances are too few" in printed(cells["data-demo"])
    assert re.search(r"Stopped: the program above ended with exit code 2; .*\Z", printed(cells["data-demo"]))
    assert not cells["check"].execution_count


COLAB = "import sys\nsys.modules['google.colab'] = sys"  # makes a kernel look like that of Colab


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
@pytest.mark.parametrize("source", ["git", "zip"])
def test_colab_fetches_and_installs_the_repository_once(source, tmp_path, kernel):
    """The first cell runs twice, with a repository of two files that is cloned or uploaded."""
    origin, content = tmp_path / "vits2", tmp_path / "content"
    origin.mkdir()
    content.mkdir()
    (origin / "synthesis.py").touch()
    (origin / "requirements.txt").write_text("numpy\n", "utf-8")
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--no-gpg-sign", "-m", "two files"]):
        subprocess.run([*git, *command], check=True)
    if source == "git":
        kernel.setenv("VITS_REPO", origin.as_uri())
    else:
        subprocess.run([*git, "archive", "--prefix=vits2/", "-o", content / "vits2.zip", "HEAD"], check=True)
    kernel.setenv("PIP_NO_INDEX", "1")  # numpy is installed, and nothing is downloaded
    set_up = code(read("training"))["setup"]
    parts = [COLAB, set_up.source, set_up.source, "print(Path.cwd())"]
    cells = run(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(part) for part in parts]), content)
    assert_all_succeeded(cells)
    assert printed(*cells.values()).strip().endswith(str(content / "vits2"))
    assert not (content / "vits2/vits2").exists()


def test_colab_requests_the_address_of_the_repository(tmp_path, kernel):
    colab = nbformat.v4.new_code_cell(COLAB)
    cells = run(nbformat.v4.new_notebook(cells=[colab, code(read("training"))["setup"]]), tmp_path)
    assert printed(cells["setup"]).strip() == (
        "Stopped: put the address of this repository into REPOSITORY and run this cell again"
    )


def test_both_notebooks_begin_with_the_same_cell():
    inference, training = (code(read(name))["setup"].source for name in NAMES)
    assert inference == training
