"""Check and Record over real gRPC: one message for what is asked together, own verdicts, the same bytes tried again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message
from planier.access.v1.access_pb2 import (
    CheckItem,
    CheckRequest,
    CheckResponse,
    CheckVerdict,
    GetCommitmentsRequest,
    GetCommitmentsResponse,
    StreamChecksRequest,
    StreamChecksResponse,
    TokenKey,
)
from planier.audit.v1.audit_pb2 import (
    RECORD_OUTCOME_CONFLICT,
    RECORD_OUTCOME_INVALID,
    RECORD_OUTCOME_RECORDED,
    RECORD_OUTCOME_UNSPECIFIED,
    RecordOutcome,
    RecordRequest,
    RecordResponse,
    RecordResult,
    StreamRecordsRequest,
    StreamRecordsResponse,
)
from planier.audit.v1.record_pb2 import AccessRecord

from services.kernel.errors import Problem
from services.kernel.guard import remote
from services.kernel.guard.remote import KeyLoader, RemoteChecker, RemoteRecorder
from tests.fixtures.guard import receipt_for

Answer = Callable[[Message], Awaitable[Message]]


class Lost(Exception):  # noqa: N818 -- the answer is
    """The work may be done, its answer does not arrive."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code


class Peer:
    """A server of this test's own, which answers each method as the test says and keeps what it was asked."""

    def __init__(self) -> None:
        self.check: Answer = self._permit
        self.record: Answer = self._take
        self.commitments: Answer = self._keys
        self.checks: list[CheckRequest] = []
        self.records: list[RecordRequest] = []
        self.streams = 0
        self.key = Ed25519PrivateKey.generate().public_key()

    async def _permit(self, request: Message) -> CheckResponse:
        assert isinstance(request, CheckRequest)
        verdicts = [CheckVerdict(check_id=item.check_id, permit=item.resource != "secret") for item in request.items]
        return CheckResponse(verdicts=verdicts[::-1], policy_hash="p")

    async def _take(self, request: Message) -> RecordResponse:
        assert isinstance(request, RecordRequest)
        return taken(request)

    async def _keys(self, _: Message) -> GetCommitmentsResponse:
        return GetCommitmentsResponse(token_keys=[TokenKey(key_id="k", public_key=self.key.public_bytes_raw())])

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        async def check(request: StreamChecksRequest) -> Message:
            self.checks.append(request.batch)
            answer = await self.check(request.batch)
            assert isinstance(answer, CheckResponse)
            return StreamChecksResponse(batch=answer)

        async def record(request: StreamRecordsRequest) -> Message:
            self.records.append(request.batch)
            answer = await self.record(request.batch)
            assert isinstance(answer, RecordResponse)
            return StreamRecordsResponse(batch=answer)

        async def commitments(request: Message, _: object) -> Message:
            return await self.commitments(request)

        def one(handler: Any, kind: type[Message]) -> "grpc.RpcMethodHandler[Message, Message]":
            return grpc.unary_unary_rpc_method_handler(
                handler,
                request_deserializer=kind.FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )

        def each(handler: Any, kind: type[Message]) -> "grpc.RpcMethodHandler[Message, Message]":
            async def answer(requests: AsyncIterator[Message], context: Any) -> AsyncIterator[Message]:
                self.streams += 1
                try:
                    async for request in requests:
                        yield await handler(request)
                except Lost as lost:
                    await context.abort(lost.code)

            return grpc.stream_stream_rpc_method_handler(
                answer,
                request_deserializer=kind.FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )

        commitments_of = one(commitments, GetCommitmentsRequest)
        access = {"StreamChecks": each(check, StreamChecksRequest), "GetCommitments": commitments_of}
        audit = {"StreamRecords": each(record, StreamRecordsRequest)}
        return [
            grpc.method_handlers_generic_handler("planier.access.v1.AccessService", access),
            grpc.method_handlers_generic_handler("planier.audit.v1.AuditService", audit),
        ]


def taken(request: RecordRequest, outcome: RecordOutcome.ValueType = RECORD_OUTCOME_RECORDED) -> RecordResponse:
    return RecordResponse(
        results=[
            RecordResult(
                record_id=item.record_id,
                outcome=outcome,
                receipt=receipt_for(AccessRecord(record_id=item.record_id)),
            )
            for item in request.items
        ]
    )


