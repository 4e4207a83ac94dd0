"""Tests of the functions that notebooks of VITS use."""

import sys
from unittest import mock

import numpy as np
import pytest
import soundfile
import tiny
import torch

import config as configs
import models
import text
import utils
from data_utils import TextAudioLoader, TextAudioSpeakerCollate, TextAudioSpeakerLoader


def test_hparams_are_a_dict_and_an_object(tmp_path):
    hps = utils.get_hparams_from_file(tiny.write_config(tmp_path / "a.json"))
    assert hps.data.hop_length == hps["data"]["hop_length"] == 64
    assert "betas" in hps.train and "beta" not in hps.train
    assert len(hps) == 3 and set(hps.keys()) == {"train", "data", "model"}
    assert dict(hps.model.items())["n_layers"] == 3 and 3 in list(hps.model.values())
    hps["train"]["batch_size"] = 7
    assert hps.train.batch_size == 7
    hps.train.epochs = 3
    assert "batch_size" in repr(hps) and hps.train["epochs"] == 3 and getattr(hps.train, "missing", 5) == 5
    with pytest.raises(AttributeError, match=r"no setting 'batchsize'; did you mean batch_size\?"):
        hps.train.batchsize  # noqa: B018
    assert utils.HParams(a={"b": 1}).a.b == 1


def test_a_notebook_builds_and_loads_a_network(tmp_path):
    hps = utils.get_hparams_from_file(tiny.write_config(tmp_path / "a.json"))
    segment = hps.train.segment_size // hps.data.hop_length

    def build():
        return models.SynthesizerTrn(178, 20, segment, n_speakers=hps.data.n_speakers, **hps.model)

    net, other = build(), build()
    utils.save_checkpoint(net, torch.optim.AdamW(net.parameters()), 1e-4, 3, tmp_path / "G_5.pth")
    path = utils.latest_checkpoint_path(tmp_path)
    _, optimizer, rate, iteration = utils.load_checkpoint(path, other, None)
    assert (optimizer, rate, iteration) == (None, 1e-4, 3)
    assert tiny.equal(other.state_dict(), net.state_dict())
    for kind in (torch.optim.AdamW, torch.optim.Adam):
        net, optimizer, _, _ = utils.load_checkpoint(path, build(), kind(build().parameters()))
        assert isinstance(optimizer, kind)


def test_programs_of_vits2_pytorch_pass_arguments_beside_the_config(tmp_path):
    hps = utils.get_hparams_from_file(tiny.write_config(tmp_path / "a.json"))
    scales = {"mas_noise_scale_initial": 0.02, "noise_scale_delta": 1e-6}
    net = models.SynthesizerTrn(178, 20, 32, n_speakers=hps.data.n_speakers, **scales, **hps.model)
    assert net.use_noise_scaled_mas and net.mas_noise_scale_initial == 0.02 and net.noise_scale_delta == 1e-6
    assert hps.model.mas_noise_scale_initial == hps.model["mas_noise_scale_initial"] == 0.01


def test_training_loops_of_vits_log_and_prune(tmp_path, caplog):
    utils.get_logger(tmp_path / "run").info("hello")
    assert "run\tINFO\thello" in (tmp_path / "run" / "train.log").read_text("utf-8")
    utils.check_git_hash(tmp_path)
    (tmp_path / "githash").write_text("0" * 40, "utf-8")
    utils.check_git_hash(tmp_path)
    assert "the commit 00000000; this is" in caplog.text or "is not a git repository" in caplog.text
    for step in (5, 100, 20, 7, 3):
        for kind in ("G", "D"):
            (tmp_path / f"{kind}_{step}.pth").touch()
    utils.remove_old_checkpoints(tmp_path, prefixes=["G_*.pth"])
    assert utils.scan_checkpoint(tmp_path, "G_*.pth") == [str(tmp_path / f"G_{step}.pth") for step in (7, 20, 100)]
    assert len(utils.scan_checkpoint(tmp_path, "D_*.pth")) == 5 and utils.scan_checkpoint(tmp_path, "X_*.pth") is None
    writer = mock.Mock()
    utils.summarize(writer, 3, scalars={"a": 1}, images={"b": 2}, audios={"c": 3}, audio_sampling_rate=8)
    assert writer.method_calls == [
        mock.call.add_scalar("a", 1, 3),
        mock.call.add_image("b", 2, 3, dataformats="HWC"),
        mock.call.add_audio("c", 3, 3, 8),
    ]
    assert text._clean_text("Hi.", ["basic_cleaners"]) == "hi."


def test_loaders_accept_the_data_section(workspace):
    hps = utils.get_hparams_from_file(tiny.write_config(workspace / "a.json"))
    text, spec, wav = TextAudioLoader(hps.data.training_files, hps.data)[0]
    assert spec.size(0) == 20 and wav.size(1) == spec.size(1) * 64 and text.dtype == torch.int64


def test_loaders_use_the_speakers_of_a_run(workspace):
    tiny.write_corpus(workspace, speakers=2)
    lines = (workspace / "train.txt").read_text("utf-8").replace("|0|", "|anna|").replace("|1|", "|ben|")
    (workspace / "train.txt").write_text(lines, "utf-8")
    config = tiny.config(tiny.MANY_VOICES, data={"speakers": {"anna": 0, "ben": 1}})
    configs.save(config, workspace / "config.json")
    hps = utils.get_hparams_from_dir(workspace)
    assert hps.model_dir == str(workspace)
    loader = TextAudioSpeakerLoader(hps.data.training_files, hps.data)
    *_, sid = TextAudioSpeakerCollate()([loader[0], loader[1]])
    assert sorted(sid.tolist()) == [0, 1]


def test_get_hparams_parses_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tiny.write_config(tmp_path / "a.json")
    monkeypatch.setattr(sys, "argv", ["train.py", "-c", path, "-m", "voice"])
    hps = utils.get_hparams()
    assert hps.model_dir == "logs/voice" and configs.load("logs/voice/config.json") == tiny.config()
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "voice"])
    assert utils.get_hparams(init=False).train.batch_size == 2
    with pytest.raises(ValueError, match=r"cannot read the config file .*config\.json"):
        utils.get_hparams_from_dir(tmp_path)


def test_filelists_and_recordings(workspace, monkeypatch):
    assert utils.load_filepaths_and_text("train.txt")[0] == ["train0.wav", tiny.TEXTS[0]]
    (workspace / "other").mkdir()
    monkeypatch.chdir(workspace / "other")  # from here, the recordings are found beside the filelist
    first = [str(workspace / "train0.wav"), tiny.TEXTS[0]]
    assert utils.load_filepaths_and_text(workspace / "train.txt")[0] == first
    tiny.write_corpus(workspace, speakers=2)
    assert utils.load_filepaths_and_text(workspace / "train.txt")[0] == [first[0], "0", first[1]]
    monkeypatch.chdir(workspace)
    (workspace / "tabs.txt").write_text("a\tb\tc\n\n", "utf-8")
    assert utils.load_filepaths_and_text("tabs.txt", split="\t") == [["a", "b", "c"]]
    soundfile.write("half.wav", np.full(5, 0.5), 8000)
    wav, rate = utils.load_wav_to_torch("half.wav")
    assert rate == 8000 and wav.tolist() == [16384.0] * 5 and wav.dtype == torch.float32


def test_plots_return_pictures():
    for picture in (
        utils.plot_spectrogram_to_numpy(np.random.default_rng(0).random((20, 50))),
        utils.plot_alignment_to_numpy(np.eye(9), info="step 3"),
    ):
        assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
        assert len(np.unique(picture)) > 10
