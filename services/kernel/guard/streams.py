"""Server streams that release facts: recorded when opened, at each lease and when closed, re-checked in between."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from planier.access.v1.access_pb2 import CheckItem
from planier.audit.v1.record_pb2 import (
    RECORD_KIND_STREAM_CLOSED,
    RECORD_KIND_STREAM_OPENED,
    RECORD_KIND_STREAM_RENEWED,
    AccessRecord,
    DataReference,
    RecordKind,
)

from services.kernel.clock import Clock, Ids
from services.kernel.errors import Problem, unavailable
from services.kernel.guard.admission import PERMIT_SECONDS, Admission, Admitter
from services.kernel.guard.decisions import covers, narrowing_of, refusal_of, state_decision
from services.kernel.guard.ports import Decision
from services.kernel.guard.records import Ledger, Monotonic, describe_data, record_unavailable, timestamp
from services.kernel.guard.release import marked, serialised
from services.kernel.rpc.call import Call, Invocation

RECHECK_SECONDS = 0.5
ANSWER_SECONDS = 1.0
LEASE_SECONDS = 300.0

# An async generator method of the servicer; it takes the request type of its own method.
StreamHandler = Callable[[Any, Call], AsyncGenerator[Message, None]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between two re-checks of all open streams, for their answer, of a lease, before its end to renew it."""

    recheck: float = RECHECK_SECONDS
    answer: float = ANSWER_SECONDS
    lease: float = LEASE_SECONDS
    renew_before: float = 30.0

    def __post_init__(self) -> None:
        """Refuses a pace slower than what is promised of streams."""
        if self.recheck > RECHECK_SECONDS or self.answer > ANSWER_SECONDS or self.lease > LEASE_SECONDS:
            raise ValueError("a stream is re-checked every 500 ms, closed after 1 s, leased for 5 minutes at most")


class _Stream:
    """One open stream: until when it may release, what it released, and why it must end."""

    def __init__(
        self, call: Call, admission: Admission, item: CheckItem, confirmed_at: float, lease_until: float
    ) -> None:
        self.call = call
        self.record = admission.record
        self.grant = admission.grant
        self.item = item
        self.decision: Decision | None = None
        self.confirmed_at = confirmed_at
        self.lease_until = lease_until
        self.end: asyncio.Future[Problem] = asyncio.get_running_loop().create_future()
        self.renewal: asyncio.Task[None] | None = None
        self.sent = DataReference()
        self._digest = hashlib.sha256()
        self._messages = 0

    def close(self, problem: Problem) -> None:
        """Lets nothing more out."""
        if not self.end.done():
            self.end.set_result(problem)

    def require_open(self, now: float) -> None:
        """Refuses to release outside a confirmed permit and a recorded lease.

        Raises:
            Problem: why the stream must end.
        """
        if self.end.done():
            raise self.end.result()
        if now - self.confirmed_at > PERMIT_SECONDS:
            raise unavailable(
                "PERMIT_LAPSED", "the stream's permit was not confirmed in time; open it again", "default.deny"
            )
        if now >= self.lease_until:
            raise record_unavailable()

    async def next(self, answers: AsyncGenerator[Message, None]) -> Message | None:
        """The handler's next message, None at its end; a stream that must close does not wait for it.

        Raises:
            Problem: the handler's own, or why the stream must end.
        """
        coming = asyncio.create_task(_next(answers))
        either: set[asyncio.Future[Any]] = {coming, self.end}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait({coming})
        if self.end.done():
            raise self.end.result()
        return coming.result()

    def tally(self, body: bytes) -> None:
        """Counts a message just before it leaves: what is recorded at closing is at least what was sent."""
        self._digest.update(body)
        self._messages += 1
        self.sent.CopyFrom(self.call.data)
        self.sent.response_digest = self._digest.digest()
        self.sent.filters["messages"] = str(self._messages)


