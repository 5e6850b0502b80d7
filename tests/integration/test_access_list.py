"""The nominative list over mTLS: a rollback, an expired list, a self-approval, an edited row: refused and recorded."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from planier.access.v1 import access_pb2 as pb
from planier.access.v1 import list_pb2
from planier.access.v1.events_pb2 import PARTY_PREFECTURE, ROLE_PREFECTURE_USER
from planier.access.v1.events_pb2 import Identity as IdentityMessage
from planier.access.v1.list_events_pb2 import ListedPerson, ListValidated, NominativeList
from planier.audit.v1.record_pb2 import AccessRecord, RecordKind
from planier.common.v1.guard_pb2 import OPERATION_CONSULT
from planier.common.v1.release_pb2 import PURPOSE_ADMINISTRATION, PURPOSE_SITUATION

from services.access.people import Person, person_message
from services.access.settings import AccessSettings
from services.kernel.clock import SystemClock
from services.kernel.errors import Problem
from services.kernel.store import open_store
from services.kernel.store.base import Append, NewEvent
from tests.fixtures import access
from tests.fixtures.access_issuer import TestIssuer, issuer_running
from tests.fixtures.access_service import (
    ADMINISTRATION,
    TIMEOUT,
    Metadata,
    Service,
    list_persons,
    refusal,
    running,
    settings_in,
    undertake,
)

USER = access.PREFECTURE_PERSON
ENTRY = access.listed_person(USER)
OTHER = access.listed_person(Person("Jeanne", "Second", "État-major"))


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    with issuer_running() as found:
        yield found


@pytest.fixture
def settings(tmp_path: Path, issuer: TestIssuer) -> AccessSettings:
    return settings_in(tmp_path, issuer)


@pytest.fixture
async def service(settings: AccessSettings, issuer: TestIssuer, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(settings, issuer, tmp_path) as opened:
        await opened.found()
        yield opened


async def cleared(service: Service) -> Metadata:
    """A listed person of the Préfecture, cleared and bound; their token."""
    await list_persons(service, ENTRY)
    now = datetime.now(UTC)
    _, dga = await service.login("dga", access.DGA_PERSON)
    request = pb.GrantClearanceRequest(
        consultation=ADMINISTRATION,
        clearance_id=str(uuid4()),
        person=person_message(USER),
        party=PARTY_PREFECTURE,
        role=ROLE_PREFECTURE_USER,
        purposes=[PURPOSE_SITUATION],
    )
    request.valid_from.FromDatetime(now - timedelta(hours=1))
    request.valid_until.FromDatetime(now + timedelta(days=30))
    await service.stub.GrantClearance(request, timeout=TIMEOUT, metadata=dga)
    await service.login("prefecture-user", USER)
    _, validator = await service.login("validator", access.VALIDATOR_PERSON)
    identity = IdentityMessage(issuer=service.issuer.url, subject="prefecture-user")
    confirmation = pb.ConfirmBindingRequest(
        consultation=ADMINISTRATION, clearance_id=request.clearance_id, identity=identity
    )
    await service.stub.ConfirmBinding(confirmation, timeout=TIMEOUT, metadata=validator)
    _, user = await service.login("prefecture-user", USER)
    await undertake(service, user)
    return user


async def permitted(service: Service, at: datetime | None = None) -> bool:
    identity = service.issuer.identity("prefecture-user")
    item = access.check_item(identity, OPERATION_CONSULT, "facts", PURPOSE_SITUATION, at=at or datetime.now(UTC))
    answer = await service.internal.Check(pb.CheckRequest(items=[item]), timeout=TIMEOUT)
    return answer.verdicts[0].permit


async def submitted(service: Service, *persons: ListedPerson) -> list_pb2.ListProposal:
    _, validator = await service.login("validator", access.VALIDATOR_PERSON)
    request = list_pb2.SubmitListRequest(consultation=ADMINISTRATION, proposal_id=str(uuid4()), persons=persons)
    request.expires_at.FromDatetime(datetime.now(UTC) + timedelta(days=50))
    return (await service.stub.SubmitList(request, timeout=TIMEOUT, metadata=validator)).proposal


def validation(proposal: list_pb2.ListProposal) -> list_pb2.ValidateListRequest:
    return list_pb2.ValidateListRequest(
        consultation=ADMINISTRATION,
        proposal_id=proposal.proposal_id,
        list_hash=proposal.list_hash,
        letter_hash=access.LETTER_HASH,
    )


def recorded_refusal(service: Service, problem: Problem) -> AccessRecord:
    """The log's last record, which states the refusal and names nobody."""
    record = service.records()[-1]
    assert record.kind == RecordKind.RECORD_KIND_REFUSAL
    assert record.refusal_reason == problem.reason
    assert USER.usual_name.encode() not in record.SerializeToString()
    return record


