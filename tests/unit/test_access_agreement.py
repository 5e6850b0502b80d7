"""What follows the founding: who must have signed each act, when it counts, and what it makes of the convention."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    ROLE_GRANTING_DELEGATE,
    Act,
    Party,
)

from services.access import acts
from services.access import deed as deeds
from services.access.convention import Identity, Person, State, in_force, office_of
from services.access.domain import RecordAct, decide, stream_of
from services.access.instruments import DELEGATE
from services.kernel.errors import Problem
from tests.fixtures import access
from tests.fixtures.access import (
    CITY_ALONE,
    NOW,
    PREFECTURE_ALONE,
    act_command,
    amendment,
    applied,
    appointment,
    founded,
    house_rules,
)
from tests.fixtures.refusals import refused

Signers = Mapping[Party.ValueType, Ed25519PrivateKey]
SECOND_PERSON = Person("Hugo", "Ricard", "DGA Sécurité")
DENUNCIATION = {"party": "PARTY_CITY", "received_at": NOW - timedelta(days=40), "letter_reference": "LRAR-1"}
TERMINATION = {"party": "PARTY_CITY", "reason": "TERMINATION_REASON_BREACH", "act_reference": "R-1"}
DESTRUCTION = {"destroyed_at": NOW + timedelta(days=2), "certificate_hash": access.description()["document_hash"]}
NOTIFICATION = {"notified_at": NOW - timedelta(days=3), "act_reference": "N-1"}


def unnotified() -> tuple[State, bytes]:
    first, second = access.description()["instruments"]
    deed = access.deed({"instruments": [{**first, "notified_at": None}, second]})
    return applied(State(), access.sign_command(deed)), deed


def interim(until: datetime | None = NOW + timedelta(days=30), **changes: Any) -> dict[str, Any]:
    return appointment(
        "ROLE_GRANTING_AUTHORITY", "PARTY_CITY", "interim", SECOND_PERSON, "INTERIM", until=until, **changes
    )


def delegation() -> dict[str, Any]:
    until = NOW + timedelta(days=30)
    return appointment("ROLE_GRANTING_DELEGATE", "PARTY_CITY", "delegate", SECOND_PERSON, "DELEGATION", until=until)


DISCHARGE = {
    "role": "ROLE_GRANTING_AUTHORITY",
    "party": "PARTY_CITY",
    "identity": {"issuer": access.ISSUER, "subject": "second-dga"},
    "act_reference": "ARR-9",
}


# Signatures.


@pytest.mark.parametrize(
    ("kind", "content", "lacking"),
    [
        ("notification", NOTIFICATION, CITY_ALONE),
        ("notification", NOTIFICATION, PREFECTURE_ALONE),
        ("amendment", amendment(), CITY_ALONE),
        ("amendment", amendment(), PREFECTURE_ALONE),
        ("denunciation", DENUNCIATION, PREFECTURE_ALONE),
        ("termination", TERMINATION, PREFECTURE_ALONE),
        ("termination", {**TERMINATION, "reason": "TERMINATION_REASON_MUTUAL"}, CITY_ALONE),
        ("destruction", DESTRUCTION, PREFECTURE_ALONE),
        ("appointment", interim(), PREFECTURE_ALONE),
        ("discharge", DISCHARGE, PREFECTURE_ALONE),
    ],
)
def test_an_act_needs_the_signatures_of_those_whose_act_it_is(
    kind: str, content: Mapping[str, Any], lacking: Signers
) -> None:
    problem = refused(founded(), act_command(kind, content, lacking))
    assert (problem.reason, problem.clause) == ("ACT_SIGNATURE_INVALID", "art2.documents")


def test_a_forged_signature_is_refused_even_beside_enough_good_ones() -> None:
    forger = {PARTY_CITY: access.CITY_KEY, PARTY_PREFECTURE: Ed25519PrivateKey.generate()}
    assert refused(founded(), act_command("denunciation", DENUNCIATION, forger)).reason == "ACT_SIGNATURE_INVALID"


def test_a_party_without_a_pinned_key_signs_nothing() -> None:
    command = replace(act_command("denunciation", DENUNCIATION), pinned={PARTY_CITY: access.PINNED[PARTY_CITY]})
    assert refused(founded(), command).reason == "ACT_SIGNATURE_INVALID"


def test_one_party_does_not_sign_twice() -> None:
    command = act_command("termination", {**TERMINATION, "reason": "TERMINATION_REASON_MUTUAL"}, CITY_ALONE)
    twice = replace(command, signatures=command.signatures * 2)
    assert refused(founded(), twice).reason == "ACT_SIGNATURE_INVALID"
    one = act_command("denunciation", DENUNCIATION, CITY_ALONE)
    assert refused(founded(), replace(one, signatures=one.signatures * 2)).reason == "ACT_SIGNATURE_INVALID"


def test_a_signature_of_the_deed_is_none_of_an_act() -> None:
    command = act_command("denunciation", DENUNCIATION, CITY_ALONE)
    signature = deeds.sign(command.act, PARTY_CITY, access.CITY_KEY)
    assert refused(founded(), replace(command, signatures=(signature,))).reason == "ACT_SIGNATURE_INVALID"


# Form.


def test_before_the_founding_no_act_is_recorded() -> None:
    assert refused(State(), act_command("denunciation", DENUNCIATION)).reason == "CONVENTION_NOT_SIGNED"


def test_an_act_upon_another_deed_is_refused() -> None:
    command = act_command("denunciation", DENUNCIATION, deed_bytes=b"another")
    assert refused(founded(), command).reason == "ACT_OF_ANOTHER_DEED"


def test_the_same_act_again_changes_nothing_and_another_of_its_id_is_refused() -> None:
    act_id = str(UUID(int=7))
    command = act_command("denunciation", DENUNCIATION, act_id=act_id)
    state = applied(founded(), command)
    assert decide(state, command, NOW) == ()
    other = act_command("denunciation", {**DENUNCIATION, "letter_reference": "LRAR-2"}, act_id=act_id)
    assert refused(state, other).reason == "ACT_EXISTS"


def test_bytes_that_are_no_act_are_refused() -> None:
    assert refused(founded(), RecordAct(b"\xff\xff", (), access.PINNED, "record")).reason == "ACT_INVALID"


def test_a_description_that_is_none_says_so_without_its_values() -> None:
    with pytest.raises(Problem) as problem:
        acts.build({"act_id": "x", "secret-word": 1}, b"h" * 32)
    assert problem.value.reason == "ACT_INVALID"
    assert "secret" not in str(problem.value)


def without(content: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def holder(**changes: Any) -> dict[str, Any]:
    given = interim()
    return {**given, "holder": {**given["holder"], **changes}}


BEYOND = "9999-01-01T00:00:00Z"
MALFORMED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a notification without a date": ("notification", without(NOTIFICATION, "notified_at"), "notified_at"),
    "a notification beyond time": ("notification", {**NOTIFICATION, "notified_at": BEYOND}, "notified_at"),
    "a notification without act": ("notification", without(NOTIFICATION, "act_reference"), "act_reference"),
    "an amendment without version": ("amendment", amendment(version=""), "amendment.version"),
    "an amendment of nothing": ("amendment", amendment(previous_version=""), "amendment.version"),
    "an amendment without document": ("amendment", amendment(document_hash=""), "document_hash"),
    "an amendment without annex": ("amendment", amendment(annex_hash="AB" * 32), "annex_hash"),
    "an amendment of a strange policy": ("amendment", amendment(policy_hash="x"), "policy_hash"),
    "an unknown house rule": ("amendment", amendment(house_rules=[{"rule_id": "house.free"}]), "house_rules"),
    "a house rule twice": ("amendment", amendment(house_rules=[{"rule_id": DELEGATE}] * 2), "house_rules"),
    "an amendment beyond time": ("amendment", amendment(effective_at=BEYOND), "effective_at"),
    "an amendment without the convention": (
        "amendment",
        amendment(instruments=access.description()["instruments"][1:]),
        "instruments.instrument_id",
    ),
    "an amendment of strange declarants": (
        "amendment",
        amendment(declarants=[{"certificate_identity": "x", "party": 1}]),
        "declarants.certificate_identity",
    ),
    "a denunciation of nobody": ("denunciation", without(DENUNCIATION, "party"), "denunciation.party"),
    "a partner's denunciation": ("denunciation", {**DENUNCIATION, "party": "PARTY_PARTNER"}, "denunciation.party"),
    "a denunciation without date": ("denunciation", without(DENUNCIATION, "received_at"), "received_at"),
    "a denunciation without letter": ("denunciation", without(DENUNCIATION, "letter_reference"), "letter_reference"),
    "a termination of nobody": ("termination", without(TERMINATION, "party"), "termination.party"),
    "a termination without act": ("termination", without(TERMINATION, "act_reference"), "act_reference"),
    "a termination without reason": ("termination", without(TERMINATION, "reason"), "termination.reason"),
    "a destruction without date": ("destruction", without(DESTRUCTION, "destroyed_at"), "destroyed_at"),
    "a destruction without certificate": ("destruction", without(DESTRUCTION, "certificate_hash"), "certificate_hash"),
    "an office that is none": ("appointment", holder(role="ROLE_CITY_USER"), "holder.role"),
    "the other party's office": ("appointment", holder(party="PARTY_PREFECTURE"), "holder.role"),
    "an office of nobody": ("appointment", holder(identity={"issuer": "i"}), "holder.identity"),
    "an office without act": ("appointment", holder(act_reference=""), "act_reference"),
    "an office without names": ("appointment", holder(person={"given_name": "A"}), "holder.person"),
    "an office without beginning": ("appointment", holder(**{"from": None}), "holder.from"),
    "an interim without end": ("appointment", interim(None), "appointment.until"),
    "an interim beyond time": ("appointment", {**interim(), "until": BEYOND}, "appointment.until"),
    "an appointment of no kind": ("appointment", without(interim(), "kind"), "appointment.kind"),
    "a delegation that makes no delegate": (
        "appointment",
        {**interim(), "kind": "APPOINTMENT_KIND_DELEGATION"},
        "appointment.kind",
    ),
    "a delegate without delegation": (
        "appointment",
        {**delegation(), "kind": "APPOINTMENT_KIND_HOLDER"},
        "appointment.kind",
    ),
    "a discharge of no office": ("discharge", without(DISCHARGE, "role"), "discharge.role"),
    "a discharge of nobody": ("discharge", without(DISCHARGE, "identity"), "discharge.identity"),
    "a discharge without act": ("discharge", without(DISCHARGE, "act_reference"), "act_reference"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_an_act_that_is_not_well_formed_names_the_field(case: str) -> None:
    kind, content, field = MALFORMED[case]
    with pytest.raises(Problem) as problem:
        act_command(kind, content)
    assert (problem.value.reason, problem.value.clause) == ("ACT_INVALID", "art2.documents")
    assert any(violation.field.endswith(field) for violation in problem.value.violations)


@pytest.mark.parametrize(
    ("act", "field"),
    [
        (Act(act_id=str(UUID(int=1)), deed_hash=b"h" * 32), "content"),
        (Act(act_id="x", deed_hash=b"h" * 32), "act_id"),
        (Act(act_id=str(UUID(int=10**30)).upper(), deed_hash=b"h" * 32), "act_id"),
        (Act(act_id=str(UUID(int=1)), deed_hash=b"h"), "deed_hash"),
    ],
)
def test_an_act_says_which_it_is_upon_what_and_what(act: Act, field: str) -> None:
    with pytest.raises(Problem) as problem:
        acts.check(act)
    assert field in [violation.field for violation in problem.value.violations]


# The term.


def test_the_term_runs_from_a_notification_that_the_deed_does_not_state() -> None:
    state, deed = unnotified()
    assert in_force(state).term is None
    assert in_force(state).ends_at is None
    assert in_force(state).destroy_before is None
    assert not in_force(state).ended(NOW)
    state = applied(state, act_command("notification", NOTIFICATION, deed_bytes=deed))
    assert in_force(state).ends_at == datetime(2030, 2, 25, 23, tzinfo=UTC)


def test_the_term_runs_once() -> None:
    problem = refused(founded(), act_command("notification", NOTIFICATION))
    assert (problem.reason, problem.clause) == ("ALREADY_NOTIFIED", "art9.term")


def test_a_notification_is_not_dated_after_now() -> None:
    state, deed = unnotified()
    ahead = {**NOTIFICATION, "notified_at": NOW + timedelta(seconds=1)}
    assert refused(state, act_command("notification", ahead, deed_bytes=deed)).clause == "art9.term"
    now = {**NOTIFICATION, "notified_at": NOW}
    assert decide(state, act_command("notification", now, deed_bytes=deed), NOW)


@pytest.mark.parametrize(("kind", "content"), [("denunciation", DENUNCIATION), ("termination", TERMINATION)])
def test_what_was_not_notified_is_neither_denounced_nor_terminated(kind: str, content: Mapping[str, Any]) -> None:
    state, deed = unnotified()
    assert refused(state, act_command(kind, content, deed_bytes=deed)).reason == "NOT_NOTIFIED"


def test_one_partys_notice_runs_from_the_day_of_recording() -> None:
    state = applied(founded(), act_command("denunciation", DENUNCIATION, CITY_ALONE))
    assert in_force(state).ends_at == datetime(2026, 4, 30, 22, tzinfo=UTC)


def test_a_notice_that_both_sign_runs_from_the_letters_arrival() -> None:
    state = applied(founded(), act_command("denunciation", DENUNCIATION))
    assert in_force(state).ends_at == datetime(2026, 3, 19, 23, tzinfo=UTC)


def test_notice_is_given_once_and_not_ahead() -> None:
    state = applied(founded(), act_command("denunciation", DENUNCIATION, CITY_ALONE))
    other = {**DENUNCIATION, "party": "PARTY_PREFECTURE"}
    assert refused(state, act_command("denunciation", other, PREFECTURE_ALONE)).reason == "ALREADY_DENOUNCED"
    ahead = {**DENUNCIATION, "received_at": NOW + timedelta(days=1)}
    assert refused(founded(), act_command("denunciation", ahead)).clause == "art9.denunciation"


def test_a_termination_ends_it_at_once_whatever_notice_was_given() -> None:
    state = applied(founded(), act_command("denunciation", DENUNCIATION, CITY_ALONE))
    state = applied(state, act_command("termination", TERMINATION, CITY_ALONE), NOW + timedelta(hours=1))
    assert in_force(state).ends_at == NOW + timedelta(hours=1)
    assert not in_force(state).ended(NOW)
    assert in_force(state).ended(NOW + timedelta(hours=1))
    assert in_force(state).destroy_before == datetime(2026, 3, 15, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "content"), [("denunciation", DENUNCIATION), ("termination", TERMINATION), ("amendment", amendment())]
)
def test_what_is_over_is_not_ended_or_amended_again(kind: str, content: Mapping[str, Any]) -> None:
    state = applied(founded(), act_command("termination", TERMINATION, CITY_ALONE))
    assert refused(state, act_command(kind, content)).reason == "CONVENTION_ENDED"
    over = datetime(2029, 2, 28, 23, tzinfo=UTC)
    assert refused(founded(), act_command(kind, content), over).reason == "CONVENTION_ENDED"


def test_what_was_transmitted_is_destroyed_after_the_end_once_and_by_a_dated_certificate() -> None:
    assert refused(founded(), act_command("destruction", DESTRUCTION, CITY_ALONE)).reason == "CONVENTION_HOLDS"
    state = applied(founded(), act_command("termination", TERMINATION, CITY_ALONE), NOW + timedelta(days=1))
    later = NOW + timedelta(days=3)
    for at in (NOW, later + timedelta(seconds=1)):
        wrong = {**DESTRUCTION, "destroyed_at": at}
        assert refused(state, act_command("destruction", wrong, CITY_ALONE), later).clause == "art9.termination"
    state = applied(state, act_command("destruction", DESTRUCTION, CITY_ALONE), later)
    assert in_force(state).destroyed_at == NOW + timedelta(days=2)
    again = act_command("destruction", DESTRUCTION, CITY_ALONE)
    assert refused(state, again, later).reason == "ALREADY_DESTROYED"


# Offices.


def test_an_interim_holds_the_office_between_its_dates() -> None:
    state = applied(founded(), act_command("appointment", interim(), CITY_ALONE))
    who = Identity(access.ISSUER, "interim")
    for at, holds in ((NOW, True), (NOW + timedelta(days=30), False), (NOW + timedelta(days=29), True)):
        assert (office_of(state, who, at) is not None) == holds
    office = office_of(state, who, NOW)
    assert office is not None
    assert office.act_reference == "ACT-interim"
    assert office.person == SECOND_PERSON


def test_an_appointment_does_not_work_backwards() -> None:
    early = holder(**{"from": NOW - timedelta(days=10)})
    state = applied(founded(), act_command("appointment", early, CITY_ALONE))
    assert office_of(state, Identity(access.ISSUER, "interim"), NOW - timedelta(seconds=1)) is None


def test_an_appointment_ends_after_it_begins() -> None:
    over = interim(NOW)
    assert refused(founded(), act_command("appointment", over, CITY_ALONE)).reason == "ACT_INVALID"


def test_one_person_holds_one_office_at_a_time() -> None:
    again = {**interim(), "holder": {**interim()["holder"], "identity": {"issuer": access.ISSUER, "subject": "dga"}}}
    assert refused(founded(), act_command("appointment", again, CITY_ALONE)).reason == "OFFICE_HELD"
    state = applied(founded(), act_command("appointment", interim(), CITY_ALONE))
    after = holder(**{"from": NOW + timedelta(days=30)})
    after["until"] = NOW + timedelta(days=60)
    assert decide(state, act_command("appointment", after, CITY_ALONE), NOW)
    meets = holder(**{"from": NOW + timedelta(days=29)})
    meets["until"] = NOW + timedelta(days=60)
    assert refused(state, act_command("appointment", meets, CITY_ALONE)).reason == "OFFICE_HELD"
    before = holder(**{"from": NOW})
    before["until"] = NOW + timedelta(days=5)
    later = applied(founded(), act_command("appointment", after, CITY_ALONE))
    assert decide(later, act_command("appointment", before, CITY_ALONE), NOW)


def test_a_delegate_exists_through_the_house_rule_only() -> None:
    problem = refused(founded(), act_command("appointment", delegation(), CITY_ALONE))
    assert (problem.reason, problem.clause) == ("HOUSE_RULE_MISSING", DELEGATE)
    state = applied(founded(), house_rules(DELEGATE))
    state = applied(state, act_command("appointment", delegation(), CITY_ALONE))
    office = office_of(state, Identity(access.ISSUER, "delegate"), NOW)
    assert office is not None
    assert office.role == ROLE_GRANTING_DELEGATE


def test_a_discharge_ends_an_office_at_once() -> None:
    state = applied(founded(), act_command("discharge", DISCHARGE, CITY_ALONE))
    assert office_of(state, access.SECOND_DGA, NOW) is None
    assert office_of(state, access.SECOND_DGA, NOW - timedelta(seconds=1)) is not None
    assert office_of(state, access.DGA, NOW) is not None
    again = act_command("discharge", DISCHARGE, CITY_ALONE)
    assert refused(state, again).reason == "OFFICE_UNKNOWN"


def test_a_discharge_names_role_party_and_person() -> None:
    for changes in ({"role": "ROLE_AUDITOR"}, {"identity": {"issuer": access.ISSUER, "subject": "nobody"}}):
        command = act_command("discharge", {**DISCHARGE, **changes}, CITY_ALONE)
        assert refused(founded(), command).reason == "OFFICE_UNKNOWN"


def test_a_discharge_ends_what_had_not_begun() -> None:
    future = holder(**{"from": NOW + timedelta(days=5)})
    state = applied(founded(), act_command("appointment", future, CITY_ALONE))
    who = {"issuer": access.ISSUER, "subject": "interim"}
    state = applied(state, act_command("discharge", {**DISCHARGE, "identity": who}, CITY_ALONE))
    assert office_of(state, Identity(access.ISSUER, "interim"), NOW + timedelta(days=6)) is None


@pytest.mark.parametrize(
    ("moment", "year"),
    [
        (access.NOTIFIED - timedelta(seconds=1), 0),
        (access.NOTIFIED, 1),
        (datetime(2026, 2, 28, 22, 59, 59, tzinfo=UTC), 1),
        (datetime(2026, 2, 28, 23, tzinfo=UTC), 2),
        (datetime(2029, 2, 28, 22, 59, 59, tzinfo=UTC), 4),
        (datetime(2029, 2, 28, 23, tzinfo=UTC), 0),
    ],
)
def test_the_term_is_renewed_tacitly_year_by_year_and_stops_after_four(moment: datetime, year: int) -> None:
    term = in_force(founded()).term
    assert term is not None
    assert term.year(moment) == year


def test_events_are_told_apart_by_stream() -> None:
    state = access.populated()
    revoked = decide(state, access.revoke_command(), NOW)
    assert [stream_of(event) for event in revoked] == [f"clearance-{access.CITY_CLEARANCE}"]
    command = act_command("amendment", amendment(annex_hash="cd" * 32))
    assert [stream_of(event) for event in decide(state, command, NOW)] == ["convention", "notices", "notices"]
