"""The life of a clearance: requested, decided in a list, suspended, renewed, reviewed; by whom, and for whom not."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from planier.access.v1.access_pb2 import (
    DECISION_KIND_GRANT,
    DECISION_KIND_REFUSE,
    DECISION_KIND_RENEW,
    DECISION_KIND_REVIEW,
    DECISION_KIND_REVOKE,
)
from planier.access.v1.events_pb2 import (
    NOTICE_KIND_URGENT_CLEARANCE,
    PARTY_CITY,
    PARTY_PREFECTURE,
    REVOCATION_REASON_DEPARTURE,
    REVOCATION_REASON_MISUSE,
    ROLE_AUDITOR,
    ROLE_CITY_USER,
    ROLE_COORDINATOR,
    ROLE_PREFECTURE_USER,
    ROLE_PROVIDER_RECIPIENT,
    ClearanceGranted,
    ClearanceSuspended,
    NoticeIssued,
)
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, PURPOSE_SITUATION

from services.access.clearances import Area, evolve
from services.access.convention import Clearance, Identity, Person, Standing, State, standing_of
from services.access.domain import (
    DecideClearances,
    Decision,
    GrantClearance,
    ProposeBinding,
    RequestClearance,
    ResumeClearance,
    SignUndertaking,
    SuspendClearance,
    decide,
)
from services.access.instruments import DELEGATE, URGENT_CLEARANCE, YEARLY_REVIEW
from services.access.people import Affiliation
from services.access.undertaking import HASH
from services.kernel.errors import Problem
from tests.fixtures import access, access_states
from tests.fixtures.access import NOW, applied, founded, grant_command, house_rules
from tests.fixtures.engagements import ENGAGEMENT

COORDINATOR = Identity(access.ISSUER, "coordinator")
DELEGATE_IDENTITY = Identity(access.ISSUER, "delegate")
ONE, TWO, THREE = (str(UUID(int=number)) for number in (101, 102, 103))


def refused(state: State, command: Any, at: datetime = NOW) -> Problem:
    with pytest.raises(Problem) as problem:
        decide(state, command, at)
    return problem.value


def standing(state: State, clearance_id: str, at: datetime = NOW) -> Standing:
    return standing_of(state, state.clearances[clearance_id], at)


def coordinated() -> State:
    return access_states.clear(access.populated(), "coordinator", "Haddad", role=ROLE_COORDINATOR)


def asked(clearance_id: str = ONE, actor: Identity = COORDINATOR, **changes: Any) -> RequestClearance:
    person = changes.pop("person", Person("Camille", f"Nom {clearance_id[-1]}", "Voirie"))
    content = grant_command(person=person, **changes).content
    return RequestClearance(actor, clearance_id, content, "record")


def requested(*ids: str) -> State:
    state = coordinated()
    for clearance_id in ids:
        state = applied(state, asked(clearance_id))
    return state


def listed(*decisions: Decision, actor: Identity = access.DGA, service: str = "") -> DecideClearances:
    return DecideClearances(actor, decisions, service, "record")


def delegated() -> State:
    state = applied(coordinated(), house_rules(DELEGATE))
    act = access.appointment(
        "ROLE_GRANTING_DELEGATE",
        "PARTY_CITY",
        "delegate",
        access_states.DELEGATE_PERSON,
        "DELEGATION",
        until=NOW + timedelta(days=30),
    )
    return applied(state, access.act_command("appointment", act, access.CITY_ALONE))


def withdrawn() -> State:
    terms = access.amendment("2026-03", previous_version="2026-02")
    return applied(delegated(), access.act_command("amendment", terms))


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
    numbers = [after.clearances[name].decisions[-1] for name in (ONE, TWO, access.CITY_CLEARANCE)]
    assert numbers == [(2026, first + 1), (2026, first + 2), (2026, first + 3)]
    assert after.decided == (2026, first + 3)
    assert {event.record_id for event in decide(state, command, NOW)} == {"record"}


def test_numbers_begin_anew_with_the_local_year() -> None:
    eve = datetime(2026, 12, 31, 22, 59, tzinfo=UTC)
    state = applied(founded(), grant_command(ONE, valid_until=eve + timedelta(days=300)), eve)
    state = applied(state, grant_command(TWO, valid_until=eve + timedelta(days=300)), eve + timedelta(minutes=1))
    assert state.clearances[ONE].decisions == ((2026, 1),)
    assert state.clearances[TWO].decisions == ((2027, 1),)


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


def suspended(state: State, actor: Identity, clearance_id: str = access.CITY_CLEARANCE) -> SuspendClearance:
    return SuspendClearance(actor, clearance_id, REVOCATION_REASON_MISUSE, "record")


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


# The delegate.


DELEGATES: list[tuple[str, Callable[[State], Any]]] = [
    ("grants", lambda _: grant_command(ONE, actor=DELEGATE_IDENTITY, person=Person("Jean", "Autre", "s"))),
    ("revokes", lambda _: access.revoke_command(actor=DELEGATE_IDENTITY)),
    (
        "decides",
        lambda _: listed(Decision(access.CITY_CLEARANCE, DECISION_KIND_REVIEW), actor=DELEGATE_IDENTITY),
    ),
    ("suspends", lambda state: suspended(state, DELEGATE_IDENTITY)),
]


@pytest.mark.parametrize(("name", "command"), DELEGATES)
def test_a_delegate_acts_while_the_house_rule_is_in_force(name: str, command: Callable[[State], Any]) -> None:
    assert decide(delegated(), command(delegated()), NOW)
    problem = refused(withdrawn(), command(withdrawn()))
    assert (problem.reason, problem.clause) == ("HOUSE_RULE_MISSING", DELEGATE)
    late = NOW + timedelta(days=30)
    assert refused(delegated(), command(delegated()), late).reason in {"NOT_GRANTING_AUTHORITY", "NOT_SUSPENDING"}


def test_a_delegate_confirms_while_the_house_rule_is_in_force() -> None:
    def proposed(state: State) -> State:
        state = applied(state, grant_command(ONE, person=Person("Jean", "Autre", "s")))
        return applied(state, ProposeBinding(access.STRANGER, "Jean", "Autre", "record"))

    grant = grant_command(ONE, person=Person("Jean", "Autre", "s"))
    confirm = access.binding(grant, access.STRANGER, DELEGATE_IDENTITY)[2]
    assert decide(proposed(delegated()), confirm, NOW)
    assert refused(proposed(withdrawn()), confirm).clause == DELEGATE


# Urgency.


def urgent(clearance_id: str = ONE, actor: Identity = access.DGA, **changes: Any) -> GrantClearance:
    hours: dict[str, Any] = {"valid_from": NOW, "valid_until": NOW + timedelta(hours=12)}
    person = changes.pop("person", Person("Jean", "Autre", "s"))
    return replace(grant_command(clearance_id, actor=actor, person=person, **{**hours, **changes}), urgent=True)


def urgently() -> State:
    return applied(delegated(), access.act_command("amendment", URGENT_TERMS))


URGENT_TERMS = access.amendment(
    "2026-03",
    previous_version="2026-02",
    house_rules=[{"rule_id": DELEGATE}, {"rule_id": URGENT_CLEARANCE}],
)


@pytest.mark.parametrize("actor", [access.DGA, DELEGATE_IDENTITY])
def test_an_urgent_clearance_tells_both_officers_at_once(actor: Identity) -> None:
    granted, *notices = decide(urgently(), urgent(actor=actor), NOW)
    assert isinstance(granted, ClearanceGranted)
    assert granted.urgent
    told = [(n.party, n.kind, n.reference) for n in notices if isinstance(n, NoticeIssued)]
    assert told == [(party, NOTICE_KIND_URGENT_CLEARANCE, ONE) for party in (PARTY_CITY, PARTY_PREFECTURE)]
    state = applied(urgently(), urgent(actor=actor))
    assert len(state.notices) == 2
    assert decide(state, urgent(actor=actor), NOW) == ()
    assert refused(state, replace(urgent(actor=actor), urgent=False)).reason == "CLEARANCE_EXISTS"


def test_an_urgent_clearance_exists_through_the_house_rule_only() -> None:
    problem = refused(delegated(), urgent())
    assert (problem.reason, problem.clause) == ("HOUSE_RULE_MISSING", URGENT_CLEARANCE)


@pytest.mark.parametrize(
    "changes",
    [
        {"valid_until": NOW + timedelta(hours=12, microseconds=1)},
        {"valid_from": NOW + timedelta(minutes=1), "valid_until": NOW + timedelta(hours=2)},
    ],
)
def test_an_urgent_clearance_begins_now_and_lasts_twelve_hours_at_most(changes: dict[str, Any]) -> None:
    problem = refused(urgently(), urgent(**changes))
    assert (problem.reason, problem.clause) == ("CLEARANCE_INVALID", URGENT_CLEARANCE)


def test_an_urgent_clearance_is_for_staff_and_for_whom_the_prefecture_listed() -> None:
    auditor = urgent(role=ROLE_AUDITOR, purposes=frozenset({PURPOSE_OVERSIGHT}))
    assert refused(urgently(), auditor).reason == "NOT_ELIGIBLE"
    prefecture: dict[str, Any] = {"party": PARTY_PREFECTURE, "role": ROLE_PREFECTURE_USER}
    unknown = refused(urgently(), urgent(**prefecture))
    assert (unknown.reason, unknown.clause) == ("NOT_ELIGIBLE", URGENT_CLEARANCE)
    listed_person = urgent(person=access.PREFECTURE_PERSON, **prefecture)
    assert decide(urgently(), listed_person, NOW)
    moved = replace(access.PREFECTURE_PERSON, professional_address="ailleurs")
    assert decide(urgently(), urgent(person=moved, **prefecture), NOW)
    other_service = replace(access.PREFECTURE_PERSON, service="ailleurs")
    assert refused(urgently(), urgent(person=other_service, **prefecture)).reason == "NOT_ELIGIBLE"
    gone = applied(urgently(), access.revoke_command(access.PREFECTURE_CLEARANCE))
    assert refused(gone, listed_person).reason == "NOT_ELIGIBLE"
    stopped = applied(urgently(), suspended(urgently(), access.VALIDATOR, access.PREFECTURE_CLEARANCE))
    assert refused(stopped, listed_person).reason == "NOT_ELIGIBLE"
    city_namesake = urgent(person=access.CITY_PERSON, **prefecture)
    assert refused(urgently(), city_namesake).reason == "NOT_ELIGIBLE"


def test_an_urgent_clearance_is_not_renewed() -> None:
    state = applied(urgently(), urgent())
    command = listed(Decision(ONE, DECISION_KIND_RENEW, valid_until=NOW + timedelta(days=9)))
    assert refused(state, command).clause == URGENT_CLEARANCE


# What a clearance is bounded to.


def bounded(**changes: Any) -> GrantClearance:
    command = grant_command(ONE, **{name: changes.pop(name) for name in ("role", "purposes") if name in changes})
    return replace(command, content=replace(command.content, **changes))


@pytest.mark.parametrize(
    "area",
    [
        Area(5.4, 43.2, 5.2, 43.4),
        Area(5.2, 43.4, 5.4, 43.2),
        Area(5.2, 43.2, 5.2, 43.4),
        Area(5.2, 43.2, 5.4, 43.2),
        Area(-180.1, 0, 5, 43),
        Area(0, -90.1, 5, 43),
        Area(0, 0, 180.1, 43),
        Area(0, 0, 5, 90.1),
        Area(float("nan"), 0, 5, 43),
    ],
)
def test_an_area_is_a_box_of_degrees(area: Area) -> None:
    problem = refused(founded(), bounded(areas=(area,)))
    assert [violation.field for violation in problem.violations] == ["areas"]


def test_the_whole_world_is_an_area() -> None:
    assert decide(founded(), bounded(areas=(Area(-180, -90, 180, 90),)), NOW)


@pytest.mark.parametrize(
    ("box", "within"),
    [
        (Area(1, 1, 2, 2), True),
        (Area(0, 0, 10, 10), True),
        (Area(-1, 1, 2, 2), False),
        (Area(1, -1, 2, 2), False),
        (Area(1, 1, 11, 2), False),
        (Area(1, 1, 2, 11), False),
    ],
)
def test_a_box_lies_within_another(box: Area, within: bool) -> None:
    assert Area(0, 0, 10, 10).holds(box) == within


def test_a_provider_recipient_has_an_engagement_and_nobody_else_has() -> None:
    recipient = bounded(role=ROLE_PROVIDER_RECIPIENT, engagement_id=ENGAGEMENT)
    state = applied(founded(), access_states.engagement_of(recipient.content.person))
    assert decide(state, recipient, NOW)
    somebody = replace(recipient, content=replace(recipient.content, person=Person("Paule", "Autre", "Service")))
    for command, at in ((somebody, NOW), (recipient, NOW + timedelta(days=31))):
        assert refused(state, command, at).clause == "art8.provider"
    assert refused(founded(), recipient).reason == "ENGAGEMENT_UNKNOWN"
    for command in (bounded(role=ROLE_PROVIDER_RECIPIENT), bounded(role=ROLE_CITY_USER, engagement_id="e")):
        assert [v.field for v in refused(founded(), command).violations] == ["engagement_id"]


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
        evolve(None, event, NOW)


def test_a_clearance_knows_whom_it_names() -> None:
    clearance: Clearance = access.populated().clearances[access.CITY_CLEARANCE]
    assert (clearance.person, clearance.party, clearance.role) == (access.CITY_PERSON, PARTY_CITY, ROLE_CITY_USER)
    assert PURPOSE_SITUATION in clearance.content.purposes


def test_a_revocation_is_numbered() -> None:
    state = applied(access.populated(), access.revoke_command())
    assert state.clearances[access.CITY_CLEARANCE].decisions == ((2026, 1), (2026, 3))