@pytest.fixture
async def served() -> AsyncIterator[tuple[Peer, grpc.aio.Channel]]:
    peer = Peer()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(peer.handlers()))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield peer, channel
    await server.stop(None)


Served = tuple[Peer, grpc.aio.Channel]


def items(count: int) -> list[CheckItem]:
    return [CheckItem(check_id=str(n), resource="secret" if n % 2 else "facts") for n in range(count)]


async def reasons(recorder: RemoteRecorder, *record_ids: str) -> list[str]:
    results = await asyncio.gather(
        *(recorder.record(AccessRecord(record_id=one)) for one in record_ids), return_exceptions=True
    )
    return [result.reason if isinstance(result, Problem) else "" for result in results]


async def test_what_is_checked_together_shares_a_message_and_keeps_its_own_verdict(served: Served) -> None:
    peer, channel = served
    checker = RemoteChecker(channel)
    decisions = await asyncio.gather(*map(checker.check, items(100)))
    assert [len(request.items) for request in peer.checks] == [100]
    assert [int(decision.verdict.check_id) for decision in decisions] == [*range(100)]
    assert [decision.verdict.permit for decision in decisions] == [n % 2 == 0 for n in range(100)]


async def test_checks_follow_one_another_on_one_stream_until_it_fails(served: Served) -> None:
    peer, channel = served
    checker = RemoteChecker(channel)
    for item in items(3):
        await checker.check(item)
    assert peer.streams == 1

    async def lost(request: Message) -> CheckResponse:
        peer.check = peer._permit
        raise Lost(grpc.StatusCode.UNAVAILABLE)

    peer.check = lost
    assert (await checker.check(items(1)[0])).verdict.check_id == "0"
    assert peer.streams == 2


