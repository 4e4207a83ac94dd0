"""From filelists to batches: the dataset, its collation, and batches of similar lengths spread over GPUs.

Training takes `SpeechDataset`, `Collate` and `DistributedBucketSampler`, and computes spectrograms on its device.
`TextAudioLoader`, `TextAudioSpeakerLoader` and their collates are the doors of VITS code: with spectrograms, as tuples.
"""

import logging
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from audio import audio_length, load_audio
from commons import rounded_up
from corpus import Clip, cleaned, read_filelist, setting, speaker_ids, token_ids
from mel_processing import spec_to_mel_torch, spectrogram_torch
from text import unknown_symbols

log = logging.getLogger(__name__)


class Utterance(NamedTuple):
    """One item of a dataset."""

    text: Tensor  # [tokens], int64
    spec: Tensor | None  # [channels, frames]; None if training computes it
    wav: Tensor  # [1, frames * hop_length]
    sid: Tensor | None  # [1], int64; None for one voice
    index: int


class Batch(NamedTuple):
    """Padded utterances; everything beyond an utterance's length is 0."""

    text: Tensor  # [b, tokens], int64
    text_lengths: Tensor  # [b]
    wav: Tensor  # [b, 1, samples], a whole number of hops
    wav_lengths: Tensor  # [b], in samples
    sid: Tensor | None  # [b], int64; None for one voice
    index: Tensor  # [b], where the utterances stand in the dataset

    def to(self, device, non_blocking: bool = False) -> "Batch":
        return Batch(*(x if x is None else x.to(device, non_blocking=non_blocking) for x in self))

    def pin_memory(self) -> "Batch":
        return Batch(*(x if x is None else x.pin_memory() for x in self))

    def parts(self, n: int) -> list["Batch"]:
        """The batch as `n` of equal size and padding; as fewer, the last one smaller, if `n` does not divide it."""
        return [Batch(*part) for part in zip(*([None] * n if x is None else x.chunk(n) for x in self))]


class SpeechDataset(Dataset):
    """The clips of a filelist that can be trained on, as token ids and waveforms.

    `data` is the config's section of that name. `lengths` are the spectrogram frames of each utterance, read from the
    headers of the recordings, and `names` their paths; `left_out` names by reason what the filelist has beyond that.
    With `with_spec`, items carry the posterior encoder's input: the log-mel or the linear spectrogram, by
    `data.use_mel_posterior_encoder`.
    Raises ValueError naming file and reason for bad lines, unreadable headers, unknown speakers and, since no
    alignment exists then, for texts with more tokens than the recording has frames.
    """

    def __init__(self, filelist: str | Path, data, with_spec: bool = False):
        self.data = data
        self.with_spec = with_spec
        self.left_out: dict[str, list[str]] = {}
        clips = read_filelist(filelist)
        sids = speaker_ids(clips, data) or [None] * len(clips)
        shortest, longest = setting(data, "min_text_len"), setting(data, "max_text_len")
        with ThreadPoolExecutor() as pool:
            frames = list(pool.map(self._frames, [clip.path for clip in clips]))

        self.clips, self.lengths, self.sids, self.tokens = [], [], [], []
        too_long, unknown = [], Counter()
        for clip, length, sid in zip(clips, frames, sids, strict=True):
            symbols = cleaned(clip.text, data)
            if not shortest <= len(symbols) <= longest:
                self._leave_out(f"text not of {shortest} to {longest} symbols", clip)
                continue
            if length < 1:
                self._leave_out("recording shorter than one frame", clip)
                continue
            tokens = token_ids(symbols, data, warn=False)
            unknown += unknown_symbols(symbols, setting(data, "extra_symbols"))
            if not tokens:
                self._leave_out("no symbol of the text has an id", clip)
                continue
            if len(tokens) > length:
                too_long.append(f"{clip.path} ({len(tokens)} tokens, {length} frames)")
            self.clips.append(clip)
            self.lengths.append(length)
            self.sids.append(sid)
            self.tokens.append(np.array(tokens, np.int16))
        if too_long:
            raise ValueError(
                f"{filelist}: {len(too_long)} texts have more tokens than the recording has frames, so they cannot "
                f"belong together: {_some(too_long)}"
            )
        _log_left_out(str(filelist), self.left_out)
        if unknown:
            counts = [f"{symbol!r} x {count}" for symbol, count in unknown.most_common()]
            log.warning("%s: symbols without an id are left out of texts: %s", filelist, _some(counts))
        if not self.clips:
            raise ValueError(f"{filelist}: no utterance is left: {'; '.join(self.left_out)}")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Utterance:
        wav = self._audio(index)
        text = torch.from_numpy(self.tokens[index].astype(np.int64))
        sid = None if self.sids[index] is None else torch.tensor([self.sids[index]])
        return Utterance(text, self._spectrogram(wav) if self.with_spec else None, wav, sid, index)

    @property
    def names(self) -> list[str]:
        return [clip.path for clip in self.clips]

    def _frames(self, path: str) -> int:
        samples = audio_length(path, self.data.sampling_rate, setting(self.data, "resample"))
        return samples // self.data.hop_length

    def _leave_out(self, reason: str, clip: Clip) -> None:
        self.left_out.setdefault(reason, []).append(clip.path)

    def _audio(self, index: int) -> Tensor:
        """The waveform of one utterance, `[1, frames * hop_length]`."""
        samples = load_audio(self.clips[index].path, self.data.sampling_rate, setting(self.data, "resample"))
        return torch.from_numpy(samples[: self.lengths[index] * self.data.hop_length]).unsqueeze(0)

    def _spectrogram(self, wav: Tensor) -> Tensor:
        data = self.data
        spec = spectrogram_torch(
            wav, data.filter_length, data.sampling_rate, data.hop_length, data.win_length, center=False
        )
        if setting(data, "use_mel_posterior_encoder"):
            bands = (data.n_mel_channels, data.sampling_rate, data.mel_fmin, data.mel_fmax)
            spec = spec_to_mel_torch(spec, data.filter_length, *bands)
        return spec.squeeze(0)


