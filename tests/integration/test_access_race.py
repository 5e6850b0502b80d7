"""Once a revocation is acknowledged, no replica permits any more; two replicas never decide on different states."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from planier.common.v1.release_pb2 import PURPOSE_SITUATION

from services.access.convention import Standing
from services.access.decisions import Decider
from services.access.domain import Command
from services.access.policy import Policy
from services.access.snapshot import StateUnreadableError
from services.kernel.errors import Problem
from services.kernel.store.base import Append, NewEvent
from tests.fixtures import access
from tests.fixtures.access import Replica


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return access.sqlite_url(tmp_path)
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def replicas(url: str) -> Iterator[tuple[Replica, Replica]]:
    pair = Replica(url), Replica(url)
    pair[0].run(*access.founding_commands())
    yield pair
    for replica in pair:
        replica.close()


def ask(replica: Replica) -> bool:
    return replica.check(access.check_item(access.CITY_USER, purpose=PURPOSE_SITUATION)).permit


def test_a_revocation_on_one_replica_denies_the_next_check_on_the_other(replicas: tuple[Replica, Replica]) -> None:
    here, there = replicas
    assert ask(here)
    assert ask(there)
    here.run(access.revoke_command())
    assert not ask(there)
    assert not ask(here)


def test_no_check_begun_after_the_acknowledgement_permits(replicas: tuple[Replica, Replica]) -> None:
    here, there = replicas
    acknowledged, stop = threading.Event(), threading.Event()
    wrong: list[int] = []
    asked: list[bool] = []

    def keep_asking() -> None:
        for number in range(100_000):
            late = acknowledged.is_set()
            permitted = ask(there)
            asked.append(permitted)
            if late and permitted:
                wrong.append(number)
            if stop.is_set():
                return

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(keep_asking) for _ in range(4)]
        while len(asked) < 20:
            stop.wait(0.001)
        here.run(access.revoke_command())
        acknowledged.set()
        stop.wait(0.2)
        stop.set()
        for worker in workers:
            worker.result()
    assert not wrong
    assert asked[0]
    assert not asked[-1]


def test_of_two_replicas_that_grant_one_id_with_other_content_one_is_refused(
    replicas: tuple[Replica, Replica],
) -> None:
    clearance_id = access.grant_command().clearance_id
    rivals: tuple[Command, Command] = (
        access.grant_command(clearance_id, sources=frozenset({"works"})),
        access.grant_command(clearance_id, sources=frozenset({"markets"})),
    )
    barrier = threading.Barrier(2)

    def grant(replica: Replica, command: Command) -> str:
        barrier.wait()
        try:
            replica.run(command)
        except Problem as problem:
            return problem.reason
        return "granted"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(grant, replicas, rivals))
    assert sorted(outcomes) == ["CLEARANCE_EXISTS", "granted"]


def test_both_replicas_reach_the_same_state_at_the_same_digest(replicas: tuple[Replica, Replica]) -> None:
    here, there = replicas
    here.run(access.grant_command())
    there.run(access.revoke_command())
    one, other = here.core.cache.current(), there.core.cache.current()
    assert one.position == other.position
    assert one.state == other.state
    assert one.state.clearances[access.CITY_CLEARANCE].standing(access.NOW) is Standing.REVOKED


def test_a_process_that_starts_anew_folds_the_same_state(url: str, replicas: tuple[Replica, Replica]) -> None:
    here, _ = replicas
    here.run(access.revoke_command())
    fresh = Replica(url)
    try:
        assert fresh.core.cache.current().state == here.core.cache.current().state
    finally:
        fresh.close()


def test_a_decision_can_be_made_again_from_the_events_up_to_its_position(replicas: tuple[Replica, Replica]) -> None:
    here, _ = replicas
    item = access.check_item(access.CITY_USER, purpose=PURPOSE_SITUATION)
    then = here.core.cache.current()
    verdict = then.decider.decide(item)
    here.run(access.revoke_command())
    assert Decider(Policy.load(), then.state).decide(item) == verdict
    assert here.check(item) != verdict


def test_an_event_of_another_version_stops_every_decision(replicas: tuple[Replica, Replica]) -> None:
    here, there = replicas
    unknown = NewEvent("planier.access.v9.ConventionTerminated", b"", "0198c0de-0000-7000-8000-000000000001")
    here.store.append([Append("convention", None, (unknown,))])
    with pytest.raises(StateUnreadableError):
        ask(there)


def test_a_store_that_is_not_the_one_folded_is_folded_from_its_start(tmp_path: Path) -> None:
    replica = Replica(access.sqlite_url(tmp_path))
    replica.run(*access.founding_commands())
    assert ask(replica)
    (tmp_path / "restored").mkdir()
    restored = Replica(access.sqlite_url(tmp_path / "restored"))
    restored.run(access.sign_command())
    replica.core.cache._store = restored.store
    try:
        assert not ask(replica)
        assert not replica.core.cache.current().state.clearances
    finally:
        replica.close()
        restored.close()
