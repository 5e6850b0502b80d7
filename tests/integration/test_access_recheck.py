"""Every decision of the access log comes out again, byte for byte, from the events up to its position."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from planier.access.v1 import list_pb2
from planier.access.v1 import recheck_pb2 as pb
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.guard_pb2 import OPERATION_CONSULT
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, PURPOSE_SITUATION, PURPOSE_TENSION

from services.access.policy.released import CURRENT, find, policies
from services.access.recheck import History, Recheck
from services.kernel.clock import SystemClock
from services.kernel.errors import Problem
from services.kernel.guard.decisions import state_decision
from services.kernel.guard.ports import Decision
from services.kernel.store import open_store
from tests.fixtures import access
from tests.fixtures.access import Replica
from tests.fixtures.access_issuer import TestIssuer, issuer_running
from tests.fixtures.access_service import (
    ADMINISTRATION,
    TIMEOUT,
    Service,
    list_persons,
    refusal,
    running,
    settings_in,
)
from tests.fixtures.guard import consultation

SAME, DIFFERENT = pb.RECHECK_OUTCOME_SAME, pb.RECHECK_OUTCOME_DIFFERENT


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    with issuer_running() as found:
        yield found


@pytest.fixture
async def service(issuer: TestIssuer, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(settings_in(tmp_path, issuer), issuer, tmp_path) as opened:
        await opened.found()
        yield opened


async def test_what_the_service_recorded_comes_out_again_while_rights_changed_since(
    service: Service, tmp_path: Path
) -> None:
    await list_persons(service, access.listed_person(access.PREFECTURE_PERSON))
    _, dga = await service.login("dga", access.DGA_PERSON)
    _, stranger = await service.login("nobody", access.PREFECTURE_PERSON)
    look = list_pb2.GetListRequest(consultation=ADMINISTRATION)
    await service.stub.GetList(look, timeout=TIMEOUT, metadata=dga)
    await refusal(service.stub.GetList(look, timeout=TIMEOUT, metadata=stranger))
    await list_persons(service)
    records = [record.SerializeToString() for record in service.records()]
    _, auditor = await service.login("auditor", access.CITY_PERSON)
    request = pb.RecheckRequest(consultation=consultation(PURPOSE_OVERSIGHT), records=records)
    answer = await service.stub.Recheck(request, timeout=TIMEOUT, metadata=auditor)
    outcomes = [one.outcome for one in answer.results]
    assert outcomes.count(SAME) == 6  # two lists submitted and validated, one look, one refusal
    assert set(outcomes) == {SAME, pb.RECHECK_OUTCOME_NO_DECISION}
    assert [one.permit_again for one in answer.results if one.outcome == SAME].count(False) == 1
    assert all(one.agrees for one in answer.results if one.outcome == SAME)
    assert "cedarpy" in answer.engine
    assert answer.time_zone_data.startswith("Europe/Paris ")
    # And offline, from the databases alone.
    store = open_store(access.sqlite_url(tmp_path), clock=SystemClock())
    again = Recheck(History(store), policies())
    assert [again.run(record).outcome for record in records] == outcomes
    store.close()
    # It is a look at the access log, for whoever may look.
    problem = await refusal(service.stub.Recheck(request, timeout=TIMEOUT, metadata=dga))
    assert problem.clause == "house.office"


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    opened = Replica(access.sqlite_url(tmp_path))
    opened.run(*access.founding_commands())
    yield opened
    opened.close()


async def recorded(replica: Replica, purpose: int = PURPOSE_SITUATION, sources: tuple[str, ...] = ()) -> AccessRecord:
    """What the guard writes of a City user's look."""
    item = access.check_item(access.CITY_USER, OPERATION_CONSULT, "facts", purpose, sources=sources)  # type: ignore[arg-type]
    answer = await replica.core.checks.decide([item])
    (verdict,) = answer.verdicts
    record = AccessRecord(
        record_id=item.check_id, operation=item.operation, resource=item.resource, rpc=item.rpc, purpose=item.purpose
    )
    record.actor.issuer, record.actor.subject = access.CITY_USER.issuer, access.CITY_USER.subject
    decision = Decision(verdict, answer.state, answer.policy_hash, answer.engine, answer.time_zone_data)
    state_decision(record, item, decision)
    # The handler names what it read: the request is stated apart.
    record.data.sources.append("works")
    return record


def recheck(replica: Replica) -> Recheck:
    return Recheck(History(replica.store), policies())


