"""The path of a call over a real connection: what comes in, what is refused and how, what order is kept."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from planier.common.v1.event_pb2 import ReadEventsRequest
from planier.ingest.v1 import events_pb2, ingest_pb2_grpc
from planier.ingest.v1 import ingest_pb2 as pb

from services.kernel.errors import Problem
from services.kernel.rpc.handlers import MOST_IN_FLIGHT
from services.kernel.rpc.server import Server
from services.kernel.rpc.tls import TlsFiles
from services.kernel.telemetry import Telemetry
from tests.fixtures.rpc import CLIENT_NAME, SERVER_NAME, OpenDoor, certificates, channel_to, raw_channel_to, served
from tests.fixtures.rpc_ingest import EVENTS, LEAK, REFUSED_CLAUSE, WireServicer, batch, declarer, key

SERVICE = pb.DESCRIPTOR.services_by_name["IngestService"]
DECLARE = f"/{SERVICE.full_name}/DeclareFacts"


@dataclass
class Wire:
    server: Server
    port: int
    servicer: WireServicer
    guard: OpenDoor
    stub: ingest_pb2_grpc.IngestServiceStub
    channel: grpc.aio.Channel
    client: TlsFiles


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    files = certificates(tmp_path, SERVER_NAME, CLIENT_NAME)
    servicer, guard, telemetry = WireServicer(), OpenDoor(), Telemetry.off()
    async with (
        served(files(SERVER_NAME), SERVICE, servicer, guard, telemetry) as (server, port),
        channel_to(port, files(CLIENT_NAME), telemetry) as channel,
    ):
        stub: Any = ingest_pb2_grpc.IngestServiceStub(channel)
        yield Wire(server, port, servicer, guard, stub, channel, files(CLIENT_NAME))


def bytes_call(channel: grpc.aio.Channel) -> Any:
    call: Any = channel.unary_unary(DECLARE)
    return call


async def raw_call(wire: Wire, data: bytes, **options: Any) -> grpc.aio.AioRpcError:
    async with raw_channel_to(wire.port, wire.client) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bytes_call(channel)(data, **options)
        return refused.value


def info_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_pb2.Status.FromString(details).details)
    return info


async def test_an_answer_comes_back_and_the_caller_is_who_the_certificate_says(wire: Wire) -> None:
    answer = await wire.stub.DeclareFacts(batch("A", "B"), timeout=5, metadata=[("authorization", "Bearer t0ken")])
    assert [verdict.fact_id for verdict in answer.verdicts] == ["A", "B"]
    invocation = wire.guard.invocations[-1]
    assert invocation.caller == "spiffe://planier/cortege"
    assert invocation.token == "t0ken"  # noqa: S105 -- nobody's
    assert invocation.method.path == DECLARE
    assert invocation.peer.startswith("ipv4:127.0.0.1:")
    assert len(invocation.trace_id) == 32


async def test_a_call_without_deadline_is_refused(wire: Wire) -> None:
    error = await raw_call(wire, batch("A").SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info_of(error).reason == "DEADLINE_MISSING"
    assert info_of(error).domain == "planier"
    assert wire.servicer.entered == 0


async def test_our_client_does_not_even_send_a_call_without_timeout(wire: Wire) -> None:
    with pytest.raises(Problem) as refused:
        await wire.stub.DeclareFacts(batch("A"))
    assert refused.value.reason == "DEADLINE_MISSING"
    with pytest.raises(Problem):
        wire.stub.ReadEvents(ReadEventsRequest())


async def test_bytes_that_are_no_message_are_malformed(wire: Wire) -> None:
    error = await raw_call(wire, b"\xff\xff\xff", timeout=5)
    assert (error.code(), info_of(error).reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")


async def test_broken_rules_name_their_fields_and_never_their_values(wire: Wire) -> None:
    request = pb.AmendFactRequest(declarer=pb.Declarer(agent_reference="bad reference!"))
    request.fact.source = "works"
    request.fact.title = LEAK * 10
    request.fact.periods.add(start={"seconds": 20}, end={"seconds": 10})
    with pytest.raises(Problem) as refused:
        await wire.stub.AmendFact(request, timeout=5)
    problem = refused.value
    assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")
    violations = {violation.field: violation.rule for violation in problem.violations}
    assert violations["fact.periods[0]"] == "period.order"
    assert violations["fact.title"] == "string.max_len"
    assert violations["declarer.agent_reference"] == "string.pattern"
    assert LEAK not in repr(problem)
    assert "bad reference" not in repr(problem)


async def test_a_refusal_arrives_with_its_clause_and_leaves_a_log_line(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    request = pb.CancelFactRequest(
        declarer=declarer(), key=key(), revision=2, reason=events_pb2.CancellationReason.values()[1]
    )
    with caplog.at_level(logging.INFO), pytest.raises(Problem) as refused:
        await wire.stub.CancelFact(request, timeout=5)
    problem = refused.value
    assert (problem.code, problem.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PURPOSE_REFUSED")
    assert problem.clause == REFUSED_CLAUSE
    record = next(record for record in caplog.records if record.message == "call refused")
    assert vars(record)["trace_id"] == problem.metadata["trace_id"]
    assert vars(record)["reason"] == "PURPOSE_REFUSED"


async def test_nothing_internal_reaches_a_client(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    request = pb.EraseFactRequest(declarer=declarer(), key=key(), reason=events_pb2.ErasureReason.values()[1])
    with caplog.at_level(logging.ERROR), pytest.raises(Problem) as failed:
        await wire.stub.EraseFact(request, timeout=5)
    problem = failed.value
    assert (problem.code, problem.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert LEAK not in repr(problem)
    assert "ValueError" not in repr(problem)
    assert vars(caplog.records[-1])["trace_id"] == problem.metadata["trace_id"]


async def test_the_callers_trace_goes_on_in_the_handler(wire: Wire) -> None:
    traceparent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"
    async with raw_channel_to(wire.port, wire.client) as channel:
        await bytes_call(channel)(batch("A").SerializeToString(), timeout=5, metadata=(("traceparent", traceparent),))
    assert wire.guard.invocations[-1].trace_id == "0123456789abcdef0123456789abcdef"


async def test_a_stream_of_answers_ends_or_fails_as_the_handler_does(wire: Wire) -> None:
    runs = [answer async for answer in wire.stub.ReadEvents(ReadEventsRequest(), timeout=5)]
    assert [run.run.first_position for run in runs[:-1]] == list(range(1, EVENTS + 1))
    assert runs[-1].caught_up
    stream: Any = wire.stub.ReadEvents(ReadEventsRequest(after_position=1), timeout=5)
    assert [(await stream.read()).run.first_position for _ in range(EVENTS)] == list(range(1, EVENTS + 1))
    with pytest.raises(Problem) as refused:
        await stream.read()
    assert (refused.value.reason, refused.value.clause) == ("STREAM_CLOSED", REFUSED_CLAUSE)


async def test_a_client_that_leaves_ends_the_handlers_stream(wire: Wire) -> None:
    wire.servicer.gate.clear()
    stream: Any = wire.stub.ReadEvents(ReadEventsRequest(), timeout=30)
    await stream.read()
    stream.cancel()
    async with asyncio.timeout(10):
        await wire.servicer.stream_ended.wait()


async def test_batches_of_a_stream_are_answered_in_order_eight_at_once(wire: Wire) -> None:
    names = [f"F{number}" for number in range(50)]

    async def requests() -> AsyncIterator[pb.StreamFactsRequest]:
        for name in names:
            yield pb.StreamFactsRequest(batch=batch(name))

    answers = [answer async for answer in wire.stub.StreamFacts(requests(), timeout=30)]
    assert [answer.batch.verdicts[0].fact_id for answer in answers] == names
    assert 1 < wire.servicer.most_at_once <= MOST_IN_FLIGHT


async def test_a_stream_is_not_read_while_eight_batches_wait(wire: Wire) -> None:
    wire.servicer.gate.clear()
    stream: Any = wire.stub.StreamFacts(timeout=30)
    for number in range(MOST_IN_FLIGHT * 3):
        await stream.write(pb.StreamFactsRequest(batch=batch(f"F{number}")))
    await stream.done_writing()
    async with asyncio.timeout(10):
        await wire.servicer.full.wait()
    await asyncio.sleep(0.2)
    assert wire.servicer.entered == MOST_IN_FLIGHT
    wire.servicer.gate.set()
    assert len([answer async for answer in stream]) == MOST_IN_FLIGHT * 3


async def test_a_bad_batch_ends_its_stream_after_the_answers_before_it(wire: Wire) -> None:
    stream: Any = wire.stub.StreamFacts(timeout=30)
    await stream.write(pb.StreamFactsRequest(batch=batch("A")))
    await stream.write(pb.StreamFactsRequest())
    assert (await stream.read()).batch.verdicts[0].fact_id == "A"
    with pytest.raises(Problem) as refused:
        await stream.read()
    assert [violation.field for violation in refused.value.violations] == ["batch"]


async def test_draining_refuses_new_calls_and_finishes_those_under_way(wire: Wire) -> None:
    health: Any = health_pb2_grpc.HealthStub(wire.channel)
    serving = health_pb2.HealthCheckResponse
    assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status == serving.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE.full_name), timeout=30)
    assert (await watch.read()).status == serving.SERVING
    wire.servicer.gate.clear()
    under_way = asyncio.ensure_future(wire.stub.DeclareFacts(batch("A"), timeout=20))
    async with asyncio.timeout(10):
        await wire.servicer.first.wait()
    draining = asyncio.create_task(wire.server.drain(grace=15))
    assert (await watch.read()).status == serving.NOT_SERVING
    watch.cancel()
    async with raw_channel_to(wire.port, wire.client) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bytes_call(channel)(batch("B").SerializeToString(), timeout=2)
        assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    wire.servicer.gate.set()
    assert (await under_way).verdicts[0].fact_id == "A"
    await draining


async def test_a_servicer_that_lacks_a_method_does_not_start(wire: Wire, tmp_path: Path) -> None:
    files = certificates(tmp_path, SERVER_NAME)(SERVER_NAME)
    with pytest.raises(TypeError, match="DeclareFacts"):
        async with served(files, SERVICE, object(), OpenDoor(), Telemetry.off()):
            pass
