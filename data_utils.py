"""From filelists to batches: the dataset, its collation, and batches of similar lengths spread over GPUs.

Training uses `SpeechDataset`, `Collate` and `DistributedBucketSampler`, and computes spectrograms on its device.
`TextAudioLoader`, `TextAudioSpeakerLoader` and their collates are the interface of VITS code: tuples with spectrograms.
"""

import functools
import logging
import shutil
import sys
from array import array
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, tee
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import Dataset, Sampler, get_worker_info

import conditions
from audio import audio_length, load_audio, resampled_frames
from commons import map_tensors, rounded_up, tensors_in
from config import data_setting
from corpora.filelist import Clip, Computed, Filelist
from corpora.headers import headers
from mel_processing import spec_to_mel_torch, spectrogram_torch
from text.tokens import cleaned, token_counter, token_ids

logger = logging.getLogger(__name__)

MAX_LISTED = 5  # names in a message
MAX_BATCHES_AHEAD = 2  # batches that the host may be ahead of the GPU
SHARED_MEMORY = Path("/dev/shm")
SHARED_FOR_QUEUES = 1 << 20  # bytes of shared memory without which no worker can start
DESCRIPTORS = 64  # open files of a training process besides those of its loaders
DESCRIPTORS_A_WORKER = 16  # pipes and locks of a worker of each of the two loaders
DESCRIPTORS_OF_BATCHES = 32  # further ones for each worker, if its batches are in shared memory


class Utterance(NamedTuple):
    """One item of a dataset."""

    text: Tensor  # [tokens], int64
    spec: Tensor | None  # [channels, frames]; None if training computes it
    wav: Tensor  # [1, frames * hop_length]
    conditions: dict[str, Tensor]  # each [1, ...]; empty for a single voice
    index: int  # type: ignore[assignment]  # hides tuple.index


