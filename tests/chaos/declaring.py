"""Two declaring systems that never lose a declaration: what was not acknowledged is sent again, the same bytes."""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from random import Random
from typing import Any

import grpc
from planier.common.v1.fact_pb2 import FACT_STATUS_DECLARED, Fact
from planier.common.v1.release_pb2 import Receipt
from planier.ingest.v1.events_pb2 import CANCELLATION_REASON_WITHDRAWN, ERASURE_REASON_LEGAL_ORDER
from planier.ingest.v1.ingest_pb2 import (
    OUTCOME_REFUSED,
    AmendFactRequest,
    CancelFactRequest,
    DeclareFactsRequest,
    Declarer,
    EraseFactRequest,
    FactKey,
    StreamFactsRequest,
    Verdict,
)
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub

from services.cli.connection import channel
from services.cli.profile import Profile
from services.demo.past import past_facts
from services.kernel.errors import Problem

BATCH = 25
# As many as the guard keeps under way on one stream.
IN_FLIGHT = 8
DEADLINE = 10.0
STREAM_DEADLINE = 600.0
PAUSE = 0.1
# What a client may be told while a part is away; anything else would have it give up.
ABSENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
DAY = datetime(2026, 6, 1, tzinfo=UTC)
DECLARER = Declarer(agent_reference="chaos")

# Source, number, revision (of an erasure: its place in the stream).
Key = tuple[str, str, int]


@dataclass(slots=True)
class Acknowledged:
    """All that the declaring systems were told: what is durable and where, and the receipt of each answer."""

    positions: dict[Key, int] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    # Facts whose erasure was acknowledged.
    erased: set[tuple[str, str]] = field(default_factory=set)
    again: int = 0
    # What an answer said that cannot be: a refusal, or another place for what had one.
    contradictions: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    # Calls refused by a code that a declaring system does not repeat.
    denied: list[str] = field(default_factory=list)

    def fail(self, method: str, problem: Problem) -> None:
        """One call without an answer, which this client will make again."""
        self.failures[f"{method} {problem.code.name} {problem.reason}"] += 1
        if problem.code not in ABSENT:
            self.denied.append(f"{method}: {problem.code.name} {problem}")

    def take(self, source: str, verdict: Verdict) -> None:
        """One verdict: a refusal, or the same key at another place, contradicts what this client did."""
        key = (source, verdict.source_id, verdict.revision)
        if verdict.outcome == OUTCOME_REFUSED:
            self.contradictions.append(f"{key} refused: {verdict.reason}")
        elif self.positions.setdefault(key, verdict.position) != verdict.position:
            self.contradictions.append(f"{key} acknowledged at {self.positions[key]} and at {verdict.position}")


class Allowance:
    """How many batches may leave: declarations last as long as the campaign."""

    def __init__(self) -> None:
        self._left = 0
        self._given = asyncio.Condition()

    async def give(self, batches: int) -> None:
        """Lets so many more leave."""
        async with self._given:
            self._left += batches
            self._given.notify_all()

    async def take(self) -> None:
        """Waits for one."""
        async with self._given:
            await self._given.wait_for(lambda: self._left > 0)
            self._left -= 1


class City:
    """The City's importer: a stream of batches, opened anew whenever it breaks."""

    def __init__(self, profile: Profile, seed: int, count: int, known: Acknowledged) -> None:
        self._profile = profile
        self._known = known
        facts = past_facts(seed, DAY.date(), count, since=date(2025, 6, 1))
        self._batches = deque(_chunks(facts))
        self.allowance = Allowance()
        self.total = len(self._batches)
        self.done = 0

    async def run(self) -> None:
        """Returns once every batch is acknowledged."""
        unanswered: deque[list[Fact]] = deque()
        async with channel(self._profile, "ingest", "city-importer") as opened:
            stub = IngestServiceStub(opened)
            while self._batches or unanswered:
                try:
                    await self._stream(stub, unanswered)
                except Problem as problem:
                    self._known.fail("StreamFacts", problem)
                    self._known.again += len(unanswered)
                    await asyncio.sleep(PAUSE)

    async def _stream(self, stub: Any, unanswered: deque[list[Fact]]) -> None:
        """One stream: first what the last one left without an answer, then new batches."""
        call, room, sent = stub.StreamFacts(timeout=STREAM_DEADLINE), asyncio.Semaphore(IN_FLIGHT), deque[list[Fact]]()
        writing = asyncio.create_task(self._write(call, room, sent, unanswered))
        try:
            while (answer := await call.read()) is not grpc.aio.EOF:
                for fact, verdict in zip(sent.popleft(), answer.batch.verdicts, strict=True):
                    self._known.take(fact.source, verdict)
                self._known.receipts.append(answer.release.receipt)
                unanswered.popleft()
                self.done += 1
                room.release()
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError, Problem):
                await writing

    async def _write(
        self, call: Any, room: asyncio.Semaphore, sent: deque[list[Fact]], unanswered: deque[list[Fact]]
    ) -> None:
        for facts in list(unanswered):
            await room.acquire()
            sent.append(facts)
            await call.write(StreamFactsRequest(batch=_request(facts)))
        while self._batches:
            await room.acquire()
            await self.allowance.take()
            facts = self._batches.popleft()
            unanswered.append(facts)
            sent.append(facts)
            await call.write(StreamFactsRequest(batch=_request(facts)))
        await call.done_writing()


