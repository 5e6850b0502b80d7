"""A write: check, record the attempt, write, acknowledge; one message of a stream of batches is one write."""

import asyncio

import grpc
import pytest
from google.protobuf.message import Message
from planier.access.v1.access_pb2 import LoginRequest, LoginResponse
from planier.audit.v1.record_pb2 import RECORD_KIND_ATTEMPT, RECORD_KIND_REFUSAL, AccessRecord
from planier.common.v1.fact_pb2 import Fact
from planier.common.v1.release_pb2 import Receipt
from planier.ingest.v1.ingest_pb2 import (
    DeclareFactsRequest,
    DeclareFactsResponse,
    Declarer,
    StreamFactsRequest,
    StreamFactsResponse,
)

from services.kernel.errors import Problem, conflict, precondition, unauthenticated
from services.kernel.guard.early import Handler
from services.kernel.rpc.call import Call, Invocation
from tests.fixtures.guard import CORTEGE, Bench, held, no_log, receipt_for

BATCH = DeclareFactsRequest(
    declarer=Declarer(agent_reference="agent:12"), facts=[Fact(source="markets", source_id=str(n)) for n in range(3)]
)
UNARY = ("DeclareFacts", BATCH, DeclareFactsResponse())
UNIT = ("StreamFacts", StreamFactsRequest(batch=BATCH), StreamFactsResponse())
LOGIN = ("Login", LoginRequest(id_token="x"), LoginResponse())


def describe(request: DeclareFactsRequest, call: Call) -> None:
    call.data.count = len(request.facts)
    call.data.references.extend(fact.source_id for fact in request.facts)


def writes(bench: Bench, answer: Message, calls: list[Call] | None = None) -> Handler:
    async def write(_: Message, call: Call) -> Message:
        bench.steps.append("write")
        if calls is not None:
            calls.append(call)
        return answer

    return write


def refuses(bench: Bench, problem: Problem) -> Handler:
    async def write(_: Message, call: Call) -> Message:
        bench.steps.append("write")
        raise problem

    return write


def invoke(bench: Bench, name: str) -> Invocation:
    return bench.call(name, token="", caller=CORTEGE)


@pytest.mark.parametrize(("name", "request_", "answer"), [UNARY, UNIT, LOGIN])
async def test_nothing_is_written_before_the_attempt_is_durable(name: str, request_: Message, answer: Message) -> None:
    bench = Bench(service="ingest")
    bench.gate.clear()
    task = asyncio.create_task(bench.guard.unary(invoke(bench, name), request_, writes(bench, answer)))
    await held(task, bench.log)
    assert "write" not in bench.steps
    bench.gate.set()
    await task
    assert bench.steps[-2:] == ["ATTEMPT", "write"]


@pytest.mark.parametrize(("name", "request_", "answer"), [UNARY, UNIT])
async def test_the_attempt_says_what_is_written_and_the_write_bears_its_id(
    name: str, request_: Message, answer: Message
) -> None:
    bench = Bench(service="ingest")
    calls: list[Call] = []

    def described(request: DeclareFactsRequest | StreamFactsRequest, call: Call) -> None:
        describe(request.batch if isinstance(request, StreamFactsRequest) else request, call)

    body = await bench.guard.unary(invoke(bench, name), request_, writes(bench, answer, calls), described)
    (record,) = bench.log.records
    assert record.kind == RECORD_KIND_ATTEMPT
    assert (record.data.count, list(record.data.references)) == (3, ["0", "1", "2"])
    assert (record.actor.certificate_identity, record.actor.agent_reference) == (CORTEGE, "agent:12")
    assert calls[0].granted.record_id == record.record_id
    assert type(answer).FromString(body).release.receipt.record_id == record.record_id  # type: ignore[attr-defined]


async def test_a_description_may_wait() -> None:
    bench = Bench(service="ingest")

    async def later(request: DeclareFactsRequest, call: Call) -> None:
        await asyncio.sleep(0)
        describe(request, call)

    await bench.guard.unary(invoke(bench, "DeclareFacts"), BATCH, writes(bench, UNARY[2]), later)
    assert bench.log.records[0].data.count == 3


