# ruff: noqa: ARG002 -- the methods have the shape that the server calls
"""What the client does by itself: repeat what may be repeated, name what went wrong, pass the trace on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from planier.access.v1 import access_pb2
from planier.analytics.v1 import analytics_pb2
from planier.audit.v1 import audit_pb2
from planier.common.v1 import guard_pb2
from planier.ingest.v1 import ingest_pb2 as pb
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub

from services.kernel.errors import Problem, unavailable
from services.kernel.rpc.call import Invocation
from services.kernel.rpc.retries import IDEMPOTENT
from services.kernel.rpc.tls import TlsFiles
from services.kernel.telemetry import Telemetry
from tests.fixtures.rpc import CLIENT_NAME, SERVER_NAME, OpenDoor, certificates, channel_to, served
from tests.fixtures.rpc_ingest import WireServicer, batch, declarer, key

SERVICE = pb.DESCRIPTOR.services_by_name["IngestService"]
OFF = Telemetry.off()


class FailingTwice(OpenDoor):
    """The record cannot be written, twice."""

    async def unary(self, invocation: Invocation, request: Any, handler: Any, describe: Any = None) -> bytes:
        answer = await super().unary(invocation, request, handler, describe)
        if len(self.invocations) <= 2:
            raise unavailable("RECORD_UNAVAILABLE", "the access cannot be recorded")
        return answer


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], TlsFiles]:
    return certificates(tmp_path, SERVER_NAME, CLIENT_NAME)


async def test_an_idempotent_call_is_repeated_while_unavailable(files: Callable[[str], TlsFiles]) -> None:
    guard = FailingTwice()
    async with (
        served(files(SERVER_NAME), SERVICE, WireServicer(), guard, OFF) as (_, port),
        channel_to(port, files(CLIENT_NAME), OFF) as channel,
    ):
        answer = await IngestServiceStub(channel).DeclareFacts(batch("A"), timeout=10)
    assert answer.verdicts[0].fact_id == "A"
    assert len(guard.invocations) == 3


async def test_another_call_is_not(files: Callable[[str], TlsFiles]) -> None:
    guard = FailingTwice()
    request = pb.CancelFactRequest(declarer=declarer(), key=key(), revision=2, reason=1)  # type: ignore[arg-type]
    async with (
        served(files(SERVER_NAME), SERVICE, PermissiveServicer(), guard, OFF) as (_, port),
        channel_to(port, files(CLIENT_NAME), OFF) as channel,
    ):
        with pytest.raises(Problem) as refused:
            await IngestServiceStub(channel).CancelFact(request, timeout=10)
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.UNAVAILABLE, "RECORD_UNAVAILABLE")
    assert len(guard.invocations) == 1


class PermissiveServicer(WireServicer):
    async def CancelFact(self, request: pb.CancelFactRequest, call: object) -> Any:
        return pb.CancelFactResponse()


async def test_writing_to_a_stream_that_ended_is_the_problem_that_ended_it(files: Callable[[str], TlsFiles]) -> None:
    async with (
        served(files(SERVER_NAME), SERVICE, WireServicer(), FailingTwice(), OFF) as (_, port),
        channel_to(port, files(CLIENT_NAME), OFF) as channel,
    ):
        stub: Any = IngestServiceStub(channel)
        stream = stub.StreamFacts(timeout=10)
        await stream.write(pb.StreamFactsRequest(batch=batch("A")))
        with pytest.raises(Problem):
            await stream.read()
        with pytest.raises(Problem) as failed:
            await stream.write(pb.StreamFactsRequest(batch=batch("B")))
    assert (failed.value.code, failed.value.reason) == (grpc.StatusCode.UNAVAILABLE, "RECORD_UNAVAILABLE")


async def test_a_service_that_is_not_there_is_a_problem_without_addresses(files: Callable[[str], TlsFiles]) -> None:
    async with channel_to(1, files(CLIENT_NAME), OFF) as channel:
        with pytest.raises(Problem) as failed:
            await IngestServiceStub(channel).DeclareFacts(batch("A"), timeout=5)
    assert failed.value.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert failed.value.reason == failed.value.code.name
    assert "127.0.0.1" not in str(failed.value)


async def test_a_late_answer_is_a_problem(files: Callable[[str], TlsFiles]) -> None:
    servicer = WireServicer()
    servicer.gate.clear()
    async with (
        served(files(SERVER_NAME), SERVICE, servicer, OpenDoor(), OFF) as (_, port),
        channel_to(port, files(CLIENT_NAME), OFF) as channel,
    ):
        with pytest.raises(Problem) as failed:
            await IngestServiceStub(channel).DeclareFacts(batch("A"), timeout=0.5)
    assert failed.value.reason == "DEADLINE_EXCEEDED"


async def test_one_trace_goes_through_client_and_server(files: Callable[[str], TlsFiles]) -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    telemetry = Telemetry.recording(
        service="s", instance="i", ratio=1, processors=[SimpleSpanProcessor(spans)], readers=[reader]
    )
    guard = OpenDoor()
    async with (
        served(files(SERVER_NAME), SERVICE, WireServicer(), guard, telemetry) as (_, port),
        channel_to(port, files(CLIENT_NAME), telemetry) as channel,
    ):
        await IngestServiceStub(channel).DeclareFacts(batch("A"), timeout=10)
    by_kind = {span.kind: span for span in spans.get_finished_spans()}
    server, client = by_kind[SpanKind.SERVER], by_kind[SpanKind.CLIENT]
    assert server.parent is not None
    assert client.context is not None
    assert server.parent.span_id == client.context.span_id
    assert guard.invocations[0].trace_id == f"{client.context.trace_id:032x}"
    assert server.name == client.name == f"/{SERVICE.full_name}/DeclareFacts"
    data = reader.get_metrics_data()
    assert data is not None
    measured = {metric.name for r in data.resource_metrics for s in r.scope_metrics for metric in s.metrics}
    assert measured == {"planier.rpc.server.duration", "planier.rpc.client.duration"}


def test_what_is_repeated_exists_and_changes_nothing_twice() -> None:
    """Reads and hashes may be repeated; of the rest only what is idempotent by its id."""
    assert {access_pb2, analytics_pb2, audit_pb2, pb}
    by_id = {("planier.ingest.v1.IngestService", "DeclareFacts")}
    for service, names in IDEMPOTENT.items():
        if not service.startswith("planier."):
            continue
        methods = descriptor_pool.Default().FindServiceByName(service).methods_by_name
        for name in names:
            option = methods[name].GetOptions().Extensions[guard_pb2.guard]
            reads = option.operation in {guard_pb2.OPERATION_UNSPECIFIED, guard_pb2.OPERATION_CONSULT}
            assert reads or (service, name) in by_id, (service, name)
