"""The deed: only what both parties signed, with the keys that the deployment was handed, founds an installation."""

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, Deed

from services.access import deed as deeds
from services.kernel.errors import Problem
from tests.fixtures import access


def reason_of(problem: pytest.ExceptionInfo[Problem]) -> str:
    return problem.value.reason


def signatures(content: bytes) -> list[Any]:
    return [
        deeds.sign(content, PARTY_CITY, access.CITY_KEY),
        deeds.sign(content, PARTY_PREFECTURE, access.PREFECTURE_KEY),
    ]


def test_a_deed_signed_by_both_is_verified() -> None:
    content = access.deed()
    parsed = deeds.verify(content, signatures(content), access.PINNED)
    assert parsed.annex_hash == access.ANNEX_HASH
    assert [i.instrument_id for i in parsed.instruments] == ["convention", "city-rules"]


def test_building_the_same_description_gives_the_same_bytes() -> None:
    assert access.deed() == access.deed()


def test_one_changed_byte_breaks_both_signatures() -> None:
    content = access.deed()
    other = Deed.FromString(content)
    other.convention_version += "x"
    with pytest.raises(Problem) as problem:
        deeds.verify(other.SerializeToString(), signatures(content), access.PINNED)
    assert reason_of(problem) == "DEED_SIGNATURE_INVALID"


def test_a_signature_of_the_bare_deed_is_not_one_of_a_deed() -> None:
    content = access.deed()
    bare = signatures(content)
    bare[0].signature = access.CITY_KEY.sign(content)
    with pytest.raises(Problem) as problem:
        deeds.verify(content, bare, access.PINNED)
    assert reason_of(problem) == "DEED_SIGNATURE_INVALID"


@pytest.mark.parametrize("kept", [[0], [1], [0, 0], [0, 1, 1]])
def test_each_party_signs_once(kept: list[int]) -> None:
    content = access.deed()
    given = signatures(content)
    with pytest.raises(Problem) as problem:
        deeds.verify(content, [given[index] for index in kept], access.PINNED)
    assert reason_of(problem) == "DEED_SIGNATURE_INVALID"


def test_keys_inside_a_deed_prove_nothing_alone() -> None:
    forger = Ed25519PrivateKey.generate()
    content = deeds.build(
        access.description(), annex_hash=access.ANNEX_HASH, keys={**access.KEYS, PARTY_PREFECTURE: forger.public_key()}
    )
    forged = [deeds.sign(content, PARTY_CITY, access.CITY_KEY), deeds.sign(content, PARTY_PREFECTURE, forger)]
    with pytest.raises(Problem) as problem:
        deeds.verify(content, forged, access.PINNED)
    assert reason_of(problem) == "DEED_KEY_UNKNOWN"


def test_bytes_that_are_no_deed_are_refused() -> None:
    with pytest.raises(Problem) as problem:
        deeds.verify(b"\xff\xff", [], access.PINNED)
    assert reason_of(problem) == "DEED_INVALID"


def office(**changes: Any) -> dict[str, Any]:
    return {**access.description()["office_holders"][0], **changes}


