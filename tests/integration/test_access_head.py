"""Checks of one turn of the loop share a reading of the head, and none of them misses what was acknowledged before."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from planier.access.v1.access_pb2 import CheckItem, CheckRequest, CheckResponse, StreamChecksRequest, Subject
from planier.common.v1.release_pb2 import PURPOSE_SITUATION
from protovalidate import Validator

from services.access.checker import MOST_ITEMS, recognise
from services.kernel.store.base import Position
from tests.fixtures import access

VALIDATOR = Validator()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[access.Replica]:
    replica = access.Replica(access.sqlite_url(tmp_path))
    replica.run(*access.founding_commands())
    yield replica
    replica.close()


def asked() -> CheckItem:
    return access.check_item(access.CITY_USER, purpose=PURPOSE_SITUATION)


async def answers(replica: access.Replica, number: int) -> list[CheckResponse]:
    return list(await asyncio.gather(*(replica.core.checks.decide([asked()]) for _ in range(number))))


async def test_checks_of_one_turn_read_the_head_once_and_those_of_the_next_again(
    replica: access.Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await answers(replica, 1)
    cache, readings = replica.core.cache, list[Position]()
    near = cache._near_head
    assert near is not None

    def counted() -> Position:
        readings.append(near())
        return readings[-1]

    monkeypatch.setattr(cache, "_near_head", counted)
    assert all(response.verdicts[0].permit for response in await answers(replica, 10))
    assert len(readings) == 1
    await asyncio.sleep(0)
    await answers(replica, 10)
    assert len(readings) == 2


async def test_what_is_acknowledged_within_a_turn_counts_for_whoever_asks_after(replica: access.Replica) -> None:
    neighbour = access.Replica(replica.url)
    assert (await answers(replica, 1))[0].verdicts[0].permit
    late: list[asyncio.Task[list[CheckResponse]]] = []

    async def revoke_and_ask() -> None:
        neighbour.run(access.revoke_command())  # acknowledged when it returns
        late.append(asyncio.create_task(answers(replica, 3)))

    # The first check of the turn has read the head before the revocation; what follows the acknowledgement must not
    # rest on that reading.
    early, _ = await asyncio.gather(replica.core.checks.decide([asked()]), revoke_and_ask())
    assert early.verdicts[0].permit
    assert not any(response.verdicts[0].permit for response in await late[0])
    neighbour.close()


ITEMS = st.lists(
    st.builds(
        CheckItem,
        check_id=st.sampled_from(["", "a", "é" * 40]),
        subject=st.sampled_from([None, Subject(), Subject(session_id="s")]),
        decision_time=st.sampled_from([None, Timestamp(), Timestamp(seconds=2**62)]),
        sources=st.lists(st.just("works"), max_size=2),
    ),
    max_size=3,
)


@given(items=ITEMS, traces=st.lists(st.just("x"), max_size=3))
def test_what_is_recognised_keeps_every_rule_of_the_contract(items: list[CheckItem], traces: list[str]) -> None:
    batch = CheckRequest(items=items)
    broken = VALIDATOR.collect_violations(StreamChecksRequest(batch=batch, traceparents=traces))
    assert recognise(items) == (not broken)


@pytest.mark.parametrize(("number", "kept"), [(0, False), (1, True), (MOST_ITEMS, True), (MOST_ITEMS + 1, False)])
def test_the_number_of_items_is_the_contracts(number: int, kept: bool) -> None:
    items = [asked()] * number
    assert recognise(items) is kept
    assert (not VALIDATOR.collect_violations(CheckRequest(items=items))) is kept
