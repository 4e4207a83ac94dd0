"""Datasets, collation, and the sampler's guarantees for any lengths, boundaries and numbers of GPUs."""

import logging
import pickle
import tracemalloc
from collections import Counter
from itertools import islice, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import data_utils as du
import mel_processing as mp

RATE, HOP = 22050, 256


def data(**changes):
    defaults = {
        "text_cleaners": ["basic_cleaners"],
        "max_wav_value": 32768.0,
        "sampling_rate": RATE,
        "filter_length": 1024,
        "hop_length": HOP,
        "win_length": 1024,
        "n_mel_channels": 80,
        "mel_fmin": 0.0,
        "mel_fmax": None,
        "add_blank": False,
        "n_speakers": 0,
        "cleaned_text": True,
    }
    return SimpleNamespace(**(defaults | changes))


def write_corpus(tmp_path, rows, speakers=None):
    """Write recordings, given as (name, samples, rate, text), and their filelist. Returns its path."""
    lines = []
    for i, (name, samples, rate, text) in enumerate(rows):
        wav = 0.1 * np.random.default_rng(i).standard_normal(samples)
        soundfile.write(tmp_path / name, wav.clip(-1, 1), rate)
        lines.append("|".join([str(tmp_path / name), *([speakers[i]] if speakers else []), text]))
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


ROWS = [
    ("a.wav", 20 * HOP + 100, RATE, "hello"),
    ("b.flac", 30 * HOP + 255, RATE, "hello world"),
    ("c.ogg", 10 * HOP, RATE, "hi"),
    ("d.wav", 16000, 16000, "resampled"),
]
FRAMES = [20, 30, 10, 86]


@pytest.fixture
def filelist(tmp_path):
    return write_corpus(tmp_path, ROWS)


@pytest.fixture
def filelist_of_speakers(tmp_path):
    return write_corpus(tmp_path, ROWS, speakers=["1", "0", "1", "2"])


# --- datasets


def test_items_have_the_lengths_of_the_headers(filelist):
    dataset = du.SpeechDataset(filelist, data())
    assert dataset.lengths.tolist() == FRAMES and dataset.left_out == {}
    for i, (name, *_, text) in enumerate(ROWS):
        item = dataset[i]
        assert dataset.names[i].endswith(name) and item.index == i
        assert item.wav.shape == (1, FRAMES[i] * HOP) and item.wav.dtype == torch.float32
        assert item.text.dtype == torch.int64 and len(item.text) == len(text)
        assert item.spec is None and item.conditions == {}


def test_a_dataset_is_copied_to_processes_that_are_started(filelist_of_speakers):
    dataset = du.SpeechDataset(filelist_of_speakers, data(n_speakers=3))
    copy = pickle.loads(pickle.dumps(dataset))
    for one, other in zip((dataset[2], dataset[3]), (copy[2], copy[3])):
        assert torch.equal(one.wav, other.wav) and torch.equal(one.text, other.text)
        assert one.conditions == other.conditions


@pytest.mark.slow
def test_a_line_takes_little_memory(tmp_path, monkeypatch):
    n = 20_000
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{i}.wav|{i % 3}|a text of this line\n" for i in range(n)))
    monkeypatch.setattr(du, "headers", lambda paths, cache: ((99 * HOP, RATE) for _ in paths))
    tracemalloc.start()
    dataset = du.SpeechDataset(path, data(n_speakers=3, speakers={"0": 0, "1": 1, "2": 2}))
    sampler = du.DistributedBucketSampler(dataset, 16, [0, 50, 100])
    bytes_a_line = tracemalloc.get_traced_memory()[0] / n
    tracemalloc.stop()
    assert bytes_a_line < 80 and dataset.names[7] == "7.wav"
    assert sorted(i for batch in sampler for i in batch) == list(range(n))


def test_raw_text_is_cleaned_and_blanks_are_added(filelist):
    cleaned = du.SpeechDataset(filelist, data())[1].text
    raw = du.SpeechDataset(filelist, data(cleaned_text=False, add_blank=True))[1].text
    assert raw[1::2].tolist() == cleaned.tolist() and not raw[::2].any() and len(raw) == 2 * len(cleaned) + 1