class Collate:
    """Pad utterances of a `SpeechDataset` to a `Batch`.

    Padded lengths are rounded up to multiples of `pad_frames` hops and `pad_tokens` tokens, so that they take few
    values: every new shape costs a compiled or autotuned network time.
    """

    def __init__(self, hop_length: int, pad_frames: int = 1, pad_tokens: int = 1):
        self.pad_samples = hop_length * pad_frames
        self.pad_tokens = pad_tokens

    def __call__(self, utterances: Sequence[Utterance]) -> Batch:
        text, text_lengths = _padded([u.text for u in utterances], self.pad_tokens)
        wav, wav_lengths = _padded([u.wav for u in utterances], self.pad_samples)
        sid = None if utterances[0].sid is None else torch.cat([u.sid for u in utterances])
        index = torch.tensor([u.index for u in utterances])
        return Batch(text, text_lengths, wav, wav_lengths, sid, index)


class TextAudioLoader(SpeechDataset):
    """VITS's dataset for one voice: items `(text [tokens], spec [channels, frames], wav [1, samples])`."""

    def __init__(self, audiopaths_and_text: str | Path, hparams):
        super().__init__(audiopaths_and_text, hparams, with_spec=True)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(super().__getitem__(index)[:3])


class TextAudioSpeakerLoader(TextAudioLoader):
    """VITS's dataset for many voices: items `(text, spec, wav, sid [1])`."""

    def __init__(self, audiopaths_sid_text: str | Path, hparams):
        super().__init__(audiopaths_sid_text, hparams)
        if not hparams.n_speakers:
            raise ValueError(f"{audiopaths_sid_text}: data.n_speakers is 0; TextAudioLoader is for one voice")

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(SpeechDataset.__getitem__(self, index)[:4])


