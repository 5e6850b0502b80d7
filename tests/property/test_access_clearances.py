"""Whatever anybody tries, in any order: only the granting authority makes a clearance act, and no revoked one does."""

from datetime import datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    REVOCATION_REASON_MISUSE,
    ROLE_AUDITOR,
    ROLE_CITY_USER,
    ROLE_PREFECTURE_USER,
)
from planier.common.v1.guard_pb2 import OPERATION_CONSULT
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, PURPOSE_SITUATION

from services.access.clearances import Content
from services.access.convention import Identity, Person, Standing, State
from services.access.decisions import Decider
from services.access.domain import (
    Command,
    ConfirmBinding,
    GrantClearance,
    ProposeBinding,
    RevokeClearance,
    SignUndertaking,
    decide,
    evolve,
)
from services.access.policy import Policy
from services.access.undertaking import HASH
from services.kernel.errors import Problem
from tests.fixtures import access

POLICY = Policy.load()
PERSONS = (
    access.DGA_PERSON,
    access.VALIDATOR_PERSON,
    access.CITY_PERSON,
    access.PREFECTURE_PERSON,
    Person("Nadia", "Homonyme", "Service"),
)
EVERYBODY = (
    access.DGA,
    access.SECOND_DGA,
    access.VALIDATOR,
    access.AUDITOR,
    access.DPO,
    access.CITY_USER,
    access.PREFECTURE_USER,
    access.STRANGER,
    Identity("https://other-issuer.test", access.DGA.subject),
)
GRANTING = (access.DGA, access.SECOND_DGA)
OTHERS = tuple(identity for identity in EVERYBODY if identity not in GRANTING)
IDS = tuple(str(UUID(int=number)) for number in range(1, 4))
START = access.NOW
MOMENTS = st.integers(0, 200).map(lambda days: START + timedelta(days=days))


def commands(actors: tuple[Identity, ...]) -> st.SearchStrategy[Command]:
    """Any command by any of these people; logins of anybody, under any name."""
    actor, identity, clearance = st.sampled_from(actors), st.sampled_from(EVERYBODY), st.sampled_from(IDS)
    persons = st.sampled_from(PERSONS)
    contents = st.builds(
        Content,
        person=persons,
        party=st.sampled_from([PARTY_CITY, PARTY_PREFECTURE]),
        role=st.sampled_from([ROLE_CITY_USER, ROLE_PREFECTURE_USER, ROLE_AUDITOR]),
        purposes=st.sampled_from([frozenset({PURPOSE_SITUATION}), frozenset({PURPOSE_OVERSIGHT})]),
        sources=st.just(frozenset[str]()),
        valid_from=MOMENTS,
        valid_until=MOMENTS,
    )
    grants = st.builds(
        GrantClearance, actor=actor, clearance_id=clearance, content=contents, record_id=st.just("record")
    )
    logins = st.tuples(identity, persons).map(
        lambda pair: ProposeBinding(pair[0], pair[1].given_name, pair[1].usual_name, "record")
    )
    return st.one_of(
        grants,
        st.builds(
            RevokeClearance,
            actor=actor,
            clearance_id=clearance,
            reason=st.just(REVOCATION_REASON_MISUSE),
            record_id=st.just("record"),
        ),
        logins,
        logins,
        st.builds(ConfirmBinding, actor=actor, clearance_id=clearance, identity=identity, record_id=st.just("record")),
        st.builds(SignUndertaking, actor=actor, text_hash=st.just(HASH), record_id=st.just("record")),
    )


def attempt(state: State, command: Command, at: datetime) -> State:
    """The state after a command, or the same where it is refused; a refusal tells no name."""
    try:
        events = decide(state, command, at)
    except Problem as problem:
        told = f"{problem} {problem.violations}"
        assert not any(person.usual_name in told for person in PERSONS)
        return state
    for event in events:
        state = evolve(state, event, at)
    return state


