"""Steps on conflicts, decided: who may, about what, and what a repetition keeps."""

import pytest
from planier.analytics.v1.conflicts_pb2 import (
    CONFLICT_STATE_ACKNOWLEDGED,
    CONFLICT_STATE_DETECTED,
    CONFLICT_STATE_REOPENED,
    CONFLICT_STATE_RESOLVED,
)
from planier.common.v1.fact_pb2 import MEASURE_KIND_BARRIERS, MEASURE_KIND_POSTPONEMENT, MEASURE_KIND_ROUTE_CHANGE

from services.analytics.conflicts.standing import state_of
from services.analytics.domain import Acknowledge, Actor, Command, History, Resolve, Seen, decide, evolve
from services.kernel.errors import Problem

ONE = Actor("https://idp.example", "one", "CITY", "Direction", "record-1")
OTHER = Actor("https://idp.example", "other", "CITY", "Direction", "record-2")
SEEN = Seen("c" * 32, "f" * 32, (MEASURE_KIND_ROUTE_CHANGE, MEASURE_KIND_BARRIERS))
CHANGED = Seen("c" * 32, "e" * 32, SEEN.answers)


def acknowledge(actor: Actor = ONE, seen: Seen = SEEN) -> Acknowledge:
    return Acknowledge(actor, seen, seen.fingerprint)


def resolve(reference: str = "A-1", actor: Actor = ONE, seen: Seen = SEEN) -> Resolve:
    return Resolve(actor, seen, seen.fingerprint, MEASURE_KIND_ROUTE_CHANGE, reference)


def after(*commands: Command) -> History:
    history: History = ()
    for at_us, command in enumerate(commands, 1):
        for event in decide(history, command):
            history = evolve(history, event, at_us)
    return history


def test_a_state_is_what_the_last_step_made_of_the_conflict_as_it_is() -> None:
    assert state_of("f" * 32, after()) == CONFLICT_STATE_DETECTED
    assert state_of("f" * 32, after(acknowledge())) == CONFLICT_STATE_ACKNOWLEDGED
    assert state_of("f" * 32, after(acknowledge(), resolve())) == CONFLICT_STATE_RESOLVED
    assert state_of("e" * 32, after(acknowledge(), resolve())) == CONFLICT_STATE_REOPENED
    assert state_of("e" * 32, after(resolve(), acknowledge(seen=CHANGED))) == CONFLICT_STATE_ACKNOWLEDGED


def test_a_step_names_its_author_and_its_record() -> None:
    (step,) = after(resolve(actor=OTHER))
    assert (step.subject, step.party, step.organisation, step.record_id) == ("other", "CITY", "Direction", "record-2")
    assert step.measure == (MEASURE_KIND_ROUTE_CHANGE, "A-1")


def test_what_its_author_said_before_is_not_kept_twice_but_another_person_or_measure_is() -> None:
    assert len(after(acknowledge(), acknowledge(), acknowledge(OTHER))) == 2
    assert len(after(resolve(), resolve(), resolve("A-2"))) == 2
    assert len(after(acknowledge(), acknowledge(seen=CHANGED))) == 2


def refused(history: History, command: Command) -> str:
    with pytest.raises(Problem) as problem:
        decide(history, command)
    return problem.value.reason


def test_refusals() -> None:
    visitor = Actor("https://idp.example", "visitor", "PREFECTURE", "Préfecture", "record-3")
    assert refused((), acknowledge(visitor)) == "CITY_ONLY"
    assert refused((), resolve(actor=visitor)) == "CITY_ONLY"
    assert refused((), Acknowledge(ONE, SEEN, "e" * 32)) == "CONFLICT_CHANGED"
    assert refused((), Resolve(ONE, SEEN, "e" * 32, MEASURE_KIND_BARRIERS, "A-1")) == "CONFLICT_CHANGED"
    assert refused(after(resolve()), acknowledge()) == "CONFLICT_RESOLVED"
    wrong = Resolve(ONE, SEEN, SEEN.fingerprint, MEASURE_KIND_POSTPONEMENT, "A-1")
    assert refused((), wrong) == "MEASURE_DOES_NOT_ANSWER"
