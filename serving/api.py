"""The HTTP interface: the page, OpenAI's `POST /v1/audio/speech`, voices, conversion, encoding and health."""

import asyncio
import base64
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from gradio.route_utils import FnIndexInferError
from pydantic import BaseModel, Field

from audio import refuse_long
from serving.encoding import FORMATS, Encoder, encode_wav
from serving.gate import error_body
from serving.studio import Busy, Job, Studio
from serving.takes import MAX_TEXT, Take, speaker_of
from serving.voices import UnknownVoice, Voices
from synthesis.speech import MAX_PAUSE, PAUSE, Scales

MAX_RECORDING = 60  # seconds
PAGE = Path(__file__).with_name("page")
RETRY = 1  # seconds after which a refused client may ask again
# The page may load nothing from elsewhere and runs no script but its own, whatever a text or a name contains.
POLICY = "default-src 'self'; media-src 'self' blob:; style-src 'self'; frame-ancestors 'none'; base-uri 'none'"
FormatName = Literal["mp3", "opus", "ogg", "flac", "wav", "pcm"]


class SpeechRequest(BaseModel):
    """The body of `POST /v1/audio/speech`: OpenAI's fields, of which others are ignored, and those of this project."""

    model: str = Field(description="name of a voice, from /v1/voices")
    input: str = Field(max_length=MAX_TEXT, description="text")
    voice: str | None = Field(None, description="speaker; for a voice of a single speaker its name, or nothing")
    response_format: FormatName = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    stream_format: Literal["audio", "sse"] = "audio"
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    noise_scale: float = Field(Scales().noise_scale, ge=0, lt=100)
    noise_scale_w: float = Field(Scales().noise_scale_w, ge=0, lt=100)
    pause: float = Field(PAUSE, ge=0, le=MAX_PAUSE, description="silence between sentences, in seconds")