def test_unusable_clips_are_left_out_and_named(tmp_path, caplog):
    rows = [
        ("empty_text.wav", 9 * HOP, RATE, ""),
        ROWS[0],
        ("long_text.wav", 300 * HOP, RATE, "x" * 191),
        ("click.wav", HOP - 1, RATE, "x"),
        ("digit.wav", 9 * HOP, RATE, "7"),
        ROWS[3],
    ]
    with caplog.at_level(logging.WARNING):
        dataset = du.SpeechDataset(write_corpus(tmp_path, rows), data())
    assert dataset.lengths.tolist() == [20, 86]
    assert [dataset[i].wav.size(1) // HOP for i in range(len(dataset))] == [20, 86]
    names = {reason: [name.rsplit("/")[-1] for name in names] for reason, names in dataset.left_out.items()}
    assert names == {
        "text not of 1 to 190 symbols": ["empty_text.wav", "long_text.wav"],
        "recording shorter than one frame": ["click.wav"],
        "no symbol of the text has an id": ["digit.wav"],
    }
    assert "symbols without an id are left out of texts: '7' x 1" in caplog.text
    assert len(caplog.records) == 4 and "2 utterances left out" in caplog.text and "click.wav" in caplog.text
    assert len(du.SpeechDataset(write_corpus(tmp_path, rows[1:4]), data(max_text_len=191))) == 2


def test_a_text_with_more_tokens_than_frames_is_an_error(tmp_path):
    path = write_corpus(tmp_path, [ROWS[0], ("swapped.wav", 9 * HOP, RATE, "hello you")])
    assert len(du.SpeechDataset(path, data())) == 2
    with pytest.raises(ValueError, match=r"swapped\.wav \(19 tokens, 9 frames\)"):
        du.SpeechDataset(path, data(add_blank=True))


def test_other_rates_and_missing_files_are_named(tmp_path, filelist):
    with pytest.raises(ValueError, match=r"d\.wav.*16000 Hz.*22050 Hz"):
        du.SpeechDataset(filelist, data(resample=False))
    (tmp_path / "b.flac").unlink()
    with pytest.raises(ValueError, match=r"b\.flac: no such file"):
        du.SpeechDataset(filelist, data())


def test_a_filelist_without_usable_clips_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no utterance is left: recording shorter than one frame"):
        du.SpeechDataset(write_corpus(tmp_path, [("click.wav", 9, RATE, "x")]), data())


# --- the interface of VITS


@pytest.mark.parametrize("mel", [False, True])
def test_loader_and_collate_have_the_shapes_of_vits(filelist, mel):
    changes = {"use_mel_posterior_encoder": True, "n_mel_channels": 40} if mel else {}
    dataset = du.TextAudioLoader(filelist, data(**changes))
    items = [dataset[i] for i in range(len(dataset))]
    channels = 40 if mel else 513
    assert [tuple(x.shape) for x in items[0]] == [(5,), (channels, 20), (1, 20 * HOP)]
    expected = mp.spectrogram_torch(items[0][2], 1024, RATE, HOP, 1024)
    if mel:
        expected = mp.spec_to_mel_torch(expected, 1024, 40, RATE, 0.0, None)
    torch.testing.assert_close(items[0][1], expected[0])

    text, text_lengths, spec, spec_lengths, wav, wav_lengths = du.TextAudioCollate()(items)
    assert spec_lengths.tolist() == [86, 30, 20, 10] and wav_lengths.tolist() == [n * HOP for n in (86, 30, 20, 10)]
    assert text_lengths.tolist() == [9, 11, 5, 2] and text.shape == (4, 11)
    assert spec.shape == (4, channels, 86) and wav.shape == (4, 1, 86 * HOP)
    torch.testing.assert_close(spec[2, :, :20], items[0][1])
    assert not spec[2, :, 20:].any() and not wav[2, :, 20 * HOP :].any() and not text[2, 5:].any()
    assert du.TextAudioCollate(return_ids=True)(items)[-1].tolist() == [3, 1, 0, 2]


def test_speaker_loader_and_collate(filelist_of_speakers):
    dataset = du.TextAudioSpeakerLoader(filelist_of_speakers, data(n_speakers=3))
    batch = du.TextAudioSpeakerCollate()([dataset[i] for i in range(4)])
    assert len(batch) == 7 and batch[6].tolist() == [2, 0, 1, 1]
    with pytest.raises(ValueError, match=r"set data\.n_speakers"):
        du.TextAudioSpeakerLoader(filelist_of_speakers, data())


# --- batches of training


def test_batches_are_padded_to_multiples(filelist_of_speakers):
    dataset = du.SpeechDataset(filelist_of_speakers, data(n_speakers=3))
    batch = du.Collate(HOP, pad_frames=32, pad_tokens=8)([dataset[i] for i in (1, 0, 3)])
    assert batch.text.shape == (3, 16) and batch.text_lengths.tolist() == [11, 5, 9]
    assert batch.wav.shape == (3, 1, 96 * HOP) and batch.wav_lengths.tolist() == [30 * HOP, 20 * HOP, 86 * HOP]
    assert list(batch.conditions) == ["sid"] and batch.conditions["sid"].tolist() == [0, 1, 2]
    assert batch.index.tolist() == [1, 0, 3]
    torch.testing.assert_close(batch.wav[1, :, : 20 * HOP], dataset[0].wav)
    assert not batch.wav[1, :, 20 * HOP :].any() and not batch.text[1, 5:].any()


def test_loader_processes_return_batches_that_move_to_devices(filelist):
    dataset = du.SpeechDataset(filelist, data())
    sampler = du.DistributedBucketSampler(dataset, 2, [0, 50, 100])
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=du.Collate(HOP), num_workers=2)
    batches = [batch.to("cpu", non_blocking=True) for batch in loader]
    assert all(type(batch) is du.Batch and batch.conditions == {} for batch in batches)
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == [0, 1, 2, 3]
    assert batches[0].to("meta").wav.is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_arrive_on_a_gpu_complete_and_in_order():
    device = torch.device("cuda", 0)

    def batch(i):
        lengths = torch.full((2,), i)
        return du.Batch(
            lengths[:, None], lengths, torch.full((2, 1, 500_000), float(i)), lengths, {"sid": lengths}, lengths
        ).pin_memory()

    sums = []
    with torch.cuda.stream(torch.cuda.Stream()):
        for data in du.ahead(map(batch, range(20)), device):
            torch.cuda._sleep(10_000_000)  # the GPU is slower than the host
            sums.append(data.wav.mean() + data.conditions["sid"].sum())
    torch.cuda.synchronize()
    assert [x.item() for x in sums] == [3.0 * i for i in range(20)]