def timed(actors: tuple[Identity, ...]) -> st.SearchStrategy[list[tuple[Command, datetime]]]:
    return st.lists(st.tuples(commands(actors), MOMENTS), max_size=25)


@settings(max_examples=200, deadline=None)
@given(timed(OTHERS))
def test_without_the_granting_authority_no_clearance_ever_exists(story: list[tuple[Command, datetime]]) -> None:
    state = access.founded()
    for command, at in story:
        state = attempt(state, command, at)
    assert not state.clearances


@settings(max_examples=200, deadline=None)
@given(timed(OTHERS))
def test_without_the_granting_authority_a_grant_and_a_login_bind_no_city_person(
    story: list[tuple[Command, datetime]],
) -> None:
    state = access.applied(access.founded(), access.grant_command(IDS[0]))
    for command, at in story:
        state = attempt(state, command, at)
    assert all(clearance.identity is None for clearance in state.clearances.values())


@settings(max_examples=300, deadline=None)
@given(timed(EVERYBODY))
def test_nobody_ever_holds_what_they_granted_or_confirmed(story: list[tuple[Command, datetime]]) -> None:
    state = access.founded()
    for command, at in story:
        before = state
        state = attempt(state, command, at)
        for clearance_id, clearance in state.clearances.items():
            if clearance.identity is not None:
                assert clearance.identity != clearance.granted_by
                assert clearance.identity == clearance.proposed
                was = before.clearances[clearance_id]
                if was.identity is None:
                    assert isinstance(command, ConfirmBinding)
                    assert command.actor != clearance.identity


@settings(max_examples=150, deadline=None)
@given(timed(EVERYBODY), st.lists(MOMENTS, min_size=1, max_size=3))
def test_facts_are_permitted_only_under_an_active_clearance(
    story: list[tuple[Command, datetime]], moments: list[datetime]
) -> None:
    state = access.populated()
    for command, at in story:
        state = attempt(state, command, at)
    decider = Decider(POLICY, state)
    for at in moments:
        for identity in EVERYBODY:
            entitled = any(
                clearance.identity == identity
                and clearance.standing(at) is Standing.ACTIVE
                and clearance.content.valid_from <= at
                and PURPOSE_SITUATION in clearance.content.purposes
                for clearance in state.clearances.values()
            )
            item = access.check_item(identity, OPERATION_CONSULT, "facts", PURPOSE_SITUATION, at=at)
            assert decider.decide(item).permit == entitled


@settings(max_examples=100, deadline=None)
@given(timed(EVERYBODY), MOMENTS)
def test_after_a_revocation_nothing_is_permitted_under_it_whatever_follows(
    story: list[tuple[Command, datetime]], at: datetime
) -> None:
    state = access.applied(access.populated(), access.revoke_command())
    for command, moment in story:
        state = attempt(state, command, moment)
    assert state.clearances[access.CITY_CLEARANCE].revoked
    verdict = Decider(POLICY, state).decide(access.check_item(access.CITY_USER, purpose=PURPOSE_SITUATION, at=at))
    assert not (verdict.permit and verdict.clearance_id == access.CITY_CLEARANCE)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(EVERYBODY),
            st.sampled_from([PURPOSE_SITUATION, PURPOSE_OVERSIGHT]),
            st.sampled_from([(), ("works",), ("demonstrations", "works")]),
            MOMENTS,
        ),
        min_size=1,
        max_size=20,
    )
)
def test_a_remembered_decision_is_the_one_a_fresh_decider_makes(
    asked: list[tuple[Identity, int, tuple[str, ...], datetime]],
) -> None:
    state = access.populated()
    remembering = Decider(POLICY, state)
    for identity, purpose, sources, at in asked:
        item = access.check_item(identity, OPERATION_CONSULT, "facts", purpose, sources=sources, at=at)  # type: ignore[arg-type]
        assert remembering.decide(item) == Decider(POLICY, state).decide(item)
