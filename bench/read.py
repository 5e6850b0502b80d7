"""Audited reads and records beside a bare echo: 64 callers, then one."""

import asyncio
import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1.analytics_pb2 import BoundingBox, QueryMapRequest
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.audit.v1.audit_pb2 import RecordItem, RecordRequest, RecordResponse
from planier.audit.v1.record_pb2 import RECORD_KIND_RELEASE, AccessRecord
from planier.common.v1.fact_pb2 import Period

from bench.callers import Pace, closed_loop
from bench.harness import Row, medians, row
from bench.peers.echo import METHOD
from bench.system import System, running
from services.cli import session
from services.cli.connection import channel
from services.cli.cortege import declare
from services.demo.past import past_facts
from services.kernel.clock import RandomIds
from services.kernel.rpc.tls import TlsFiles, channel_credentials

CALLERS = 64
SECONDS = 6.0
FACTS = 20_000
MESSAGE = b"x" * 200
# Questions of a round; what is kept holds fewer of them.
QUESTIONS = 20_000
SCREENS = 40
# More than a round of records sends: as many as the echo would.
RECORDS = 50_000
_RECORD = "/planier.audit.v1.AuditService/Record"
IDS = RandomIds()
# Degrees, half a viewport.
PAN = 0.02
Viewports = Callable[[], Iterator[QueryMapRequest]]
DAY = datetime(2026, 6, 1, tzinfo=UTC)


def rows() -> list[Row]:
    """Every figure of this file."""
    with running() as system, echo(system) as port:
        asyncio.run(_load(system))

        def bare(callers: int) -> Pace:
            return asyncio.run(_echo(system, port, callers))

        def read(callers: int, kind: Viewports) -> Pace:
            return asyncio.run(_read(system, callers, kind))

        echo64, *reads, record64 = medians(
            lambda: bare(CALLERS).rate,
            *(lambda kind=kind: read(CALLERS, kind).rate for kind in VIEWPORTS),
            lambda: asyncio.run(_record(system)).rate,
        )
        echo1, read1 = medians(lambda: bare(1).p50, lambda: read(1, panned).p50)
    plain = f"bare grpc.aio mTLS echo, {CALLERS} callers"
    return [
        *(
            row(f"audited read, {CALLERS} callers, {name}", rate, "calls/s", plain, echo64, ">= 0.4")
            for name, rate in zip(VIEWPORTS.values(), reads, strict=True)
        ),
        row(f"Record, one per call, {CALLERS} callers", record64, "calls/s", plain, echo64, ">= 0.6"),
        row("audited read, one caller: p50", read1, "ms", "bare echo, one caller", echo1, "<= 5"),
    ]


def telemetry_rows() -> list[Row]:
    """What telemetry costs on the audited read: sampled at the head, sent to a collector that takes everything."""
    with collector() as endpoint, running() as plain, running({"OTLP_ENDPOINT": endpoint}) as traced:
        for system in (plain, traced):
            asyncio.run(_load(system))
        off, on = medians(
            lambda: asyncio.run(_read(plain, CALLERS, panned)).rate,
            lambda: asyncio.run(_read(traced, CALLERS, panned)).rate,
        )
    return [row("audited read with telemetry on", on, "calls/s", "the same with it off", off, ">= 0.75")]


