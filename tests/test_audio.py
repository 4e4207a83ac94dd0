"""Tests of reading and writing recordings."""

import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

import audio
import files

RATE = 22050


def tone(seconds=0.5, rate=RATE, hz=220.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    "suffix, subtype, tolerance",
    [
        ("wav", "PCM_U8", 1e-2),
        ("wav", "PCM_16", 1e-4),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_32", 1e-6),
        ("wav", "FLOAT", 1e-7),
        ("wav", "DOUBLE", 1e-7),
        ("flac", "PCM_16", 1e-4),
        ("ogg", "VORBIS", 5e-2),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_read_as_mono_float(tmp_path, suffix, subtype, tolerance, channels):
    path = tmp_path / f"tone.{suffix}"
    columns = np.stack([tone() * gain for gain in ((1.0,) if channels == 1 else (0.5, 1.5))], axis=1)
    soundfile.write(path, columns, RATE, subtype=subtype)
    samples = audio.load_audio(path, RATE)
    assert samples.dtype == np.float32 and samples.shape == tone().shape
    np.testing.assert_allclose(samples, tone(), atol=tolerance)
    assert audio.read_header(path) == (len(samples), RATE)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_another_rate_is_resampled_to_the_announced_length(tmp_path, rate):
    path = tmp_path / "tone.wav"
    for extra in range(3):
        soundfile.write(path, tone(0.5 + extra / rate, rate), rate)
        samples = audio.load_audio(path, RATE)
        assert len(samples) == audio.audio_length(path, RATE)
        middle = slice(1000, 9000)
        np.testing.assert_allclose(samples[middle], tone()[middle], atol=1e-3)


@pytest.mark.parametrize("read", [audio.load_audio, audio.audio_length])
def test_another_rate_is_refused_without_resampling(tmp_path, read):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(0.1, 16000), 16000)
    with pytest.raises(ValueError, match=r"tone\.wav.*16000 Hz.*22050 Hz"):
        read(path, RATE, resample=False)
    soundfile.write(path, tone(0.1), RATE)
    read(path, RATE, resample=False)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "endless"])
def test_errors_name_the_unreadable_file(tmp_path, damage):
    path = tmp_path / "voice.flac"
    soundfile.write(path, tone(3), RATE)
    content = bytearray(path.read_bytes())
    if damage == "endless":  # a number of samples of 0 in STREAMINFO means unknown
        content[21] &= 0xF0
        content[22:26] = bytes(4)
    length = {"empty": 0, "text": 0, "truncated": len(content) // 2}.get(damage, len(content))
    path.write_bytes(b"hello" if damage == "text" else content[:length])
    if damage == "missing":
        path.unlink()
    with pytest.raises(ValueError, match=r"voice\.flac: \w+"):
        audio.load_audio(path, RATE)


@pytest.mark.parametrize(("seconds", "rate", "channels"), [(61, 8000, 1), (60, 48000, 8), (60, 655350, 1), (60, 1, 1)])
def test_recordings_that_decode_to_more_than_their_duration_needs_are_refused(tmp_path, seconds, rate, channels):
    path = tmp_path / "bomb.flac"
    silence = np.zeros((1 << 16, channels), np.int16)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        for start in range(0, seconds * rate, len(silence)):
            file.write(silence[: seconds * rate - start])
    with pytest.raises(ValueError, match=r"longer than 60 seconds|are too much to decode|are no sampling rate"):
        audio.refuse_long(path, 60)


@pytest.mark.parametrize("read", [audio.read_header, lambda path: audio.load_audio(path, RATE)])
def test_a_rate_at_which_few_samples_are_hours_is_refused(tmp_path, read):
    path = tmp_path / "slow.wav"
    soundfile.write(path, np.zeros(9000), 1)
    with pytest.raises(ValueError, match=r"slow\.wav: 1 Hz are no sampling rate of speech; the least is 1000"):
        read(path)


def test_only_a_block_of_a_recording_has_all_channels_in_memory(tmp_path):
    path, frames, channels = tmp_path / "wide.flac", 2_000_000, 8
    with soundfile.SoundFile(path, "w", RATE, channels) as file:
        file.write(np.zeros((frames, channels), np.int16))
    audio.load_audio(path, RATE)  # imports and caches
    tracemalloc.start()
    assert len(audio.load_audio(path, RATE)) == frames
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < frames * channels * 4 / 2


@pytest.mark.parametrize("scale", [20_000, 1e20])
def test_float_files_on_another_scale_are_refused(tmp_path, scale):
    path = tmp_path / "loud.wav"
    soundfile.write(path, (tone() * scale).astype(np.float32), RATE, "FLOAT")
    with pytest.raises(ValueError, match=r"loud\.wav: samples reach .*full scale is 1"):
        audio.load_audio(path, RATE)


@pytest.mark.parametrize("suffix", ["wav", "flac", "WAV"])
def test_writing_clips_loud_samples(tmp_path, suffix):
    path = tmp_path / f"loud.{suffix}"
    audio.save_audio(path, np.array([0.0, 1.0, 1.5, -1.0, -7.0, 0.25]), RATE)
    pcm, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE and pcm.tolist() == [0, 32767, 32767, -32768, -32768, 8192]


def test_sixteen_bit_audio_is_unchanged_by_reading_and_writing(tmp_path):
    pcm = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, RATE)
    audio.save_audio(tmp_path / "b.flac", torch.tensor(audio.load_audio(tmp_path / "a.wav", RATE))[None], RATE)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.flac", dtype="int16")[0], pcm)


def test_a_long_ogg_file_is_written(tmp_path):
    audio.save_audio(tmp_path / "long.ogg", np.zeros(8000 * 400, np.float32), 8000)
    assert audio.read_header(tmp_path / "long.ogg") == (8000 * 400, 8000)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "voice.wav"
    audio.save_audio(path, tone(), RATE)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), files.replacing(path) as unfinished:
        unfinished.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name, samples, complaint",
    [
        ("voice.mp3", tone(), ".wav, .flac, .ogg"),
        ("voice", tone(), "without suffix"),
        ("voice.wav", np.array([0.0, np.nan]), "NaN"),
        ("voice.wav", np.zeros((2, 10)), "mono"),
        ("voice.wav", np.zeros(10, np.int16), "float"),
    ],
)
def test_unwritable_audio_is_refused(tmp_path, name, samples, complaint):
    with pytest.raises(ValueError, match=complaint):
        audio.save_audio(tmp_path / name, samples, RATE)
    assert not list(tmp_path.iterdir())


def test_conversion_to_16_bits_clips():
    assert audio.to_pcm(np.array([0.0, 0.5, 1.5, -1.5])).tolist() == [0, 16384, 32767, -32768]


@pytest.mark.parametrize("name", ["a.raw", "a.RAW"])
def test_samples_without_a_header_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(100))
    for read in (audio.read_header, lambda path: audio.load_audio(path, RATE)):
        with pytest.raises(ValueError, match=f"{name}: raw samples have no header: convert the file"):
            read(tmp_path / name)
