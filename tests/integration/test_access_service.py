"""Access over mTLS with the real guard, a real log and an identity provider: from the founding to a refusal."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from planier.access.v1 import access_pb2 as pb
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    REVOCATION_REASON_DEPARTURE,
    ROLE_CITY_USER,
    ROLE_COORDINATOR,
    ROLE_PREFECTURE_USER,
    ConventionSigned,
)
from planier.access.v1.events_pb2 import Identity as IdentityMessage
from planier.audit.v1.record_pb2 import RecordKind
from planier.common.v1.event_pb2 import ReadEventsRequest
from planier.common.v1.guard_pb2 import OPERATION_CONSULT
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, PURPOSE_SITUATION, PURPOSE_TENSION

from services.access import acts
from services.access.convention import Person, person_message
from services.access.settings import AccessSettings
from services.access.wiring import AnnexMismatchError, core_of, founding_of, require_signed_annex
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.errors import Problem
from services.kernel.guard.tokens import TokenVerifier
from services.kernel.store import open_store
from tests.fixtures import access
from tests.fixtures.access_issuer import TestIssuer, issuer_running
from tests.fixtures.access_service import (
    ADMINISTRATION,
    ANNEX,
    TIMEOUT,
    Metadata,
    Service,
    founding,
    list_persons,
    refusal,
    running,
    settings_in,
    undertake,
)
from tests.fixtures.guard import consultation


def grant(person: Person = access.CITY_PERSON, **changes: Any) -> pb.GrantClearanceRequest:
    now = datetime.now(UTC)
    request = pb.GrantClearanceRequest(
        consultation=ADMINISTRATION,
        clearance_id=changes.pop("clearance_id", str(uuid4())),
        person=person_message(person),
        party=changes.pop("party", PARTY_CITY),
        role=changes.pop("role", ROLE_CITY_USER),
        purposes=[PURPOSE_SITUATION, PURPOSE_TENSION],
        **changes,
    )
    request.valid_from.FromDatetime(now - timedelta(hours=1))
    request.valid_until.FromDatetime(now + timedelta(days=30))
    return request


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    with issuer_running() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, issuer: TestIssuer) -> AccessSettings:
    return settings_in(tmp_path, issuer)


@pytest.fixture
async def service(settings: AccessSettings, issuer: TestIssuer, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(settings, issuer, tmp_path) as opened:
        yield opened


async def permitted(service: Service, subject: str) -> bool:
    item = access.check_item(
        service.issuer.identity(subject), OPERATION_CONSULT, "facts", PURPOSE_SITUATION, at=datetime.now(UTC)
    )
    answer = await service.internal.Check(pb.CheckRequest(items=[item]), timeout=TIMEOUT)
    assert answer.policy_hash
    assert len(answer.state.digest) == 32
    return answer.verdicts[0].permit


async def confirmed(service: Service, dga: Metadata) -> str:
    """A City user from the grant to the confirmation; returns the clearance's id."""
    request = grant()
    await service.stub.GrantClearance(request, timeout=TIMEOUT, metadata=dga)
    await service.login("city-user", access.CITY_PERSON)
    identity = IdentityMessage(issuer=service.issuer.url, subject="city-user")
    confirmation = pb.ConfirmBindingRequest(
        consultation=ADMINISTRATION, clearance_id=request.clearance_id, identity=identity
    )
    await service.stub.ConfirmBinding(confirmation, timeout=TIMEOUT, metadata=dga)
    _, user = await service.login("city-user", access.CITY_PERSON)
    await undertake(service, user)
    return request.clearance_id


async def test_from_the_founding_to_a_permit_and_back_to_a_refusal(service: Service) -> None:
    await service.found()
    assert not await permitted(service, "city-user")
    _, dga = await service.login("dga", access.DGA_PERSON)
    request = grant()
    granted = await service.stub.GrantClearance(request, timeout=TIMEOUT, metadata=dga)
    assert granted.clearance.state == pb.CLEARANCE_STATE_GRANTED
    login, _ = await service.login("city-user", access.CITY_PERSON)
    assert login.binding == pb.BINDING_STATE_PROPOSED
    assert not await permitted(service, "city-user")

    listing = pb.ListClearancesRequest(consultation=ADMINISTRATION)
    (listed,) = (await service.stub.ListClearances(listing, timeout=TIMEOUT, metadata=dga)).clearances
    assert listed.state == pb.CLEARANCE_STATE_BINDING_PROPOSED
    confirmation = pb.ConfirmBindingRequest(
        consultation=ADMINISTRATION, clearance_id=request.clearance_id, identity=listed.identity
    )
    bound = await service.stub.ConfirmBinding(confirmation, timeout=TIMEOUT, metadata=dga)
    assert bound.clearance.state == pb.CLEARANCE_STATE_UNDERTAKING_AWAITED
    assert not await permitted(service, "city-user")
    login, user = await service.login("city-user", access.CITY_PERSON)
    assert login.undertaking_awaited
    (active,) = (await undertake(service, user)).clearances
    assert active.state == pb.CLEARANCE_STATE_ACTIVE
    assert await permitted(service, "city-user")

    revocation = pb.RevokeClearanceRequest(
        consultation=ADMINISTRATION, clearance_id=request.clearance_id, reason=REVOCATION_REASON_DEPARTURE
    )
    revoked = await service.stub.RevokeClearance(revocation, timeout=TIMEOUT, metadata=dga)
    assert revoked.clearance.state == pb.CLEARANCE_STATE_REVOKED
    assert not await permitted(service, "city-user")


