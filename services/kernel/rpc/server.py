"""The one server builder: mTLS with TLS 1.3, guarded methods, health, drain. What is not safe does not start."""

import asyncio
import logging
import signal
import ssl
from collections.abc import Awaitable, Sequence
from typing import Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from services.kernel.config import ServiceSettings
from services.kernel.guard.options import methods_of
from services.kernel.rpc.client import MAX_MESSAGE_BYTES
from services.kernel.rpc.door import TLS_TOO_OLD, Door
from services.kernel.rpc.handlers import Guarding, MethodHandlers
from services.kernel.rpc.tls import TlsFiles, server_credentials
from services.kernel.telemetry import Telemetry

MAX_CONCURRENT_RPCS = 1000
MAX_METADATA_BYTES = 16 * 1024
DRAIN_SECONDS = 10.0
PROBE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Attempts(Protocol):
    """Where failed connections are counted for the access log (services/kernel/guard/peers.py)."""

    def count(self, peer: str, reason: str, times: int = 1) -> None:
        """Counts `times` attempts of one peer in the present minute."""
        ...


class UnsafeServer(Exception):  # noqa: N818 -- what it is, not what went wrong
    """The server would accept what it must refuse, or lacks what its contract promises: it does not start."""


class Server:
    """Serves the bound services, and grpc.health.v1, until drained.

    Each binding is a service's descriptor and a servicer that has every one of its methods: `async def Rpc(self,
    request, call)` returning the answer, an async generator where the answer is a stream; of a bidirectional stream it
    takes one message and returns one. Health knows "" and each service by its full name; it starts as NOT_SERVING.
    """

    def __init__(
        self,
        *,
        settings: ServiceSettings,
        bindings: Sequence[tuple[ServiceDescriptor, object]],
        guard: Guarding,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._bindings = bindings
        self._handlers = MethodHandlers(guard, telemetry)
        self._health = health.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._serving = False
        self._announcing: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listens, and returns the port; does not serve yet as far as health says.

        Raises:
            GuardOptionError, TypeError: a contract without guard, a servicer without one of its methods.
            OSError, ValueError: certificates that cannot be used. RuntimeError: the address is taken.
            UnsafeServer: this process would accept TLS 1.2.
        """
        handlers = self._handlers
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS)
        for descriptor, servicer in self._bindings:
            by_name = {method.name: handlers.bind(method, servicer) for method in methods_of(descriptor)}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(descriptor.full_name, by_name),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        await self._announce()
        port = server.add_secure_port(self._settings.listen, server_credentials(self._settings.tls))
        await server.start()
        self._server = server
        if await _accepts_tls_1_2(self._settings.listen.rpartition(":")[0], port, self._settings.tls):
            await server.stop(None)
            raise UnsafeServer("the server accepts TLS 1.2")
        return port

    def set_serving(self, serving: bool) -> None:
        """What health answers from the loop's next turns on, for the process and for each service."""
        self._serving = serving
        task = asyncio.create_task(self._announce())
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)

    async def _announce(self) -> None:
        for name in ("", *(descriptor.full_name for descriptor, _ in self._bindings)):
            status = health_pb2.HealthCheckResponse
            await self._health.set(name, status.SERVING if self._serving else status.NOT_SERVING)

    async def drain(self, grace: float = DRAIN_SECONDS) -> None:
        """Says NOT_SERVING, refuses new calls, and gives those under way `grace` seconds before they are cancelled."""
        if self._server is None:
            return
        self._serving = False
        await self._announce()
        self._handlers.end_exchanges()
        await self._server.stop(grace)


async def serve(
    server: Server,
    *,
    ready: Awaitable[object] | None = None,
    door: Door | None = None,
    attempts: Attempts | None = None,
    grace: float = DRAIN_SECONDS,
) -> None:
    """Runs a server from its start to its drained end, which SIGTERM or SIGINT asks for.

    Health says SERVING once `ready` is done. What `ready` raises drains the server and goes on to the caller.
    What `door` counts goes to `attempts` (the guard's), every few seconds and at the end.
    """
    loop = asyncio.get_running_loop()
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    reporting: asyncio.Task[None] | None = None
    stopping = asyncio.create_task(asked_to_stop.wait())
    try:
        port = await server.start()
        logger.info("listening", extra={"port": port})
        if door is not None and attempts is not None:
            # The server's own question about TLS 1.2 is no attempt of anybody.
            await door.take_back(TLS_TOO_OLD)
            reporting = asyncio.create_task(door.hand_over(attempts.count))
        if ready is not None:
            becoming_ready = asyncio.ensure_future(ready)
            await asyncio.wait((becoming_ready, stopping), return_when=asyncio.FIRST_COMPLETED)
            if becoming_ready.done():
                becoming_ready.result()
            else:
                becoming_ready.cancel()
        if not asked_to_stop.is_set():
            server.set_serving(True)
            logger.info("serving", extra={"port": port})
        await stopping
        logger.info("draining")
    finally:
        stopping.cancel()
        await server.drain(grace)
        if reporting is not None:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _accepts_tls_1_2(host: str, port: int, files: TlsFiles) -> bool:
    """Whether a client of ours that knows TLS 1.2 only gets in; asked of the server itself, as nothing else tells."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the question is the version, and the peer is this process
    context.load_cert_chain(files.certificate, files.key)
    here = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 -- it is looked for
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(here, port, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return False
    writer.close()
    return True


_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_RPCS),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients of ours ping every 30 s.
    ("grpc.http2.min_ping_interval_without_data_ms", 15_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 15_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)
