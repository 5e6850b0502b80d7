"""Composition root of ingest."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.ingest.v1.ingest_pb2 import DESCRIPTOR

from services.ingest.admission import Admission
from services.ingest.engine import Engine
from services.ingest.ledger import Ledger
from services.ingest.orders import ERASING_TYPES
from services.ingest.service import IngestService
from services.ingest.settings import IngestSettings
from services.kernel.annex import await_signed
from services.kernel.bus.base import TOPICS
from services.kernel.bus.connection import BusSettings, Connection
from services.kernel.bus.jetstream import JetStreamPublisher
from services.kernel.bus.ledger import RunLedger
from services.kernel.bus.relay import Relay
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.guard.guard import Guard
from services.kernel.guard.remote import RemoteChecker, RemoteRecorder
from services.kernel.guard.tokens import TokenVerifier
from services.kernel.registry import Registry
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.server import Server
from services.kernel.screening import detector_of
from services.kernel.store import open_store
from services.kernel.store.sql import SqlEventStore
from services.kernel.telemetry import Telemetry
from services.kernel.territory import Territory

_TOPIC = next(topic for topic in TOPICS if topic.owner == "ingest")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ingest:
    """The service of one process, ready to be served; `ready` returns once the annex in use is the signed one."""

    server: Server
    guard: Guard
    ready: Callable[[], Awaitable[None]]
    closing: tuple[Callable[[], Awaitable[None]], ...]

    async def close(self) -> None:
        """Makes durable and records what is under way, then lets go of everything; once the server is drained."""
        for close in self.closing:
            await close()


async def build(settings: IngestSettings, telemetry: Telemetry) -> Ingest:
    """The service as settings say; erasures that a restored database does not know are made again first."""
    clock, ids = SystemClock(), RandomIds()
    registry, territory = Registry.load(settings.annex_file), Territory.load(settings.territory_file)
    store = await asyncio.to_thread(open_store, settings.database_url, clock=clock)
    engine = Engine(store, Ledger(settings.erasure_ledger_file), ids)
    await asyncio.to_thread(engine.open)
    access = open_channel(settings.access_address, settings.tls, telemetry, server_name="access")
    audit = open_channel(settings.audit_address, settings.tls, telemetry, server_name="audit")
    checker, recorder = RemoteChecker(access, telemetry), RemoteRecorder(audit, telemetry)
    guard = Guard(
        service=settings.service,
        instance=settings.instance,
        checker=checker,
        recorder=recorder,
        verifier=TokenVerifier({}, clock),  # declarers prove who they are by certificate
        clock=clock,
        ids=ids,
        screen_motive=detector_of,
        telemetry=telemetry,
    )
    admission = Admission(registry, territory)
    servicer = IngestService(
        registry=registry, admission=admission, engine=engine, store=store, ids=ids, telemetry=telemetry
    )
    bindings = [(DESCRIPTOR.services_by_name["IngestService"], servicer)]
    server = Server(settings=settings, bindings=bindings, guard=guard, telemetry=telemetry)
    stop_relay = await _start_relay(settings, store, engine, telemetry)

    async def ready() -> None:
        await await_signed(AccessServiceStub(access), registry)
        servicer.open_door()

    async def close_store() -> None:
        await asyncio.to_thread(store.close)

    closing = (engine.close, guard.close, checker.close, recorder.close, access.close, audit.close, stop_relay)
    return Ingest(server, guard, ready, (*closing, close_store))


async def _start_relay(
    settings: IngestSettings, store: SqlEventStore, engine: Engine, telemetry: Telemetry
) -> Callable[[], Awaitable[None]]:
    """Publishes the store's events while the process runs; without a bus, readers ask the owner."""
    if not settings.nats_url:
        return _nothing
    connection = Connection(BusSettings(settings.nats_url, settings.service, settings.tls))
    runs = await asyncio.to_thread(RunLedger, store.engine, _TOPIC.stream)
    publisher = JetStreamPublisher(connection, _TOPIC, runs, SystemClock())
    relay = Relay(store, publisher, runs, erasing_types=ERASING_TYPES, telemetry=telemetry)
    engine.pace_by(relay.keeps_up)
    task = asyncio.create_task(relay.run())
    task.add_done_callback(_tell)

    async def stop() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
        await connection.close()

    return stop


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("relay stopped", exc_info=error)


async def _nothing() -> None:
    pass
