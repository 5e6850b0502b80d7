"""A query begun while its check is under way: its answer is used under an equal grant, else never seen."""

import asyncio
from collections.abc import Sequence

import pytest
from planier.access.v1.access_pb2 import CheckItem, CheckVerdict
from planier.analytics.v1.analytics_pb2 import QueryMapRequest, QueryMapResponse
from planier.audit.v1.record_pb2 import RECORD_KIND_REFUSAL, RECORD_KIND_RELEASE

from services.kernel.batching import Batcher
from services.kernel.errors import Problem
from services.kernel.guard import early
from services.kernel.guard.guard import MOST_EARLY
from services.kernel.guard.ports import Decision
from services.kernel.rpc.call import Call
from tests.fixtures.guard import Bench, consultation, deny, permit, turns

REQUEST = QueryMapRequest(consultation=consultation(), sources=["markets"])


class SlowAccess:
    """Holds each check back until `gate` opens."""

    def __init__(self, bench: Bench) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.inner = bench.access

    async def check(self, item: CheckItem) -> Decision:
        await self.gate.wait()
        return await self.inner.check(item)


class Together:
    """Asks access in batches."""

    def __init__(self, checks: Batcher[CheckItem, Decision]) -> None:
        self.check = checks.submit


class Query:
    """A handler that counts the sources it was granted, and says when it ran."""

    def __init__(self, bench: Bench) -> None:
        self.steps = bench.steps
        self.calls: list[Call] = []

    async def __call__(self, _: QueryMapRequest, call: Call) -> QueryMapResponse:
        self.steps.append("query")
        self.calls.append(call)
        call.data.count = len(call.granted.sources)
        call.data.references.append(f"run {len(self.calls)}")
        return QueryMapResponse(total=len(call.granted.sources))


def bench_with_slow_access() -> tuple[Bench, SlowAccess, Query]:
    bench = Bench()
    access = SlowAccess(bench)
    bench.guard._admitter._checker = access
    return bench, access, Query(bench)


async def begun(
    bench: Bench, access: SlowAccess, query: Query, request: QueryMapRequest = REQUEST
) -> asyncio.Task[bytes]:
    """A second read by the same person, held at its check; everything that may run without a decision has run."""
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, query)
    bench.steps.clear()
    access.gate.clear()
    task = asyncio.create_task(bench.guard.unary(bench.call("QueryMap"), request, query))
    await turns()
    return task


async def test_the_query_runs_while_the_check_is_under_way_and_once() -> None:
    bench, access, query = bench_with_slow_access()
    task = await begun(bench, access, query)
    assert bench.steps == ["query"]
    assert len(bench.log.records) == 1
    access.gate.set()
    answer = QueryMapResponse.FromString(await task)
    assert bench.steps == ["query", "check", "RELEASE"]
    record = bench.log.records[-1]
    assert answer.total == 2
    assert answer.release.receipt.record_id == record.record_id == query.calls[-1].granted.record_id
    assert list(record.data.references) == ["run 2"]


async def test_a_query_begun_early_lets_the_check_leave_first() -> None:
    bench = Bench()
    query = Query(bench)

    async def send(items: Sequence[CheckItem]) -> list[Decision | Exception]:
        bench.steps.append("message")
        await turns()
        return [await bench.access.check(item) for item in items]

    checks: Batcher[CheckItem, Decision] = Batcher(send)
    bench.guard._admitter._checker = Together(checks)
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, query)
    await turns()
    bench.steps.clear()
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, query)
    assert bench.steps[:2] == ["message", "query"]


async def test_a_first_look_waits_for_its_check() -> None:
    bench, access, query = bench_with_slow_access()
    access.gate.clear()
    task = asyncio.create_task(bench.guard.unary(bench.call("QueryMap"), REQUEST, query))
    await turns()
    assert bench.steps == []
    access.gate.set()
    await task


async def test_what_a_revoked_person_would_have_seen_is_neither_released_nor_recorded_as_released() -> None:
    bench, access, query = bench_with_slow_access()
    task = await begun(bench, access, query)
    bench.access.verdict = deny
    access.gate.set()
    with pytest.raises(Problem, match="ACCESS_DENIED"):
        await task
    released, refused = bench.log.records
    assert (released.kind, refused.kind) == (RECORD_KIND_RELEASE, RECORD_KIND_REFUSAL)
    assert not refused.data.references
    assert not refused.data.response_digest


