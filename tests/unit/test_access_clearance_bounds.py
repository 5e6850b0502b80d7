"""Who stands in for the granting authority, what urgency allows, and what a clearance is bounded to."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from planier.access.v1.access_pb2 import (
    DECISION_KIND_RENEW,
    DECISION_KIND_REVIEW,
)
from planier.access.v1.events_pb2 import (
    NOTICE_KIND_URGENT_CLEARANCE,
    PARTY_CITY,
    PARTY_PREFECTURE,
    ROLE_AUDITOR,
    ROLE_CITY_USER,
    ROLE_PREFECTURE_USER,
    ROLE_PROVIDER_RECIPIENT,
    ClearanceGranted,
    NoticeIssued,
)
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT

from services.access.clearances import Area
from services.access.convention import Identity, Person, State
from services.access.domain import (
    Decision,
    GrantClearance,
    ProposeBinding,
    decide,
)
from services.access.instruments import DELEGATE, URGENT_CLEARANCE
from tests.fixtures import access, access_states
from tests.fixtures.access import NOW, applied, founded, grant_command
from tests.fixtures.clearances import (
    DELEGATE_IDENTITY,
    ONE,
    delegated,
    listed,
    suspended,
    withdrawn,
)
from tests.fixtures.engagements import ENGAGEMENT
from tests.fixtures.refusals import refused

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