OFFICES = access.description()["office_holders"]
INSTRUMENTS = access.description()["instruments"]
PARTNER = {
    "instrument_id": "transport-convention",
    "version": "1",
    "sources": ["transport"],
    "purposes": ["PURPOSE_SITUATION"],
    "party": "PARTY_PARTNER",
    "expires_at": access.NOW,
}
IMPOSSIBLE = {
    "no granting authority": ({"office_holders": OFFICES[2:]}, "office_holders"),
    "no validator": ({"office_holders": OFFICES[:2]}, "office_holders"),
    "a granting authority of the Préfecture": (
        {"office_holders": [*OFFICES, office(party="PARTY_PREFECTURE", identity={"issuer": "i", "subject": "s"})]},
        "office_holders",
    ),
    "one person in two offices": (
        {"office_holders": [*OFFICES, office(role="ROLE_AUDITOR")]},
        "office_holders.identity",
    ),
    "a user role as an office": (
        {"office_holders": [*OFFICES, office(role="ROLE_CITY_USER", identity={"issuer": "i", "subject": "s"})]},
        "office_holders.role",
    ),
    "an office without identity": ({"office_holders": [*OFFICES, office(identity={})]}, "office_holders.identity"),
    "an office without act": (
        {"office_holders": [*OFFICES, office(act_reference="", identity={"issuer": "i", "subject": "s"})]},
        "office_holders",
    ),
    "no version": ({"convention_version": ""}, "convention_version"),
    "a user role's office of the Préfecture": (
        {"office_holders": [*OFFICES, office(party="PARTY_PARTNER", identity={"issuer": "i", "subject": "s"})]},
        "office_holders.role",
    ),
    "an office without beginning": (
        {"office_holders": [*OFFICES, {**office(identity={"issuer": "i", "subject": "s"}), "from": None}]},
        "office_holders.from",
    ),
    "an unknown time zone": ({"time_zone": "Europe/Phocaea"}, "time_zone"),
    "a time zone that is a path": ({"time_zone": "../etc/passwd"}, "time_zone"),
    "a short document hash": ({"document_hash": "CQ=="}, "document_hash"),
    "no convention": ({"instruments": INSTRUMENTS[1:]}, "instruments.instrument_id"),
    "a third instrument": (
        {"instruments": [*INSTRUMENTS, {**INSTRUMENTS[0], "instrument_id": "other", "sources": ["x"]}]},
        "instruments.party",
    ),
    "a source under two instruments": (
        {"instruments": [INSTRUMENTS[0], {**INSTRUMENTS[1], "sources": ["demonstrations"]}]},
        "instruments.sources",
    ),
    "a purpose refused by name": (
        {"instruments": [{**INSTRUMENTS[0], "purposes": ["PURPOSE_REFUSED_INTELLIGENCE", "PURPOSE_SITUATION"]}]},
        "instruments.purposes",
    ),
    "a partner's convention that never ends": (
        {"instruments": [*INSTRUMENTS, {**PARTNER, "expires_at": None}]},
        "instruments.expires_at",
    ),
    "an end of the convention beside its term": (
        {"instruments": [{**INSTRUMENTS[0], "expires_at": access.NOW}]},
        "instruments.expires_at",
    ),
    "an instrument that no name may have": (
        {"instruments": [*INSTRUMENTS, {**PARTNER, "instrument_id": "Other One"}]},
        "instruments.party",
    ),
    "a partner's convention of a party": (
        {"instruments": [*INSTRUMENTS, {**PARTNER, "party": "PARTY_CITY"}]},
        "instruments.party",
    ),
    "an instrument without sources": (
        {"instruments": [{**INSTRUMENTS[0], "sources": []}, INSTRUMENTS[1]]},
        "instruments",
    ),
    "a certificate that is no spiffe name": (
        {"declarants": [{"certificate_identity": "cortege", "party": 1}]},
        "declarants.certificate_identity",
    ),
    "a declarant of no party": (
        {"declarants": [{"certificate_identity": access.CORTEGE}]},
        "declarants.party",
    ),
    "an organisation that is none": (
        {"organisations": [{"party": "PARTY_CITY", "siret": "21130055300017"}]},
        "organisations",
    ),
    "an organisation of no party": (
        {"organisations": [{"siret": "21130055300016"}]},
        "organisations",
    ),
    "two declarants with one certificate": (
        {"declarants": [{"certificate_identity": access.CORTEGE, "party": party} for party in (1, 2)]},
        "declarants.certificate_identity",
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_deed_that_cannot_work_is_not_built(case: str) -> None:
    changes, field = IMPOSSIBLE[case]
    with pytest.raises(Problem) as problem:
        access.deed(changes)
    assert field in {violation.field for violation in problem.value.violations}


def test_a_description_that_is_no_deed_is_refused_without_its_values() -> None:
    with pytest.raises(Problem) as problem:
        access.deed({"convention_version": {"given_name": "Agathe"}})
    assert reason_of(problem) == "DEED_INVALID"
    assert "Agathe" not in str(problem.value)
    assert problem.value.__cause__ is None


@pytest.mark.parametrize("field", ["instruments.notified_at", "office_holders.from"])
def test_a_deed_states_instants_that_the_calendar_knows(field: str) -> None:
    """A founding that cannot be folded could never be read again, nor founded anew."""
    parsed = Deed.FromString(access.deed())
    moment = parsed.instruments[0].notified_at if "notified" in field else getattr(parsed.office_holders[0], "from")
    moment.seconds = 253_402_300_799
    with pytest.raises(Problem) as problem:
        deeds.check(parsed)
    assert [violation.field for violation in problem.value.violations] == [field]


BROKEN: dict[str, tuple[Callable[[Deed], object], str]] = {
    "an annex hash in capitals": (lambda deed: setattr(deed, "annex_hash", "AB" * 32), "annex_hash"),
    "a short annex hash": (lambda deed: setattr(deed, "annex_hash", "ab" * 31), "annex_hash"),
    "one key": (lambda deed: deed.keys.pop(), "keys"),
    "two keys of one party": (lambda deed: setattr(deed.keys[1], "party", PARTY_CITY), "keys"),
    "a short key": (lambda deed: setattr(deed.keys[1], "public_key", b"k"), "keys.public_key"),
    "one key for both": (lambda deed: setattr(deed.keys[1], "public_key", deed.keys[0].public_key), "keys.public_key"),
    "a notification beyond time": (
        lambda deed: setattr(deed.instruments[0].notified_at, "seconds", 2**62),
        "instruments.notified_at",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_deed_that_was_tampered_with_names_the_field(case: str) -> None:
    damage, field = BROKEN[case]
    deed = deeds.parse(access.deed())
    damage(deed)
    with pytest.raises(Problem) as problem:
        deeds.check(deed)
    assert field in {violation.field for violation in problem.value.violations}