class Batch(NamedTuple):
    """Padded utterances. Values beyond an utterance's length are 0."""

    text: Tensor  # [b, tokens], int64
    text_lengths: Tensor  # [b]
    wav: Tensor  # [b, 1, samples], a whole number of hops
    wav_lengths: Tensor  # [b], in samples
    conditions: dict[str, Tensor]  # each [b, ...]; see `conditions`
    index: Tensor  # type: ignore[assignment]  # [b], positions of the utterances in the dataset

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Copy the batch to a device."""
        return map_tensors(lambda x: x.to(device, non_blocking=non_blocking), self)

    def pin_memory(self) -> "Batch":
        """Copy the batch to pinned memory."""
        return map_tensors(lambda x: x.pin_memory(), self)

    def parts(self, n: int) -> list["Batch"]:
        """Split the batch into `n` parts of equal size and padding, or fewer with a smaller last one."""

        def part(i: int) -> "Batch":
            return map_tensors(lambda x: x.chunk(n)[i], self)

        return [part(i) for i in range(len(self.text.chunk(n)))]


class SpeechDataset(Dataset):
    """The usable clips of a filelist, as token ids and waveforms.

    `data` is the config's section of that name. `lengths` are the spectrogram frames of each utterance, from the
    headers of the recordings, int64 `[n]`, `names` their paths, and `left_out` the paths of unusable clips by reason.
    With `with_spec`, items carry the posterior encoder's input: the log-mel or the linear spectrogram. The file `cache`
    keeps the headers (see `corpora.headers`). Memory for a clip is a few numbers; its line is parsed when it is read.

    Raises ValueError, naming file and reason, for bad lines, unreadable headers, unknown speakers, and texts with more
    tokens than their recording has frames, for which no alignment exists.
    """

    def __init__(self, filelist: str | Path, data: Any, with_spec: bool = False, cache: str | Path | None = None):
        self.data = data
        self.with_spec = with_spec
        self.left_out: dict[str, list[str]] = {}
        clips = Filelist(filelist, None if data.cleaned_text else lambda text: cleaned(text, data))
        values = conditions.of_clips(clips, data)
        shortest, longest = data_setting(data, "min_text_len"), data_setting(data, "max_text_len")
        resample = data_setting(data, "resample")

        usable, lengths = array("q"), array("q")
        too_long: list[str] = []
        unknown: Counter[str] = Counter()
        count = token_counter(data)
        each, again = tee(clips)
        found = headers((clip.path for clip in again), cache)
        for i, (clip, (samples, rate)) in enumerate(zip(each, found, strict=True)):
            if not resample and rate != data.sampling_rate:
                audio_length(clip.path, data.sampling_rate, resample=False)  # raises
            length = resampled_frames(samples, rate, data.sampling_rate) // data.hop_length
            symbols = clip.text
            tokens = 0
            reason = ""
            if not shortest <= len(symbols) <= longest:
                reason = f"text not of {shortest} to {longest} symbols"
            elif length < 1:
                reason = "recording shorter than one frame"
            else:
                tokens, strange = count(symbols)
                if strange:
                    unknown.update(strange)
                reason = "" if tokens else "no symbol of the text has an id"
            if reason:
                self.left_out.setdefault(reason, []).append(clip.path)
                continue
            if tokens > length:
                too_long.append(f"{clip.path} ({tokens} tokens, {length} frames)")
            usable.append(i)
            lengths.append(length)
        if too_long:
            raise ValueError(
                f"{filelist}: {len(too_long)} texts have more tokens than the recording has frames, so they cannot "
                f"belong together: {_some(too_long)}"
            )
        _log_left_out(str(filelist), self.left_out)
        if unknown:
            counts = [f"{symbol!r} x {count}" for symbol, count in unknown.most_common()]
            logger.warning("%s: symbols without an id are left out of texts: %s", filelist, _some(counts))
        if not usable:
            raise ValueError(f"{filelist}: no utterance is left: {'; '.join(self.left_out)}")
        self.clips: Sequence[Clip] = Computed(clips.__getitem__, usable)
        self.lengths = np.array(lengths)
        self.values = {name: column[np.array(usable)] for name, column in values.items()}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Utterance:
        clip = self.clips[index]
        samples = load_audio(clip.path, self.data.sampling_rate, data_setting(self.data, "resample"))
        expected = int(self.lengths[index]) * self.data.hop_length
        if len(samples) < expected:
            raise ValueError(
                f"{clip.path}: the file has changed since training began: it has {len(samples)} samples, "
                f"and {expected} are needed"
            )
        wav = torch.from_numpy(samples[:expected]).unsqueeze(0)
        text = torch.tensor(token_ids(clip.text, self.data, warn=False))
        given = {name: torch.as_tensor(column[index]).unsqueeze(0) for name, column in self.values.items()}
        return Utterance(text, self._spectrogram(wav) if self.with_spec else None, wav, given, index)

    @property
    def names(self) -> Sequence[str]:
        """Paths of the recordings."""
        return Computed(lambda clip: clip.path, self.clips)

    def _spectrogram(self, wav: Tensor) -> Tensor:
        data = self.data
        spec = spectrogram_torch(
            wav, data.filter_length, data.sampling_rate, data.hop_length, data.win_length, center=False
        )
        if data_setting(data, "use_mel_posterior_encoder"):
            bands = (data.n_mel_channels, data.sampling_rate, data.mel_fmin, data.mel_fmax)
            spec = spec_to_mel_torch(spec, data.filter_length, *bands)
        return spec.squeeze(0)


class Collate:
    """Pad utterances of a `SpeechDataset` to a `Batch`.

    Padded lengths are rounded up to multiples of `pad_frames` hops and `pad_tokens` tokens. Few distinct shapes then
    occur, which matters because a GPU captures and autotunes each shape once.
    """

    def __init__(self, hop_length: int, pad_frames: int = 1, pad_tokens: int = 1):
        self.pad_samples = hop_length * pad_frames
        self.pad_tokens = pad_tokens

    def __call__(self, utterances: Sequence[Utterance]) -> Batch:
        text, text_lengths = _padded([u.text for u in utterances], self.pad_tokens)
        wav, wav_lengths = _padded([u.wav for u in utterances], self.pad_samples)
        bundle = {name: torch.cat([u.conditions[name] for u in utterances]) for name in utterances[0].conditions}
        index = torch.tensor([u.index for u in utterances])
        return Batch(text, text_lengths, wav, wav_lengths, bundle, index)


@dataclass
class Copied:
    """A batch of arrays, which a worker sends through its pipe, where tensors would use shared memory."""

    batch: Batch

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch as tensors on a device."""
        return self._tensors().to(device, non_blocking)

    def pin_memory(self) -> Batch:
        """Return the batch as tensors in pinned memory."""
        return self._tensors().pin_memory()

    def _tensors(self) -> Batch:
        _warn_of_copies()
        return tree_map_only(np.ndarray, torch.from_numpy, self.batch)


@functools.cache
def _warn_of_copies() -> None:
    logger.warning(
        "batches are copied through pipes, because shared memory or file descriptors are short: give the container "
        "more shared memory (docker run --shm-size=8g), raise `ulimit -n`, or set train.num_workers lower"
    )


class ToMainProcess:
    """Collate utterances and, in a worker, move the batch to shared memory or, where that fails, into a `Copied`.

    Without this, a batch that does not fit into shared memory is lost when the worker sends it, and the main process
    waits for it without end.
    """

    def __init__(self, collate: Callable[[Sequence[Utterance]], Batch], share: bool = True):
        self.collate, self.share = collate, share

    def __call__(self, utterances: Sequence[Utterance]) -> Batch | Copied:
        batch = self.collate(utterances)
        if get_worker_info() is None:
            return batch
        if self.share:
            try:
                return map_tensors(lambda x: x.share_memory_(), batch)
            except (RuntimeError, OSError):  # no room in shared memory, or no file descriptor
                batch = map_tensors(lambda x: x.clone(), batch)
        return Copied(map_tensors(lambda x: x.numpy(), batch))  # type: ignore[arg-type, return-value]