async def test_every_step_left_a_record_and_no_name_in_it(service: Service) -> None:
    await service.found()
    login, dga = await service.login("dga", access.DGA_PERSON)
    clearance_id = await confirmed(service, dga)
    records = service.records()
    kinds = [(record.rpc.rpartition("/")[2], record.kind) for record in records]
    attempt = RecordKind.RECORD_KIND_ATTEMPT
    names = ["SignConvention", "Login", "GrantClearance", "Login", "ConfirmBinding", "Login", "SignUndertaking"]
    assert kinds == [(name, attempt) for name in names]
    assert list(records[2].data.references) == [clearance_id]
    # The session is the login's record.
    assert records[2].actor.session_id == records[1].record_id == login.release.receipt.record_id
    stored = b"".join(record.SerializeToString() for record in records)
    assert access.CITY_PERSON.usual_name.encode() not in stored
    assert access.CITY_PERSON.given_name.encode() not in stored


async def test_an_event_cites_the_record_of_its_attempt_and_audit_alone_reads_it(service: Service) -> None:
    answer = await service.found()
    responses = [response async for response in service.audit.ReadEvents(ReadEventsRequest(), timeout=TIMEOUT)]
    (event,) = responses[0].run.events
    assert ConventionSigned.FromString(event.payload).record_id == answer.release.receipt.record_id
    assert responses[-1].caught_up
    with pytest.raises(Problem, match="CALLER_NOT_ALLOWED"):
        await anext(aiter(service.internal.ReadEvents(ReadEventsRequest(), timeout=TIMEOUT)))


