"""A refusal is recorded before it is told; any doubt is one."""

import asyncio
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.message import Message
from planier.access.v1.access_pb2 import CheckItem, CheckRequest, CheckResponse, CheckVerdict, GetCommitmentsResponse
from planier.analytics.v1.analytics_pb2 import QueryMapRequest
from planier.audit.v1.record_pb2 import RECORD_KIND_REFUSAL
from planier.common.v1.release_pb2 import (
    PURPOSE_REFUSED_INTELLIGENCE,
    PURPOSE_SITUATION,
    PURPOSE_UNSPECIFIED,
    Purpose,
    StorePosition,
)
from planier.ingest.v1.ingest_pb2 import DeclareFactsRequest

from services.kernel.errors import Problem
from services.kernel.guard import admission
from services.kernel.guard.ports import Decision
from services.kernel.rpc.call import Call
from tests.fixtures.guard import Bench, consultation, deny, held, no_log, permit

PHONE = "rappeler le 06 12 34 56 78"


async def never(_: Message, call: Call) -> Message:
    pytest.fail("the handler ran")


async def refused(bench: Bench, request: Message, name: str = "QueryMap") -> Problem:
    with pytest.raises(Problem) as problem:
        await bench.guard.unary(bench.call(name), request, never)
    return problem.value


async def test_a_denial_is_told_only_once_recorded() -> None:
    bench = Bench()
    bench.access.verdict = deny
    bench.gate.clear()
    request = QueryMapRequest(consultation=consultation())
    task = asyncio.create_task(bench.guard.unary(bench.call("QueryMap"), request, never))
    await held(task, bench.log)
    bench.gate.set()
    with pytest.raises(Problem) as problem:
        await task
    assert (problem.value.code, problem.value.clause) == (grpc.StatusCode.PERMISSION_DENIED, "art9.term")
    assert problem.value.metadata["reason_user"] == "La convention est échue."
    (record,) = bench.log.records
    assert (record.kind, record.refusal_reason) == (RECORD_KIND_REFUSAL, "ACCESS_DENIED")
    assert not record.decision.permit
    assert list(record.decision.clauses) == ["art9.term"]
    assert problem.value.metadata["record_id"] == record.record_id


async def test_a_denial_that_cannot_be_recorded_is_not_told() -> None:
    bench = Bench()
    bench.access.verdict = deny
    bench.log.answer = no_log
    problem = await refused(bench, QueryMapRequest(consultation=consultation()))
    assert problem.reason == "RECORD_UNAVAILABLE"


async def test_a_denial_without_clause_cites_the_default() -> None:
    bench = Bench()
    bench.access.verdict = lambda item: CheckVerdict(check_id=item.check_id)
    problem = await refused(bench, QueryMapRequest(consultation=consultation()))
    assert problem.clause == "default.deny"
    assert list(bench.log.records[0].decision.clauses) == ["default.deny"]


@pytest.mark.parametrize(
    "request_", [QueryMapRequest(consultation=consultation(PURPOSE_UNSPECIFIED)), QueryMapRequest()]
)
async def test_a_request_without_purpose_is_recorded_and_refused(request_: Message) -> None:
    bench = Bench()
    problem = await refused(bench, request_)
    assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PURPOSE_MISSING")
    assert [violation.field for violation in problem.violations] == ["consultation.purpose"]
    assert problem.clause == "art6.purpose"
    (record,) = bench.log.records
    assert (record.refusal_reason, list(record.decision.clauses)) == ("PURPOSE_MISSING", ["art6.purpose"])
    assert record.actor.subject == "agent-7"
    assert bench.access.items == []