@contextmanager
def echo(system: System) -> Iterator[int]:
    """The bare echo in a process of its own."""
    command = [sys.executable, "-m", "bench.peers.echo", str(system.layout.pki)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.terminate()


@contextmanager
def collector() -> Iterator[str]:
    """An OTLP endpoint that accepts and forgets, in a process of its own."""
    command = [sys.executable, "-m", "bench.peers.collector"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(child.stdout.readline())}"
        finally:
            child.terminate()


async def _load(system: System) -> None:
    facts = past_facts(1, DAY.date(), FACTS, since=DAY.date() - timedelta(days=365))
    async for _ in declare(system.profile, facts, "city-importer", "bench"):
        pass
    projected = system.projected()
    while projected() < FACTS:  # noqa: ASYNC110 -- another process moves it
        await asyncio.sleep(0.05)


async def _echo(system: System, port: int, callers: int) -> Pace:
    pki = system.layout.pki
    files = TlsFiles(pki / "workstation.pem", pki / "workstation.key", pki / "ca.pem")
    options = (("grpc.ssl_target_name_override", "analytics"),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", channel_credentials(files), options=options) as opened:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = opened.unary_unary(METHOD)
        await call(MESSAGE)
        return await closed_loop(lambda: call(MESSAGE, timeout=10), callers, SECONDS)


def panned() -> Iterator[QueryMapRequest]:
    """One day's viewports, each moved a little further: no two are the same, and each lies beside others."""
    chosen = random.Random(1)  # noqa: S311 -- which place is asked about is no secret
    while True:
        yield _request(chosen.uniform(-PAN, PAN), chosen.uniform(-PAN, PAN), 1)


def shared() -> Iterator[QueryMapRequest]:
    """The screens of a day's duty: the same few viewports, refreshed by everybody."""
    fixed = [next(viewports) for viewports in [panned()] for _ in range(SCREENS)]
    chosen = random.Random(2)  # noqa: S311 -- which place is asked about is no secret
    while True:
        yield chosen.choice(fixed)


def unlike() -> Iterator[QueryMapRequest]:
    """Another place and another hour of the year each time: nothing that was read for one serves another."""
    chosen = random.Random(3)  # noqa: S311 -- which place is asked about is no secret
    while True:
        yield _request(chosen.uniform(-PAN, PAN), chosen.uniform(-PAN, PAN), chosen.uniform(1, 300))


VIEWPORTS = {
    panned: "each viewport another, of one day",
    unlike: "each place and period another",
    shared: f"{SCREENS} viewports in turn",
}


def _request(east: float, north: float, days_ago: float) -> QueryMapRequest:
    end = DAY - timedelta(days=days_ago)
    return QueryMapRequest(
        consultation=session.consultation("SITUATION", "mesure"),
        box=BoundingBox(west=5.36 + east, south=43.28 + north, east=5.40 + east, north=43.31 + north),
        period=Period(start=_stamp(end - timedelta(days=1)), end=_stamp(end)),
    )


async def _read(system: System, callers: int, kind: Viewports) -> Pace:
    signed_in = await session.sign_in(system.profile, "duty-officer")
    # Made before the clock runs; a caller of so many has more than enough.
    asked = itertools.cycle(list(itertools.islice(kind(), QUESTIONS)))
    async with channel(system.profile, "analytics") as opened:
        query = AnalyticsServiceStub(opened).QueryMap
        answer = await query(next(asked), timeout=10, metadata=signed_in.metadata)
        assert answer.total > 5
        return await closed_loop(lambda: query(next(asked), timeout=10, metadata=signed_in.metadata), callers, SECONDS)


async def _record(system: System) -> Pace:
    # Ready to be sent, as the echo's message is: what is measured is the service.
    made = iter([_record_request() for _ in range(RECORDS)])
    async with channel(system.profile, "audit", "analytics") as opened:
        record: grpc.aio.UnaryUnaryMultiCallable[bytes, RecordResponse]
        record = opened.unary_unary(_RECORD, response_deserializer=RecordResponse.FromString)

        async def step() -> None:
            answer = await record(next(made), timeout=10)
            assert answer.results[0].receipt.signature

        return await closed_loop(step, CALLERS, SECONDS)


def _record_request() -> bytes:
    rpc = "/planier.analytics.v1.AnalyticsService/QueryMap"
    content = AccessRecord(record_id=IDS.new(), instance="bench", kind=RECORD_KIND_RELEASE, rpc=rpc)
    content.actor.issuer, content.actor.subject, content.actor.party = "bench", "bench", "CITY"
    content.occurred_at.GetCurrentTime()
    item = RecordItem(record_id=content.record_id, record=content.SerializeToString())
    return RecordRequest(items=[item]).SerializeToString()


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