async def test_check_is_for_our_own_services_only(service: Service) -> None:
    request = pb.CheckRequest(items=[access.check_item(access.DGA, at=datetime.now(UTC))])
    problem = await refusal(service.stub.Check(request, timeout=TIMEOUT))
    assert (problem.code, problem.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")


async def test_commitments_name_what_is_in_force_and_the_key_that_signs_tokens(service: Service) -> None:
    before = await service.stub.GetCommitments(pb.GetCommitmentsRequest(), timeout=TIMEOUT)
    assert not before.instruments
    signed = await service.found()
    after = await service.stub.GetCommitments(pb.GetCommitmentsRequest(), timeout=TIMEOUT)
    assert after.annex_hash == hashlib.sha256(ANNEX).hexdigest()
    assert after.state == signed.state
    assert [(i.instrument_id, i.version) for i in after.instruments] == [("convention", "2025-03"), ("city-rules", "1")]
    login, _ = await service.login("dga", access.DGA_PERSON)
    keys = {key.key_id: Ed25519PublicKey.from_public_bytes(key.public_key) for key in after.token_keys}
    verifier = TokenVerifier(keys, SystemClock())
    for audience in ("access", "analytics", "audit", "ingest"):
        subject = verifier.verify(login.access_token, audience)
        assert (subject.subject, subject.multi_factor) == ("dga", True)


async def test_an_unknown_person_has_a_session_and_no_right(service: Service) -> None:
    await service.found()
    login, stranger = await service.login("nobody", Person("Personne", "Inconnue"))
    assert login.binding == pb.BINDING_STATE_UNKNOWN_PERSON
    problem = await refusal(service.stub.GrantClearance(grant(), timeout=TIMEOUT, metadata=stranger))
    assert (problem.code, problem.clause) == (grpc.StatusCode.PERMISSION_DENIED, "art6.habilitation")
    refused = service.records()[-1]
    assert refused.kind == RecordKind.RECORD_KIND_REFUSAL
    assert not refused.decision.permit


async def test_a_login_without_a_second_factor_is_refused_and_recorded(service: Service) -> None:
    await service.found()
    problem = await refusal(service.login("dga", access.DGA_PERSON, amr=["pwd"]))
    assert (problem.code, problem.reason) == (grpc.StatusCode.UNAUTHENTICATED, "MFA_REQUIRED")
    assert service.records()[-1].refusal_reason == "MFA_REQUIRED"


async def test_nobody_grants_without_a_token(service: Service) -> None:
    await service.found()
    problem = await refusal(service.stub.GrantClearance(grant(), timeout=TIMEOUT))
    assert problem.reason == "TOKEN_MISSING"


async def test_a_session_is_renewed_and_an_access_token_does_not_renew(service: Service) -> None:
    await service.found()
    login, _ = await service.login("dga", access.DGA_PERSON)
    renewed = await service.stub.RenewToken(pb.RenewTokenRequest(session_token=login.session_token), timeout=TIMEOUT)
    metadata = (("authorization", f"Bearer {renewed.access_token}"),)
    await service.stub.GrantClearance(grant(), timeout=TIMEOUT, metadata=metadata)
    assert service.records()[-1].actor.session_id == login.release.receipt.record_id
    wrong = pb.RenewTokenRequest(session_token=login.access_token)
    assert (await refusal(service.stub.RenewToken(wrong, timeout=TIMEOUT))).reason == "TOKEN_INVALID"
    other = (("authorization", f"Bearer {login.session_token}"),)
    problem = await refusal(service.stub.GrantClearance(grant(), timeout=TIMEOUT, metadata=other))
    assert problem.reason == "TOKEN_INVALID"


async def test_a_second_founding_is_refused_and_the_same_one_is_not(service: Service) -> None:
    first = await service.found()
    assert (await service.found()).state == first.state
    other = founding(service.issuer, annex=b"other")
    problem = await refusal(service.stub.SignConvention(other, timeout=TIMEOUT))
    assert (problem.code, problem.clause) == (grpc.StatusCode.FAILED_PRECONDITION, "art10.avenant")


async def test_a_deed_of_another_annex_founds_nothing(service: Service) -> None:
    problem = await refusal(service.stub.SignConvention(founding(service.issuer, b"other"), timeout=TIMEOUT))
    assert (problem.reason, problem.clause) == ("ANNEX_MISMATCH", "art2.documents")


async def test_the_convention_shows_its_term_to_whoever_has_a_title(service: Service) -> None:
    await service.found()
    _, auditor = await service.login("auditor", Person("Chloé", "Gauthier"))
    request = pb.GetConventionRequest(consultation=ADMINISTRATION)
    answer = await service.stub.GetConvention(request, timeout=TIMEOUT, metadata=auditor)
    assert answer.term_ends_at.ToDatetime(UTC) == datetime(2029, 2, 28, 23, 0, tzinfo=UTC)
    assert answer.deed.convention_version == "2025-03"
    assert answer.release.access_state.position > 0


async def test_the_list_comes_in_pages_and_the_validator_sees_their_own(service: Service) -> None:
    await service.found()
    _, dga = await service.login("dga", access.DGA_PERSON)
    requests = [grant(Person("Camille", f"Nom {letter}", "Service")) for letter in "abcde"]
    requests.append(grant(access.PREFECTURE_PERSON, party=PARTY_PREFECTURE, role=ROLE_PREFECTURE_USER))
    await list_persons(service, access.listed_person(access.PREFECTURE_PERSON))
    for request in requests:
        await service.stub.GrantClearance(request, timeout=TIMEOUT, metadata=dga)
    seen: list[str] = []
    page = pb.ListClearancesRequest(consultation=ADMINISTRATION, page_size=4)
    for expected in (4, 2):
        answer = await service.stub.ListClearances(page, timeout=TIMEOUT, metadata=dga)
        assert len(answer.clearances) == expected
        seen += [clearance.clearance_id for clearance in answer.clearances]
        page.page_token = answer.next_page_token
    assert seen == sorted(request.clearance_id for request in requests)
    assert not page.page_token

    _, validator = await service.login("validator", access.VALIDATOR_PERSON)
    own = pb.ListClearancesRequest(consultation=ADMINISTRATION)
    answer = await service.stub.ListClearances(own, timeout=TIMEOUT, metadata=validator)
    assert [clearance.party for clearance in answer.clearances] == [PARTY_PREFECTURE]
    own.page_token = "invented"  # noqa: S105 -- a place in a list
    problem = await refusal(service.stub.ListClearances(own, timeout=TIMEOUT, metadata=validator))
    assert [violation.field for violation in problem.violations] == ["page_token"]


async def test_a_restart_keeps_rights_and_refuses_another_annex(
    settings: AccessSettings, issuer: TestIssuer, tmp_path: Path
) -> None:
    async with running(settings, issuer, tmp_path) as service:
        await service.found()
        _, dga = await service.login("dga", access.DGA_PERSON)
        await confirmed(service, dga)
    async with running(settings, issuer, tmp_path) as service:
        assert await permitted(service, "city-user")
    settings.annex_file.write_bytes(b"other bytes")
    store = open_store(settings.database_url, clock=SystemClock())
    try:
        with pytest.raises(AnnexMismatchError):
            require_signed_annex(core_of(store, RandomIds()).cache, founding_of(settings), SystemClock().now())
    finally:
        store.close()


def signed_act(service: Service, kind: str, content: dict[str, Any], *parties: Any) -> pb.RecordActRequest:
    """An act upon the service's own deed, signed by the parties named."""
    deed_hash = acts.digest(founding(service.issuer).deed)
    content = {"act_id": str(uuid4()), kind: content}
    built = acts.build(content, deed_hash)
    keys = {PARTY_CITY: access.CITY_KEY, PARTY_PREFECTURE: access.PREFECTURE_KEY}
    return pb.RecordActRequest(act=built, signatures=[acts.sign(built, party, keys[party]) for party in parties])


async def test_a_termination_stops_the_conventions_facts_at_once_and_starts_the_clock(service: Service) -> None:
    await service.found()
    _, dga = await service.login("dga", access.DGA_PERSON)
    await confirmed(service, dga)
    assert await permitted_sources(service) == {*access.CONVENTION_SOURCES, *access.CITY_SOURCES}
    content = {"party": "PARTY_CITY", "reason": "TERMINATION_REASON_MUTUAL", "act_reference": "R-1"}
    alone = signed_act(service, "termination", content, PARTY_CITY)
    assert (await refusal(service.stub.RecordAct(alone, timeout=TIMEOUT))).reason == "ACT_SIGNATURE_INVALID"
    both = signed_act(service, "termination", content, PARTY_CITY, PARTY_PREFECTURE)
    first = await service.stub.RecordAct(both, timeout=TIMEOUT)
    assert (await service.stub.RecordAct(both, timeout=TIMEOUT)).state == first.state
    assert await permitted_sources(service) == set(access.CITY_SOURCES)
    request = pb.GetConventionRequest(consultation=ADMINISTRATION)
    answer = await service.stub.GetConvention(request, timeout=TIMEOUT, metadata=dga)
    assert not answer.term.in_force
    assert answer.term.destroy_before.ToDatetime() > answer.term.terminated_at.ToDatetime() + timedelta(days=14)
    assert answer.deed_hash == acts.digest(founding(service.issuer).deed)


async def permitted_sources(service: Service) -> set[str]:
    item = access.check_item(service.issuer.identity("city-user"), purpose=PURPOSE_SITUATION, at=datetime.now(UTC))
    answer = await service.internal.Check(pb.CheckRequest(items=[item]), timeout=TIMEOUT)
    return access.permitted_sources(answer.verdicts[0])


async def test_a_widening_amendment_waits_until_both_officers_know_and_the_study_is_recorded(service: Service) -> None:
    await service.found()
    first, second = access.description()["instruments"]
    wider = [{**first, "sources": [*first["sources"], "scheduled-operations"]}, second]
    terms = access.amendment(instruments=wider, annex_hash=hashlib.sha256(ANNEX).hexdigest())
    request = signed_act(service, "amendment", terms, PARTY_CITY, PARTY_PREFECTURE)
    await service.stub.RecordAct(request, timeout=TIMEOUT)

    async def versions(metadata: Metadata) -> list[tuple[str, int, list[str]]]:
        asked = pb.GetConventionRequest(consultation=ADMINISTRATION)
        answer = await service.stub.GetConvention(asked, timeout=TIMEOUT, metadata=metadata)
        return [(item.version, item.state, list(item.awaits)) for item in answer.versions]

    _, dpo = await service.login("dpo", Person("Denis", "Roux"))
    waiting = ["notice CITY", "notice PREFECTURE", "dpia"]
    assert (await versions(dpo))[-1] == ("2026-02", pb.VERSION_STATE_PENDING, waiting)
    _, other = await service.login("prefecture-dpo", Person("Zoé", "Noir"))
    for metadata in (dpo, other):
        asked = pb.ListNoticesRequest(consultation=consultation(PURPOSE_OVERSIGHT))
        (notice,) = (await service.stub.ListNotices(asked, timeout=TIMEOUT, metadata=metadata)).notices
        known = pb.AcknowledgeNoticeRequest(consultation=ADMINISTRATION, notice_id=notice.notice_id)
        answer = await service.stub.AcknowledgeNotice(known, timeout=TIMEOUT, metadata=metadata)
        assert answer.notice.HasField("acknowledged_at")
    assert (await versions(dpo))[-1][1:] == (pb.VERSION_STATE_PENDING, ["dpia"])
    study = pb.RecordDpiaRequest(consultation=ADMINISTRATION, amendment_id=notice.reference, reference="AIPD-1")
    await service.stub.RecordDpia(study, timeout=TIMEOUT, metadata=dpo)
    assert await versions(dpo) == [
        ("2025-03", pb.VERSION_STATE_PAST, []),
        ("2026-02", pb.VERSION_STATE_IN_FORCE, []),
    ]


async def test_a_request_is_decided_in_a_list_and_a_suspension_lifted_by_its_party(service: Service) -> None:
    await service.found()
    _, dga = await service.login("dga", access.DGA_PERSON)
    coordinator_grant = grant(role=ROLE_COORDINATOR)
    await service.stub.GrantClearance(coordinator_grant, timeout=TIMEOUT, metadata=dga)
    await service.login("coordinator", access.CITY_PERSON)
    identity = IdentityMessage(issuer=service.issuer.url, subject="coordinator")
    confirmation = pb.ConfirmBindingRequest(
        consultation=ADMINISTRATION, clearance_id=coordinator_grant.clearance_id, identity=identity
    )
    await service.stub.ConfirmBinding(confirmation, timeout=TIMEOUT, metadata=dga)
    _, coordinator = await service.login("coordinator", access.CITY_PERSON)
    await undertake(service, coordinator)

    asked = [request_of(grant(Person("Camille", f"Nom {letter}", "Voirie"))) for letter in "ab"]
    for request in asked:
        answer = await service.stub.RequestClearance(request, timeout=TIMEOUT, metadata=coordinator)
        assert answer.clearance.state == pb.CLEARANCE_STATE_REQUESTED
    first, second = (request.clearance_id for request in asked)
    listed = pb.DecideClearancesRequest(
        consultation=ADMINISTRATION,
        service="Voirie",
        decisions=[
            pb.ClearanceDecision(clearance_id=first, kind=pb.DECISION_KIND_GRANT),
            pb.ClearanceDecision(clearance_id=second, kind=pb.DECISION_KIND_REFUSE, reason="poste supprimé"),
        ],
    )
    problem = await refusal(service.stub.DecideClearances(listed, timeout=TIMEOUT, metadata=coordinator))
    assert problem.clause == "art6.habilitation"
    decided = await service.stub.DecideClearances(listed, timeout=TIMEOUT, metadata=dga)
    states = [item.state for item in decided.clearances]
    assert states == [pb.CLEARANCE_STATE_GRANTED, pb.CLEARANCE_STATE_REFUSED]
    assert [[number.number for number in item.decisions] for item in decided.clearances] == [[2], [3]]
    listed.decisions[1].reason = "voir avec jean.dupont@exemple.fr"
    problem = await refusal(service.stub.DecideClearances(listed, timeout=TIMEOUT, metadata=dga))
    assert problem.reason == "REASON_PERSONAL_DATA"

    suspension = pb.SuspendClearanceRequest(
        consultation=ADMINISTRATION, clearance_id=first, reason=REVOCATION_REASON_DEPARTURE
    )
    suspended = await service.stub.SuspendClearance(suspension, timeout=TIMEOUT, metadata=dga)
    assert suspended.clearance.state == pb.CLEARANCE_STATE_SUSPENDED
    _, validator = await service.login("validator", access.VALIDATOR_PERSON)
    lifting = pb.ResumeClearanceRequest(consultation=ADMINISTRATION, clearance_id=first)
    problem = await refusal(service.stub.ResumeClearance(lifting, timeout=TIMEOUT, metadata=validator))
    assert problem.reason == "CLEARANCE_UNKNOWN"
    resumed = await service.stub.ResumeClearance(lifting, timeout=TIMEOUT, metadata=dga)
    assert resumed.clearance.state == pb.CLEARANCE_STATE_GRANTED


def request_of(granted: pb.GrantClearanceRequest) -> pb.RequestClearanceRequest:
    """The request that asks for what a grant would give."""
    return pb.RequestClearanceRequest.FromString(granted.SerializeToString())