@pytest.mark.parametrize("purpose", [PURPOSE_REFUSED_INTELLIGENCE, 6, 20, 21, 22, 99])
async def test_a_purpose_that_the_convention_does_not_have_is_recorded_as_such(purpose: Purpose.ValueType) -> None:
    bench = Bench()
    problem = await refused(bench, QueryMapRequest(consultation=consultation(purpose)))
    assert (problem.code, problem.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PURPOSE_REFUSED")
    assert bench.log.records[0].purpose == purpose


@pytest.mark.parametrize(
    ("purpose", "reason"), [(PURPOSE_SITUATION, "MOTIVE_PERSONAL_DATA"), (PURPOSE_UNSPECIFIED, "PURPOSE_MISSING")]
)
async def test_personal_data_in_a_motive_reaches_neither_the_record_nor_the_answer(
    purpose: Purpose.ValueType, reason: str
) -> None:
    bench = Bench()
    problem = await refused(bench, QueryMapRequest(consultation=consultation(purpose, PHONE)))
    assert problem.reason == reason
    assert PHONE[-14:] not in repr(problem)
    (record,) = bench.log.records
    assert record.motive == ""
    assert record.refusal_reason == reason


async def test_the_detector_is_named() -> None:
    problem = await refused(Bench(), QueryMapRequest(consultation=consultation(motive=PHONE)))
    assert (problem.violations[0].field, "phone" in problem.violations[0].description) == ("consultation.motive", True)


async def test_a_screening_that_fails_is_a_recorded_refusal() -> None:
    bench = Bench()

    def broken(_: str) -> str | None:
        raise RuntimeError

    bench.guard._admitter._screen_motive = broken
    problem = await refused(bench, QueryMapRequest(consultation=consultation()))
    assert problem.code == grpc.StatusCode.INTERNAL
    assert [record.motive for record in bench.log.records] == [""]


async def test_names_of_sources_are_bounded_before_they_travel() -> None:
    bench = Bench()
    problem = await refused(bench, QueryMapRequest(consultation=consultation(), sources=["a" * 61]))
    assert problem.reason == "SOURCES_INVALID"
    assert list(bench.log.records[0].data.sources) == []


def other_item(item: CheckItem) -> CheckVerdict:
    verdict = permit(item)
    verdict.check_id = "another"
    return verdict


def contradiction(item: CheckItem) -> CheckVerdict:
    verdict = deny(item)
    verdict.permit = True
    return verdict


def unknown_party(item: CheckItem) -> CheckVerdict:
    verdict = permit(item)
    verdict.party = 9  # type: ignore[assignment]
    return verdict


def explosion(item: CheckItem) -> CheckVerdict:
    raise RuntimeError


@pytest.mark.parametrize("verdict", [other_item, contradiction, unknown_party, explosion])
async def test_a_decision_in_doubt_is_a_denial(verdict: Callable[[CheckItem], CheckVerdict]) -> None:
    bench = Bench()
    bench.access.verdict = verdict
    problem = await refused(bench, QueryMapRequest(consultation=consultation()))
    assert (problem.code, problem.reason) == (grpc.StatusCode.UNAVAILABLE, "CHECK_UNAVAILABLE")
    assert bench.log.records[0].refusal_reason == "CHECK_UNAVAILABLE"


async def test_a_permit_that_rests_on_nothing_is_a_denial() -> None:
    bench = Bench()

    async def groundless(item: CheckItem) -> Decision:
        return Decision(permit(item), StorePosition(), "")

    bench.access.check = groundless  # type: ignore[method-assign]
    problem = await refused(bench, QueryMapRequest(consultation=consultation()))
    assert problem.reason == "CHECK_UNAVAILABLE"


async def test_access_that_hesitates_too_long_is_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "CHECK_SECONDS", 0.01)
    bench = Bench()

    async def silent(_: CheckItem) -> Decision:
        await asyncio.Event().wait()
        raise AssertionError

    bench.access.check = silent  # type: ignore[assignment, method-assign]
    problem = await refused(bench, QueryMapRequest(consultation=consultation()))
    assert problem.reason == "CHECK_UNAVAILABLE"


async def test_access_away_and_log_away_is_still_a_denial() -> None:
    bench = Bench()
    bench.access.verdict = explosion
    bench.log.answer = no_log
    problem = await refused(bench, QueryMapRequest(consultation=consultation()))
    assert problem.reason == "CHECK_UNAVAILABLE"


async def test_unknown_callers_are_counted_not_recorded_one_by_one() -> None:
    bench = Bench()
    for token in ("", "x.y.z", "x.y.z"):
        with pytest.raises(Problem) as problem:
            await bench.guard.unary(bench.call("QueryMap", token=token), QueryMapRequest(), never)
        assert problem.value.code == grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(Problem, match="CERTIFICATE_MISSING"):
        await bench.guard.unary(bench.call("DeclareFacts", caller=""), DeclareFactsRequest(), never)
    assert bench.log.records == []
    await bench.guard.close()
    (record,) = bench.log.records
    assert dict(record.unauthenticated) == {"TOKEN_MISSING": 1, "TOKEN_INVALID": 2, "CERTIFICATE_MISSING": 1}
    assert record.peer == "ipv4:10.0.0.9"


@pytest.mark.parametrize("caller", ["", "spiffe://planier/cli", "ingest", "spiffe://other/ingest", "spiffe://planier/"])
async def test_only_named_services_may_call_each_other(caller: str) -> None:
    bench = Bench(service="access")
    with pytest.raises(Problem, match="CALLER_NOT_ALLOWED"):
        await bench.guard.unary(bench.call("Check", caller=caller), CheckRequest(), never)


async def test_calls_between_services_and_commitments_leave_no_record() -> None:
    bench = Bench(service="access")

    async def verdicts(_: Message, call: Call) -> Message:
        assert call.grant is None
        return CheckResponse(policy_hash="p")

    async def commitments(_: Message, call: Call) -> Message:
        return GetCommitmentsResponse(policy_hash="p")

    answer = await bench.guard.unary(bench.call("Check", caller="spiffe://planier/ingest"), CheckRequest(), verdicts)
    assert CheckResponse.FromString(answer).policy_hash == "p"
    assert await bench.guard.unary(bench.call("GetCommitments"), CheckRequest(), commitments)
    with pytest.raises(Problem, match="CERTIFICATE_MISSING"):
        await bench.guard.unary(bench.call("GetCommitments", caller=""), CheckRequest(), never)
    assert bench.log.records == []
