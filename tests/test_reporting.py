"""Reports of a run: means of losses, TensorBoard, metrics.jsonl and logging."""

import json
import logging
import threading
import time

import numpy as np
import pytest
import tiny
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.event_file_writer import AtomicCounter
from torch.utils.data import DataLoader

import reporting
from data_utils import Collate, Utterance
from trainer import Trainer


def read_board(folder):
    return EventAccumulator(str(folder), {"scalars": 0, "images": 0, "audio": 0}).Reload()


def test_meter_averages_each_number_over_the_steps_that_have_it():
    meter = reporting.Meter()
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0, dtype=torch.float16)})
    meter.add({"a": torch.tensor(3.0, requires_grad=True)})
    assert meter.means() == {"a": 2.0, "b": 5.0}
    assert meter.means() == {}
    meter.add({"a": torch.tensor(7.0)})
    assert meter.means() == {"a": 7.0}


def test_reporter_writes_tensorboard_and_metrics(tmp_path):
    reporter = reporting.Reporter(tmp_path, 0, 10, time.time() - 100)
    reporter.step()
    reporter.show(0, {"loss/g/mel": 1.0})
    reporter.scalars(3, {"loss/g/mel": 1.5, "learning_rate": 2e-4})
    reporter.pictures(3, {"gen/mel": np.zeros((8, 9, 3), np.uint8)})
    reporter.audio(3, {"gen/audio": np.zeros(100, np.float32)}, 16000)
    reporter.close()
    board = read_board(tmp_path)
    written = {name: board.Scalars(name)[0] for name in board.Tags()["scalars"]}
    assert {name: (event.step, event.value) for name, event in written.items()} == {
        "loss/g/mel": (3, 1.5),
        "optim/learning_rate": (3, pytest.approx(2e-4)),
    }
    assert board.Tags()["images"] == ["gen/mel"] and board.Tags()["audio"] == ["gen/audio"]
    assert board.Audio("gen/audio")[0].sample_rate == 16000
    line = json.loads((tmp_path / "metrics.jsonl").read_text("utf-8"))
    assert line["step"] == 3 and line["loss/g/mel"] == 1.5 and line["elapsed"] >= 100


def test_a_clip_of_each_speaker_is_shown_and_its_recording_once(tmp_path):
    config = tiny.config(tiny.MANY_VOICES, data={"n_speakers": 6, "speakers": {"anna": 3, "bo": 5}})
    trainer = Trainer(config, torch.device("cpu"))
    items = [tiny.batch(config, (60,), (7,)) for _ in range(9)]

    class Clips(list):
        def __getitem__(self, i):
            batch = items[i]
            return Utterance(
                batch.text[0], None, batch.wav[0], {"sid": torch.tensor([(3, 3, 5, 5, 3, 1, 2, 0, 4)[i]])}, i
            )

    loader = DataLoader(Clips(items), collate_fn=Collate(tiny.HOP))
    reporter = reporting.Reporter(tmp_path, 0, 10, time.time())
    for trainer.position.step in (2, 4):
        reporting.show_samples(reporter, trainer, loader)
    reporter.close()
    board = read_board(tmp_path)
    speakers = ("anna", "1", "2", "0")
    kinds = ("alignment/found", "alignment/predicted", "mel/recording", "mel/synthesis")
    assert set(board.Tags()["images"]) == {f"{kind}/{name}" for kind in kinds for name in speakers}
    assert {len(board.Audio(f"audio/recording/{name}")) for name in speakers} == {1}
    assert {len(board.Audio(f"audio/synthesis/{name}")) for name in speakers} == {2}
    assert set(board.Tags()["tensors"]) == {f"text/{name}/text_summary" for name in speakers}


def test_repeated_steps_of_a_resumed_run_count_once(tmp_path, monkeypatch):
    # files of one second are read in the order of this counter, as text
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._global_uid", AtomicCounter(0))
    for start, value in ((0, 1.0), (2, 2.0)):
        reporter = reporting.Reporter(tmp_path, start, 10, time.time())
        for step in range(start + 1, start + 4):
            reporter.scalars(step, {"loss": value} | ({"rare": value} if step == 3 else {}))
        reporter.close()
    assert reporting.read_metrics(tmp_path, "loss") == ([1, 2, 3, 4, 5], [1, 1, 2, 2, 2])
    assert reporting.read_metrics(tmp_path, "rare") == ([3], [2.0])
    assert reporting.read_metrics(tmp_path, "none") == ([], [])
    assert reporting.metric_names(tmp_path) == ["loss", "rare"] and reporting.resumptions(tmp_path) == [2]
    assert [event.step for event in read_board(tmp_path).Scalars("loss")] == [1, 2, 3, 4, 5]


def test_numbers_that_are_not_finite_are_said_and_null(tmp_path, caplog):
    reporter = reporting.Reporter(tmp_path, 0, 10, time.time())
    for step, value in enumerate((1.0, float("nan"), float("inf")), 1):
        reporter.scalars(step, {"validation/mel": value})
    reporter.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    lines = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line, parse_constant=refuse)["validation/mel"] for line in lines] == [1.0, None, None]
    assert "step 2: not finite: validation/mel" in caplog.text and "step 1: not finite" not in caplog.text
    assert reporting.read_metrics(tmp_path, "validation/mel") == ([1], [1.0])


def test_partial_line_of_a_killed_process_is_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "elapsed": 1.0, "loss": 4.0}\n{"step": 2, "el', "utf-8")
    assert reporting.read_metrics(tmp_path, "loss") == ([1], [4.0])
    reporter = reporting.Reporter(tmp_path, 1, 10, time.time())
    reporter.scalars(2, {"loss": 3.0})
    reporter.close()
    assert reporting.read_metrics(tmp_path, "loss") == ([1, 2], [4.0, 3.0])
    path.write_text('{"step": 1\n{"step": 2}\n', "utf-8")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1: not valid JSON"):
        reporting.read_metrics(tmp_path, "loss")


def test_a_full_disk_in_a_thread_takes_one_line(tmp_path, capsys):
    def full():
        raise OSError(28, "No space left on device")

    reporting.set_up_logging(tmp_path)
    thread = threading.Thread(target=full, name="writer")
    thread.start()
    thread.join()
    assert capsys.readouterr().err == "writer cannot write any more: [Errno 28] No space left on device\n"


def test_log_lines_appear_once_in_the_file_and_the_terminal(tmp_path, capsys):
    for _ in range(2):
        reporting.set_up_logging(tmp_path)
        logging.getLogger("trainer").info("one line")
    assert capsys.readouterr().err == "one line\none line\n"
    lines = (tmp_path / "train.log").read_text("utf-8").splitlines()
    assert len(lines) == 2 and lines[0].endswith("INFO\tone line")
