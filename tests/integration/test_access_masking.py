"""Whoever oversees for one party sees the other's people under the pseudonyms that the log shows them under."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from planier.access.v1 import access_pb2 as pb
from planier.access.v1 import list_pb2
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, ROLE_CITY_USER, ROLE_PREFECTURE_USER
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT

from services.access.people import Person, person_message
from services.audit.domain import Governance
from services.audit.masking import Mask, Viewer
from services.kernel.pseudonyms import Pseudonyms
from tests.fixtures import access
from tests.fixtures.access_issuer import TestIssuer, issuer_running
from tests.fixtures.access_service import ADMINISTRATION, TIMEOUT, Service, list_persons, running, settings_in
from tests.fixtures.guard import consultation

OVERSIGHT = consultation(PURPOSE_OVERSIGHT)
LOOKING = {"auditor": Person("Chloé", "Gauthier"), "prefecture-dpo": Person("Zoé", "Noir")}
CLEARED = (
    (access.CITY_PERSON, PARTY_CITY, ROLE_CITY_USER, "city-user"),
    (Person("Camille", "Abadie", "Voirie"), PARTY_CITY, ROLE_CITY_USER, ""),
    (access.PREFECTURE_PERSON, PARTY_PREFECTURE, ROLE_PREFECTURE_USER, "prefecture-user"),
    (Person("Luc", "Zani", "Renseignement"), PARTY_PREFECTURE, ROLE_PREFECTURE_USER, ""),
)


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    with issuer_running() as opened:
        yield opened


@pytest.fixture
async def service(issuer: TestIssuer, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(settings_in(tmp_path, issuer), issuer, tmp_path) as opened:
        await opened.found()
        await list_persons(opened, *(access.listed_person(one) for one, party, *_ in CLEARED if party != PARTY_CITY))
        _, dga = await opened.login("dga", access.DGA_PERSON)
        for person, party, role, subject in CLEARED:
            content = access.grant_command().content
            request = pb.GrantClearanceRequest(
                consultation=ADMINISTRATION,
                clearance_id=str(uuid4()),
                person=person_message(person),
                party=party,
                role=role,
                purposes=sorted(content.purposes),
            )
            request.valid_from.FromDatetime(content.valid_from)
            request.valid_until.FromDatetime(content.valid_until.replace(year=2060))
            await opened.stub.GrantClearance(request, timeout=TIMEOUT, metadata=dga)
            if subject:
                await opened.login(subject, person, siret="21130055300016")
        yield opened


async def listed(service: Service, who: str) -> list[pb.Clearance]:
    _, signed_in = await service.login(who, LOOKING[who])
    found: list[pb.Clearance] = []
    request = pb.ListClearancesRequest(consultation=OVERSIGHT, page_size=1)
    while not found or request.page_token:
        answer = await service.stub.ListClearances(request, timeout=TIMEOUT, metadata=signed_in)
        found += answer.clearances
        request.page_token = answer.next_page_token
    assert len(found) == len(CLEARED)
    return found


@pytest.mark.parametrize(("who", "own"), [("auditor", PARTY_CITY), ("prefecture-dpo", PARTY_PREFECTURE)])
async def test_each_party_reads_the_names_of_its_own_people_only(service: Service, who: str, own: Any) -> None:
    _, dga = await service.login("dga", access.DGA_PERSON)
    everybody = (
        await service.stub.ListClearances(
            pb.ListClearancesRequest(consultation=ADMINISTRATION), timeout=TIMEOUT, metadata=dga
        )
    ).clearances
    shown = await listed(service, who)
    assert [one for one in shown if one.party == own] == [one for one in everybody if one.party == own]
    hidden = [one for one in shown if one.party != own]
    content = b"".join(one.SerializeToString() for one in hidden)
    for one in everybody:
        if one.party != own:
            person, identity = one.person, one.identity
            names = (person.given_name, person.usual_name, one.clearance_id, identity.issuer, identity.subject)
            assert not [name for name in names if name and name.encode() in content]
    assert {one.person.service for one in hidden} == {person.service for person, party, *_ in CLEARED if party != own}
    assert len({one.person.usual_name for one in hidden}) == len(hidden)
    assert not any(one.decisions or one.HasField("affiliation") for one in hidden)
    assert shown == await listed(service, who), "the pseudonyms are stable"


async def test_a_pseudonym_is_the_one_that_the_log_shows(service: Service) -> None:
    _, dga = await service.login("dga", access.DGA_PERSON)
    request = pb.ListClearancesRequest(consultation=ADMINISTRATION)
    everybody = (await service.stub.ListClearances(request, timeout=TIMEOUT, metadata=dga)).clearances
    known = next(one for one in everybody if one.party == PARTY_PREFECTURE and one.HasField("identity"))
    record = AccessRecord(rpc="/planier.audit.v1.AuditService/Replay")
    record.actor.party, record.actor.clearance_id = "PREFECTURE", known.clearance_id
    record.actor.issuer, record.actor.subject = known.identity.issuer, known.identity.subject
    viewer = Viewer("CITY", service.issuer.url, "auditor", access.NOW)
    replayed = Mask(Pseudonyms(bytes(range(32))), Governance(), viewer).masked(record).actor
    found = {(one.clearance_id, one.person.usual_name) for one in await listed(service, "auditor")}
    assert (replayed.clearance_id, replayed.subject) in found


async def test_the_nominative_list_names_nobody_to_the_city_that_oversees(service: Service) -> None:
    async def read(who: str) -> list_pb2.GetListResponse:
        _, signed_in = await service.login(who, LOOKING[who])
        request = list_pb2.GetListRequest(consultation=OVERSIGHT)
        return await service.stub.GetList(request, timeout=TIMEOUT, metadata=signed_in)

    own, hidden = await read("prefecture-dpo"), await read("auditor")
    assert {one.person.person.usual_name for one in own.persons} == {"Œillet", "Zani"}
    assert [one.person.person.service for one in hidden.persons] == [one.person.person.service for one in own.persons]
    assert (hidden.version, hidden.list_hash) == (own.version, own.list_hash)
    told = hidden.persons[0].SerializeToString() + hidden.persons[1].SerializeToString()
    told += hidden.proposals[0].SerializeToString()
    for name in ("Œillet", "Marc", "Zani", "Luc", own.persons[0].person.entry_id, own.proposals[0].proposed_by.subject):
        assert name.encode() not in told
