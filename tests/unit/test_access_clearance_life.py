"""The life of a clearance: requested, decided in a list, suspended, renewed, reviewed; by whom, and for whom not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from planier.access.v1.access_pb2 import (
    DECISION_KIND_GRANT,
    DECISION_KIND_REFUSE,
    DECISION_KIND_RENEW,
    DECISION_KIND_REVIEW,
    DECISION_KIND_REVOKE,
)
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    REVOCATION_REASON_DEPARTURE,
    ROLE_CITY_USER,
    ROLE_COORDINATOR,
    ROLE_PREFECTURE_USER,
    ClearanceSuspended,
)
from planier.common.v1.release_pb2 import PURPOSE_SITUATION

from services.access.clearances import evolve
from services.access.convention import Clearance, Identity, Person, Standing, State
from services.access.domain import (
    Decision,
    ProposeBinding,
    ResumeClearance,
    SignUndertaking,
    decide,
)
from services.access.instruments import YEARLY_REVIEW
from services.access.people import Affiliation
from services.access.undertaking import HASH
from tests.fixtures import access, access_states
from tests.fixtures.access import NOW, applied, founded, grant_command, house_rules
from tests.fixtures.clearances import (
    COORDINATOR,
    ONE,
    TWO,
    asked,
    coordinated,
    listed,
    requested,
    standing,
    suspended,
)
from tests.fixtures.refusals import refused

# Requests.


def test_a_coordinator_requests_and_nothing_is_permitted_by_it() -> None:
    state = requested(ONE)
    assert standing(state, ONE) is Standing.REQUESTED
    assert state.clearances[ONE].requested_by == COORDINATOR
    assert decide(state, asked(), NOW) == ()
    assert refused(state, asked(valid_until=NOW + timedelta(days=5))).reason == "CLEARANCE_EXISTS"
    assert refused(state, grant_command(ONE)).reason == "CLEARANCE_EXISTS"


@pytest.mark.parametrize("actor", [access.DGA, access.CITY_USER, access.STRANGER, access.VALIDATOR])
def test_nobody_else_requests(actor: Identity) -> None:
    problem = refused(coordinated(), asked(actor=actor))
    assert (problem.reason, problem.clause) == ("NOT_COORDINATOR", "art6.habilitation")


def test_a_coordinator_requests_for_the_citys_people_while_cleared() -> None:
    other = asked(party=PARTY_PREFECTURE, role=ROLE_PREFECTURE_USER)
    assert refused(coordinated(), other).reason == "NOT_COORDINATOR"
    assert refused(coordinated(), asked(), NOW + timedelta(days=100)).reason == "NOT_COORDINATOR"
    early = access_states.clear(access.populated(), "coordinator", "Haddad", role=ROLE_COORDINATOR, valid_from=NOW)
    assert refused(early, asked(), NOW - timedelta(seconds=1)).reason == "NOT_COORDINATOR"
    assert decide(early, asked(), NOW)
    state = coordinated()
    state = applied(state, access.revoke_command(state.bound[COORDINATOR][0]))
    assert refused(state, asked()).reason == "NOT_COORDINATOR"


def test_a_request_is_as_sound_as_a_grant() -> None:
    assert refused(coordinated(), asked(sources=frozenset({"weather"}))).reason == "CLEARANCE_INVALID"


# Lists.


def test_a_list_is_decided_with_one_number_each() -> None:
    state = requested(ONE, TWO)
    command = listed(
        Decision(ONE, DECISION_KIND_GRANT),
        Decision(TWO, DECISION_KIND_REFUSE, reason="poste supprimé"),
        Decision(access.CITY_CLEARANCE, DECISION_KIND_REVIEW),
        service="",
    )
    first = state.decided[1]
    after = applied(state, command)
    assert (standing(after, ONE), standing(after, TWO)) == (Standing.GRANTED, Standing.REFUSED)
    assert after.clearances[TWO].refusal == "poste supprimé"
    numbers = [after.clearances[name].decisions[-1].number for name in (ONE, TWO, access.CITY_CLEARANCE)]
    assert numbers == [(2026, first + 1), (2026, first + 2), (2026, first + 3)]
    assert after.decided == (2026, first + 3)
    assert {event.record_id for event in decide(state, command, NOW)} == {"record"}


def test_numbers_begin_anew_with_the_local_year() -> None:
    eve = datetime(2026, 12, 31, 22, 59, tzinfo=UTC)
    state = applied(founded(), grant_command(ONE, valid_until=eve + timedelta(days=300)), eve)
    state = applied(state, grant_command(TWO, valid_until=eve + timedelta(days=300)), eve + timedelta(minutes=1))
    assert [one.number for one in state.clearances[ONE].decisions] == [(2026, 1)]
    assert [one.number for one in state.clearances[TWO].decisions] == [(2027, 1)]


def test_a_list_decided_again_changes_nothing() -> None:
    command = listed(Decision(ONE, DECISION_KIND_GRANT), Decision(TWO, DECISION_KIND_REFUSE, reason="non"))
    state = applied(requested(ONE, TWO), command)
    assert decide(state, command, NOW) == ()
    revoked = listed(Decision(ONE, DECISION_KIND_REVOKE, revocation=REVOCATION_REASON_DEPARTURE))
    state = applied(state, revoked)
    assert standing(state, ONE) is Standing.REVOKED
    assert decide(state, revoked, NOW) == ()


def test_one_refusal_refuses_the_whole_list() -> None:
    state = requested(ONE)
    command = listed(Decision(ONE, DECISION_KIND_GRANT), Decision(TWO, DECISION_KIND_GRANT))
    assert refused(state, command).reason == "CLEARANCE_UNKNOWN"


def test_a_clearance_is_decided_once_in_a_list() -> None:
    command = listed(Decision(ONE, DECISION_KIND_GRANT), Decision(ONE, DECISION_KIND_GRANT))
    assert refused(requested(ONE), command).reason == "DECISION_INVALID"


def test_a_list_by_service_holds_nobody_of_another() -> None:
    state = requested(ONE)
    assert decide(state, listed(Decision(ONE, DECISION_KIND_GRANT), service="Voirie"), NOW)
    command = listed(Decision(ONE, DECISION_KIND_GRANT), service="Voiries")
    assert refused(state, command).reason == "DECISION_INVALID"


@pytest.mark.parametrize("actor", [access.VALIDATOR, COORDINATOR, access.AUDITOR, access.STRANGER])
def test_only_the_granting_authority_decides(actor: Identity) -> None:
    command = listed(Decision(ONE, DECISION_KIND_GRANT), actor=actor)
    assert refused(requested(ONE), command).reason == "NOT_GRANTING_AUTHORITY"


def test_what_was_decided_is_not_granted_or_refused_again() -> None:
    state = applied(requested(ONE), listed(Decision(ONE, DECISION_KIND_REFUSE, reason="non")))
    assert refused(state, listed(Decision(ONE, DECISION_KIND_GRANT))).reason == "CLEARANCE_NOT_REQUESTED"
    other = listed(Decision(ONE, DECISION_KIND_REFUSE, reason="autre"))
    assert refused(state, other).reason == "CLEARANCE_NOT_REQUESTED"
    direct = listed(Decision(access.CITY_CLEARANCE, DECISION_KIND_GRANT))
    assert refused(state, direct).reason == "CLEARANCE_NOT_REQUESTED"
    late = listed(Decision(ONE, DECISION_KIND_GRANT))
    assert refused(requested(ONE), late, NOW + timedelta(days=100)).reason == "CLEARANCE_NOT_REQUESTED"


def test_a_request_granted_by_another_holder_of_the_office_is_granted() -> None:
    state = applied(requested(ONE), listed(Decision(ONE, DECISION_KIND_GRANT)))
    again = listed(Decision(ONE, DECISION_KIND_GRANT), actor=access.SECOND_DGA)
    assert refused(state, again).reason == "CLEARANCE_NOT_REQUESTED"


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_refusal_is_reasoned(reason: str) -> None:
    command = listed(Decision(ONE, DECISION_KIND_REFUSE, reason=reason))
    assert refused(requested(ONE), command).reason == "DECISION_INVALID"


def test_a_revocation_is_reasoned() -> None:
    command = listed(Decision(access.CITY_CLEARANCE, DECISION_KIND_REVOKE))
    assert refused(access.populated(), command).reason == "DECISION_INVALID"


def test_a_request_for_oneself_is_granted_by_another() -> None:
    own = asked(ONE, person=access.DGA_PERSON)
    state = applied(coordinated(), own)
    assert refused(state, listed(Decision(ONE, DECISION_KIND_GRANT))).reason == "OWN_CLEARANCE"
    assert decide(state, listed(Decision(ONE, DECISION_KIND_GRANT), actor=access.SECOND_DGA), NOW)


def test_who_requested_does_not_grant() -> None:
    state = requested(ONE)
    state = applied(state, access.revoke_command(state.bound[COORDINATOR][0]))
    act = access.appointment("ROLE_GRANTING_AUTHORITY", "PARTY_CITY", "coordinator", Person("Zoé", "Autre", "DGA"))
    state = applied(state, access.act_command("appointment", act, access.CITY_ALONE))
    command = listed(Decision(ONE, DECISION_KIND_GRANT), actor=COORDINATOR)
    assert refused(state, command).reason == "OWN_CLEARANCE"


def test_a_request_is_granted_under_the_terms_of_the_day() -> None:
    state = applied(coordinated(), asked(ONE, sources=frozenset({"works"})))
    first, second = access.description()["instruments"]
    fewer = access.amendment(instruments=[first, {**second, "sources": ["markets"]}])
    state = applied(state, access.act_command("amendment", fewer))
    assert refused(state, listed(Decision(ONE, DECISION_KIND_GRANT))).reason == "CLEARANCE_INVALID"


# Renewal and review.


def test_a_renewal_moves_the_end() -> None:
    until = NOW + timedelta(days=400)
    command = listed(Decision(access.CITY_CLEARANCE, DECISION_KIND_RENEW, valid_until=until))
    state = applied(access.populated(), command)
    assert state.clearances[access.CITY_CLEARANCE].content.valid_until == until
    assert standing(state, access.CITY_CLEARANCE, until - timedelta(seconds=1)) is Standing.ACTIVE
    assert decide(state, command, NOW) == ()


@pytest.mark.parametrize("until", [None, NOW, NOW - timedelta(days=1)])
def test_a_renewal_ends_later_than_now(until: datetime | None) -> None:
    command = listed(Decision(access.CITY_CLEARANCE, DECISION_KIND_RENEW, valid_until=until))
    problem = refused(access.populated(), command)
    assert [violation.field for violation in problem.violations] == ["valid_until"]


KINDS = [
    Decision("", DECISION_KIND_RENEW, valid_until=NOW + timedelta(days=400)),
    Decision("", DECISION_KIND_REVIEW),
]


@pytest.mark.parametrize("decision", KINDS)
def test_what_is_over_is_neither_renewed_nor_reviewed(decision: Decision) -> None:
    state = applied(access.populated(), access.revoke_command())
    command = listed(replace(decision, clearance_id=access.CITY_CLEARANCE))
    assert refused(state, command).reason == "CLEARANCE_NOT_STANDING"
    assert refused(access.populated(), command, NOW + timedelta(days=100)).reason == "CLEARANCE_NOT_STANDING"
    assert refused(requested(ONE), listed(replace(decision, clearance_id=ONE))).reason == "CLEARANCE_NOT_STANDING"


@pytest.mark.parametrize("decision", KINDS)
def test_nobody_renews_or_reviews_their_own(decision: Decision) -> None:
    state = applied(founded(), grant_command(ONE, actor=access.SECOND_DGA, person=Person("Jean", "Autre", "s")))
    state = applied(state, ProposeBinding(access.DGA, "Jean", "Autre", "record"))
    command = listed(replace(decision, clearance_id=ONE))
    assert refused(state, command).reason == "OWN_CLEARANCE"
    by_name = applied(founded(), grant_command(ONE, actor=access.SECOND_DGA, person=access.DGA_PERSON))
    assert refused(by_name, command).reason == "OWN_CLEARANCE"
    assert decide(state, replace(command, actor=access.SECOND_DGA), NOW)


def test_with_the_house_rule_a_clearance_not_reviewed_lapses_a_year_after_it_was_looked_at() -> None:
    long = grant_command(ONE, valid_until=NOW + timedelta(days=2000))
    state = applied(applied(founded(), long), house_rules(YEARLY_REVIEW), NOW + timedelta(days=27))
    due = datetime(2027, 3, 28, 11, 0, tzinfo=UTC)  # the same local time, in summer by then
    assert standing(state, ONE, due - timedelta(microseconds=1)) is Standing.GRANTED
    assert standing(state, ONE, due) is Standing.EXPIRED
    assert standing(applied(founded(), long), ONE, due) is Standing.GRANTED
    at = NOW + timedelta(days=300)
    for decision in (
        Decision(ONE, DECISION_KIND_REVIEW),
        Decision(ONE, DECISION_KIND_RENEW, valid_until=NOW + timedelta(days=3000)),
    ):
        kept = applied(state, listed(decision), at)
        assert standing(kept, ONE, at + timedelta(days=364)) is Standing.GRANTED
        assert standing(kept, ONE, at + timedelta(days=366)) is Standing.EXPIRED


# Suspension.


def test_either_party_suspends_alone_and_lifts_its_own() -> None:
    name = access.PREFECTURE_CLEARANCE
    state = applied(access.populated(), suspended(access.populated(), access.DGA, name))
    assert standing(state, name) is Standing.SUSPENDED
    assert decide(state, suspended(state, access.DGA, name), NOW) == ()
    state = applied(state, suspended(state, access.VALIDATOR, name))
    state = applied(state, ResumeClearance(access.DGA, name, "record"))
    assert standing(state, name) is Standing.SUSPENDED
    assert refused(state, ResumeClearance(access.DGA, name, "record")).reason == "NOT_SUSPENDED"
    state = applied(state, ResumeClearance(access.VALIDATOR, name, "record"))
    assert standing(state, name) is Standing.ACTIVE


def test_the_citys_suspension_is_numbered_the_prefectures_is_not() -> None:
    state = access.populated()
    (city,) = decide(state, suspended(state, access.DGA, access.PREFECTURE_CLEARANCE), NOW)
    (prefecture,) = decide(state, suspended(state, access.VALIDATOR, access.PREFECTURE_CLEARANCE), NOW)
    assert isinstance(city, ClearanceSuspended)
    assert isinstance(prefecture, ClearanceSuspended)
    assert (city.decision.year, city.decision.number) == (2026, state.decided[1] + 1)
    assert not prefecture.HasField("decision")
    assert (city.party, prefecture.party) == (PARTY_CITY, PARTY_PREFECTURE)


def test_the_validator_does_not_suspend_the_citys_people() -> None:
    state = access.populated()
    assert refused(state, suspended(state, access.VALIDATOR)).reason == "CLEARANCE_UNKNOWN"


@pytest.mark.parametrize("actor", [access.AUDITOR, access.CITY_USER, access.STRANGER])
def test_nobody_else_suspends_or_resumes(actor: Identity) -> None:
    state = access.populated()
    problem = refused(state, suspended(state, actor))
    assert (problem.reason, problem.clause) == ("NOT_SUSPENDING", "art7.validation")
    assert refused(state, ResumeClearance(actor, access.CITY_CLEARANCE, "record")).reason == "NOT_SUSPENDING"


def test_there_is_nothing_to_suspend_in_what_is_over() -> None:
    state = applied(access.populated(), access.revoke_command())
    assert refused(state, suspended(state, access.DGA)).reason == "CLEARANCE_NOT_STANDING"


def test_nobody_lifts_the_suspension_of_their_own() -> None:
    state = applied(founded(), grant_command(ONE, actor=access.SECOND_DGA, person=access.DGA_PERSON))
    state = applied(state, suspended(state, access.SECOND_DGA, ONE))
    assert refused(state, ResumeClearance(access.DGA, ONE, "record")).reason == "OWN_CLEARANCE"


def test_a_suspended_proposal_is_not_confirmed() -> None:
    state = applied(founded(), grant_command(ONE))
    state = applied(state, ProposeBinding(access.CITY_USER, "Élise", "Dupré-Noël", "record"))
    state = applied(state, suspended(state, access.DGA, ONE))
    confirm = access.binding(grant_command(ONE), access.CITY_USER, access.DGA)[2]
    assert refused(state, confirm).reason == "BINDING_NOT_PROPOSED"


# Organisations and undertakings.


def test_a_party_that_lists_its_organisations_takes_no_login_of_another() -> None:
    listing = [{"party": "PARTY_CITY", "siret": "21130055300016"}]
    state = applied(State(), access.sign_command(access.deed({"organisations": listing})))
    state = applied(state, grant_command(ONE))
    login = ProposeBinding(access.CITY_USER, "Élise", "Dupré-Noël", "record")
    assert decide(state, login, NOW) == ()
    assert decide(state, replace(login, affiliation=Affiliation(siret="11111111111111")), NOW) == ()
    own = replace(login, affiliation=Affiliation("21130055300016", "agent-7", "Voirie"))
    after = applied(state, own)
    assert after.clearances[ONE].affiliation == own.affiliation
    prefecture: dict[str, Any] = {"party": PARTY_PREFECTURE, "role": ROLE_PREFECTURE_USER}
    state = access.listed(state, access.listed_person(access.PREFECTURE_PERSON))
    other = applied(state, grant_command(TWO, person=access.PREFECTURE_PERSON, **prefecture))
    assert decide(other, ProposeBinding(access.STRANGER, "Marc", "Œillet", "record"), NOW)


def test_the_holder_signs_the_text_that_is_shown_once() -> None:
    state = access_states.unsigned(founded(), "city-user", "Haddad")
    command = SignUndertaking(access.CITY_USER, HASH, "record")
    name = access_states.last(state)
    assert standing(state, name) is Standing.UNDERTAKING_AWAITED
    assert refused(state, replace(command, text_hash=b"x" * 32)).reason == "UNDERTAKING_OTHER_TEXT"
    problem = refused(state, replace(command, actor=access.STRANGER))
    assert (problem.reason, problem.clause) == ("NO_CLEARANCE", "art6.habilitation")
    signed = applied(state, command)
    assert standing(signed, name) is Standing.ACTIVE
    assert decide(signed, command, NOW) == ()


def test_an_event_of_a_clearance_that_was_never_made_is_no_state() -> None:
    (event,) = decide(access.populated(), suspended(access.populated(), access.DGA), NOW)
    assert isinstance(event, ClearanceSuspended)
    with pytest.raises(KeyError):
        evolve(None, event, NOW, lambda _: 0)


def test_a_clearance_knows_whom_it_names() -> None:
    clearance: Clearance = access.populated().clearances[access.CITY_CLEARANCE]
    assert (clearance.person, clearance.party, clearance.role) == (access.CITY_PERSON, PARTY_CITY, ROLE_CITY_USER)
    assert PURPOSE_SITUATION in clearance.content.purposes


def test_a_revocation_is_numbered() -> None:
    state = applied(access.populated(), access.revoke_command())
    assert [one.number for one in state.clearances[access.CITY_CLEARANCE].decisions] == [(2026, 1), (2026, 3)]