class Api:
    """The handlers of a server: `router` has the routes, and `errors` the answers to exceptions."""

    def __init__(self, voices: Voices, studio: Studio):
        self.voices, self.studio = voices, studio
        self.router = APIRouter()
        route = self.router.add_api_route
        for path, name in (("/", "page.html"), ("/page.css", "page.css"), ("/page.js", "page.js")):
            route(path, _sender(PAGE / name), methods=["GET", "HEAD"], include_in_schema=False)
        route("/favicon.ico", lambda: Response(status_code=204), include_in_schema=False)
        route("/health", self.health)
        route("/v1/models", self.models)
        route("/v1/voices", self.list_voices)
        route("/v1/voices/{name}", self.one_voice)
        route("/v1/audio/speech", self.speech, methods=["POST"], response_class=StreamingResponse)
        route("/v1/audio/convert", self.convert, methods=["POST"])
        route("/v1/audio/encode", self.encode, methods=["POST"])
        # gradio raises the last two for calls that do not exist
        kinds = (ValueError, HTTPException, RequestValidationError, FnIndexInferError, KeyError)
        self.errors: dict[Any, Callable[..., Any]] = dict.fromkeys(kinds, answer_error)

    def health(self) -> dict[str, Any]:
        """Say that the server works, and how many requests are in progress."""
        return {
            "status": "ok",
            "voices": len(self.voices.files()),
            "requests": self.studio.active,
            "limit": self.studio.limit,
        }

    def models(self) -> dict[str, Any]:
        """List the names of the voices in the form of OpenAI's API."""
        files = self.voices.files().items()
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": int(file.stat().st_mtime), "owned_by": "vits2"}
                for name, file in files
            ],
        }

    def list_voices(self) -> dict[str, Any]:
        """Describe all voices, which loads each of them once."""
        return {"voices": [self.voices.about(name) for name in self.voices.files()]}

    def one_voice(self, name: str) -> dict[str, Any]:
        """Describe one voice."""
        return self.voices.about(name)

    async def speech(self, asked: SpeechRequest) -> Response:
        """Speak a text. The audio is sent while it is generated.

        With `stream_format` "sse", events are sent instead: `speech.audio.delta` with audio in base64,
        `speech.sentence.done` with the times of a sentence, and `speech.audio.done` with all facts.
        """
        voice = await asyncio.to_thread(self.voices.get, asked.model)
        options = asked.model_dump(include={"noise_scale", "noise_scale_w", "pause", "seed"})
        speaker = speaker_of(voice, asked.voice, asked.model, "default")
        encoder = Encoder(asked.response_format, voice.sampling_rate)

        async def parts(job: Job) -> AsyncIterator[tuple[Take, np.ndarray]]:
            take = await job.run(
                lambda: Take(voice, asked.input, speaker=speaker, length_scale=1 / asked.speed, **options)
            )
            async for part in job.iterate(take.parts):
                yield take, part

        async def body() -> AsyncIterator[bytes]:
            told = 0
            with self.studio.open() as job:
                async for take, part in parts(job):
                    audio = encoder.encode(part)
                    if asked.stream_format == "audio":
                        yield audio
                        continue
                    yield _event("speech.audio.delta", audio=base64.b64encode(audio).decode())
                    for sentence in take.sentences[told:]:
                        yield _event("speech.sentence.done", **take.timings(sentence))
                    told = len(take.sentences)
            audio = encoder.encode(np.zeros(0, np.float32), last=True)
            if asked.stream_format == "audio":
                yield audio
            else:
                yield _event("speech.audio.delta", audio=base64.b64encode(audio).decode())
                yield _event("speech.audio.done", **take.facts())

        kind = FORMATS[asked.response_format].media_type if asked.stream_format == "audio" else "text/event-stream"
        headers = {"X-Sampling-Rate": str(encoder.rate), "X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        return StreamingResponse(await begun(body()), media_type=kind, headers=headers)

    async def convert(
        self, request: Request, model: str, source: str, target: str, seed: int | None = None
    ) -> Response:
        """Convert the recording in the body, a file of any format, from speaker `source` to `target`. Returns WAV."""
        voice = await asyncio.to_thread(self.voices.get, model)
        recording = await request.body()
        with self.studio.open() as job, tempfile.NamedTemporaryFile(prefix="recording") as file:
            file.write(recording)
            file.flush()
            audio = await convert_file(job, voice, file.name, "the recording", source, target, seed)
        encoder = Encoder("wav", voice.sampling_rate)
        return Response(encoder.encode(audio, last=True), media_type="audio/wav")

    async def encode(self, request: Request, response_format: FormatName = "mp3") -> Response:
        """Return the WAV file in the body, 16-bit mono, in another format."""
        wav = await request.body()
        with self.studio.open():
            encoded = await asyncio.to_thread(encode_wav, wav, response_format)
        return Response(encoded, media_type=FORMATS[response_format].media_type)


async def convert_file(
    job: Job, voice: Any, path: str, name: str, source: str | None, target: str | None, seed: int | None
) -> np.ndarray:
    """Convert the recording at `path` in the studio. Errors call it by `name`. Returns float32 `[samples]`."""
    try:
        await asyncio.to_thread(refuse_long, path, MAX_RECORDING)
        return await job.run(lambda: voice.convert(path, source, target, seed=seed))
    except ValueError as error:
        raise ValueError(str(error).replace(path, name)) from None


async def begun(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return an iterator whose first part is there, so that errors before it have a status of their own."""
    first = await anext(parts)

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for part in parts:
            yield part

    return whole()


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an exception in the form of OpenAI's API. The texts of errors outside `/v1` stay here."""
    if isinstance(error, Busy):
        busy = error_body(str(error), "rate_limit_error")
        return JSONResponse(busy, 429, headers={"Retry-After": str(RETRY)})
    if isinstance(error, UnknownVoice):
        return JSONResponse(error_body(str(error)), 404)
    if isinstance(error, RequestValidationError):
        return JSONResponse(error_body("; ".join(map(_problem, error.errors()))), 400)
    if isinstance(error, HTTPException):
        return JSONResponse(error_body(str(error.detail)), error.status_code)
    if not request.url.path.startswith("/v1/"):
        return JSONResponse(error_body("the request is not valid"), 400)
    if not isinstance(error, ValueError):
        raise error
    return JSONResponse(error_body(str(error)), 400)


def _problem(found: Any) -> str:
    """Return one line for an error of pydantic."""
    place = ".".join(str(part) for part in found["loc"][1:] if not isinstance(part, int))
    return f"{place}: {found['msg']}" if place else str(found["msg"])


def _event(kind: str, **content: Any) -> bytes:
    """Return a server-sent event."""
    return f"data: {json.dumps({'type': kind, **content}, ensure_ascii=False)}\n\n".encode()


def _sender(path: Path) -> Callable[[], FileResponse]:
    """Return a handler that sends a file of the page."""
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    return lambda: FileResponse(path, headers=headers)
