"""Decisions of the access log made again, beside bare Cedar on the same policies and entities, in one run.

Alone: each request is another one, nothing is remembered. Memoised: a log as it is, where few people ask the same few
questions all day. Both include reading the record, rebuilding the request and comparing the decision's bytes.
"""

import gc
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from cedarpy import Entities, PolicySet, Schema, is_authorized
from planier.access.v1.access_pb2 import CheckItem
from planier.access.v1.recheck_pb2 import RECHECK_OUTCOME_SAME
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.guard_pb2 import OPERATION_CONSULT
from planier.common.v1.release_pb2 import PURPOSE_CROSSING, PURPOSE_SITUATION, PURPOSE_TENSION

from bench.harness import Row, medians, row
from services.access.decisions import Decider
from services.access.engine import ENGINE
from services.access.policy import Policy, Question, Ruling
from services.access.policy.released import policies
from services.access.recheck import History, Recheck
from services.kernel.guard.decisions import state_decision
from services.kernel.guard.ports import Decision
from services.kernel.process import COLLECT_AFTER
from tests.fixtures import access
from tests.fixtures.access import Replica

RECORDS = 2_000
PAGE = 500
PURPOSES = (PURPOSE_SITUATION, PURPOSE_CROSSING, PURPOSE_TENSION)


def rows() -> Sequence[Row]:
    """The rate alone and memoised, each to bare Cedar's; the collector runs as it does in a service."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    with TemporaryDirectory() as folder:
        replica = Replica(access.sqlite_url(Path(folder)))
        try:
            replica.run(*access.founding_commands())
            return _rows(replica)
        finally:
            replica.close()


def _rows(replica: Replica) -> Sequence[Row]:
    distinct = [_recorded(replica, number, another=True) for number in range(RECORDS)]
    equal = [_recorded(replica, number, another=False) for number in range(RECORDS)]
    bare_run = _bare(replica)
    bare, alone, memoised = medians(
        partial(_rate, bare_run),
        lambda: _rate(_again(replica, distinct)),  # made anew each round: nothing is remembered
        lambda: _rate(_again(replica, equal)),
    )
    against = "bare Cedar on the same questions"
    return (
        row("recheck alone, every request another", alone, "records/s", against, bare, ">= 0.7"),
        row("recheck with memoised equal requests", memoised, "records/s", against, bare, ">= 2"),
    )


def _item(number: int, *, another: bool) -> CheckItem:
    """A look at one source; `another`: beside it one that nobody governs, so that no two requests are equal."""
    sources = (access.CITY_SOURCES[number % 2],)
    item = access.check_item(access.CITY_USER, OPERATION_CONSULT, "facts", PURPOSES[number % 3], sources=sources)
    item.check_id = str(UUID(int=number))
    if another:
        item.sources.append(f"none-{number}")
    item.decision_time.FromDatetime(datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=number))
    return item


def _recorded(replica: Replica, number: int, *, another: bool) -> bytes:
    item = _item(number, another=another)
    snapshot = replica.core.cache.current()
    verdict = snapshot.decider.decide(item)
    record = AccessRecord(
        record_id=item.check_id, operation=item.operation, resource=item.resource, rpc=item.rpc, purpose=item.purpose
    )
    record.actor.issuer, record.actor.subject = item.subject.identity.issuer, item.subject.identity.subject
    rests_on = (snapshot.store_position, replica.core.policy.hash, ENGINE, snapshot.resting_on.time_zone_data)
    state_decision(record, item, Decision(verdict, *rests_on))
    return record.SerializeToString(deterministic=True)


def _again(replica: Replica, records: Sequence[bytes]) -> Callable[[], int]:
    recheck = Recheck(History(replica.store), policies())

    def run() -> int:
        pages = (records[first : first + PAGE] for first in range(0, len(records), PAGE))
        outcomes = {one.outcome for page in pages for one in recheck.run_all(page)}
        assert outcomes == {RECHECK_OUTCOME_SAME}, outcomes
        return len(records)

    recheck.run(records[0])  # the state is folded once, whatever the length of the log
    return run


class _Listening(Policy):
    """The policy, keeping what it is asked."""

    def __init__(self, policy_text: bytes, schema_text: bytes) -> None:
        super().__init__(policy_text, schema_text)
        self.asked: list[tuple[dict[str, Any], Entities]] = []

    def rule_all(self, questions: Sequence[Question], entities: Entities) -> list[Ruling]:
        for principal, action, resource, context in questions:
            request = {
                "principal": {"type": "Holder", "id": principal},
                "action": {"type": "Action", "id": action},
                "resource": {"type": resource[0], "id": resource[1]},
                "context": dict(context),
            }
            self.asked.append((request, entities))
        return super().rule_all(questions, entities)


def _bare(replica: Replica) -> Callable[[], int]:
    """The engine alone on what those requests put to it: policies, schema, entities and requests made beforehand."""
    listening = _Listening.load()
    decider = Decider(listening, replica.core.cache.current().state)
    for number in range(RECORDS):
        decider.decide(_item(number, another=True))
    folder = resources.files("services.access.policy")
    policy_set = PolicySet.from_str(folder.joinpath("convention.cedar").read_text())
    schema = Schema.from_str(folder.joinpath("schema.cedarschema").read_text())

    def run() -> int:
        for request, entities in listening.asked:
            is_authorized(request, policy_set, entities, schema)
        return len(listening.asked)

    return run


def _rate(run: Callable[[], int]) -> float:
    began = time.process_time()
    return run() / (time.process_time() - began)