async def test_who_leaves_the_list_loses_access_when_the_version_is_acknowledged(service: Service) -> None:
    user = await cleared(service)
    assert await permitted(service)
    look = pb.GetConventionRequest(consultation=ADMINISTRATION)
    await service.stub.GetConvention(look, timeout=TIMEOUT, metadata=user)
    await list_persons(service, OTHER)
    assert not await permitted(service)
    problem = await refusal(service.stub.GetConvention(look, timeout=TIMEOUT, metadata=user))
    assert (problem.code, problem.clause) == (grpc.StatusCode.PERMISSION_DENIED, "art7.list")
    assert "art7.list" in recorded_refusal(service, problem).decision.clauses


async def test_a_self_approved_change_is_refused_and_recorded(service: Service) -> None:
    proposal = await submitted(service, ENTRY)
    _, validator = await service.login("validator", access.VALIDATOR_PERSON)
    call = service.stub.ValidateList(validation(proposal), timeout=TIMEOUT, metadata=validator)
    problem = await refusal(call)
    assert (problem.reason, problem.clause) == ("OWN_PROPOSAL", "art7.validation")
    assert list(recorded_refusal(service, problem).data.references) == [proposal.proposal_id]


async def test_city_staff_do_not_validate_and_the_attempt_is_recorded(service: Service) -> None:
    proposal = await submitted(service, ENTRY)
    _, dga = await service.login("dga", access.DGA_PERSON)
    problem = await refusal(service.stub.ValidateList(validation(proposal), timeout=TIMEOUT, metadata=dga))
    assert problem.clause == "art7.list"
    recorded_refusal(service, problem)


async def test_a_rollback_to_an_older_list_is_refused_and_recorded(service: Service) -> None:
    older = await submitted(service, ENTRY, OTHER)
    await list_persons(service, OTHER)
    _, second = await service.login("second-validator", access.SECOND_VALIDATOR_PERSON)
    problem = await refusal(service.stub.ValidateList(validation(older), timeout=TIMEOUT, metadata=second))
    assert (problem.reason, problem.clause) == ("LIST_ROLLBACK", "art7.validation")
    recorded_refusal(service, problem)


async def test_an_expired_list_lets_nobody_in(service: Service) -> None:
    await cleared(service)
    await list_persons(service, ENTRY, days=20)
    assert await permitted(service, datetime.now(UTC) + timedelta(days=19))
    assert not await permitted(service, datetime.now(UTC) + timedelta(days=21))


async def test_a_reason_that_points_at_somebody_is_refused_and_not_recorded_itself(service: Service) -> None:
    proposal = await submitted(service, ENTRY)
    _, second = await service.login("second-validator", access.SECOND_VALIDATOR_PERSON)
    request = list_pb2.RefuseListRequest(
        consultation=ADMINISTRATION, proposal_id=proposal.proposal_id, reason="appeler le 06 12 34 56 78"
    )
    problem = await refusal(service.stub.RefuseList(request, timeout=TIMEOUT, metadata=second))
    assert (problem.reason, problem.clause) == ("TEXT_PERSONAL_DATA", "art3.anonymised")
    assert b"12 34" not in recorded_refusal(service, problem).SerializeToString()


