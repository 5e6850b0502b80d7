"""Composition root of audit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.audit.v1 import audit_pb2, oversight_pb2
from planier.common.v1.event_pb2 import EventRun, ReadEventsRequest

from services.audit.governing import Governing
from services.audit.integrity import Integrity
from services.audit.log import AccessLog
from services.audit.masking import Pseudonyms
from services.audit.oversight import AccessEvents, OversightServicer
from services.audit.reading import LogReader
from services.audit.receipt import ReceiptSigner
from services.audit.retention import Retention
from services.audit.service import AuditServicer
from services.audit.settings import AuditSettings
from services.audit.upkeep import Upkeep
from services.audit.watch import Watch
from services.audit.writer import LocalRecorder, LogWriter
from services.kernel.clock import Clock, RandomIds, SystemClock
from services.kernel.codec import IdentityCodec
from services.kernel.guard.guard import Guard
from services.kernel.guard.ports import Checker
from services.kernel.guard.remote import KeyLoader, RemoteChecker
from services.kernel.guard.tokens import TokenVerifier
from services.kernel.keys import read_private_key
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.server import Server
from services.kernel.screening import detector_of
from services.kernel.store.base import EventStore
from services.kernel.store.opening import backend_of
from services.kernel.store.sql import SqlEventStore
from services.kernel.telemetry import Telemetry

EVENTS_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Audit:
    """The service of one process, ready to be served."""

    server: Server
    guard: Guard
    log: AccessLog
    upkeep: Upkeep
    # In order: what is still to be recorded first, then the log, the network last.
    closing: tuple[Callable[[], Awaitable[None]], ...]

    async def ready(self) -> None:
        """Serves as soon as it listens: its log is open by then. From here on it looks after itself."""
        self.upkeep.start()

    async def close(self) -> None:
        """Records what is still to be recorded, then lets go of everything; once the server is drained."""
        for close in self.closing:
            await close()


async def build(settings: AuditSettings, telemetry: Telemetry) -> Audit:
    """The service as settings say; starts before access does, whose keys it loads when the first token comes.

    Raises:
        LogBroken: the stored tree is not the one that was signed. ValueError: the key file holds another kind of key.
    """
    access = open_channel(settings.access_address, settings.tls, telemetry, server_name="access")
    checker = RemoteChecker(access, telemetry)
    verifier = TokenVerifier({}, SystemClock(), KeyLoader(access))
    try:
        audit = await assemble(settings, telemetry, checker, verifier, access_events(access))
    except BaseException:
        await access.close()
        raise
    return Audit(audit.server, audit.guard, audit.log, audit.upkeep, (*audit.closing, checker.close, access.close))


async def assemble(
    settings: AuditSettings,
    telemetry: Telemetry,
    checker: Checker,
    verifier: TokenVerifier,
    events: AccessEvents,
) -> Audit:
    """The server and its guard over an open log; apart from `build` so that who decides is the caller's choice."""
    key = read_private_key(settings.log_key_file)
    log = AccessLog(settings.database_url, origin=settings.log_origin, key=key)
    await asyncio.to_thread(log.open)
    signer, writer = ReceiptSigner(key), LogWriter(log)
    clock, ids = SystemClock(), RandomIds()
    store = await asyncio.to_thread(open_governance, log, clock)
    governing, integrity = Governing(store, ids), Integrity(telemetry)
    secret = settings.pseudonym_key_file.read_bytes() if settings.pseudonym_key_file else None
    reader = LogReader(log, governing, Pseudonyms(secret), integrity, clock)
    watch = Watch(log, integrity, telemetry)
    guard = Guard(
        service=settings.service,
        instance=settings.instance,
        checker=checker,
        recorder=LocalRecorder(writer, signer),
        verifier=verifier,
        clock=clock,
        ids=ids,
        screen_motive=detector_of,
        telemetry=telemetry,
    )
    retention = Retention(log, governing, integrity, guard.record_own, clock, ids)
    upkeep = Upkeep(watch, retention, settings.watch_seconds)
    bindings = [
        (
            audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
            AuditServicer(log, writer, signer, key.public_key(), reader),
        ),
        (
            oversight_pb2.DESCRIPTOR.services_by_name["OversightService"],
            OversightServicer(reader, governing, watch, integrity, events),
        ),
    ]
    server = Server(settings=settings, bindings=bindings, guard=guard, telemetry=telemetry)

    async def close_log() -> None:
        await asyncio.to_thread(log.close)

    return Audit(server, guard, log, upkeep, (upkeep.close, guard.close, writer.close, close_log))


def open_governance(log: AccessLog, clock: Clock) -> EventStore:
    """The officers' decisions, in the log's own database and on its engine. Blocking."""
    backend = backend_of(log.engine)
    backend.create_schema(log.engine)
    return SqlEventStore(log.engine, backend, IdentityCodec(), clock)


def access_events(channel: grpc.aio.Channel) -> AccessEvents:
    """Reads all of access's events, in order, at each use."""
    stub = AccessServiceStub(channel)

    async def read() -> AsyncIterator[EventRun]:
        async for answer in stub.ReadEvents(ReadEventsRequest(), timeout=EVENTS_SECONDS):
            if answer.run.events:
                yield answer.run

    return read