class Streams:
    """Every open stream of this process, and the one loop that re-checks them together."""

    def __init__(
        self, admitter: Admitter, ledger: Ledger, clock: Clock, ids: Ids, monotonic: Monotonic, pace: Pace
    ) -> None:
        self._admitter = admitter
        self._ledger = ledger
        self._clock = clock
        self._ids = ids
        self._monotonic = monotonic
        self._pace = pace
        self._open: set[_Stream] = set()
        self._watch: asyncio.Task[None] | None = None
        self._writing: set[asyncio.Task[None]] = set()

    async def serve(
        self, invocation: Invocation, request: Message, handler: StreamHandler
    ) -> AsyncGenerator[bytes, None]:
        """The handler's messages as bytes, each released only while the permit and the lease hold.

        Raises:
            Problem: refused at the opening (recorded as such); the handler's own, later; or why the stream was closed.
        """
        admission = await self._admitter.admit(invocation, request)
        call = Call(invocation, admission.grant)
        async with aclosing(handler(request, call)) as answers:
            body = await self._first(answers, call, admission)
            stream, mark = await self._opened(call, admission)
            reason = "CANCELLED"
            try:
                stream.require_open(self._monotonic())
                stream.tally(body)
                yield body + mark
                while (answer := await stream.next(answers)) is not None:
                    body = serialised(admission.method, answer)
                    stream.require_open(self._monotonic())
                    stream.tally(body)
                    yield body
                reason = ""
            except Exception as error:
                reason = error.reason if isinstance(error, Problem) else "INTERNAL"
                raise
            finally:
                await self._finish(stream, reason)

    async def close(self) -> None:
        """Closes every stream, its closing recorded."""
        for stream in tuple(self._open):
            stream.close(unavailable("SHUTTING_DOWN", "the service is stopping; open the stream again"))
            await self._finish(stream, "SHUTTING_DOWN")
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        if self._writing:
            await asyncio.wait(self._writing)

    async def _first(self, answers: AsyncGenerator[Message, None], call: Call, admission: Admission) -> bytes:
        """The first message, which the handler makes before the opening is recorded, and nobody sees until then."""
        try:
            first = await _next(answers)
            return b"" if first is None else serialised(admission.method, first)
        except Exception as error:
            describe_data(admission.record, call.data, call.data_position, call.disclosure)
            await self._ledger.refuse(admission.record, error)
            raise

    async def _opened(self, call: Call, admission: Admission) -> tuple[_Stream, bytes]:
        if admission.item is None or admission.decided_at is None:
            raise TypeError("a stream is opened on a decision of access")
        record = admission.record
        describe_data(record, call.data, call.data_position, call.disclosure)
        record.data.filters["lease_seconds"] = f"{self._pace.lease:g}"
        record.kind = RECORD_KIND_STREAM_OPENED
        lease_until = self._monotonic() + self._pace.lease
        receipt = await self._ledger.write(record)
        await self._admitter.require_fresh(admission)
        stream = _Stream(call, admission, admission.item, admission.decided_at, lease_until)
        self._open.add(stream)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_all())
        return stream, marked(admission.method, receipt, record, call.data_position)

    async def _finish(self, stream: _Stream, reason: str) -> None:
        if stream not in self._open:
            return
        self._open.discard(stream)
        record = self._following(stream, RECORD_KIND_STREAM_CLOSED)
        record.refusal_reason = reason
        writing = asyncio.create_task(self._write_closing(record))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        # A caller who hangs up must not take the closing record along.
        await asyncio.shield(writing)

    async def _write_closing(self, record: AccessRecord) -> None:
        try:
            await self._ledger.write(record)
        except Problem as problem:
            # The opening stands in the log as the upper bound of what was seen.
            _log.error("a stream's closing could not be recorded", extra={"reason": problem.reason})

    async def _watch_all(self) -> None:
        while self._open:
            began = self._monotonic()
            # Asked in one turn of the loop, so that they leave in one message.
            await asyncio.gather(*(self._recheck(stream) for stream in tuple(self._open)))
            self._renew_due(began)
            await asyncio.sleep(max(0.0, self._pace.recheck - (self._monotonic() - began)))

    async def _recheck(self, stream: _Stream) -> None:
        asked_at = self._monotonic()
        item = CheckItem()
        item.CopyFrom(stream.item)
        item.check_id = self._ids.new()
        item.decision_time.CopyFrom(timestamp(self._clock.now()))
        try:
            async with asyncio.timeout(self._pace.answer):
                decision = await self._admitter.check(item)
        except (Problem, TimeoutError):
            stream.close(unavailable("CHECK_UNAVAILABLE", "the stream's permit could not be confirmed"))
            return
        stream.item, stream.decision = item, decision
        if not decision.verdict.permit:
            stream.close(refusal_of(decision.verdict))
        elif not covers(decision.verdict, stream.grant):
            stream.close(narrowing_of(decision.verdict))
        else:
            stream.confirmed_at = asked_at

    def _renew_due(self, now: float) -> None:
        for stream in self._open:
            due = now >= stream.lease_until - self._pace.renew_before
            if due and not stream.end.done() and (stream.renewal is None or stream.renewal.done()):
                stream.renewal = asyncio.create_task(self._renew(stream))

    async def _renew(self, stream: _Stream) -> None:
        began = self._monotonic()
        try:
            await self._ledger.write(self._following(stream, RECORD_KIND_STREAM_RENEWED))
        except Problem:
            # Tried again at the next turn; past its lease the stream releases nothing.
            if self._monotonic() >= stream.lease_until:
                stream.close(record_unavailable())
            return
        stream.lease_until = began + self._pace.lease

    def _following(self, stream: _Stream, kind: RecordKind.ValueType) -> AccessRecord:
        record = self._ledger.continuing(stream.record, kind)
        describe_data(record, stream.sent, stream.call.data_position)
        if stream.decision is not None:
            state_decision(record, stream.item, stream.decision)
        return record


async def _next(answers: AsyncGenerator[Message, None]) -> Message | None:
    try:
        return await anext(answers)
    except StopAsyncIteration:
        return None
