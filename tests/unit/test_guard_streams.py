"""A stream: recorded when opened, at each lease and when closed; access saying no, or nothing, closes it."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable

import grpc
import pytest
from planier.access.v1.access_pb2 import CheckItem, CheckVerdict
from planier.audit.v1.audit_pb2 import ReplayRequest, ReplayResponse
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.event_pb2 import ReadEventsRequest, ReadEventsResponse
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, Receipt

from services.kernel.errors import Problem, precondition
from services.kernel.guard.ports import Decision
from services.kernel.guard.receipts import verify_receipt
from services.kernel.guard.streams import Pace
from services.kernel.rpc.call import Call
from tests.fixtures.guard import LOG_KEY, Bench, consultation, deny, held, no_log, permit, receipt_for, turns

REQUEST = ReplayRequest(consultation=consultation(PURPOSE_OVERSIGHT))
# Fast turns; what is measured is the order of things.
PACE = Pace(recheck=0.001, answer=1.0, lease=300.0, renew_before=30.0)


class Source:
    """A handler whose messages a test sends one by one."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[ReplayResponse | Exception | None] = asyncio.Queue()
        self.stopped = False
        self.described: list[str] = []

    def put(self, *sizes: int) -> None:
        for size in sizes:
            self.queue.put_nowait(ReplayResponse(tree_size=size))

    async def replay(self, _: ReplayRequest, call: Call) -> AsyncGenerator[ReplayResponse, None]:
        call.data.sources.extend(self.described)
        try:
            while (message := await self.queue.get()) is not None:
                if isinstance(message, Exception):
                    raise message
                call.data.count += 1
                yield message
        finally:
            self.stopped = True


def opened(bench: Bench, source: Source) -> AsyncGenerator[bytes, None]:
    return bench.guard.stream(bench.call("Replay"), REQUEST, source.replay)


async def silence(_: CheckItem) -> Decision:
    await asyncio.Event().wait()
    raise AssertionError


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110 -- what is awaited happens inside the guard
            await asyncio.sleep(0.001)


async def until_closed(stream: AsyncGenerator[bytes, None]) -> Problem:
    with pytest.raises(Problem) as closed:
        async with asyncio.timeout(5):
            await anext(stream)
    return closed.value


async def test_nothing_leaves_before_the_opening_is_durable() -> None:
    bench, source = Bench(service="audit"), Source()
    source.put(1)
    bench.gate.clear()

    async def first_of(stream: AsyncGenerator[bytes, None]) -> bytes:
        return await anext(stream)

    first = asyncio.create_task(first_of(opened(bench, source)))
    await held(first, bench.log)
    bench.gate.set()
    await first
    assert bench.steps[:2] == ["check", "STREAM_OPENED"]
    await bench.guard.close()


async def test_a_stream_from_opening_to_closing() -> None:
    bench, source = Bench(service="audit"), Source()
    source.put(5, 6, 7)
    source.queue.put_nowait(None)
    answers = [answer async for answer in opened(bench, source)]
    opening, closing = bench.log.records
    mark = ReplayResponse.FromString(answers[0]).release
    verify_receipt(mark.receipt, LOG_KEY.public_key())
    assert mark.receipt.record_id == opening.record_id
    assert answers[1:] == [ReplayResponse(tree_size=size).SerializeToString() for size in (6, 7)]
    assert opening.data.filters["lease_seconds"] == "300"
    assert (closing.continues_record_id, closing.refusal_reason) == (opening.record_id, "")
    assert (closing.data.count, closing.data.filters["messages"]) == (3, "3")
    sent = b"".join(ReplayResponse(tree_size=size).SerializeToString() for size in (5, 6, 7))
    assert closing.data.response_digest == hashlib.sha256(sent).digest()


async def test_the_closing_states_what_left_not_what_was_prepared() -> None:
    bench, source = Bench(service="audit"), Source()
    source.put(1, 2, 3)
    stream = opened(bench, source)
    await anext(stream)
    await stream.aclose()
    closing = bench.log.records[-1]
    assert (closing.data.count, closing.refusal_reason) == (1, "CANCELLED")
    assert source.stopped


async def test_a_stream_without_messages_still_bears_its_mark() -> None:
    bench, source = Bench(service="audit"), Source()
    source.queue.put_nowait(None)
    (answer,) = [answer async for answer in opened(bench, source)]
    assert ReplayResponse.FromString(answer).release.receipt.record_id == bench.log.records[0].record_id


