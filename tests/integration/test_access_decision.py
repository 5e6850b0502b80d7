"""Numbered decisions: the deciding office and its party's overseers read one, and whoever it is of reads theirs."""

from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest
from planier.access.v1 import access_pb2 as pb
from planier.access.v1 import decision_pb2
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    REVOCATION_REASON_DEPARTURE,
    ROLE_CITY_USER,
    ROLE_COORDINATOR,
    NumberedDecision,
    Role,
)
from planier.common.v1.release_pb2 import PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT, PURPOSE_SITUATION, Purpose

from services.access.people import Person, person_message
from tests.fixtures import access
from tests.fixtures.access_issuer import TestIssuer, issuer_running
from tests.fixtures.access_service import (
    ADMINISTRATION,
    TIMEOUT,
    Metadata,
    Service,
    refusal,
    running,
    settings_in,
    undertake,
)
from tests.fixtures.guard import consultation

COORDINATOR = Person("Inès", "Malmousque", "Voirie")


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    with issuer_running() as opened:
        yield opened


@pytest.fixture
async def service(issuer: TestIssuer, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(settings_in(tmp_path, issuer), issuer, tmp_path) as opened:
        await opened.found()
        yield opened


Asked = TypeVar("Asked", pb.GrantClearanceRequest, pb.RequestClearanceRequest)


def content(kind: type[Asked], person: Person, role: Role.ValueType) -> Asked:
    period = access.grant_command().content
    request = kind(
        consultation=ADMINISTRATION,
        clearance_id=str(uuid4()),
        person=person_message(person),
        party=PARTY_CITY,
        role=role,
        purposes=[PURPOSE_SITUATION],
    )
    request.valid_from.FromDatetime(period.valid_from)
    request.valid_until.FromDatetime(period.valid_until.replace(year=2060))
    return request


async def cleared(service: Service, dga: Metadata, subject: str, person: Person, role: Role.ValueType) -> str:
    """A person's clearance in force; its id."""
    request = content(pb.GrantClearanceRequest, person, role)
    await service.stub.GrantClearance(request, timeout=TIMEOUT, metadata=dga)
    await service.login(subject, person)
    listed = await service.stub.ListClearances(
        pb.ListClearancesRequest(consultation=ADMINISTRATION), timeout=TIMEOUT, metadata=dga
    )
    one = next(item for item in listed.clearances if item.clearance_id == request.clearance_id)
    confirm = pb.ConfirmBindingRequest(
        consultation=ADMINISTRATION, clearance_id=one.clearance_id, identity=one.identity
    )
    await service.stub.ConfirmBinding(confirm, timeout=TIMEOUT, metadata=dga)
    _, signed_in = await service.login(subject, person)
    await undertake(service, signed_in)
    return request.clearance_id


async def read(
    service: Service, who: str, person: Person, number: NumberedDecision, purpose: Purpose.ValueType
) -> decision_pb2.DecisionDocument:
    _, metadata = await service.login(who, person)
    request = decision_pb2.GetDecisionRequest(consultation=consultation(purpose), number=number)
    return (await service.stub.GetDecision(request, timeout=TIMEOUT, metadata=metadata)).document


async def own(service: Service, who: str, person: Person) -> list[decision_pb2.DecisionDocument]:
    _, metadata = await service.login(who, person)
    request = decision_pb2.ListOwnDecisionsRequest(consultation=consultation(PURPOSE_OVERSIGHT))
    return list((await service.stub.ListOwnDecisions(request, timeout=TIMEOUT, metadata=metadata)).documents)


async def test_who_may_read_a_decision_and_who_may_not(service: Service) -> None:
    _, dga = await service.login("dga", access.DGA_PERSON)
    clearance_id = await cleared(service, dga, "city-user", access.CITY_PERSON, ROLE_CITY_USER)
    (granted,) = await own(service, "city-user", access.CITY_PERSON)
    assert granted.clearance_id == clearance_id
    assert granted.text_hash == sha256(granted.text.encode()).digest()
    revoke = pb.RevokeClearanceRequest(
        consultation=ADMINISTRATION, clearance_id=clearance_id, reason=REVOCATION_REASON_DEPARTURE
    )
    await service.stub.RevokeClearance(revoke, timeout=TIMEOUT, metadata=dga)
    revoked, again = await own(service, "city-user", access.CITY_PERSON)
    assert again == granted, "what was decided before reads the same"
    assert (revoked.number.number, revoked.title) == (2, revoked.text.splitlines()[0])

    for who, person, purpose in (
        ("dga", access.DGA_PERSON, PURPOSE_ADMINISTRATION),
        ("auditor", Person("Chloé", "Gauthier"), PURPOSE_OVERSIGHT),
        ("dpo", Person("Denis", "Roux"), PURPOSE_OVERSIGHT),
    ):
        assert await read(service, who, person, granted.number, purpose) == granted
    unknown = NumberedDecision(year=granted.number.year, number=9)
    for who, person, number, purpose in (
        ("prefecture-dpo", Person("Zoé", "Noir"), granted.number, PURPOSE_OVERSIGHT),
        ("validator", access.VALIDATOR_PERSON, granted.number, PURPOSE_ADMINISTRATION),
        ("dga", access.DGA_PERSON, unknown, PURPOSE_ADMINISTRATION),
    ):
        assert (await refusal(read(service, who, person, number, purpose))).reason == "DECISION_UNKNOWN"
    stranger = read(service, "city-user", access.CITY_PERSON, granted.number, PURPOSE_ADMINISTRATION)
    assert (await refusal(stranger)).clause == "house.office"
    cited = [record.data.references for record in service.records() if record.rpc.endswith("/GetDecision")]
    assert [f"HAB-{granted.number.year}-0001"] in [list(one) for one in cited]


async def test_who_requested_reads_why_it_was_refused(service: Service) -> None:
    _, dga = await service.login("dga", access.DGA_PERSON)
    await cleared(service, dga, "coordinator", COORDINATOR, ROLE_COORDINATOR)
    _, coordinator = await service.login("coordinator", COORDINATOR)
    request = content(pb.RequestClearanceRequest, Person("Ugo", "Vallon", "Voirie"), ROLE_CITY_USER)
    await service.stub.RequestClearance(request, timeout=TIMEOUT, metadata=coordinator)
    refused = pb.ClearanceDecision(
        clearance_id=request.clearance_id, kind=pb.DECISION_KIND_REFUSE, reason="poste supprimé"
    )
    decide = pb.DecideClearancesRequest(consultation=ADMINISTRATION, decisions=[refused])
    await service.stub.DecideClearances(decide, timeout=TIMEOUT, metadata=dga)
    found = await own(service, "coordinator", COORDINATOR)
    assert [one.number.number for one in found] == [2, 1]
    assert "poste supprimé" in found[0].text
    assert await own(service, "dga", access.DGA_PERSON) == []