async def test_an_answer_that_comes_too_late_is_nobody_elses(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CHECK_SECONDS", 0.2)
    peer, channel = served
    free = asyncio.Event()

    async def late(request: Message) -> CheckResponse:
        peer.check = peer._permit
        await free.wait()
        return await peer._permit(request)

    peer.check = late
    checker = RemoteChecker(channel)
    first, second = items(2)
    with pytest.raises(Problem, match="CHECK_UNAVAILABLE"):
        await checker.check(first)
    free.set()
    assert (await checker.check(second)).verdict.check_id == second.check_id


async def test_an_item_without_verdict_is_refused_alone(served: Served) -> None:
    peer, channel = served

    async def partial(request: Message) -> CheckResponse:
        return CheckResponse(verdicts=[CheckVerdict(check_id="0", permit=True)], policy_hash="p")

    peer.check = partial
    checker = RemoteChecker(channel)
    first, second = await asyncio.gather(*map(checker.check, items(2)), return_exceptions=True)
    assert not isinstance(first, BaseException)
    assert isinstance(second, Problem)
    assert second.reason == "CHECK_UNAVAILABLE"


async def test_an_item_answered_twice_is_an_answer_to_nobody(served: Served) -> None:
    peer, channel = served

    async def twice(request: Message) -> CheckResponse:
        return CheckResponse(verdicts=[CheckVerdict(check_id="0"), CheckVerdict(check_id="0", permit=True)])

    peer.check = twice
    with pytest.raises(Problem, match="CHECK_UNAVAILABLE"):
        await RemoteChecker(channel).check(items(1)[0])


async def test_access_that_does_not_answer_in_time_is_unavailable(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CHECK_SECONDS", 0.05)
    peer, channel = served
    asked = asyncio.Event()

    async def silent(request: Message) -> CheckResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    peer.check = silent
    with pytest.raises(Problem, match="CHECK_UNAVAILABLE"):
        await RemoteChecker(channel).check(items(1)[0])
    assert asked.is_set()


async def test_what_is_recorded_together_shares_a_message(served: Served) -> None:
    peer, channel = served
    recorder = RemoteRecorder(channel)
    ids = [str(number) for number in range(100)]
    receipts = await asyncio.gather(*(recorder.record(AccessRecord(record_id=one)) for one in ids))
    assert [len(request.items) for request in peer.records] == [100]
    assert [receipt.record_id for receipt in receipts] == ids


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_a_lost_answer_is_asked_for_again_with_the_same_bytes(served: Served, code: grpc.StatusCode) -> None:
    peer, channel = served

    async def lost(request: Message) -> Message:
        if len(peer.records) == 1:
            raise Lost(code)
        assert isinstance(request, RecordRequest)
        return taken(request)

    peer.record = lost
    record = AccessRecord(record_id="r", unauthenticated={"A": 1, "B": 2, "C": 3})
    receipt = await RemoteRecorder(channel).record(record)
    assert receipt.record_id == "r"
    first, second = (request.items[0] for request in peer.records)
    assert first == second


@pytest.mark.parametrize("outcome", [RECORD_OUTCOME_CONFLICT, RECORD_OUTCOME_INVALID])
async def test_a_record_that_the_log_refuses_is_refused_at_once(
    served: Served, outcome: RecordOutcome.ValueType
) -> None:
    peer, channel = served

    async def refuse(request: Message) -> RecordResponse:
        assert isinstance(request, RecordRequest)
        response = taken(request)
        response.results[0].outcome = outcome
        return response

    peer.record = refuse
    assert await reasons(RemoteRecorder(channel), "a", "b") == ["RECORD_REFUSED", ""]
    assert len(peer.records) == 1


async def no_receipt(request: Message) -> RecordResponse:
    assert isinstance(request, RecordRequest)
    response = taken(request)
    response.results[0].ClearField("receipt")
    return response


async def swapped(request: Message) -> RecordResponse:
    assert isinstance(request, RecordRequest)
    return RecordResponse(results=[*reversed(taken(request).results)])


async def another_receipt(request: Message) -> RecordResponse:
    assert isinstance(request, RecordRequest)
    response = taken(request)
    response.results[0].receipt.record_id = response.results[1].record_id
    return response


async def unspecified(request: Message) -> RecordResponse:
    assert isinstance(request, RecordRequest)
    return taken(request, RECORD_OUTCOME_UNSPECIFIED)


async def fewer(request: Message) -> RecordResponse:
    assert isinstance(request, RecordRequest)
    return RecordResponse(results=taken(request).results[:1])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (no_receipt, ["RECORD_UNAVAILABLE", ""]),
        (another_receipt, ["RECORD_UNAVAILABLE", ""]),
        (swapped, ["RECORD_UNAVAILABLE"] * 2),
        (unspecified, ["RECORD_UNAVAILABLE"] * 2),
        (fewer, ["RECORD_UNAVAILABLE"] * 2),
    ],
)
async def test_an_answer_without_this_records_receipt_is_none(
    served: Served, answer: Answer, expected: list[str]
) -> None:
    peer, channel = served
    peer.record = answer
    assert await reasons(RemoteRecorder(channel), "a", "b") == expected


async def test_a_log_that_stays_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RECORD_SECONDS", 0.2)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(Problem, match="RECORD_UNAVAILABLE"):
            await RemoteRecorder(channel).record(AccessRecord(record_id="r"))


async def test_a_record_too_large_for_the_log_never_spoils_its_neighbours(served: Served) -> None:
    peer, channel = served
    recorder = RemoteRecorder(channel)
    large = AccessRecord(record_id="large", motive="x" * 40_000)
    one, other = await asyncio.gather(
        recorder.record(large), recorder.record(AccessRecord(record_id="small")), return_exceptions=True
    )
    assert isinstance(one, Problem)
    assert not isinstance(other, BaseException)
    assert [item.record_id for request in peer.records for item in request.items] == ["small"]


async def test_keys_come_from_access(served: Served) -> None:
    peer, channel = served
    (key,) = (await KeyLoader(channel)()).values()
    assert key.public_bytes_raw() == peer.key.public_bytes_raw()

    async def malformed(request: Message) -> GetCommitmentsResponse:
        return GetCommitmentsResponse(token_keys=[TokenKey(key_id="k", public_key=b"short")])

    peer.commitments = malformed
    with pytest.raises(Problem, match="KEYS_UNAVAILABLE"):
        await KeyLoader(channel)()