async def test_a_record_is_compared_byte_for_byte(replica: Replica) -> None:
    record = await recorded(replica, sources=("demonstrations", "works"))
    assert recheck(replica).run(record.SerializeToString()).outcome == SAME
    changes = (
        lambda r: r.decision.clauses.append("art1"),
        lambda r: setattr(r.decision, "permit", False),
        lambda r: setattr(r.decision, "verdict_digest", b"x" * 32),
        lambda r: r.decision.sources_asked.remove("works"),
        lambda r: setattr(r.decision, "multi_factor", False),
        lambda r: setattr(r, "purpose", PURPOSE_TENSION),
        lambda r: setattr(r.actor, "subject", "somebody-else"),
        lambda r: r.decision.decision_time.FromDatetime(datetime(2030, 1, 1, tzinfo=UTC)),
    )
    for change in changes:
        altered = AccessRecord.FromString(record.SerializeToString())
        change(altered)
        assert recheck(replica).run(altered.SerializeToString()).outcome == DIFFERENT


async def test_a_decision_of_another_state_policy_or_engine_is_told_apart(replica: Replica) -> None:
    record = await recorded(replica)
    cases = (
        ("access_state.position", 10_000, pb.RECHECK_OUTCOME_STATE_UNKNOWN),
        ("access_state.digest", b"x" * 32, pb.RECHECK_OUTCOME_STATE_UNKNOWN),
        ("access_state.store_id", "another", pb.RECHECK_OUTCOME_STATE_UNKNOWN),
        ("policy_hash", "ab" * 32, pb.RECHECK_OUTCOME_POLICY_UNKNOWN),
        ("engine", "another", pb.RECHECK_OUTCOME_OTHER_ENGINE),
        ("time_zone_data", "another", pb.RECHECK_OUTCOME_OTHER_ENGINE),
    )
    for path, value, outcome in cases:
        altered = AccessRecord.FromString(record.SerializeToString())
        holder: object = altered.decision
        *parents, name = path.split(".")
        for parent in parents:
            holder = getattr(holder, parent)
        setattr(holder, name, value)
        assert recheck(replica).run(altered.SerializeToString()).outcome == outcome
    assert recheck(replica).run(b"\xff").outcome == pb.RECHECK_OUTCOME_UNREADABLE
    login = AccessRecord(record_id="r")
    assert recheck(replica).run(login.SerializeToString()).outcome == pb.RECHECK_OUTCOME_NO_DECISION


async def test_a_decision_is_made_under_the_state_of_its_time_in_whatever_order(replica: Replica) -> None:
    before = await recorded(replica)
    replica.run(access.revoke_command())
    after = await recorded(replica)
    again = recheck(replica)
    for record in (after, before, after):
        result = again.run(record.SerializeToString())
        assert (result.outcome, result.permit_again) == (SAME, record.decision.permit)
    assert (before.decision.permit, after.decision.permit) == (True, False)


async def test_another_version_says_what_it_would_have_said(replica: Replica) -> None:
    item = access.check_item(access.PREFECTURE_USER, OPERATION_CONSULT, "facts", PURPOSE_SITUATION)
    replica.run(access.submit_command(proposal_id="5f0c7f0e-5f0c-4f0e-8f0c-5f0c7f0e5f0d"))
    proposal = "5f0c7f0e-5f0c-4f0e-8f0c-5f0c7f0e5f0d"
    listing = replica.core.cache.current().state.listing
    assert listing is not None
    replica.run(access.validate_command(proposal, listing.proposals[proposal].hash))
    answer = await replica.core.checks.decide([item])
    record = AccessRecord(
        record_id=item.check_id, operation=item.operation, resource=item.resource, purpose=item.purpose
    )
    record.actor.issuer, record.actor.subject = access.PREFECTURE_USER.issuer, access.PREFECTURE_USER.subject
    rests_on = (answer.state, answer.policy_hash, answer.engine, answer.time_zone_data)
    state_decision(record, item, Decision(answer.verdicts[0], *rests_on))
    content = record.SerializeToString()
    assert not record.decision.permit
    # Before the list was law, whoever was cleared looked.
    older = recheck(replica).run(content, "0.1.0")
    assert (older.permit, older.permit_again, older.agrees) == (False, True, False)
    current = policies()[CURRENT]
    for version in (CURRENT, current.hash[:12]):
        result = recheck(replica).run(content, version)
        assert (result.permit_again, result.agrees) == (False, True)
    with pytest.raises(Problem, match="POLICY_VERSION_UNKNOWN"):
        recheck(replica).run(content, "9.9")


def test_every_policy_that_was_released_is_carried_as_it_was() -> None:
    carried = policies()
    assert list(carried) == ["0.1.0", CURRENT]
    assert carried["0.1.0"].hash == "6e3e96b394e0312d55ee493989f5645447d1270e7cfcc007e377eb93fddfb93d"
    assert find(carried, "") is None
