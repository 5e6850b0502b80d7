"""The deed: only what both parties signed, with the keys that the deployment was handed, founds an installation."""

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
    "an unknown time zone": ({"time_zone": "Europe/Phocaea"}, "time_zone"),
    "a time zone that is a path": ({"time_zone": "../etc/passwd"}, "time_zone"),
    "a short document hash": ({"document_hash": "CQ=="}, "document_hash"),
    "no convention": ({"instruments": INSTRUMENTS[1:]}, "instruments.instrument_id"),
    "a third instrument": (
        {"instruments": [*INSTRUMENTS, {**INSTRUMENTS[0], "instrument_id": "other", "sources": ["x"]}]},
        "instruments.instrument_id",
    ),
    "a source under two instruments": (
        {"instruments": [INSTRUMENTS[0], {**INSTRUMENTS[1], "sources": ["demonstrations"]}]},
        "instruments.sources",
    ),
    "a purpose refused by name": (
        {"instruments": [{**INSTRUMENTS[0], "purposes": ["PURPOSE_REFUSED_INTELLIGENCE", "PURPOSE_SITUATION"]}]},
        "instruments.purposes",
    ),
    "a convention never notified": (
        {"instruments": [{key: value for key, value in INSTRUMENTS[0].items() if key != "notified_at"}]},
        "instruments.notified_at",
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