async def test_after_a_denial_no_query_is_begun_early() -> None:
    bench, access, query = bench_with_slow_access()
    bench.access.verdict = permit
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, query)
    bench.access.verdict = deny
    for _ in range(2):
        with pytest.raises(Problem, match="ACCESS_DENIED"):
            await bench.guard.unary(bench.call("QueryMap"), REQUEST, query)
    access.gate.clear()
    bench.steps.clear()
    task = asyncio.create_task(bench.guard.unary(bench.call("QueryMap"), REQUEST, query))
    await turns()
    assert bench.steps == []
    access.gate.set()
    with pytest.raises(Problem):
        await task


def narrowed(item: CheckItem) -> CheckVerdict:
    verdict = permit(item)
    verdict.instruments[0].sources[:] = ["markets"]
    return verdict


def of_another_version(item: CheckItem) -> CheckVerdict:
    verdict = permit(item)
    verdict.instruments[0].instrument.version = "2"
    return verdict


def on_other_clauses(item: CheckItem) -> CheckVerdict:
    verdict = permit(item)
    verdict.instruments[0].clauses[:] = ["art6.purpose"]
    return verdict


def refused_otherwise(item: CheckItem) -> CheckVerdict:
    verdict = permit(item)
    verdict.instruments[1].clauses[:] = ["art9.termination"]
    return verdict


def in_another_role(item: CheckItem) -> CheckVerdict:
    verdict = permit(item)
    verdict.clearance_id = "clearance-2"
    return verdict


@pytest.mark.parametrize(
    "verdict", [narrowed, of_another_version, on_other_clauses, refused_otherwise, in_another_role]
)
async def test_under_any_other_permit_the_query_runs_again(verdict) -> None:  # type: ignore[no-untyped-def]
    bench, access, query = bench_with_slow_access()
    task = await begun(bench, access, query)
    bench.access.verdict = verdict
    access.gate.set()
    answer = QueryMapResponse.FromString(await task)
    assert bench.steps == ["query", "check", "query", "RELEASE"]
    assert answer.total == len(query.calls[-1].granted.sources)
    assert list(bench.log.records[-1].data.references) == ["run 3"]


async def test_a_guess_is_for_the_same_sources_only() -> None:
    bench, access, query = bench_with_slow_access()
    task = await begun(bench, access, query, QueryMapRequest(consultation=consultation(), sources=["works"]))
    assert bench.steps == []
    access.gate.set()
    await task


async def test_a_query_dropped_while_it_runs_is_stopped() -> None:
    bench, access, query = bench_with_slow_access()
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, query)
    stopped = asyncio.Event()

    async def endless(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return QueryMapResponse()

    bench.access.verdict = deny
    access.gate.clear()
    task = asyncio.create_task(bench.guard.unary(bench.call("QueryMap"), REQUEST, endless))
    await turns()
    access.gate.set()
    with pytest.raises(Problem, match="ACCESS_DENIED"):
        await task
    await turns()
    assert stopped.is_set()


async def test_a_fault_of_an_early_query_is_the_reads_own() -> None:
    bench, access, query = bench_with_slow_access()
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, query)

    async def broken(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        raise ZeroDivisionError

    access.gate.clear()
    task = asyncio.create_task(bench.guard.unary(bench.call("QueryMap"), REQUEST, broken))
    await turns()
    access.gate.set()
    with pytest.raises(ZeroDivisionError):
        await task
    assert (bench.log.records[-1].kind, bench.log.records[-1].refusal_reason) == (RECORD_KIND_REFUSAL, "INTERNAL")


async def test_a_crowd_of_reads_waits_for_its_checks() -> None:
    bench, access, query = bench_with_slow_access()
    await bench.guard.unary(bench.call("QueryMap"), REQUEST, query)
    access.gate.clear()
    bench.steps.clear()
    reads = [bench.guard.unary(bench.call("QueryMap"), REQUEST, query) for _ in range(MOST_EARLY + 8)]
    tasks = [asyncio.create_task(read) for read in reads]
    await turns()
    assert bench.steps == ["query"] * MOST_EARLY
    access.gate.set()
    await asyncio.gather(*tasks)


def test_only_so_many_permits_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "MAX_PERMITS", 2)
    permits = early.LastPermits()
    keys = [(Bench().issuer.key_id, number, 0, "", ()) for number in range(3)]
    for key in keys:
        permits.learn(key, CheckVerdict(permit=True))  # type: ignore[arg-type]
    assert [permits.get(key) is not None for key in keys] == [False, True, True]  # type: ignore[arg-type]
