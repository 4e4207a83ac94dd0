"""The gate in front of the server: which hosts, pages and keys may enter, and how much they may send."""

import contextlib
import hmac
import ipaddress
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator
from urllib.parse import parse_qs, urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_JSON = 1 << 20  # bytes of a request, except for recordings
MAX_UPLOAD = 100 << 20  # bytes of a recording
UPLOADS = ("/gradio_api/upload", "/v1/audio/convert", "/v1/audio/encode")
# The page asks for the key itself. Gradio asks for the last path when it starts.
OPEN = {"/", "/page.css", "/page.js", "/favicon.ico", "/health", "/gradio_api/startup-events"}
UNUSED = "/gradio_api/proxy="  # of gradio, for pages that show others
ANSWERS = re.compile(r"/gradio_api/(?:call(?:/v2)?/[^/]+/(?P<event>\w+)|queue/data)/?")  # where Gradio's clients wait
PATIENCE = 20  # seconds in which a client of Gradio must ask for its answer


class Gate:
    """ASGI middleware.

    Another web page that a user has open must not reach a server on this machine. It could do so by its own address,
    which the header `Origin` tells, or by a name that it lets point to this machine, which `Host` tells. Requests by a
    number or by `localhost` pass.

    Args:
        hosts: names, besides numbers and localhost, by which the server may be called; "*" is any name.
        api_key: if given, what requests must have as `Authorization: Bearer KEY`.
        listeners: counts the open requests for the answers to Gradio's calls.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], api_key: str | None, listeners: "Listeners"):
        self.app, self.hosts, self.api_key, self.listeners = app, hosts, api_key, listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refusal := self._refusal(scope["path"], headers):
            await JSONResponse(error_body(refusal[1]), refusal[0])(scope, receive, send)
            return
        limit = MAX_UPLOAD if scope["path"].startswith(UPLOADS) else MAX_JSON
        with self.listeners.counted(scope):
            try:
                await self.app(scope, limited(receive, limit), send)
            except RuntimeError as error:  # gradio breaks off the answer to a call that does not exist
                if not (ANSWERS.fullmatch(scope["path"]) and isinstance(error.__cause__, HTTPException)):
                    raise
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return status and message for a request that must not pass."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if path.startswith(UNUSED) or not path.isprintable():
            return 404, "there is nothing here"
        if not self._known(host):
            return 403, f"the host {host!r} is not served here: start the server with --allow-host"
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests of other web pages are not served"
        if (limit := headers.get("content-length", "0")) and not limit.isdecimal():
            return 400, "the header Content-Length is not a number"
        if int(limit) > (MAX_UPLOAD if path.startswith(UPLOADS) else MAX_JSON):
            return 413, "the request is too large"
        key = headers.get("authorization", "").removeprefix("Bearer ")
        if self.api_key and path not in OPEN and not hmac.compare_digest(key.encode(), self.api_key.encode()):
            return 401, "this server needs an API key: send the header Authorization: Bearer KEY"
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name in self.hosts or "*" in self.hosts:
            return True
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        return False


class Listeners:
    """Counts who waits for the answers to Gradio's calls, because their requests end before the work begins."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def counted(self, scope: Scope) -> Iterator[None]:
        """Count a request for an answer while it is open."""
        found = ANSWERS.fullmatch(scope["path"])
        if not found:
            yield
            return
        query = parse_qs(scope["query_string"].decode("latin-1"))
        name = found["event"] or query.get("session_hash", [""])[0]
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]

    def check(self, name: str | None, began: float) -> None:
        """Raise ValueError if nobody waits for a call that began at `began`, by `time.monotonic`."""
        if name is not None and not self._open[name] and time.monotonic() - began > PATIENCE:
            raise ValueError("nobody waits for the answer")


def limited(receive: Receive, limit: int) -> Receive:
    """Return `receive` with an HTTPException for a body of more than `limit` bytes."""
    received = 0

    async def count() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, "the request is too large")
        return message

    return count


def error_body(message: str, kind: str = "invalid_request_error") -> dict[str, object]:
    """Return an error in the form of OpenAI's API."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}
