"""A read: check, query, record, release; the record is what makes the release possible."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from planier.access.v1.access_pb2 import CheckItem, CheckVerdict
from planier.analytics.v1.analytics_pb2 import BoundingBox, QueryMapRequest, QueryMapResponse
from planier.audit.v1.record_pb2 import RECORD_KIND_REFUSAL, RECORD_KIND_RELEASE, AccessRecord
from planier.common.v1.fact_pb2 import LngLat, Polygon, Ring
from planier.common.v1.release_pb2 import Receipt

from services.kernel.errors import Problem, not_found
from services.kernel.guard.receipts import ReceiptError, verify_receipt
from services.kernel.rpc.call import Call
from services.kernel.store.base import Position
from tests.fixtures.guard import LOG_KEY, Bench, consultation, deny, held, no_log, permit, receipt_for

Verdict = Callable[[CheckItem], CheckVerdict]
REQUEST = QueryMapRequest(consultation=consultation(), sources=["markets"])


def handler(bench: Bench, seen: list[Call] | None = None, took: float = 0.0):  # type: ignore[no-untyped-def]
    async def query(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        bench.steps.append("query")
        if seen is not None:
            seen.append(call)
        call.data.count = 3
        call.data_position = Position("ingest", 42, bytes(32))
        bench.clock.advance(took)
        return QueryMapResponse(total=3)

    return query


async def test_nothing_is_released_before_the_record_is_durable() -> None:
    bench = Bench()
    bench.gate.clear()
    task = asyncio.create_task(bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench)))
    await held(task, bench.log)
    assert bench.steps == ["check", "query"]
    bench.gate.set()
    await task
    assert bench.steps == ["check", "query", "RELEASE"]


async def test_the_answer_is_the_recorded_bytes_followed_by_its_mark() -> None:
    bench = Bench()
    seen: list[Call] = []
    answer = await bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench, seen))
    (record,) = bench.log.records
    body = QueryMapResponse(total=3).SerializeToString()
    assert answer.startswith(body)
    assert record.data.response_digest == hashlib.sha256(body).digest()
    mark = QueryMapResponse.FromString(answer).release
    verify_receipt(mark.receipt, LOG_KEY.public_key())
    assert mark.receipt.record_id == record.record_id == seen[0].granted.record_id
    assert [one.instrument_id for one in mark.instruments] == ["city-rules"]
    assert [(one.instrument_id, one.clauses[0]) for one in mark.withheld] == [("convention", "art9.term")]
    assert (mark.access_state.position, mark.data_state.position, mark.policy_hash) == (9, 42, "policy-1")


async def test_the_record_says_who_looked_at_what_and_why() -> None:
    bench = Bench()
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench))
    (record,) = bench.log.records
    assert record.kind == RECORD_KIND_RELEASE
    assert (record.instance, record.sequence, record.trace_id) == ("instance-1", 1, "t1")
    assert (record.actor.subject, record.actor.party, record.actor.role) == ("agent-7", "CITY", "CITY_USER")
    assert (record.rpc, record.resource) == ("/planier.analytics.v1.AnalyticsService/QueryMap", "facts")
    assert (record.motive, record.consultation_id) == ("Point de situation", REQUEST.consultation.consultation_id)
    assert list(record.data.sources) == ["markets"]
    assert record.decision.permit
    assert record.decision.decision_time == bench.access.items[0].decision_time
    assert list(bench.access.items[0].sources) == ["markets"]


async def test_the_grant_holds_what_is_permitted_and_no_more() -> None:
    bench = Bench()
    seen: list[Call] = []
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench, seen))
    assert seen[0].granted.sources == {"markets", "works"}
    assert [one.instrument_id for one in seen[0].granted.refused] == ["convention"]


@pytest.mark.parametrize(
    "answer",
    [
        no_log,
        lambda _: Receipt(),
        lambda _: receipt_for(AccessRecord(record_id="another")),
        lambda record: Receipt(record_id=record.record_id, leaf_hash=bytes(32)),
        lambda _: None,
    ],
)
async def test_without_this_records_receipt_nothing_leaves(answer) -> None:  # type: ignore[no-untyped-def]
    bench = Bench()
    bench.log.answer = answer
    with pytest.raises(Problem) as refused:
        await bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench))
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.UNAVAILABLE, "RECORD_UNAVAILABLE")


async def test_a_record_that_the_log_refuses_releases_nothing() -> None:
    bench = Bench()

    def conflict(record: AccessRecord) -> Receipt:
        raise Problem(grpc.StatusCode.INTERNAL, "RECORD_REFUSED", "other bytes")

    bench.log.answer = conflict
    with pytest.raises(Problem) as refused:
        await bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench))
    assert refused.value.code == grpc.StatusCode.INTERNAL


async def test_an_answer_that_took_long_is_released_under_a_permit_asked_for_again() -> None:
    bench = Bench()
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench, took=30))
    assert bench.steps == ["check", "query", "check", "RELEASE"]
    (record,), (first, second) = bench.log.records, bench.access.items
    assert second.decision_time.seconds - first.decision_time.seconds == 30
    assert record.decision.decision_time == second.decision_time
    second.decision_time.CopyFrom(first.decision_time)
    assert first == second


def narrower(item: CheckItem) -> CheckVerdict:
    verdict = permit(item)
    del verdict.instruments[0].sources[1:]
    return verdict


def nobody_answers(_: CheckItem) -> CheckVerdict:
    raise OSError("away")


def at_first_permitted(bench: Bench, later: Verdict) -> Verdict:
    return lambda item: permit(item) if len(bench.access.items) == 1 else later(item)


@pytest.mark.parametrize(
    ("later", "reason"), [(deny, "ACCESS_DENIED"), (narrower, "PERMIT_CHANGED"), (nobody_answers, "CHECK_UNAVAILABLE")]
)
async def test_what_is_no_longer_permitted_when_the_answer_is_ready_is_not_released(later, reason) -> None:  # type: ignore[no-untyped-def]
    bench = Bench()
    bench.access.verdict = at_first_permitted(bench, later)
    with pytest.raises(Problem) as refused:
        await bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench, took=2.1))
    assert refused.value.reason == reason
    (refusal,) = bench.log.records
    assert (refusal.kind, refusal.refusal_reason, refusal.data.count) == (RECORD_KIND_REFUSAL, reason, 3)


async def test_a_permit_older_than_two_seconds_releases_nothing() -> None:
    bench = Bench()

    def slow(item: CheckItem) -> CheckVerdict:
        bench.clock.advance(2.1)
        return permit(item)

    bench.access.verdict = at_first_permitted(bench, slow)
    with pytest.raises(Problem) as refused:
        await bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench, took=2.1))
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.UNAVAILABLE, "PERMIT_LAPSED")
    release, refusal = bench.log.records
    assert (refusal.kind, refusal.continues_record_id) == (RECORD_KIND_REFUSAL, release.record_id)
    assert (refusal.refusal_reason, refusal.sequence) == ("PERMIT_LAPSED", 2)


async def test_the_two_seconds_count_the_record_and_the_check() -> None:
    bench = Bench()

    def slow(record: AccessRecord) -> Receipt:
        bench.clock.advance(2.1)
        return receipt_for(record)

    bench.log.answer = slow
    with pytest.raises(Problem, match="PERMIT_LAPSED"):
        await bench.guard.unary(bench.call("QueryMap"), REQUEST, handler(bench))


async def test_looking_for_what_is_not_there_is_recorded_before_the_answer() -> None:
    bench = Bench()
    bench.gate.clear()

    async def absent(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        call.data.references.append("f" * 32)
        raise not_found("FACT_UNKNOWN", "no such fact")

    task = asyncio.create_task(bench.guard.unary(bench.call("QueryMap"), REQUEST, absent))
    await held(task, bench.log)
    bench.gate.set()
    with pytest.raises(Problem) as refused:
        await task
    (record,) = bench.log.records
    assert (record.kind, record.refusal_reason) == (RECORD_KIND_REFUSAL, "FACT_UNKNOWN")
    assert list(record.data.references) == ["f" * 32]
    assert refused.value.metadata["record_id"] == record.record_id


async def test_a_fault_of_ours_is_recorded_without_its_text() -> None:
    bench = Bench()

    async def broken(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        raise ZeroDivisionError("secret of the handler")

    with pytest.raises(ZeroDivisionError):
        await bench.guard.unary(bench.call("QueryMap"), REQUEST, broken)
    (record,) = bench.log.records
    assert record.refusal_reason == "INTERNAL"
    assert b"secret" not in record.SerializeToString()


async def test_only_the_guard_marks_an_answer() -> None:
    bench = Bench()

    async def forger(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        answer = QueryMapResponse()
        answer.release.policy_hash = "mine"
        return answer

    with pytest.raises(TypeError):
        await bench.guard.unary(bench.call("QueryMap"), REQUEST, forger)


async def test_a_record_stays_within_bounds_whatever_its_handler_names() -> None:
    bench = Bench()

    async def many(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        call.data.references.extend(str(number) for number in range(1000))
        call.data.kinds.extend(str(number) for number in range(1000))
        call.data.sources.extend(str(number) for number in range(1000))
        return QueryMapResponse()

    await bench.guard.unary(bench.call("QueryMap"), REQUEST, many)
    data = bench.log.records[0].data
    assert (len(data.references), len(data.kinds), len(data.sources)) == (50, 200, 100)


def test_a_receipt_is_verified_over_its_exact_text() -> None:
    receipt = receipt_for(AccessRecord(record_id="r"))
    verify_receipt(receipt, LOG_KEY.public_key())
    for change in ({"index": 8}, {"record_id": "s"}, {"leaf_hash": bytes(32)}, {"key_id": "00000000"}):
        altered = Receipt()
        altered.CopyFrom(receipt)
        altered.MergeFrom(Receipt(**change))
        with pytest.raises(ReceiptError):
            verify_receipt(altered, LOG_KEY.public_key())
    with pytest.raises(ReceiptError):
        verify_receipt(Receipt(), LOG_KEY.public_key())


RING = Ring(points=[LngLat(longitude=x, latitude=y) for x, y in ((5.3, 43.2), (5.5, 43.3), (5.4, 43.1), (5.3, 43.2))])


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({"box": BoundingBox(west=5.3, south=43.2, east=5.4, north=43.3)}, (5.3, 43.2, 5.4, 43.3)),
        ({"polygon": Polygon(rings=[RING])}, (5.3, 43.1, 5.5, 43.3)),
        ({}, None),
    ],
)
async def test_access_is_told_the_box_that_the_look_stays_in(place: dict[str, Any], expected: Any) -> None:
    """A clearance bounded to areas permits no look outside them (art6.habilitation)."""
    bench = Bench()

    async def nothing(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        return QueryMapResponse()

    await bench.guard.unary(bench.call("QueryMap"), QueryMapRequest(consultation=consultation(), **place), nothing)
    (item,) = bench.access.items
    area = item.area
    assert ((area.west, area.south, area.east, area.north) if item.HasField("area") else None) == expected
