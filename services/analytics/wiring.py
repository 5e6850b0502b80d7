"""Composition root of analytics."""

import asyncio
import functools
from collections.abc import AsyncIterable
from contextlib import suppress
from dataclasses import dataclass

import grpc
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.analytics.v1.analytics_pb2 import DESCRIPTOR
from planier.common.v1.event_pb2 import ReadEventsRequest, ReadEventsResponse
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from services.analytics.conflicts.projection import Crossing
from services.analytics.conflicts.rules import Rules
from services.analytics.conflicts.subjects import Metres
from services.analytics.desks import Desks
from services.analytics.follower import Follower
from services.analytics.projections import FactProjection
from services.analytics.queries import minimums_of
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.service import AnalyticsServicer
from services.analytics.settings import AnalyticsSettings
from services.analytics.signal import Signal
from services.analytics.snapshot import Snapshot
from services.analytics.watching import ingest_has
from services.kernel.annex import await_signed
from services.kernel.bus.base import TOPICS
from services.kernel.bus.connection import BusSettings, Connection
from services.kernel.bus.feed import Feed
from services.kernel.bus.subscription import subscribe
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.guard.guard import Guard
from services.kernel.guard.remote import KeyLoader, RemoteChecker, RemoteRecorder
from services.kernel.guard.tokens import TokenVerifier
from services.kernel.layers import LayerFolder
from services.kernel.projection import ProjectionRunner
from services.kernel.registry import Registry
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.server import Server
from services.kernel.screening import detector_of
from services.kernel.store.engine import open_engine, scrub
from services.kernel.store.opening import open_store
from services.kernel.store.sql import SqlEventStore
from services.kernel.telemetry import Telemetry
from services.kernel.territory import Territory

# A first load may last; what is cut by its deadline goes on from where it was.
READ_EVENTS_SECONDS = 60.0
# How long a reader's older snapshot may hold up the follower after an erasure; the next run tries again.
SCRUB_PATIENCE_MS = 100


@dataclass(frozen=True, slots=True)
class Analytics:
    """The service of one process: its server, its follower, and what both stand on."""

    server: Server
    guard: Guard
    follower: Follower
    model: ReadModel
    bus: Connection | None
    remotes: tuple[RemoteChecker, RemoteRecorder]
    channels: tuple[grpc.aio.Channel, ...]
    writer: Engine
    steps: SqlEventStore
    following: "asyncio.Task[None]"
    registry: Registry
    snapshot: Snapshot | None

    async def ready(self) -> None:
        """Returns once annex 1 is the signed one and all that ingest had is applied; raises what ended it before.

        Raises AnnexMismatchError: the minimum counts of another annex than the signed one must not be served.
        """
        await await_signed(AccessServiceStub(self.channels[0]), self.registry)
        told = asyncio.create_task(self.follower.caught_up.wait())
        try:
            await asyncio.wait((told, self.following), return_when=asyncio.FIRST_COMPLETED)
            if self.following.done():
                self.following.result()
        finally:
            told.cancel()
        if self.snapshot is not None:
            self.snapshot.begin()

    async def close(self) -> None:
        """Stops following, records what is still to be recorded, then lets go of everything."""
        self.following.cancel()
        with suppress(asyncio.CancelledError):
            await self.following
        await self.guard.close()
        for remote in self.remotes:
            await remote.close()
        for channel in self.channels:
            await channel.close()
        if self.bus is not None:
            await self.bus.close()
        await asyncio.to_thread(self.model.close)
        if self.snapshot is not None:
            await asyncio.to_thread(self.snapshot.close)
        await asyncio.to_thread(self.writer.dispose)
        await asyncio.to_thread(self.steps.close)


async def build(settings: AnalyticsSettings, telemetry: Telemetry) -> Analytics:
    """The service as settings say; its tables are made where they are missing."""
    clock, ids = SystemClock(), RandomIds()
    registry, territory = Registry.load(settings.annex_file), Territory.load(settings.territory_file)
    rules = Rules.load()
    writer = await asyncio.to_thread(open_for_writing, settings.database_url)
    projection = FactProjection(crossing=Crossing(rules, Metres(territory.epsg)))
    runner = await asyncio.to_thread(ProjectionRunner, writer, projection)
    steps = await asyncio.to_thread(open_store, settings.steps_url or settings.database_url, clock=clock)
    open_to = functools.partial(open_channel, tls=settings.tls, telemetry=telemetry)
    access = open_to(settings.access_address, server_name="access")
    audit = open_to(settings.audit_address, server_name="audit")
    ingest = open_to(settings.ingest_address, server_name="ingest")
    bus = Connection(BusSettings(settings.nats_url, settings.service, settings.tls)) if settings.nats_url else None
    signal = Signal()
    follower = Follower(
        runner,
        feed_of(ingest, bus, telemetry),
        telemetry=telemetry,
        on_applied=signal.give,
        scrub=functools.partial(scrub, writer, SCRUB_PATIENCE_MS),
    )
    model = ReadModel(open_for_reading(settings.database_url), follower.caught_up.is_set)
    snapshot = Snapshot(open_for_reading(settings.database_url)) if settings.columns_in_memory else None
    layers = LayerFolder(settings.layers_folder) if settings.layers_folder else None
    desks = Desks.over(
        model,
        steps,
        registry=registry,
        territory=territory,
        rules=rules,
        clock=clock,
        ids=ids,
        snapshot=snapshot,
        layers=layers,
    )
    servicer = AnalyticsServicer(
        model,
        desks,
        clock=clock,
        minimums=minimums_of(registry),
        snapshot=snapshot,
        layers=layers,
        signal=signal,
        has=functools.partial(ingest_has, IngestServiceStub(ingest)),
    )
    checker, recorder = RemoteChecker(access, telemetry), RemoteRecorder(audit, telemetry)
    guard = Guard(
        service=settings.service,
        instance=settings.instance,
        checker=checker,
        recorder=recorder,
        verifier=TokenVerifier({}, clock, KeyLoader(access)),
        clock=clock,
        ids=ids,
        screen_motive=detector_of,
        telemetry=telemetry,
    )
    bindings = [(DESCRIPTOR.services_by_name["AnalyticsService"], servicer)]
    server = Server(settings=settings, bindings=bindings, guard=guard, telemetry=telemetry)
    remotes = (checker, recorder)
    following = asyncio.create_task(follower.run())
    channels = (access, audit, ingest)
    return Analytics(
        server, guard, follower, model, bus, remotes, channels, writer, steps, following, registry, snapshot
    )


def feed_of(ingest: grpc.aio.Channel, bus: Connection | None, telemetry: Telemetry) -> Feed:
    """Ingest's events: live from the bus where there is one, from ingest itself otherwise and after any gap."""
    stub = IngestServiceStub(ingest)
    topic = next(topic for topic in TOPICS if topic.owner == "ingest")

    def read_events(request: ReadEventsRequest) -> AsyncIterable[ReadEventsResponse]:
        return stub.ReadEvents(request, timeout=READ_EVENTS_SECONDS)

    live = functools.partial(subscribe, bus, topic) if bus else None
    return Feed(read_events=read_events, subscribe=live, telemetry=telemetry)


def open_for_writing(url: str) -> Engine:
    """The follower's engine, on SQLite with a cache of its own size."""
    engine = open_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _resize_cache)
    return engine


def _resize_cache(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    # 32 MiB, in the unit of the pragma: what a busy hour writes to, and no more of tables that grow for ever.
    cursor.execute("PRAGMA cache_size=-32768")
    cursor.close()