class Prefecture:
    """Cortège: one call at a time; some marches change, some are cancelled, a few erased."""

    def __init__(self, profile: Profile, seed: int, count: int, known: Acknowledged) -> None:
        self._profile = profile
        self._known = known
        self._batches = list(_chunks(marches(seed, count)))
        self.allowance = Allowance()
        self.total = len(self._batches)
        self.done = 0

    async def run(self) -> None:
        """Returns once everything is acknowledged."""
        async with channel(self._profile, "ingest", "cortege") as opened:
            self._stub = IngestServiceStub(opened)
            for facts in self._batches:
                await self.allowance.take()
                await self._declare(facts)
                await self._change(facts)
                self.done += 1

    async def _declare(self, facts: list[Fact]) -> None:
        answer = await self._until_answered("DeclareFacts", _request(facts))
        for fact, verdict in zip(facts, answer.verdicts, strict=True):
            self._known.take(fact.source, verdict)

    async def _change(self, facts: Sequence[Fact]) -> None:
        """Of each batch: two are amended, one of these cancelled, another erased."""
        for fact in facts[:2]:
            amended = Fact()
            amended.CopyFrom(fact)
            amended.revision, amended.attendance.maximum = 2, fact.attendance.maximum + 100
            request = AmendFactRequest(declarer=DECLARER, fact=amended)
            await self._single("AmendFact", request, fact)
        for fact in facts[:1]:
            cancel = CancelFactRequest(
                declarer=DECLARER, key=_key(fact), revision=3, reason=CANCELLATION_REASON_WITHDRAWN
            )
            await self._single("CancelFact", cancel, fact)
        for fact in facts[1:3]:
            erase = EraseFactRequest(declarer=DECLARER, key=_key(fact), reason=ERASURE_REASON_LEGAL_ORDER)
            await self._single("EraseFact", erase, fact)
            self._known.erased.add((fact.source, fact.source_id))

    async def _single(self, method: str, request: Any, fact: Fact) -> None:
        answer = await self._until_answered(method, request)
        self._known.take(fact.source, answer.verdict)

    async def _until_answered(self, method: str, request: Any) -> Any:
        call: Callable[..., Awaitable[Any]] = getattr(self._stub, method)
        while True:
            try:
                answer = await call(request, timeout=DEADLINE)
            except Problem as problem:
                self._known.fail(method, problem)
                self._known.again += 1
                await asyncio.sleep(PAUSE)
            else:
                self._known.receipts.append(answer.release.receipt)
                return answer


def marches(seed: int, count: int) -> Iterator[Fact]:
    """Routes of the Préfecture across Marseille, the same for the same seed."""
    random = Random(f"marches-{seed}")  # noqa: S311 -- repeatable
    for number in range(count):
        fact = Fact(source="demonstrations", source_id=f"C{seed}-{number:06d}", revision=1, kind="PROTEST_MARCH")
        fact.status = FACT_STATUS_DECLARED
        longitude, latitude = 5.36 + random.random() * 0.03, 43.27 + random.random() * 0.03
        for step in range(3):
            fact.geometry.line.points.add(longitude=longitude + step * 0.003, latitude=latitude + step * 0.002)
        fact.attendance.minimum, fact.attendance.maximum = 100, 500
        period = fact.periods.add()
        period.start.seconds = int(DAY.timestamp()) - random.randrange(30 * 86_400)
        period.end.seconds = period.start.seconds + 7_200
        yield fact


def _chunks(facts: Iterator[Fact]) -> Iterator[list[Fact]]:
    while batch := list(itertools.islice(facts, BATCH)):
        yield batch


def _request(facts: Sequence[Fact]) -> DeclareFactsRequest:
    return DeclareFactsRequest(declarer=DECLARER, facts=facts)


def _key(fact: Fact) -> FactKey:
    return FactKey(source=fact.source, source_id=fact.source_id)