async def test_without_a_record_nothing_is_written() -> None:
    bench = Bench(service="ingest")
    bench.log.answer = no_log
    with pytest.raises(Problem, match="RECORD_UNAVAILABLE"):
        await bench.guard.unary(invoke(bench, "DeclareFacts"), BATCH, writes(bench, UNARY[2]))
    assert "write" not in bench.steps


async def test_a_permit_that_lapsed_while_recording_writes_nothing() -> None:
    bench = Bench(service="ingest")

    def slow(record: AccessRecord) -> Receipt:
        bench.clock.advance(2.1)
        return receipt_for(record)

    bench.log.answer = slow
    with pytest.raises(Problem, match="PERMIT_LAPSED") as lapsed:
        await bench.guard.unary(invoke(bench, "DeclareFacts"), BATCH, writes(bench, UNARY[2]))
    # A declaring system asks again where something was unavailable, never where it was denied.
    assert lapsed.value.code == grpc.StatusCode.UNAVAILABLE
    assert bench.steps == ["check", "ATTEMPT", "REFUSAL"]


async def test_a_long_write_is_still_acknowledged() -> None:
    bench = Bench(service="ingest")

    async def long(_: Message, call: Call) -> Message:
        bench.clock.advance(10)
        return DeclareFactsResponse()

    assert await bench.guard.unary(invoke(bench, "DeclareFacts"), BATCH, long)


async def test_what_cannot_be_described_is_not_written() -> None:
    bench = Bench(service="ingest")

    def broken(request: DeclareFactsRequest, call: Call) -> None:
        raise precondition("ANNEX_MISSING", "no annex")

    with pytest.raises(Problem, match="ANNEX_MISSING"):
        await bench.guard.unary(invoke(bench, "DeclareFacts"), BATCH, writes(bench, UNARY[2]), broken)
    assert bench.steps == ["check", "REFUSAL"]


async def test_a_handlers_refusal_continues_the_attempt_before_it_is_told() -> None:
    bench = Bench(service="access")
    gate = bench.gate

    async def login(_: Message, call: Call) -> Message:
        gate.clear()
        bench.log.asked.clear()
        raise unauthenticated("ID_TOKEN_INVALID", "not valid")

    task = asyncio.create_task(bench.guard.unary(invoke(bench, "Login"), LOGIN[1], login))
    await held(task, bench.log)
    assert bench.steps == ["ATTEMPT"]
    gate.set()
    with pytest.raises(Problem) as refused:
        await task
    attempt, refusal = bench.log.records
    assert (refusal.kind, refusal.refusal_reason) == (RECORD_KIND_REFUSAL, "ID_TOKEN_INVALID")
    assert refusal.continues_record_id == attempt.record_id
    assert refused.value.metadata["record_id"] == refusal.record_id != attempt.record_id


async def test_a_handlers_refusal_that_cannot_be_recorded_is_not_told() -> None:
    bench = Bench(service="access")

    async def login(_: Message, call: Call) -> Message:
        bench.log.answer = no_log
        raise unauthenticated("ID_TOKEN_INVALID", "not valid")

    with pytest.raises(Problem, match="RECORD_UNAVAILABLE"):
        await bench.guard.unary(invoke(bench, "Login"), LOGIN[1], login)


async def test_a_write_that_fails_for_another_reason_stays_an_attempt() -> None:
    bench = Bench(service="ingest")
    with pytest.raises(Problem) as refused:
        await bench.guard.unary(
            invoke(bench, "DeclareFacts"), BATCH, refuses(bench, conflict("REVISION_CONFLICT", "other body"))
        )
    assert refused.value.code == grpc.StatusCode.ALREADY_EXISTS
    assert bench.steps == ["check", "ATTEMPT", "write"]


async def test_a_handler_that_decides_itself_holds_a_grant_without_any_source() -> None:
    bench = Bench(service="access")
    calls: list[Call] = []
    await bench.guard.unary(invoke(bench, "Login"), LOGIN[1], writes(bench, LOGIN[2], calls))
    assert calls[0].granted.sources == frozenset()
    assert bench.access.items == []
