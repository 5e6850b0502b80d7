"""Composition root of audit."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import grpc
import httpx
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.audit.v1 import audit_pb2, oversight_pb2
from planier.common.v1.event_pb2 import EventRun, ReadEventsRequest

from services.audit.cosigning import ANSWER_SECONDS, Cosigning
from services.audit.governing import Governing
from services.audit.integrity import Integrity
from services.audit.log import AccessLog
from services.audit.oversight import AccessEvents, OversightServicer
from services.audit.publication import Publication
from services.audit.reading import LogReader
from services.audit.receipt import ReceiptSigner
from services.audit.recording import Recording
from services.audit.retention import Retention
from services.audit.service import AuditServicer
from services.audit.settings import AuditSettings
from services.audit.tiles_door import TilesDoor
from services.audit.upkeep import Upkeep
from services.audit.watch import Watch
from services.audit.witnesses import PartyWitness, read_witnesses
from services.audit.writer import LocalRecorder, LogWriter
from services.kernel.clock import Clock, RandomIds, SystemClock
from services.kernel.codec import IdentityCodec
from services.kernel.guard.guard import Guard
from services.kernel.guard.ports import Checker
from services.kernel.guard.remote import KeyLoader, RemoteChecker
from services.kernel.guard.tokens import TokenVerifier
from services.kernel.https import HttpsServer, client_context
from services.kernel.keys import read_private_key
from services.kernel.pseudonyms import Pseudonyms
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.server import Server
from services.kernel.screening import detector_of
from services.kernel.store.base import EventStore
from services.kernel.store.opening import backend_of
from services.kernel.store.sql import SqlEventStore
from services.kernel.telemetry import Telemetry

EVENTS_SECONDS = 600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Audit:
    """The service of one process, ready to be served."""

    server: Server
    guard: Guard
    log: AccessLog
    outside: "Outside"
    upkeep: Upkeep
    # In order: what is still to be recorded first, then the log, the network last.
    closing: tuple[Callable[[], Awaitable[None]], ...]

    async def ready(self) -> None:
        """Opens the tiles' door, begins to ask the witnesses and to look after the log, which is open by then."""
        await self.outside.start()
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
    return replace(audit, closing=(*audit.closing, checker.close, access.close))


async def assemble(
    settings: AuditSettings,
    telemetry: Telemetry,
    checker: Checker,
    verifier: TokenVerifier,
    events: AccessEvents,
) -> Audit:
    """The server and its guard over an open log; apart from `build` so that who decides is the caller's choice."""
    key = read_private_key(settings.log_key_file)
    log = AccessLog(settings.database_url, origin=settings.log_origin, key=key, instance=settings.instance)
    witnesses = read_witnesses(settings.witnesses_file) if settings.witnesses_file is not None else ()
    await asyncio.to_thread(log.open)
    outside = Outside(settings, log, witnesses, telemetry)
    signer, writer = ReceiptSigner(key), LogWriter(log, fenced=lambda: server.set_serving(False))
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
    upkeep = Upkeep(log, watch, retention, settings.watch_seconds)
    servicer = AuditServicer(
        log, Recording(writer, signer), key.public_key(), reader, witnesses=witnesses,
        cosigning=outside.cosigning if witnesses else None,
    )  # fmt: skip
    oversight = OversightServicer(reader, governing, watch, integrity, events)
    bindings = [
        (audit_pb2.DESCRIPTOR.services_by_name["AuditService"], servicer),
        (oversight_pb2.DESCRIPTOR.services_by_name["OversightService"], oversight),
    ]
    server = Server(settings=settings, bindings=bindings, guard=guard, telemetry=telemetry)

    async def close_log() -> None:
        await asyncio.to_thread(log.close)

    return Audit(
        server, guard, log, outside, upkeep, (upkeep.close, guard.close, writer.close, outside.stop, close_log)
    )


class Outside:
    """What of the log goes out to others: tiles over HTTPS, and heads to the witnesses."""

    def __init__(
        self, settings: AuditSettings, log: AccessLog, witnesses: Sequence[PartyWitness], telemetry: Telemetry
    ) -> None:
        publication = Publication(log, [witness.cosigner for witness in witnesses])
        self._client = httpx.AsyncClient(
            verify=client_context(settings.tls), timeout=ANSWER_SECONDS, trust_env=False, follow_redirects=False
        )
        self.cosigning = Cosigning(log, publication, witnesses, self._client, telemetry)
        self._tiles: HttpsServer | None = None
        if settings.tiles_listen:
            self._tiles = HttpsServer(TilesDoor(publication), settings.tiles_listen, settings.tls)
        self._rounds: asyncio.Task[None] | None = None
        self._asks = bool(witnesses)
        # Where the tiles are served, once they are; 0 where they are not.
        self.port = 0

    async def start(self) -> None:
        """Listens, and begins the rounds. OSError: the address is taken."""
        if self._tiles is not None:
            self.port = await self._tiles.start()
            logger.info("serving tiles", extra={"port": self.port})
        if self._asks:
            self._rounds = asyncio.create_task(self.cosigning.run())

    async def stop(self) -> None:
        """Ends the rounds and closes the door."""
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)
        if self._tiles is not None and self.port:
            await self._tiles.stop()
        await self._client.aclose()


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