async def test_without_an_opening_nothing_leaves() -> None:
    bench, source = Bench(service="audit"), Source()
    source.put(1)
    bench.log.answer = no_log
    assert (await until_closed(opened(bench, source))).reason == "RECORD_UNAVAILABLE"
    assert source.stopped


async def test_a_refusal_before_the_first_message_is_recorded_as_one() -> None:
    bench, source = Bench(service="audit"), Source()
    source.queue.put_nowait(precondition("LOG_EMPTY", "nothing yet"))
    problem = await until_closed(opened(bench, source))
    (record,) = bench.log.records
    assert (problem.reason, record.refusal_reason) == ("LOG_EMPTY", "LOG_EMPTY")
    assert bench.steps == ["check", "REFUSAL"]


async def test_the_opening_says_what_is_looked_at_and_so_does_its_refusal() -> None:
    bench, source = Bench(service="audit"), Source()
    source.described = ["cortege"]
    source.put(1)
    stream = opened(bench, source)
    await anext(stream)
    assert list(bench.log.records[0].data.sources) == ["cortege"]
    assert bench.log.records[0].data.count == 1
    await stream.aclose()
    source.queue.put_nowait(precondition("LOG_EMPTY", "nothing yet"))
    await until_closed(opened(bench, source))
    assert list(bench.log.records[-1].data.sources) == ["cortege"]


async def test_an_opening_whose_record_takes_longer_than_its_permit_is_refused_and_recorded_so() -> None:
    bench, source = Bench(service="audit"), Source()
    source.put(1)

    def slow(record: AccessRecord) -> Receipt:
        bench.clock.advance(2.1)
        return receipt_for(record)

    bench.log.answer = slow
    assert (await until_closed(opened(bench, source))).reason == "PERMIT_LAPSED"
    assert bench.steps == ["check", "STREAM_OPENED", "REFUSAL"]
    opening, refusal = bench.log.records
    assert (refusal.continues_record_id, refusal.refusal_reason) == (opening.record_id, "PERMIT_LAPSED")


async def test_a_stream_whose_lease_ended_while_its_opening_was_recorded_releases_nothing() -> None:
    bench = Bench(service="audit", pace=Pace(recheck=0.001, answer=1.0, lease=1.0, renew_before=0.5))
    source = Source()
    source.put(1)

    def slow(record: AccessRecord) -> Receipt:
        bench.clock.advance(1.5)
        return receipt_for(record)

    bench.log.answer = slow
    assert (await until_closed(opened(bench, source))).reason == "RECORD_UNAVAILABLE"


async def test_a_denied_opening_never_reaches_the_handler() -> None:
    bench, source = Bench(service="audit"), Source()
    bench.access.verdict = deny
    assert (await until_closed(opened(bench, source))).code == grpc.StatusCode.PERMISSION_DENIED
    assert bench.steps == ["check", "REFUSAL"]


async def test_a_revocation_closes_a_stream_that_waits() -> None:
    bench, source = Bench(service="audit", pace=PACE), Source()
    source.put(1)
    stream = opened(bench, source)
    await anext(stream)
    bench.access.verdict = deny
    problem = await until_closed(stream)
    assert (problem.reason, problem.clause) == ("ACCESS_DENIED", "art9.term")
    closing = bench.log.records[-1]
    assert (closing.refusal_reason, closing.decision.permit) == ("ACCESS_DENIED", False)
    assert list(closing.decision.clauses) == ["art9.term"]
    assert source.stopped


async def test_a_stream_that_may_see_less_is_closed() -> None:
    bench, source = Bench(service="audit", pace=PACE), Source()
    source.put(1)
    stream = opened(bench, source)
    await anext(stream)

    def less(item: CheckItem) -> CheckVerdict:
        verdict = permit(item)
        verdict.instruments[0].sources.remove("works")
        return verdict

    bench.access.verdict = less
    assert (await until_closed(stream)).reason == "ACCESS_NARROWED"


async def test_no_answer_closes_every_stream() -> None:
    bench, source = Bench(service="audit", pace=Pace(recheck=0.001, answer=0.01)), Source()
    source.put(1)
    streams = [opened(bench, source)]
    await anext(streams[0])
    bench.access.check = silence  # type: ignore[assignment, method-assign]
    assert (await until_closed(streams[0])).reason == "CHECK_UNAVAILABLE"


