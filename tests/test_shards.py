"""Tar shards: written from filelists, read like files, and seen exactly once by two processes that train together."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DataLoader

import train
from audio import load_audio, read_header
from corpora import shards
from corpora.filelist import Filelist, ListRecord, read_filelist, read_record, write_record
from data_utils import Collate, DistributedBucketSampler, Epochs, SpeechDataset


def packed(*arguments):
    shards.main([str(argument) for argument in arguments])


def test_shards_hold_the_same_recordings_and_texts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.write_corpus(tmp_path, 7, 3, speakers=2)
    write_record("train.txt", ListRecord(("phonemes_de",), 16000))
    monkeypatch.setattr(shards, "MEGABYTE", 1)
    packed("train.txt", "--out", "one", "--megabytes", 30_000)
    packed("train.txt", "--out", "a", "b", "--megabytes", 30_000)
    assert "one/train.txt is written" in capsys.readouterr().out
    assert len(list(Path("one").glob("train-*.tar"))) > 2
    assert {path.parent.name for path in Path().glob("[ab]/train-*.tar")} == {"a", "b"}
    assert read_record("one/train.txt") == read_record("train.txt")
    Path("one").rename("moved")  # the list of a single folder names shards beside it
    Path("shards.txt").write_text("".join(f"{path}\n" for path in sorted(Path("moved").glob("*.tar"))))
    files = read_filelist("train.txt")
    for filelist in ("moved/train.txt", "a/train.txt", "shards.txt"):
        clips = read_filelist(filelist)
        assert [(clip.speaker, clip.text) for clip in clips] == [(clip.speaker, clip.text) for clip in files]
        for clip, file in zip(clips, files, strict=True):
            assert Path(clip.path).name.endswith(f"_{file.path}") and read_header(clip.path) == read_header(file.path)
            np.testing.assert_array_equal(load_audio(clip.path, 8000), load_audio(file.path, 8000))


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def recording(kind="FLAC"):
    content = io.BytesIO()
    soundfile.write(content, tiny.speech(0.5), tiny.RATE, format=kind)
    return content.getvalue()


def test_shards_of_other_programs_are_read(tmp_path):
    tar = tmp_path / "x.tar"
    long = "n" * 150  # which needs a further header
    write_tar(
        tar,
        {
            "a/1.ogg": recording("OGG"),
            "a/1.json": b'{"text": "one | two\\n", "speaker": 7}',
            f"a/{long}.FLAC": recording(),
            f"a/{long}.meta.json": b"no JSON",
            f"a/{long}.txt": "\ufeffdrei".encode(),
            f"a/{long}.json": b'{"speaker": "anna"}',
        },
    )
    (tmp_path / "list.txt").write_text("x.tar\n")  # beside the list
    clips = Filelist(tmp_path / "list.txt")
    assert [clip[1:] for clip in clips] == [("7", "one two", 1), ("anna", "drei", 1)]
    assert [len(load_audio(clip.path, tiny.RATE)) for clip in clips] == [8000, 8000]
    with pytest.raises(ValueError, match=r"the shard ends before the recording"):
        tar.write_bytes(tar.read_bytes()[:2000])
        load_audio(clips[1].path, tiny.RATE)
    tar.unlink()
    with pytest.raises(ValueError, match=rf"{long}\.FLAC: no such file"):
        load_audio(clips[1].path, tiny.RATE)


@pytest.mark.parametrize(
    ("files", "mode", "message"),
    [
        ({"1.flac": b"x"}, "w", r"x\.tar: 1 has no text: there is no \.txt, and no \.json with the key text"),
        ({"1.txt": b"x"}, "w", r"x\.tar: 1 has no recording"),
        ({"1.flac": b"x", "1.json": b"{"}, "w", r"x\.tar: not a tar file without compression that can be read"),
        ({"1.flac": b"x", "1.txt": b"x"}, "w:gz", r"x\.tar: not a tar file without compression"),
        (None, "w", r"x\.tar: not a tar file without compression that can be read: .*No such file"),
    ],
)
def test_an_unusable_shard_is_named(tmp_path, files, mode, message):
    if files:
        write_tar(tmp_path / "x.tar", files, mode)
    (tmp_path / "list.txt").write_text("x.tar\n")
    with pytest.raises(ValueError, match=message):
        Filelist(tmp_path / "list.txt")


def test_the_list_is_not_replaced_by_that_of_its_shards(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.write_corpus(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        packed("train.txt", "--out", ".")
    assert "train.txt is in the folder --out" in capsys.readouterr().err


# Training


def loaded(rank, rendezvous, results):
    """Load two epochs in one of two processes, and exchange what was seen."""
    dist.init_process_group("gloo", rendezvous, rank=rank, world_size=2)
    data = tiny.config(tiny.MANY_VOICES).data
    dataset = SpeechDataset("shards/train.txt", data)
    sampler = DistributedBucketSampler(dataset, 2, [0, 160, 400])
    loader = DataLoader(dataset, batch_sampler=Epochs(sampler), collate_fn=Collate(data.hop_length))
    batches = iter(loader)
    seen = [[next(batches).index.tolist() for _ in range(len(sampler))] for _ in range(2)]
    gathered = [None, None]
    dist.all_gather_object(gathered, seen)
    if rank == 0:
        Path(results).write_text(json.dumps(gathered))
    dist.destroy_process_group()


def test_two_processes_see_every_utterance_of_the_shards_once_in_an_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.write_corpus(tmp_path, 12, 1, speakers=2)
    monkeypatch.setattr(shards, "MEGABYTE", 1)
    packed("train.txt", "--out", "shards", "--megabytes", 60_000)
    mp.spawn(loaded, ((tmp_path / "rendezvous").as_uri(), "seen.json"), 2)
    first, second = zip(*json.loads(Path("seen.json").read_text()))
    for epoch in (first, second):
        assert Counter(i for process in epoch for batch in process for i in batch) == Counter(range(12))
    assert first != second


def test_training_from_shards_equals_training_from_files_and_resumes_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.write_corpus(tmp_path, 7, 2, speakers=2)
    packed("train.txt", "val.txt", "--out", "shards")
    for name, folder, steps in (("files", "", [5]), ("shards", "shards/", [3, 5])):
        lists = {"training_files": f"{folder}train.txt", "validation_files": f"{folder}val.txt"}
        config = tiny.write_config(tmp_path / f"{name}.json", tiny.MANY_VOICES, {"data": lists})
        for step in steps:
            train.main(["-c", config, "-m", name, "--device", "cpu", "--max-steps", str(step)])
    files, packed_files = (torch.load(f"logs/{name}/G_5.pth", weights_only=True) for name in ("files", "shards"))
    assert tiny.equal(files["model"], packed_files["model"]) and tiny.equal(
        files["optimizer"], packed_files["optimizer"]
    )
