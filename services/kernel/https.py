"""A small HTTPS door beside a service's own: TLS 1.3 with certificates on both sides, like every other door.

For the protocols that are HTTP by their own definition (C2SP tlog-tiles, tlog-witness); the server is uvicorn.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from services.kernel.rpc.tls import TlsFiles

# An idle client that keeps its connection does not answer a close: it is not waited for longer.
DRAIN_SECONDS = 1
MAX_CONNECTIONS = 200
_HEADER_BYTES = 16 * 1024
_POLL_SECONDS = 0.005
# How often the certificate's files are looked at.
_ROTATION_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request whose body has been read whole; `path` is decoded and holds no query."""

    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer; header names in lower case."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = field(default=(("content-type", "text/plain; charset=utf-8"),))


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class HttpsServer:
    """Serves one handler on host:port until stopped; what it raises is a 500 that says nothing.

    Bodies above `most` bytes are refused with 413, unread. A certificate that changes on disk is used for connections
    from then on; one that cannot be used leaves the one before in use.
    """

    def __init__(self, handler: Handler, listen: str, files: TlsFiles, most: int = 0) -> None:
        self._listen = listen
        self._files = files
        self._context = server_context(files)
        config = uvicorn.Config(
            _application(handler, most),
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            ssl_context_factory=lambda *_: self._context,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None
        self._rotating: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listens, and returns the port. OSError: the address is taken, or a certificate cannot be used."""
        host, _, port = self._listen.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=128)
        found: int = listening.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve([listening]))
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110 -- uvicorn says it in no other way
            await asyncio.sleep(_POLL_SECONDS)
        if self._serving.done():
            self._serving.result()
        self._rotating = asyncio.create_task(self._rotate())
        return found

    async def stop(self) -> None:
        """Lets requests under way end, then closes."""
        self._server.should_exit = True
        if self._rotating is not None:
            self._rotating.cancel()
        if self._serving is not None:
            await self._serving

    async def _rotate(self) -> None:
        seen = _stamp(self._files)
        while True:
            await asyncio.sleep(_ROTATION_SECONDS)
            try:
                found = _stamp(self._files)
                if found != seen:
                    # A pair that does not belong together, half-way through a change, is refused and tried again.
                    self._context.load_cert_chain(self._files.certificate, self._files.key)
                    seen = found
            except (OSError, ssl.SSLError) as error:
                _log.warning("a certificate cannot be used yet", extra={"error": type(error).__name__})


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.3, our certificate, and a client's of the same authority demanded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.3, our certificate shown, the server's verified with its host name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    return context


def _stamp(files: TlsFiles) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns for path in (files.certificate, files.key))


class _Server(uvicorn.Server):
    """Leaves signals to the process that it is a part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _application(handler: Handler, most: int) -> Any:
    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            body = await _body(receive, most)
            request = None if body is None else HttpRequest(scope["method"], scope["path"], body)
            answer = HttpResponse(413) if request is None else await handler(request)
        except Exception:  # noqa: BLE001 -- whatever it is, nothing of it leaves
            _log.exception("a request could not be answered")
            answer = HttpResponse(500)
        length = (b"content-length", str(len(answer.body)).encode())
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    return application


async def _body(receive: Any, most: int) -> bytes | None:
    """The request's body; None where it is longer than `most`, or its sender went away."""
    parts, total = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        total += len(part)
        if total > most:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