async def test_all_open_streams_are_asked_in_one_turn() -> None:
    bench = Bench(service="audit", pace=PACE)
    waves: list[int] = []
    asked: list[CheckItem] = []
    check = bench.access.check

    async def counting(item: CheckItem) -> Decision:
        asked.append(item)
        if len(asked) == 1:
            asyncio.get_running_loop().call_soon(lambda: waves.append(len(asked)))
        return await check(item)

    streams = []
    for size in range(3):
        source = Source()
        source.put(size)
        streams.append(opened(bench, source))
        await anext(streams[-1])
    bench.access.check = counting  # type: ignore[method-assign]
    await until(lambda: bool(waves))
    assert waves == [3]
    await bench.guard.close()


async def test_a_permit_that_nobody_confirmed_for_two_seconds_releases_nothing() -> None:
    bench, source = Bench(service="audit"), Source()
    source.put(1, 2)
    stream = opened(bench, source)
    await anext(stream)
    bench.access.check = silence  # type: ignore[assignment, method-assign]
    bench.clock.advance(2.1)
    closed = await until_closed(stream)
    assert (closed.code, closed.reason) == (grpc.StatusCode.UNAVAILABLE, "PERMIT_LAPSED")
    assert bench.log.records[-1].data.count == 1


async def test_a_lease_is_renewed_by_a_record() -> None:
    bench, source = Bench(service="audit", pace=PACE), Source()
    source.put(1)
    stream = opened(bench, source)
    await anext(stream)
    for _ in range(2):
        before = len(bench.log.records)
        bench.clock.advance(271)
        await until(lambda before=before: len(bench.log.records) > before)  # type: ignore[misc]
        await turns()
    # A turn of re-checks under the new time, then the stream goes on.
    asked = len(bench.access.items)
    await until(lambda: len(bench.access.items) >= asked + 2)
    source.put(2)
    await anext(stream)
    opening, *renewals = bench.log.records
    assert [AccessRecord.FromString(one.SerializeToString()).kind for one in renewals] == [5, 5]
    assert {one.continues_record_id for one in renewals} == {opening.record_id}
    await bench.guard.close()


async def test_a_lease_that_cannot_be_renewed_closes_the_stream() -> None:
    bench, source = Bench(service="audit", pace=PACE), Source()
    source.put(1)
    stream = opened(bench, source)
    await anext(stream)
    bench.log.answer = no_log
    bench.clock.advance(301)
    assert (await until_closed(stream)).reason == "RECORD_UNAVAILABLE"


async def test_past_its_lease_a_stream_releases_nothing_while_the_log_hesitates() -> None:
    bench, source = Bench(service="audit", pace=PACE), Source()
    source.put(1)
    stream = opened(bench, source)
    await anext(stream)
    bench.gate.clear()
    bench.clock.advance(301)
    asked = len(bench.access.items)
    await until(lambda: len(bench.access.items) >= asked + 2)
    source.put(2)
    closing = asyncio.create_task(until_closed(stream))
    await until(source.queue.empty)
    bench.gate.set()
    assert (await closing).reason == "RECORD_UNAVAILABLE"
    assert bench.log.records[-1].data.count == 1


async def test_stopping_records_each_closing() -> None:
    bench, source = Bench(service="audit"), Source()
    source.put(1, 2)
    stream = opened(bench, source)
    await anext(stream)
    await bench.guard.close()
    assert bench.log.records[-1].refusal_reason == "SHUTTING_DOWN"
    assert (await until_closed(stream)).reason == "SHUTTING_DOWN"
    assert bench.steps.count("STREAM_CLOSED") == 1


async def test_a_stream_between_services_is_not_recorded() -> None:
    bench = Bench(service="ingest")

    async def events(_: ReadEventsRequest, call: Call) -> AsyncGenerator[ReadEventsResponse, None]:
        yield ReadEventsResponse(caught_up=True)

    invocation = bench.call("ReadEvents", caller="spiffe://planier/analytics")
    (answer,) = [one async for one in bench.guard.stream(invocation, ReadEventsRequest(), events)]
    assert ReadEventsResponse.FromString(answer).caught_up
    with pytest.raises(Problem, match="CALLER_NOT_ALLOWED"):
        await anext(bench.guard.stream(bench.call("ReadEvents"), ReadEventsRequest(), events))
    assert bench.log.records == []


@pytest.mark.parametrize("slower", [{"recheck": 0.6}, {"answer": 1.1}, {"lease": 301.0}])
def test_no_stream_is_watched_more_slowly_than_promised(slower: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="every 500 ms"):
        Pace(**slower)