async def test_both_parties_read_the_refusal_and_the_suspension_of_a_listed_person(service: Service) -> None:
    await cleared(service)
    _, dga = await service.login("dga", access.DGA_PERSON)
    _, validator = await service.login("validator", access.VALIDATOR_PERSON)
    suspension = list_pb2.SuspendListedPersonRequest(
        consultation=ADMINISTRATION, entry_id=ENTRY.entry_id, reason="en attente d'avis"
    )
    await service.stub.SuspendListedPerson(suspension, timeout=TIMEOUT, metadata=validator)
    assert not await permitted(service)
    refused = list_pb2.RefuseListedPersonRequest(
        consultation=ADMINISTRATION, entry_id=ENTRY.entry_id, reason="hors périmètre"
    )
    await service.stub.RefuseListedPerson(refused, timeout=TIMEOUT, metadata=dga)
    request = list_pb2.GetListRequest(consultation=ADMINISTRATION)
    for reader in (dga, validator):
        found = await service.stub.GetList(request, timeout=TIMEOUT, metadata=reader)
        assert list(found.persons[0].reasons) == ["hors périmètre", "en attente d'avis"]
    lifted = list_pb2.ResumeListedPersonRequest(consultation=ADMINISTRATION, entry_id=ENTRY.entry_id)
    answer = await service.stub.ResumeListedPerson(lifted, timeout=TIMEOUT, metadata=validator)
    assert answer.person.standing == list_pb2.LIST_STANDING_REFUSED


def rows(settings: AccessSettings) -> sqlite3.Connection:
    """The database under the service, as its administrator sees it: past every trigger."""
    connection = sqlite3.connect(settings.database_url.removeprefix("sqlite:///"), isolation_level=None)
    triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in triggers:
        connection.execute(f'DROP TRIGGER "{name}"')
    return connection


async def test_a_row_edited_in_the_database_decides_nothing_and_the_attempt_is_recorded(
    settings: AccessSettings, issuer: TestIssuer, tmp_path: Path
) -> None:
    async with running(settings, issuer, tmp_path) as service:
        await service.found()
        user = await cleared(service)
        await list_persons(service, OTHER)
        with closing(rows(settings)) as connection:
            kind = ListValidated.DESCRIPTOR.full_name
            query = "SELECT position, payload FROM events WHERE type = ? ORDER BY position"
            (_, first), (position, _) = connection.execute(query, (kind,)).fetchall()
            # The list that still named them, in the place of the one that does not.
            connection.execute("UPDATE events SET payload = ? WHERE position = ?", (first, position))
        assert not await permitted(service)
    async with running(settings, issuer, tmp_path) as service:
        look = pb.GetConventionRequest(consultation=ADMINISTRATION)
        problem = await refusal(service.stub.GetConvention(look, timeout=TIMEOUT, metadata=user))
        assert (problem.code, problem.reason) == (grpc.StatusCode.UNAVAILABLE, "CHECK_UNAVAILABLE")
        recorded_refusal(service, problem)


async def test_a_version_appended_past_the_service_is_not_relied_on_and_the_denial_is_recorded(
    settings: AccessSettings, issuer: TestIssuer, tmp_path: Path
) -> None:
    async with running(settings, issuer, tmp_path) as service:
        await service.found()
        user = await cleared(service)
        proposal = await submitted(service, ENTRY, OTHER)
        forged = NominativeList.FromString(proposal.list)
        forged.persons.add(
            entry_id=str(uuid4()), person=person_message(Person("Ajout", "Direct", "X")), directorate="Y"
        )
        event = ListValidated(
            proposal_id=proposal.proposal_id,
            list=forged.SerializeToString(deterministic=True),
            validated_by=IdentityMessage(issuer=issuer.url, subject="second-validator"),
            letter_hash=access.LETTER_HASH,
        )
        store = open_store(settings.database_url, clock=SystemClock())
        stored = NewEvent(event.DESCRIPTOR.full_name, event.SerializeToString(), str(uuid4()))
        store.append([Append("nominative-list", None, (stored,))])
        store.close()
        look = pb.GetConventionRequest(consultation=ADMINISTRATION)
        problem = await refusal(service.stub.GetConvention(look, timeout=TIMEOUT, metadata=user))
        assert (problem.code, problem.clause) == (grpc.StatusCode.PERMISSION_DENIED, "art7.validation")
        assert recorded_refusal(service, problem).purpose == PURPOSE_ADMINISTRATION
        found = await service.login("dga", access.DGA_PERSON)
        request = list_pb2.GetListRequest(consultation=ADMINISTRATION)
        answer = await service.stub.GetList(request, timeout=TIMEOUT, metadata=found[1])
        assert (answer.version, bool(answer.fault)) == (1, True)
