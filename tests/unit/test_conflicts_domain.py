"""Steps on conflicts, decided: who may, about what, and what a repetition keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planier.analytics.v1.conflicts_pb2 import (
    CONFLICT_STATE_ACKNOWLEDGED,
    CONFLICT_STATE_DETECTED,
    CONFLICT_STATE_REOPENED,
    CONFLICT_STATE_RESOLVED,
    Conflict,
)
from planier.common.v1.fact_pb2 import (
    MEASURE_KIND_BARRIERS,
    MEASURE_KIND_POSTPONEMENT,
    MEASURE_KIND_ROUTE_CHANGE,
    Fact,
    Measure,
)

from services.analytics.conflicts.standing import rests_on_absent_measure, state_of, withdrawn_from
from services.analytics.domain import Acknowledge, Actor, Command, History, Resolve, Seen, Taken, decide, evolve
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


MEASURES = st.frozensets(st.sampled_from([(MEASURE_KIND_ROUTE_CHANGE, "A-1"), (MEASURE_KIND_BARRIERS, "B-1")]))


@given(st.lists(MEASURES, min_size=1, max_size=5), st.lists(st.booleans(), max_size=5), st.booleans())
def test_a_resolution_stands_unless_the_conflict_is_another_or_its_facts_had_its_measure_and_lost_it(
    versions: list[frozenset[Taken]], resolutions: list[bool], same: bool
) -> None:
    facts = [Fact(measures=[Measure(kind=kind, reference=text) for kind, text in taken]) for taken in versions]
    conflict = Conflict(
        measures_present=facts[-1].measures,
        measures_missing=SEEN.answers,
        fingerprint="f" * 32 if same else "e" * 32,
    )
    history = after(acknowledge(), *(resolve("A-1" if attached else "A-2") for attached in resolutions))
    state = state_of(conflict.fingerprint, history, withdrawn_from(conflict, facts))
    rests_on = history[-1].measure
    lost = rests_on not in versions[-1] and any(rests_on in taken for taken in versions)
    assert (state == CONFLICT_STATE_REOPENED) == (not same or lost)
    # The facts' history is asked for only where it can matter.
    if not rests_on_absent_measure(conflict, history):
        assert state == state_of(conflict.fingerprint, history)


def test_what_the_facts_lost_resolves_nothing_and_may_be_taken_on() -> None:
    lost = Seen(SEEN.conflict_id, SEEN.fingerprint, SEEN.answers, frozenset({(MEASURE_KIND_ROUTE_CHANGE, "A-1")}))
    assert refused(after(resolve()), resolve(seen=lost)) == "MEASURE_WITHDRAWN"
    assert refused((), resolve(seen=lost)) == "MEASURE_WITHDRAWN"
    assert len(after(resolve(), acknowledge(seen=lost))) == 2
    assert len(after(resolve(), resolve("A-2", seen=lost))) == 2


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
