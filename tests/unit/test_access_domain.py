"""Who may change what: every refusal of decide, one by one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    ROLE_AUDITOR,
    ROLE_CITY_USER,
    ROLE_COORDINATOR,
    ROLE_GRANTING_AUTHORITY,
    ROLE_PREFECTURE_USER,
    ClearanceGranted,
    Party,
    Role,
)
from planier.common.v1.release_pb2 import PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT, PURPOSE_SITUATION, Purpose

from services.access.convention import Identity, Person, Standing, State
from services.access.domain import ConfirmBinding, ProposeBinding, SignConvention, decide
from tests.fixtures import access
from tests.fixtures.access import NOW, applied, founded, grant_command
from tests.fixtures.refusals import refused


def propose(identity: Identity = access.CITY_USER, person: Person = access.CITY_PERSON) -> ProposeBinding:
    return ProposeBinding(identity, person.given_name, person.usual_name, "record")


def confirm(clearance_id: str, identity: Identity = access.CITY_USER, actor: Identity = access.DGA) -> ConfirmBinding:
    return ConfirmBinding(actor, clearance_id, identity, "record")


def proposed(clearance_id: str = access.CITY_CLEARANCE) -> State:
    return applied(applied(founded(), grant_command(clearance_id)), propose())


def test_the_founding_event_fixes_offices_instruments_and_term() -> None:
    convention = founded().convention
    assert convention is not None
    assert convention.term is not None
    assert convention.term.ends == datetime(2029, 2, 28, 23, 0, tzinfo=UTC)
    assert convention.terms(NOW).sources == {*access.CONVENTION_SOURCES, *access.CITY_SOURCES}
    assert convention.signed_at == NOW


def test_the_same_deed_again_changes_nothing() -> None:
    assert decide(founded(), access.sign_command(), NOW) == ()


def test_another_deed_is_refused_once_one_is_signed() -> None:
    other = access.sign_command(access.deed({"convention_version": "2026-01"}))
    problem = refused(founded(), other)
    assert (problem.reason, problem.clause) == ("CONVENTION_ALREADY_SIGNED", "art10.avenant")


def test_a_forged_second_founding_learns_only_that_it_is_forged() -> None:
    forged = replace(access.sign_command(), signatures=access.sign_command().signatures[:1])
    assert refused(founded(), forged).reason == "DEED_SIGNATURE_INVALID"


def test_a_deed_of_another_annex_is_refused() -> None:
    command: SignConvention = replace(access.sign_command(), annex_hash="cd" * 32)
    assert refused(State(), command).reason == "ANNEX_MISMATCH"


def test_nothing_is_granted_before_the_founding() -> None:
    assert refused(State(), grant_command()).reason == "CONVENTION_NOT_SIGNED"


@pytest.mark.parametrize(
    "actor", [access.VALIDATOR, access.AUDITOR, access.DPO, access.CITY_USER, access.STRANGER, Identity("", "")]
)
def test_only_the_granting_authority_grants(actor: Identity) -> None:
    problem = refused(access.populated(), grant_command(actor=actor))
    assert (problem.reason, problem.clause) == ("NOT_GRANTING_AUTHORITY", "art6.habilitation")


@pytest.mark.parametrize("actor", [access.VALIDATOR, access.CITY_USER, access.STRANGER])
def test_only_the_granting_authority_revokes(actor: Identity) -> None:
    problem = refused(access.populated(), access.revoke_command(actor=actor))
    assert problem.reason == "NOT_GRANTING_AUTHORITY"


def test_the_subject_alone_does_not_make_the_granting_authority() -> None:
    impostor = Identity("https://other-issuer.test", access.DGA.subject)
    assert refused(founded(), grant_command(actor=impostor)).reason == "NOT_GRANTING_AUTHORITY"


def test_an_office_does_not_act_before_its_first_day() -> None:
    early = access.NOTIFIED - timedelta(microseconds=1)
    assert refused(founded(), grant_command(), early).reason == "NOT_GRANTING_AUTHORITY"


@pytest.mark.parametrize("usual_name", ["Delmas", "DELMAS", "Delmás", "Del-mas", "Del\u200bmas"])
def test_nobody_grants_for_themselves_by_name(usual_name: str) -> None:
    problem = refused(founded(), grant_command(person=Person("agathe", usual_name, "DGA")))
    assert (problem.reason, problem.clause) == ("OWN_CLEARANCE", "art6.habilitation")


def test_nobody_grants_for_themselves_under_another_name() -> None:
    state = applied(founded(), grant_command(access.CITY_CLEARANCE))
    assert decide(state, propose(access.DGA), NOW) == ()


@pytest.mark.parametrize(
    ("role", "party"),
    [
        (ROLE_PREFECTURE_USER, PARTY_CITY),
        (ROLE_CITY_USER, PARTY_PREFECTURE),
        (ROLE_COORDINATOR, PARTY_PREFECTURE),
        (ROLE_GRANTING_AUTHORITY, PARTY_CITY),
    ],
)
def test_a_role_belongs_to_its_party_and_no_clearance_gives_an_office(
    role: Role.ValueType, party: Party.ValueType
) -> None:
    problem = refused(founded(), grant_command(role=role, party=party))
    assert "party" in {violation.field for violation in problem.violations}


@pytest.mark.parametrize(
    ("role", "purposes"),
    [
        (ROLE_CITY_USER, frozenset({PURPOSE_SITUATION, PURPOSE_ADMINISTRATION})),
        (ROLE_CITY_USER, frozenset({PURPOSE_OVERSIGHT})),
        (ROLE_CITY_USER, frozenset({Purpose.PURPOSE_REFUSED_INTELLIGENCE})),
        (ROLE_CITY_USER, frozenset[Purpose.ValueType]()),
        (ROLE_AUDITOR, frozenset({PURPOSE_SITUATION})),
    ],
)
def test_purposes_are_those_that_the_role_may_have(
    role: Role.ValueType, purposes: frozenset[Purpose.ValueType]
) -> None:
    problem = refused(founded(), grant_command(role=role, purposes=purposes))
    assert [violation.field for violation in problem.violations] == ["purposes"]


def test_sources_are_those_of_the_instruments() -> None:
    problem = refused(founded(), grant_command(sources=frozenset({"works", "weather"})))
    assert [violation.field for violation in problem.violations] == ["sources"]


@pytest.mark.parametrize("person", [Person("", "Dupré", "s"), Person("Élise", "-", "s"), Person("Élise", "Dupré", "")])
def test_a_clearance_is_nominative(person: Person) -> None:
    problem = refused(founded(), grant_command(person=person))
    assert problem.reason == "CLEARANCE_INVALID"
    assert "Dupré" not in f"{problem} {problem.violations}"


@pytest.mark.parametrize("until", [NOW, NOW - timedelta(hours=1), NOW - timedelta(days=2)])
def test_a_clearance_is_not_over_when_it_is_granted(until: datetime) -> None:
    problem = refused(founded(), grant_command(valid_until=until))
    assert [(violation.field, violation.rule) for violation in problem.violations] == [("valid_until", "period")]


def test_granting_again_changes_nothing_even_when_bound_or_revoked() -> None:
    command = grant_command(access.CITY_CLEARANCE)
    state = access.populated()
    assert decide(state, command, NOW) == ()
    assert decide(applied(state, access.revoke_command()), command, NOW) == ()


def test_the_same_id_with_other_content_is_refused() -> None:
    command = grant_command(access.CITY_CLEARANCE, purposes=frozenset({PURPOSE_SITUATION}))
    assert refused(access.populated(), command).reason == "CLEARANCE_EXISTS"


def test_a_grant_says_who_granted() -> None:
    (event,) = decide(founded(), grant_command(), NOW)
    assert isinstance(event, ClearanceGranted)
    assert event.granted_by.subject == access.DGA.subject


def test_a_revoked_clearance_stays_revoked() -> None:
    state = applied(access.populated(), access.revoke_command())
    assert state.clearances[access.CITY_CLEARANCE].standing(NOW) is Standing.REVOKED
    assert decide(state, access.revoke_command(), NOW) == ()
    assert refused(state, confirm(access.CITY_CLEARANCE)).reason == "BINDING_NOT_PROPOSED"
    assert decide(state, propose(), NOW) == ()


def test_an_unknown_clearance_cannot_be_revoked() -> None:
    assert refused(founded(), access.revoke_command(str(uuid4()))).reason == "CLEARANCE_UNKNOWN"


@pytest.mark.parametrize(("given", "usual"), [("Élise", "Dupré-Noël"), ("elise", "DUPRE NOEL")])
def test_a_login_proposes_the_one_clearance_of_that_name(given: str, usual: str) -> None:
    state = applied(founded(), grant_command(access.CITY_CLEARANCE))
    state = applied(state, ProposeBinding(access.CITY_USER, given, usual, "record"))
    assert state.clearances[access.CITY_CLEARANCE].proposed == access.CITY_USER
    assert state.clearances[access.CITY_CLEARANCE].identity is None


def test_two_clearances_of_one_name_propose_nothing() -> None:
    state = applied(applied(founded(), grant_command()), grant_command())
    assert decide(state, propose(), NOW) == ()


def test_a_homonym_is_not_proposed_beside_the_first() -> None:
    assert decide(proposed(), propose(access.STRANGER), NOW) == ()


def test_an_expired_clearance_is_not_proposed() -> None:
    state = applied(founded(), grant_command(valid_until=NOW + timedelta(hours=1)))
    assert decide(state, propose(), NOW + timedelta(hours=1)) == ()


def test_a_person_without_a_name_is_proposed_nothing() -> None:
    state = applied(founded(), grant_command())
    assert decide(state, ProposeBinding(access.CITY_USER, "", "", "record"), NOW) == ()


@pytest.mark.parametrize("actor", [access.VALIDATOR, access.AUDITOR, access.STRANGER, access.CITY_USER])
def test_only_the_granting_authority_confirms_the_citys_people(actor: Identity) -> None:
    problem = refused(proposed(), confirm(access.CITY_CLEARANCE, actor=actor))
    assert problem.reason in {"NOT_CONFIRMER", "CLEARANCE_UNKNOWN"}


def prefecture_proposed() -> State:
    command = grant_command(
        access.PREFECTURE_CLEARANCE,
        person=access.PREFECTURE_PERSON,
        party=PARTY_PREFECTURE,
        role=ROLE_PREFECTURE_USER,
    )
    state = access.listed(founded(), access.listed_person(access.PREFECTURE_PERSON))
    return applied(applied(state, command), propose(access.PREFECTURE_USER, access.PREFECTURE_PERSON))


@pytest.mark.parametrize("actor", [access.DGA, access.AUDITOR, access.STRANGER])
def test_only_the_validator_confirms_the_prefectures_people(actor: Identity) -> None:
    problem = refused(prefecture_proposed(), confirm(access.PREFECTURE_CLEARANCE, access.PREFECTURE_USER, actor))
    assert (problem.reason, problem.clause) == ("NOT_CONFIRMER", "art7.validation")


def test_the_validator_confirms_the_prefectures_people() -> None:
    command = confirm(access.PREFECTURE_CLEARANCE, access.PREFECTURE_USER, access.VALIDATOR)
    state = applied(prefecture_proposed(), command)
    assert state.clearances[access.PREFECTURE_CLEARANCE].standing(NOW) is Standing.UNDERTAKING_AWAITED


def test_the_validator_does_not_confirm_themselves() -> None:
    command = grant_command(
        access.PREFECTURE_CLEARANCE,
        person=access.VALIDATOR_PERSON,
        party=PARTY_PREFECTURE,
        role=ROLE_PREFECTURE_USER,
    )
    state = access.listed(founded(), access.listed_person(access.VALIDATOR_PERSON))
    state = applied(applied(state, command), propose(access.VALIDATOR, access.VALIDATOR_PERSON))
    problem = refused(state, confirm(access.PREFECTURE_CLEARANCE, access.VALIDATOR, access.VALIDATOR))
    assert (problem.reason, problem.clause) == ("OWN_BINDING", "art7.validation")


def test_nobody_confirms_themselves_by_showing_another_identity() -> None:
    state = applied(founded(), grant_command(access.CITY_CLEARANCE, actor=access.SECOND_DGA))
    state = applied(state, propose(access.DGA))
    problem = refused(state, confirm(access.CITY_CLEARANCE, access.CITY_USER, access.DGA))
    assert problem.reason == "OWN_BINDING"


def test_the_confirmed_identity_is_the_proposed_one() -> None:
    problem = refused(proposed(), confirm(access.CITY_CLEARANCE, access.STRANGER))
    assert problem.reason == "BINDING_CHANGED"


def test_nothing_is_confirmed_that_was_not_proposed() -> None:
    state = applied(founded(), grant_command(access.CITY_CLEARANCE))
    assert refused(state, confirm(access.CITY_CLEARANCE)).reason == "BINDING_NOT_PROPOSED"


def test_confirming_again_changes_nothing() -> None:
    assert decide(access.populated(), confirm(access.CITY_CLEARANCE), NOW) == ()


def test_an_expired_proposal_is_not_confirmed() -> None:
    late = NOW + timedelta(days=101)
    assert refused(proposed(), confirm(access.CITY_CLEARANCE), late).reason == "BINDING_NOT_PROPOSED"