class TextAudioCollate:
    """Pad items of the VITS datasets, longest spectrogram first.

    Returns text `[b, tokens]` and lengths, spec `[b, channels, frames]` and lengths, wav `[b, 1, samples]` and lengths
    and, if the items have it, sid `[b]`; with `return_ids`, last, where in `batch` each row comes from.
    """

    def __init__(self, return_ids: bool = False):
        self.return_ids = return_ids

    def __call__(self, batch: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        order = sorted(range(len(batch)), key=lambda i: -batch[i][1].size(1))
        texts, specs, wavs, *sids = zip(*(batch[i] for i in order))
        padded = [*_padded(texts), *_padded(specs), *_padded(wavs), *(torch.cat(sid) for sid in sids)]
        return (*padded, torch.tensor(order)) if self.return_ids else tuple(padded)


class TextAudioSpeakerCollate(TextAudioCollate):
    """`TextAudioCollate` under the name that VITS has for items with a speaker."""


class DistributedBucketSampler(Sampler):
    """Batches of similar lengths, the same number of them on every GPU.

    Bucket i holds the utterances whose `dataset.lengths` lie in (boundaries[i], boundaries[i + 1]]; what lies outside
    all of them is left out and named in `left_out`. Each bucket is cut into global batches of
    `batch_size * num_replicas`; what remains of it moves up into the next bucket. The last global batch is filled up
    with other utterances, so within an epoch each one appears once or, if drawn for that, twice. A dataset smaller
    than a global batch makes one smaller batch; only with fewer utterances than replicas some repeat in it.

    The order follows from `seed` and the epoch alone. The replicas share out a global batch so that each has about
    equally many frames. `Epochs` goes through one epoch after another.
    Raises ValueError if no utterance lies within the boundaries.
    """

    def __init__(
        self,
        dataset,
        batch_size: int,
        boundaries: Sequence[int],
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 1234,
    ):
        together = dist.is_available() and dist.is_initialized()
        self.num_replicas = num_replicas or (dist.get_world_size() if together else 1)
        self.rank = rank if rank is not None else (dist.get_rank() if together else 0)
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"rank {self.rank} of {self.num_replicas} replicas: ranks count from 0")
        self.batch_size = batch_size
        self.boundaries = list(boundaries)
        self.shuffle = shuffle
        self.seed = seed
        self.lengths = [int(length) for length in dataset.lengths]
        self.buckets, self.left_out = self._sorted_into_buckets(getattr(dataset, "names", None))
        _log_left_out("batches", self.left_out)
        if not any(self.buckets):
            raise ValueError(
                f"no utterance has a length within the boundaries {self.boundaries}: "
                f"the lengths run from {min(self.lengths, default=0)} to {max(self.lengths, default=0)} frames"
            )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Plan `batches`, this replica's lists of dataset indices for the epoch, to be had from the first on."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)

        def shuffled(items: list) -> list:
            if not self.shuffle:
                return items
            return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]

        size = self.batch_size * self.num_replicas
        batches, rest = [], []
        for bucket in self.buckets:
            pool = shuffled(rest + bucket)
            full = len(pool) - len(pool) % size
            batches += [pool[start : start + size] for start in range(0, full, size)]
            rest = pool[full:]
        if rest:
            taken = set(rest)
            others = shuffled([i for i in chain(*self.buckets) if i not in taken])
            batches.append(self._at_least_one_each(rest + others[: size - len(rest)]))
        self.batches = [self._share(batch) for batch in shuffled(batches)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def _sorted_into_buckets(self, names) -> tuple[list[list[int]], dict[str, list[str]]]:
        lowest, highest = self.boundaries[0], self.boundaries[-1]
        buckets: list[list[int]] = [[] for _ in pairwise(self.boundaries)]
        left_out: dict[str, list[str]] = {}
        for i, length in enumerate(self.lengths):
            if lowest < length <= highest:
                buckets[bisect_left(self.boundaries, length) - 1].append(i)
            else:
                reason = f"not above {lowest} frames" if length <= lowest else f"above {highest} frames"
                left_out.setdefault(reason, []).append(str(names[i] if names else i))
        return buckets, left_out

    def _at_least_one_each(self, batch: list[int]) -> list[int]:
        return list(islice(cycle(batch), max(len(batch), self.num_replicas)))

    def _share(self, batch: list[int]) -> list[int]:
        """This replica's part: longest first, dealt out to and fro."""
        ordered = sorted(batch, key=lambda i: -self.lengths[i])
        n = self.num_replicas
        rounds = (ordered[start : start + n] for start in range(0, len(ordered), n))
        dealt = (turn if k % 2 == 0 else turn[::-1] for k, turn in enumerate(rounds))
        return [turn[self.rank] for turn in dealt if self.rank < len(turn)]


class Epochs(Sampler):
    """A sampler's batches from batch `start` of an epoch on, epoch after epoch without end.

    A loader reads on from one epoch into the next, where it would otherwise keep the training waiting.
    """

    def __init__(self, sampler: DistributedBucketSampler, epoch: int = 0, start: int = 0):
        self.sampler = sampler
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[int]]:
        epoch, start = self.epoch, self.start
        while True:
            self.sampler.set_epoch(epoch)
            yield from self.sampler.batches[start:]
            epoch, start = epoch + 1, 0


def ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on a device. The next one is copied to a GPU while the one before it is in use.

    The host gets two batches ahead of the GPU at most, so that few of them are there at a time.
    """
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    waiting, used = None, deque()
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = batch.to(device, non_blocking=True)
        if waiting is not None:
            yield waiting
            used.append(current.record_event())
            if len(used) > 2:
                used.popleft().synchronize()
        current.wait_stream(stream)
        for x in copied:
            if x is not None:
                x.record_stream(current)
        waiting = copied
    if waiting is not None:
        yield waiting


def _padded(rows: Sequence[Tensor], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Stack rows `[..., t]` of different t, zeros behind; returns `[b, ..., multiple of n]` and the lengths `[b]`."""
    lengths = torch.tensor([row.size(-1) for row in rows])
    longest = rounded_up(int(lengths.max()), multiple)
    padded = rows[0].new_zeros(len(rows), *rows[0].shape[:-1], longest)
    for out, row in zip(padded, rows):
        out[..., : row.size(-1)] = row
    return padded, lengths


def _log_left_out(where: str, left_out: dict[str, list[str]]) -> None:
    for reason, names in left_out.items():
        log.warning("%s: %d utterances left out, %s: %s", where, len(names), reason, _some(names))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