# --- the sampler


def replicas_of(lengths, size, boundaries, n, **options):
    dataset = SimpleNamespace(lengths=lengths)
    return [du.DistributedBucketSampler(dataset, size, boundaries, n, rank, **options) for rank in range(n)]


CASES = {
    "lengths": st.lists(st.integers(0, 60), min_size=1, max_size=80),
    "boundaries": st.lists(st.integers(0, 60), min_size=2, max_size=8, unique=True).map(sorted),
    "size": st.integers(1, 9),
    "n": st.integers(1, 5),
    "epoch": st.integers(0, 1000),
    "shuffle": st.booleans(),
}


@settings(deadline=None, max_examples=300)
@given(**CASES)
def test_the_sampler_keeps_its_guarantees(lengths, boundaries, size, n, epoch, shuffle):
    inside = [i for i, length in enumerate(lengths) if boundaries[0] < length <= boundaries[-1]]
    if not inside:
        with pytest.raises(ValueError, match=f"run from {min(lengths)} to {max(lengths)} frames"):
            replicas_of(lengths, size, boundaries, n, shuffle=shuffle)
        return
    replicas = replicas_of(lengths, size, boundaries, n, shuffle=shuffle)
    for replica in replicas:
        replica.set_epoch(epoch)
    shares = [list(replica) for replica in replicas]

    for (low, high), bucket in zip(pairwise(boundaries), replicas[0].buckets, strict=True):
        assert bucket.tolist() == [i for i, length in enumerate(lengths) if low < length <= high]
    left_out = [int(name) for names in replicas[0].left_out.values() for name in names]
    assert sorted(left_out + inside) == list(range(len(lengths)))

    n_batches = -(-len(inside) // (size * n))
    assert all(len(replica) == len(share) == n_batches for replica, share in zip(replicas, shares))
    seen = Counter(i for share in shares for batch in share for i in batch)
    assert set(seen) == set(inside)
    assert max(seen.values()) <= (2 if len(inside) >= n else -(-n // len(inside)))
    assert seen.total() == max(n, len(inside)) if len(inside) < size * n else seen.total() == n_batches * size * n

    for parts in zip(*shares, strict=True):
        whole = [i for part in parts for i in part]
        assert all(parts)
        if len(inside) >= size * n:
            assert all(len(part) == size for part in parts)
        if len(inside) >= n:
            assert len(set(whole)) == len(whole)
            sizes = [len(part) for part in parts]
            assert max(sizes) - min(sizes) <= 1
            if max(sizes) == min(sizes):
                frames = [sum(lengths[i] for i in part) for part in parts]
                spread = max(lengths[i] for i in whole) - min(lengths[i] for i in whole)
                assert max(frames) - min(frames) <= spread


@settings(deadline=None, max_examples=50)
@given(**CASES)
def test_the_order_is_reproducible_and_resumable(lengths, boundaries, size, n, epoch, shuffle):
    lengths.append(boundaries[-1])
    one, other = (replicas_of(lengths, size, boundaries, n, shuffle=shuffle)[-1] for _ in range(2))
    one.set_epoch(epoch + 1)
    one.set_epoch(epoch)
    other.set_epoch(epoch)
    planned = list(one)
    assert planned == list(other) == list(one.batches)
    one.set_epoch(epoch + 1)
    following = list(one)
    for start in (0, len(planned) // 2):
        expected = planned[start:] + following
        epochs = du.Epochs(other, epoch, start)
        iter(epochs)  # a loader with workers iterates twice before the first batch
        assert list(islice(epochs, len(expected))) == expected


def test_epochs_and_seeds_change_the_order_only_with_shuffling():
    lengths = [*range(1, 61)]
    sampler = replicas_of(lengths, 4, [0, 30, 60], 1)[0]
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(replicas_of(lengths, 4, [0, 30, 60], 1, seed=7)[0]) != first
    ordered = replicas_of(lengths, 4, [0, 60], 1, shuffle=False)[0]
    ordered.set_epoch(3)
    assert [sorted(batch) for batch in ordered] == [list(range(k, k + 4)) for k in range(0, 60, 4)]


def test_only_the_remainder_of_a_bucket_moves_to_the_next():
    lengths = [10] * 9 + [30] * 7 + [50] * 8  # batches of 8: one of length 10, one mixed, one of length 50
    batches = list(replicas_of(lengths, 8, [0, 20, 40, 60], 1)[0])
    kinds = sorted(sorted(Counter(lengths[i] for i in batch).items()) for batch in batches)
    assert kinds == [[(10, 1), (30, 7)], [(10, 8)], [(50, 8)]]


def test_a_rare_long_utterance_is_not_repeated():
    lengths = [100] * 640 + [900]
    batches = list(replicas_of(lengths, 64, [0, 300, 400, 1000], 1)[0])
    assert len(batches) == 11 and sum(batch.count(640) for batch in batches) == 1


def test_utterances_outside_all_buckets_are_named(caplog):
    dataset = SimpleNamespace(lengths=[5, 32, 33, 1000, 1001], names=["a", "b", "c", "d", "e"])
    with caplog.at_level(logging.WARNING):
        sampler = du.DistributedBucketSampler(dataset, 2, [32, 300, 1000])
    assert sampler.left_out == {"not above 32 frames": ["a", "b"], "above 1000 frames": ["e"]}
    assert [bucket.tolist() for bucket in sampler.buckets] == [
        [2],
        [3],
    ] and "2 utterances left out, not above 32 frames: a, b" in caplog.text


def test_a_rank_above_the_number_of_replicas_is_an_error():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        du.DistributedBucketSampler(SimpleNamespace(lengths=[5]), 1, [0, 9], 2, 2)
