"""Where a rule ends: the instant, the count or the half of a condition that one small change of it would move."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from planier.access.v1.access_pb2 import DECISION_KIND_RENEW
from planier.access.v1.events_pb2 import PARTY_PREFECTURE, REVOCATION_REASON_MISUSE, ClearanceGranted

from services.access import list_version
from services.access.clearances import Standing
from services.access.convention import Identity, Person, State, in_force, office_of
from services.access.domain import (
    AcknowledgeNotice,
    ConfirmBinding,
    Decision,
    ProposeBinding,
    RecordDpia,
    SuspendClearance,
    decide,
    evolve,
)
from services.access.instruments import DELEGATE
from services.access.list_state import listing_of
from services.access.nominative_list import AdoptListKeys, ValidateList
from services.kernel.errors import Problem
from tests.fixtures import access
from tests.fixtures.access import CITY_ALONE, NOW, act_command, amendment, applied, founded, grant_command
from tests.fixtures.clearances import ONE, TWO, listed, standing
from tests.fixtures.engagements import RECIPIENT, open_command
from tests.fixtures.refusals import refused, said

AMENDMENT = "5f0c7f0e-5f0c-4f0e-8f0c-5f0c7f0e5f0d"
TICK = timedelta(microseconds=1)


def test_a_house_rule_of_an_amendment_that_waits_is_not_in_force() -> None:
    first, second = access.description()["instruments"]
    wider = [{**first, "sources": [*first["sources"], "weather"]}, second]
    terms = amendment(instruments=wider, house_rules=[{"rule_id": DELEGATE}])
    state = applied(founded(), act_command("amendment", terms, act_id=AMENDMENT))
    assert in_force(state).house_since(DELEGATE, NOW) is None
    study = RecordDpia(access.DPO, AMENDMENT, "AIPD-1", "record")
    told = applied(state, study)
    assert decide(told, study, NOW) == ()
    assert refused(told, replace(study, reference="AIPD-2")).clause == "art3.change"
    known = applied(told, AcknowledgeNotice(access.DPO, f"{AMENDMENT}:CITY", "record"))
    assert decide(known, AcknowledgeNotice(access.DPO, f"{AMENDMENT}:CITY", "record"), NOW) == ()


def test_the_term_is_the_conventions_whichever_instrument_comes_first() -> None:
    first, second = access.description()["instruments"]
    state = applied(State(), access.sign_command(access.deed({"instruments": [second, first]})))
    term = in_force(state).term
    assert term is not None
    assert term.starts == access.NOTIFIED


def test_an_event_without_a_number_leaves_the_count_where_it_was() -> None:
    (event,) = decide(founded(), grant_command(ONE), NOW)
    assert isinstance(event, ClearanceGranted)
    event.ClearField("decision")
    state = evolve(founded(), event, NOW)
    assert state.decided == (0, 0)
    assert state.clearances[ONE].decisions == ()


def test_a_set_of_keys_that_does_not_verify_takes_one_number_of_the_list() -> None:
    state = access.populated()
    content = list_version.keys_content(1, 1, [b"k" * 32])
    good = AdoptListKeys(content, list_version.sign_keys(content, access.PREFECTURE_KEY), "record")
    (event,) = decide(state, good, NOW)
    event.signature = b"x" * 64  # type: ignore[union-attr]
    after = listing_of(evolve(state, event, NOW))
    assert (after.highest, after.fault) == (listing_of(state).highest + 1, "LIST_KEYS_INVALID")


@pytest.mark.parametrize(("threshold", "count"), [(2, 0), (0, 1), (2, 1)])
def test_a_threshold_is_of_keys_that_there_are(threshold: int, count: int) -> None:
    content = list_version.keys_content(1, threshold, [bytes([number]) * 32 for number in range(count)])
    with pytest.raises(Problem) as problem:
        list_version.verify_keys(
            content, list_version.sign_keys(content, access.PREFECTURE_KEY), access.PINNED[PARTY_PREFECTURE]
        )
    assert said(problem.value).reason == "LIST_KEYS_INVALID"


def test_an_office_discharged_as_it_begins_was_never_held() -> None:
    identity = {"issuer": access.ISSUER, "subject": "interim"}
    named = access.appointment(
        "ROLE_GRANTING_AUTHORITY", "PARTY_CITY", "interim", Person("Hugo", "Ricard", "DGA"), "INTERIM",
        until=NOW + timedelta(days=2),
    )  # fmt: skip
    state = applied(founded(), act_command("appointment", named, CITY_ALONE))
    discharge = {"role": "ROLE_GRANTING_AUTHORITY", "party": "PARTY_CITY", "act_reference": "FIN-1"}
    act = act_command("discharge", {**discharge, "identity": identity}, CITY_ALONE)
    interim = Identity(access.ISSUER, "interim")
    assert office_of(state, interim, NOW) is not None
    assert not [one for one in in_force(applied(state, act)).offices if one.identity == interim]
    (ended,) = [one for one in in_force(applied(state, act, NOW + TICK)).offices if one.identity == interim]
    assert (ended.since, ended.until) == (NOW, NOW + TICK)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"valid_from": NOW + TICK, "valid_until": NOW + TICK}, "must be after valid_from"),
        ({"valid_from": NOW - TICK, "valid_until": NOW}, "is over already"),
    ],
)
def test_a_period_that_is_none_or_over_is_refused_at_its_edge(changes: dict[str, Any], fault: str) -> None:
    (violation,) = refused(founded(), grant_command(**changes)).violations
    assert (violation.field, violation.rule, violation.description) == ("valid_until", "period", fault)
    assert decide(founded(), grant_command(valid_from=NOW, valid_until=NOW + TICK), NOW)


def test_a_renewal_ends_after_now_by_one_tick_at_least() -> None:
    state = applied(founded(), grant_command(ONE))
    problem = refused(state, listed(Decision(ONE, DECISION_KIND_RENEW, valid_until=NOW)))
    assert [one.field for one in problem.violations] == ["valid_until"]
    assert decide(state, listed(Decision(ONE, DECISION_KIND_RENEW, valid_until=NOW + TICK)), NOW)


def test_both_holders_of_the_office_may_grant_to_each_other_and_neither_to_themselves() -> None:
    assert decide(founded(), grant_command(person=Person("Irène", "Vasseur", "DGA")), NOW)
    own = grant_command(actor=access.SECOND_DGA, person=Person("Irène", "Vasseur", "DGA"))
    assert refused(founded(), own).reason == "OWN_CLEARANCE"


def test_a_binding_once_confirmed_is_confirmed_again_by_whoever_may_and_without_effect() -> None:
    state = access.populated()
    again = ConfirmBinding(access.DGA, access.CITY_CLEARANCE, access.CITY_USER, "record")
    assert decide(state, again, NOW) == ()
    revoked = applied(state, access.revoke_command())
    assert refused(revoked, again).reason == "BINDING_NOT_PROPOSED"
    other = replace(again, identity=access.STRANGER)
    assert refused(state, other).reason == "BINDING_NOT_PROPOSED"


def test_nobody_confirms_who_granted_their_own_clearance_nor_their_namesake() -> None:
    state = applied(founded(), grant_command(ONE, person=Person("Jean", "Autre", "s")))
    state = applied(state, ProposeBinding(access.STRANGER, "Jean", "Autre", "record"))
    granter = ConfirmBinding(access.SECOND_DGA, ONE, access.DGA, "record")
    assert refused(state, granter).reason == "OWN_BINDING"
    named = applied(founded(), grant_command(TWO, actor=access.SECOND_DGA, person=access.DGA_PERSON))
    named = applied(named, ProposeBinding(access.STRANGER, "Agathe", "Delmas", "record"))
    alike = ConfirmBinding(access.DGA, TWO, access.STRANGER, "record")
    assert refused(named, alike).reason == "OWN_BINDING"


def test_a_version_validated_again_changes_nothing_even_by_its_proposer() -> None:
    state = access.populated()
    (proposal,) = listing_of(state).proposals.values()
    again = ValidateList(access.VALIDATOR, proposal.proposal_id, proposal.hash, access.LETTER_HASH, (), "record")
    assert decide(state, again, NOW) == ()


@pytest.mark.parametrize("person", [Person("", "Remise"), Person("Paule", "")])
def test_a_recipient_has_both_names(person: Person) -> None:
    problem = refused(founded(), open_command(persons=(replace(RECIPIENT, person=person),)))
    assert [(one.field, one.rule) for one in problem.violations] == [("persons.person", "nominative")]


def test_copies_may_be_destroyed_within_one_day() -> None:
    assert decide(founded(), open_command(destruction_days=1), NOW)
    problem = refused(founded(), open_command(purposes=frozenset()))
    assert [(one.field, one.rule) for one in problem.violations] == [("purposes", "art6.purpose")]
    none = refused(founded(), open_command(persons=()))
    assert {(one.field, one.rule) for one in none.violations} == {("persons", "nominative")}


def test_what_is_suspended_twice_by_one_party_is_lifted_once() -> None:
    state = access.populated()
    stop = SuspendClearance(access.DGA, access.CITY_CLEARANCE, REVOCATION_REASON_MISUSE, "record")
    state = applied(state, stop)
    assert decide(state, stop, NOW) == ()
    assert standing(state, access.CITY_CLEARANCE) is Standing.SUSPENDED