def workers_that_fit(wanted: int) -> tuple[int, bool]:
    """Return how many workers a loader may have, and whether their batches may be in shared memory.

    File descriptors and the space in /dev/shm limit both. The soft limit of descriptors is raised to the hard one.
    """
    if not wanted or sys.platform == "win32":
        return wanted, True
    import resource  # Windows has none

    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free < SHARED_FOR_QUEUES:
        logger.warning("%s is full, so this process loads the data itself: enlarge it (--shm-size)", SHARED_MEMORY)
        return 0, False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = DESCRIPTORS + wanted * (DESCRIPTORS_A_WORKER + DESCRIPTORS_OF_BATCHES)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted, True
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    if most >= needed:
        return wanted, True
    workers = max(0, min(wanted, (most - DESCRIPTORS) // DESCRIPTORS_A_WORKER))
    logger.warning(
        "only %d file descriptors are allowed: %d workers load the data, and batches are copied. "
        "For %d workers raise `ulimit -n` to %d",
        *(most, workers, wanted, needed),
    )
    return workers, False


def waited(batches: Iterator[Batch]) -> Batch:
    """Return the next batch. Raises ValueError with the possible causes if the loader's workers do not deliver it."""
    try:
        return next(batches)
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise ValueError(
            f"no batch arrived from the workers that load the data: {str(error).splitlines()[0]}. The disk may hang, "
            "or memory, shared memory (docker run --shm-size=8g) or file descriptors (ulimit -n) are short; "
            "train.num_workers 0 loads without workers"
        ) from None


class TextAudioLoader(SpeechDataset):
    """VITS's dataset for a single speaker: items `(text [tokens], spec [channels, frames], wav [1, samples])`."""

    def __init__(self, audiopaths_and_text: str | Path, hparams: Any):
        super().__init__(audiopaths_and_text, hparams, with_spec=True)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:  # type: ignore[override]
        item = super().__getitem__(index)
        return item.text, cast(Tensor, item.spec), item.wav


class TextAudioSpeakerLoader(TextAudioLoader):
    """VITS's dataset for several speakers: items `(text, spec, wav, sid [1])`."""

    def __init__(self, audiopaths_sid_text: str | Path, hparams: Any):
        super().__init__(audiopaths_sid_text, hparams)
        if not hparams.n_speakers:
            raise ValueError(f"{audiopaths_sid_text}: data.n_speakers is 0; use TextAudioLoader for a single speaker")

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:  # type: ignore[override]
        item = SpeechDataset.__getitem__(self, index)
        return item.text, cast(Tensor, item.spec), item.wav, item.conditions["sid"]


class TextAudioCollate:
    """Pad items of the VITS datasets, longest spectrogram first.

    Returns text `[b, tokens]` and lengths, spec `[b, channels, frames]` and lengths, wav `[b, 1, samples]` and lengths
    and, if the items have it, sid `[b]`. With `return_ids` the last entry is the position in `batch` of each row.
    """

    def __init__(self, return_ids: bool = False):
        self.return_ids = return_ids

    def __call__(self, batch: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        order = sorted(range(len(batch)), key=lambda i: -batch[i][1].size(1))
        texts, specs, wavs, *sids = zip(*(batch[i] for i in order))
        padded = [*_padded(texts), *_padded(specs), *_padded(wavs), *(torch.cat(sid) for sid in sids)]
        return (*padded, torch.tensor(order)) if self.return_ids else tuple(padded)


class TextAudioSpeakerCollate(TextAudioCollate):
    """`TextAudioCollate` under VITS's name for items with a speaker."""


class DistributedBucketSampler(Sampler):
    """Batches of similar lengths, the same number of them on every GPU.

    Bucket i holds the utterances with boundaries[i] < length <= boundaries[i + 1]. Utterances outside of all buckets
    are excluded and listed in `left_out`. Each bucket is cut into global batches of `batch_size * num_replicas`, and
    its remainder moves to the next bucket. The last global batch is filled up with other utterances, so each utterance
    appears once or, if drawn for that, twice in an epoch. A dataset smaller than a global batch makes one smaller
    batch, in which utterances repeat only if there are fewer of them than replicas.

    The order depends on `seed` and the epoch alone. A global batch is divided so that each replica has about the same
    number of frames. `Epochs` iterates over many epochs.

    `dataset` has `lengths`, in frames, and optionally `names`; `batch_size` counts utterances for each replica;
    `num_replicas` and `rank` are those of `torch.distributed` by default. Raises ValueError if no utterance lies within
    the boundaries, or if the rank is not below the number of replicas.
    """

    def __init__(
        self,
        dataset: Any,
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
        self.lengths = np.fromiter(dataset.lengths, np.int64)
        self.buckets, self.left_out = self._sorted_into_buckets(getattr(dataset, "names", None))
        _log_left_out("batches", self.left_out)
        if not any(map(len, self.buckets)):
            raise ValueError(
                f"no utterance has a length within the boundaries {self.boundaries}: "
                f"the lengths run from {min(self.lengths, default=0)} to {max(self.lengths, default=0)} frames"
            )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Compute `batches`, this replica's lists of dataset indices for an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)

        def order(n: int) -> np.ndarray:
            return torch.randperm(n, generator=generator).numpy() if self.shuffle else np.arange(n)

        size = self.batch_size * self.num_replicas
        batches: list[np.ndarray] = []
        rest = np.zeros(0, np.int64)
        for bucket in self.buckets:
            pool = np.concatenate([rest, bucket])
            pool = pool[order(len(pool))]
            full = len(pool) - len(pool) % size
            batches += list(pool[:full].reshape(-1, size))
            rest = pool[full:]
        if len(rest):
            others = np.concatenate(self.buckets)
            others = others[~np.isin(others, rest)]
            last = np.concatenate([rest, others[order(len(others))][: size - len(rest)]])
            batches.append(np.resize(last, max(len(last), self.num_replicas)))  # repeated, so that each has one
        # the shares are computed when they are read, because lists of a million indices take much memory
        self.batches: Sequence[list[int]] = Computed(self._share, [batches[i] for i in order(len(batches))])

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def _sorted_into_buckets(self, names: Sequence[str] | None) -> tuple[list[np.ndarray], dict[str, list[str]]]:
        lowest, highest = self.boundaries[0], self.boundaries[-1]
        place = np.searchsorted(self.boundaries, self.lengths) - 1
        buckets = [np.flatnonzero(place == i) for i, _ in enumerate(pairwise(self.boundaries))]
        left_out: dict[str, list[str]] = {}
        for i in np.flatnonzero((self.lengths <= lowest) | (self.lengths > highest)).tolist():
            reason = f"not above {lowest} frames" if self.lengths[i] <= lowest else f"above {highest} frames"
            left_out.setdefault(reason, []).append(str(names[i] if names else i))
        return buckets, left_out

    def _share(self, batch: np.ndarray) -> list[int]:
        """Return this replica's part of a global batch: longest first, dealt out in alternating directions."""
        ordered = batch[np.argsort(-self.lengths[batch], kind="stable")].tolist()
        n = self.num_replicas
        rounds = (ordered[start : start + n] for start in range(0, len(ordered), n))
        dealt = (turn if k % 2 == 0 else turn[::-1] for k, turn in enumerate(rounds))
        return [turn[self.rank] for turn in dealt if self.rank < len(turn)]


class Epochs(Sampler):
    """Iterate over a sampler's batches without end, from batch `start` of an epoch on.

    A loader prefetches across the end of an epoch, which avoids a pause in training.
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


def ahead(batches: Iterable[Batch], device: torch.device) -> Generator[Batch, None, None]:
    """Move batches to a device. The next batch is copied to a GPU while the current one is in use.

    The host runs at most `MAX_BATCHES_AHEAD` batches ahead of the GPU, which bounds the memory.
    """
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    waiting: Batch | None = None
    used: deque[torch.cuda.Event] = deque()
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = batch.to(device, non_blocking=True)
        if waiting is not None:
            yield waiting
            used.append(current.record_event())
            if len(used) > MAX_BATCHES_AHEAD:
                used.popleft().synchronize()
        current.wait_stream(stream)
        for x in tensors_in(copied):
            x.record_stream(current)
        waiting = copied
    if waiting is not None:
        yield waiting


def _padded(rows: Sequence[Tensor], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Stack rows `[..., t]` padded with zeros to a multiple; returns `[b, ..., t_max]` and the lengths `[b]`."""
    lengths = torch.tensor([row.size(-1) for row in rows])
    longest = rounded_up(int(lengths.max()), multiple)
    padded = rows[0].new_zeros(len(rows), *rows[0].shape[:-1], longest)
    for out, row in zip(padded, rows):
        out[..., : row.size(-1)] = row
    return padded, lengths


def _log_left_out(where: str, left_out: dict[str, list[str]]) -> None:
    for reason, names in left_out.items():
        logger.warning("%s: %d utterances left out, %s: %s", where, len(names), reason, _some(names))


def _some(names: list[str]) -> str:
    rest = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
