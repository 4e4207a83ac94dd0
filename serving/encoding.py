"""Encode audio while it is generated: what has been returned is never changed."""

import io
import struct
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

from audio import WRITE_BLOCK, to_pcm


class Format(NamedTuple):
    """An audio format of the server. With `rates`, other sampling rates are converted to the next higher one."""

    media_type: str
    container: str | None = None  # of libsndfile; None is 16-bit samples without one
    codec: str = ""
    rates: tuple[int, ...] = ()  # in Hz, ascending
    options: dict[str, Any] = {}  # of soundfile.SoundFile


MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MP3_QUALITY = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}  # its length follows from the size of the file
FORMATS = {
    "mp3": Format("audio/mpeg", "MP3", "MPEG_LAYER_III", MP3_RATES, MP3_QUALITY),
    "opus": Format("audio/ogg", "OGG", "OPUS", (8000, 12000, 16000, 24000, 48000)),
    "ogg": Format("audio/ogg", "OGG", "VORBIS"),
    "flac": Format("audio/flac", "FLAC", "PCM_16"),
    "wav": Format("audio/wav"),
    "pcm": Format("audio/pcm", rates=(24000,)),  # clients of OpenAI's API expect this rate
}
UNKNOWN_SIZE = 0xFFFFFFFF  # in the header of a WAV stream


class Encoder:
    """Encodes float samples part by part. `rate` is the sampling rate of the output in Hz.

    Args: `name` is a key of `FORMATS`; `sampling_rate` is that of the input. FLAC is returned at the end, because its
    header holds the length.
    """

    def __init__(self, name: str, sampling_rate: int):
        kind = FORMATS[name]
        rates = kind.rates or (sampling_rate,)
        self.rate = next((rate for rate in rates if rate >= sampling_rate), rates[-1])
        self._resampler = None if self.rate == sampling_rate else soxr.ResampleStream(sampling_rate, self.rate, 1)
        self._output = io.BytesIO() if name == "flac" else _Appended(without_first=name == "mp3")
        self._file = None
        if kind.container:
            form = {"samplerate": self.rate, "channels": 1, "subtype": kind.codec, "format": kind.container}
            self._file = soundfile.SoundFile(self._output, "w", closefd=False, **form, **kind.options)
        elif name == "wav":
            self._output.write(wav_header(self.rate))

    def encode(self, samples: np.ndarray, last: bool = False) -> bytes:
        """Return the next bytes for float samples `[samples]` from -1 to 1; with `last`, all that are left."""
        if self._resampler:
            samples = self._resampler.resample_chunk(samples.astype(np.float32), last=last)
        pcm = to_pcm(samples)
        if self._file is None:
            self._output.write(pcm.astype("<i2").tobytes())
        else:
            for start in range(0, len(pcm), WRITE_BLOCK):
                self._file.write(pcm[start : start + WRITE_BLOCK])
            if last:
                self._file.close()
        if isinstance(self._output, _Appended):
            return self._output.taken()
        return self._output.getvalue() if last else b""


def wav_header(rate: int) -> bytes:
    """Return the header of a stream of 16-bit mono samples."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", UNKNOWN_SIZE, b"WAVE") + form + struct.pack("<4sI", b"data", UNKNOWN_SIZE)


def encode_wav(wav: bytes, name: str) -> bytes:
    """Encode a 16-bit mono WAV file in another format. Raises ValueError if it is none."""
    try:
        with soundfile.SoundFile(io.BytesIO(wav)) as file:
            if (file.format, file.subtype, file.channels) != ("WAV", "PCM_16", 1):
                raise ValueError("expected a 16-bit mono WAV file")
            encoder = Encoder(name, file.samplerate)
            return encoder.encode(file.read(dtype="float32"), last=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"expected a 16-bit mono WAV file: {error.error_string}") from None


class _Appended(io.BytesIO):
    """The file of an encoder, of which only new bytes at the end are kept: headers that follow later are dropped.

    `without_first` drops the first write as well, LAME's placeholder for such a header, which would be a silent frame.
    """

    def __init__(self, without_first: bool):
        super().__init__()
        self._drop = without_first
        self._end = self._at = 0
        self._new: list[bytes] = []

    def write(self, data: Any) -> int:
        chunk = bytes(data)
        if not self._drop:
            self._new.append(chunk[max(0, self._end - self._at) :])
        self._drop = False
        self._at += len(chunk)
        self._end = max(self._end, self._at)
        return len(chunk)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def taken(self) -> bytes:
        """Return what has been written since the last call."""
        new, self._new = b"".join(self._new), []
        return new
