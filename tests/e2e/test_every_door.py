"""Every RPC of every running service, knocked at without the right to enter."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from planier.access.v1 import (
    access_pb2,
    decision_pb2,
    engagement_events_pb2,
    engagement_pb2,
    events_pb2,
    list_pb2,
    recheck_pb2,
)
from planier.analytics.v1 import analytics_pb2, conflicts_pb2
from planier.audit.v1 import audit_pb2, governance_pb2, oversight_pb2, record_pb2
from planier.common.v1 import event_pb2, fact_pb2, guard_pb2, release_pb2
from planier.ingest.v1 import events_pb2 as ingest_events_pb2
from planier.ingest.v1 import ingest_pb2

from services.cli.connection import channel
from services.cli.profile import Profile
from services.kernel.errors import Problem
from services.kernel.guard.options import methods_of
from services.kernel.rpc.call import Method
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e

DESCRIPTORS: Mapping[str, ServiceDescriptor] = {
    "access": access_pb2.DESCRIPTOR.services_by_name["AccessService"],
    "analytics": analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"],
    "audit": audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
    "ingest": ingest_pb2.DESCRIPTOR.services_by_name["IngestService"],
}
LOOK = release_pb2.Consultation(
    consultation_id="5f0c7f0e-5f0c-4f0e-8f0c-5f0c7f0e5f0c", purpose=release_pb2.PURPOSE_SITUATION, motive="essai"
)
CLEARANCE = "5f0c7f0e-5f0c-4f0e-8f0c-5f0c7f0e5f0d"
PROVIDER = engagement_events_pb2.Provider(siret="73282932000074", name="X")
DECLARER = ingest_pb2.Declarer(agent_reference="agent-1")
KEY = ingest_pb2.FactKey(source="demonstrations", source_id="X-1")
PERIOD = fact_pb2.Period(start=Timestamp(seconds=1), end=Timestamp(seconds=2))
FACT = fact_pb2.Fact(
    source="demonstrations",
    source_id="X-1",
    revision=2,
    kind="STATIC_GATHERING",
    geometry=fact_pb2.Geometry(point=fact_pb2.LngLat(longitude=5.37, latitude=43.3)),
    periods=[PERIOD],
    status=fact_pb2.FACT_STATUS_DECLARED,
)
SIGNATURES = [
    events_pb2.PartySignature(party=party, signature=b"x" * 64)
    for party in (events_pb2.PARTY_CITY, events_pb2.PARTY_PREFECTURE)
]

# A request of each method that is well formed, so that only the guard can refuse it.
REQUESTS: Mapping[str, Message] = {
    "SignConvention": access_pb2.SignConventionRequest(deed=b"x", signatures=SIGNATURES),
    "GetConvention": access_pb2.GetConventionRequest(consultation=LOOK),
    "GetCommitments": access_pb2.GetCommitmentsRequest(),
    "Login": access_pb2.LoginRequest(id_token="forged"),
    "RenewToken": access_pb2.RenewTokenRequest(session_token="forged"),
    "GrantClearance": access_pb2.GrantClearanceRequest(
        consultation=LOOK,
        clearance_id=CLEARANCE,
        person=events_pb2.Person(given_name="A", usual_name="B", service="C", professional_address="D"),
        party=events_pb2.PARTY_CITY,
        role=events_pb2.ROLE_CITY_USER,
        purposes=[release_pb2.PURPOSE_SITUATION],
        valid_from=Timestamp(seconds=1),
        valid_until=Timestamp(seconds=2),
    ),
    "RevokeClearance": access_pb2.RevokeClearanceRequest(
        consultation=LOOK, clearance_id=CLEARANCE, reason=events_pb2.REVOCATION_REASON_MISUSE
    ),
    "ConfirmBinding": access_pb2.ConfirmBindingRequest(
        consultation=LOOK, clearance_id=CLEARANCE, identity=events_pb2.Identity(issuer="i", subject="s")
    ),
    "ListClearances": access_pb2.ListClearancesRequest(consultation=LOOK),
    "GetDecision": decision_pb2.GetDecisionRequest(
        consultation=LOOK, number=events_pb2.NumberedDecision(year=2026, number=1)
    ),
    "ListOwnDecisions": decision_pb2.ListOwnDecisionsRequest(consultation=LOOK),
    "RecordAct": access_pb2.RecordActRequest(act=b"x", signatures=SIGNATURES),
    "RequestClearance": access_pb2.RequestClearanceRequest(
        consultation=LOOK,
        clearance_id=CLEARANCE,
        person=events_pb2.Person(given_name="A", usual_name="B", service="C", professional_address="D"),
        party=events_pb2.PARTY_CITY,
        role=events_pb2.ROLE_CITY_USER,
        purposes=[release_pb2.PURPOSE_SITUATION],
        valid_from=Timestamp(seconds=1),
        valid_until=Timestamp(seconds=2),
    ),
    "DecideClearances": access_pb2.DecideClearancesRequest(
        consultation=LOOK,
        decisions=[access_pb2.ClearanceDecision(clearance_id=CLEARANCE, kind=access_pb2.DECISION_KIND_REVIEW)],
    ),
    "SuspendClearance": access_pb2.SuspendClearanceRequest(
        consultation=LOOK, clearance_id=CLEARANCE, reason=events_pb2.REVOCATION_REASON_MISUSE
    ),
    "ResumeClearance": access_pb2.ResumeClearanceRequest(consultation=LOOK, clearance_id=CLEARANCE),
    "SignUndertaking": access_pb2.SignUndertakingRequest(consultation=LOOK, text_hash=b"x" * 32),
    "ListNotices": access_pb2.ListNoticesRequest(consultation=LOOK),
    "AcknowledgeNotice": access_pb2.AcknowledgeNoticeRequest(consultation=LOOK, notice_id=f"{CLEARANCE}:CITY"),
    "RecordDpia": access_pb2.RecordDpiaRequest(consultation=LOOK, amendment_id=CLEARANCE, reference="AIPD-1"),
    "Check": access_pb2.CheckRequest(
        items=[
            access_pb2.CheckItem(check_id="1", subject=access_pb2.Subject(), decision_time=Timestamp(seconds=1)),
        ]
    ),
    "AdoptListKeys": list_pb2.AdoptListKeysRequest(keys=b"x", signature=b"x" * 64),
    "SubmitList": list_pb2.SubmitListRequest(consultation=LOOK, proposal_id=CLEARANCE, expires_at=Timestamp(seconds=1)),
    "ProposeListChange": list_pb2.ProposeListChangeRequest(consultation=LOOK, proposal_id=CLEARANCE),
    "ValidateList": list_pb2.ValidateListRequest(consultation=LOOK, proposal_id=CLEARANCE, list_hash=b"x" * 32),
    "RefuseList": list_pb2.RefuseListRequest(consultation=LOOK, proposal_id=CLEARANCE, reason="essai"),
    "WithdrawList": list_pb2.WithdrawListRequest(consultation=LOOK, proposal_id=CLEARANCE),
    "RefuseListedPerson": list_pb2.RefuseListedPersonRequest(consultation=LOOK, entry_id=CLEARANCE, reason="essai"),
    "SuspendListedPerson": list_pb2.SuspendListedPersonRequest(consultation=LOOK, entry_id=CLEARANCE, reason="essai"),
    "ResumeListedPerson": list_pb2.ResumeListedPersonRequest(consultation=LOOK, entry_id=CLEARANCE),
    "GetList": list_pb2.GetListRequest(consultation=LOOK),
    "OpenEngagement": engagement_pb2.OpenEngagementRequest(
        consultation=LOOK,
        engagement_id=CLEARANCE,
        provider=PROVIDER,
        service="essai",
        purposes=[release_pb2.PURPOSE_SITUATION],
        sources=["works"],
        persons=[
            engagement_events_pb2.EngagedPerson(
                person_id=CLEARANCE, person=events_pb2.Person(given_name="A"), siret=PROVIDER.siret
            )
        ],
        valid_from=Timestamp(seconds=1),
        valid_until=Timestamp(seconds=2),
        destruction_days=1,
        certificate_key=b"x" * 32,
    ),
    "EndEngagement": engagement_pb2.EndEngagementRequest(
        consultation=LOOK, engagement_id=CLEARANCE, cause=engagement_events_pb2.ENGAGEMENT_END_BREACH
    ),
    "AuthoriseHandOver": engagement_pb2.AuthoriseHandOverRequest(
        consultation=LOOK, engagement_id=CLEARANCE, hand_over_id=CLEARANCE, person_id=CLEARANCE, sources=["works"]
    ),
    "CertifyDestruction": engagement_pb2.CertifyDestructionRequest(
        consultation=LOOK, engagement_id=CLEARANCE, certificate=b"x", signature=b"x" * 64
    ),
    "ListEngagements": engagement_pb2.ListEngagementsRequest(consultation=LOOK),
    "Recheck": recheck_pb2.RecheckRequest(consultation=LOOK, records=[b"x"]),
    "ReadEvents": event_pb2.ReadEventsRequest(),
    "QueryMap": analytics_pb2.QueryMapRequest(
        consultation=LOOK, box=analytics_pb2.BoundingBox(west=5, south=43, east=6, north=44), period=PERIOD
    ),
    "QueryTension": analytics_pb2.QueryTensionRequest(
        consultation=LOOK, box=analytics_pb2.BoundingBox(west=5, south=43, east=6, north=44), period=PERIOD
    ),
    "WatchMap": analytics_pb2.WatchMapRequest(
        consultation=LOOK, box=analytics_pb2.BoundingBox(west=5, south=43, east=6, north=44)
    ),
    "SearchFacts": analytics_pb2.SearchFactsRequest(consultation=LOOK, words="travaux"),
    "CountByZone": analytics_pb2.CountByZoneRequest(consultation=LOOK, layer="quartiers", period=PERIOD),
    "GetFact": analytics_pb2.GetFactRequest(consultation=LOOK, fact_id="0" * 32),
    "QueryConflicts": analytics_pb2.QueryConflictsRequest(consultation=LOOK, period=PERIOD),
    "AcknowledgeConflict": conflicts_pb2.AcknowledgeConflictRequest(
        consultation=LOOK, conflict_id="0" * 32, fingerprint="0" * 32
    ),
    "ResolveConflict": conflicts_pb2.ResolveConflictRequest(
        consultation=LOOK,
        conflict_id="0" * 32,
        fingerprint="0" * 32,
        measure=fact_pb2.Measure(kind=fact_pb2.MEASURE_KIND_BARRIERS, reference="A-1"),
    ),
    "GetAgenda": analytics_pb2.GetAgendaRequest(consultation=LOOK),
    "GetPosition": analytics_pb2.GetPositionRequest(),
    "StreamChecks": access_pb2.StreamChecksRequest(
        batch=access_pb2.CheckRequest(
            items=[access_pb2.CheckItem(check_id="1", subject=access_pb2.Subject(), decision_time=Timestamp(seconds=1))]
        )
    ),
    "StreamRecords": audit_pb2.StreamRecordsRequest(
        batch=audit_pb2.RecordRequest(items=[audit_pb2.RecordItem(record_id=CLEARANCE, record=b"x")])
    ),
    "Record": audit_pb2.RecordRequest(items=[audit_pb2.RecordItem(record_id=CLEARANCE, record=b"x")]),
    "Replay": audit_pb2.ReplayRequest(consultation=LOOK),
    "VerifyLog": audit_pb2.VerifyLogRequest(consultation=LOOK),
    "GetCheckpoint": audit_pb2.GetCheckpointRequest(),
    "AddCosignatures": audit_pb2.AddCosignaturesRequest(checkpoint="x"),
    "ProveAccess": audit_pb2.ProveAccessRequest(consultation=LOOK, record_id=CLEARANCE),
    "GetInclusionProof": audit_pb2.GetInclusionProofRequest(index=0),
    "GetConsistencyProof": audit_pb2.GetConsistencyProofRequest(first_size=1),
    "OwnAccesses": oversight_pb2.OwnAccessesRequest(consultation=LOOK),
    "ExportAccessEvents": oversight_pb2.ExportAccessEventsRequest(consultation=LOOK),
    "RecordRequisition": oversight_pb2.RecordRequisitionRequest(
        consultation=LOOK, reference="TJ-1", recipient=record_pb2.Recipient(organisation="A", capacity="B")
    ),
    "DecideUnmasking": oversight_pb2.DecideUnmaskingRequest(
        consultation=LOOK,
        unmasking_id=CLEARANCE,
        beneficiary=governance_pb2.Agent(issuer="i", subject="s"),
        reference="PV-1",
        justification="justification",
        valid_until=Timestamp(seconds=2),
    ),
    "ProposeRetention": oversight_pb2.ProposeRetentionRequest(
        consultation=LOOK, proposal_id=CLEARANCE, months=24, justification="justification"
    ),
    "ApproveRetention": oversight_pb2.ApproveRetentionRequest(
        consultation=LOOK, proposal_id=CLEARANCE, justification="justification"
    ),
    "PlaceHold": oversight_pb2.PlaceHoldRequest(
        consultation=LOOK,
        hold_id=CLEARANCE,
        period_start=Timestamp(seconds=1),
        period_end=Timestamp(seconds=2),
        reference="REQ-1",
    ),
    "LiftHold": oversight_pb2.LiftHoldRequest(consultation=LOOK, hold_id=CLEARANCE),
    "GetGovernance": oversight_pb2.GetGovernanceRequest(consultation=LOOK),
    "GetIntegrity": oversight_pb2.GetIntegrityRequest(),
    "DeclareFacts": ingest_pb2.DeclareFactsRequest(declarer=DECLARER, facts=[FACT]),
    "StreamFacts": ingest_pb2.StreamFactsRequest(batch=ingest_pb2.DeclareFactsRequest(declarer=DECLARER, facts=[FACT])),
    "AmendFact": ingest_pb2.AmendFactRequest(declarer=DECLARER, fact=FACT),
    "CancelFact": ingest_pb2.CancelFactRequest(
        declarer=DECLARER, key=KEY, revision=2, reason=ingest_events_pb2.CANCELLATION_REASON_MISTAKE
    ),
    "EraseFact": ingest_pb2.EraseFactRequest(
        declarer=DECLARER, key=KEY, reason=ingest_events_pb2.ERASURE_REASON_RETENTION
    ),
    "GetDeclaration": ingest_pb2.GetDeclarationRequest(declarer=DECLARER, key=KEY),
    "GetHead": ingest_pb2.GetHeadRequest(),
}
OVERSIGHT = oversight_pb2.DESCRIPTOR.services_by_name["OversightService"]
ALL = [
    (service, method)
    for service, descriptor in (*DESCRIPTORS.items(), ("audit", OVERSIGHT))
    for method in methods_of(descriptor)
]
Knock = Callable[..., Awaitable[Any]]


async def knock(stack: Stack, service: str, method: Method, token: str = "") -> grpc.StatusCode:
    """The status of one well-formed call under a workstation's certificate, which no allow-list names."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    profile = Profile.read(stack.home / "stack.json")
    serialise = type(REQUESTS[method.name]).SerializeToString
    async with channel(profile, service) as opened:
        kinds: Mapping[tuple[bool, bool], Callable[..., Any]] = {
            (False, False): opened.unary_unary,
            (False, True): opened.unary_stream,
            (True, True): opened.stream_stream,
        }
        build = kinds[method.client_streaming, method.server_streaming]
        call = build(method.path, serialise, method.response_type.FromString)
        request = REQUESTS[method.name]
        try:
            if method.client_streaming:
                async for _ in call(iter([request]), timeout=10, metadata=metadata):
                    break
            elif method.server_streaming:
                async for _ in call(request, timeout=10, metadata=metadata):
                    break
            else:
                await call(request, timeout=10, metadata=metadata)
        except Problem as problem:
            return problem.code
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(("service", "method"), ALL, ids=[f"{service}.{method.name}" for service, method in ALL])
def test_no_door_opens_without_its_key(stack: Stack, service: str, method: Method) -> None:
    status = asyncio.run(knock(stack, service, method))
    option = method.option
    if option.guard_class == guard_pb2.GUARD_CLASS_COMMITMENT:
        # What is asked may be no good; who asks is not looked at.
        assert status in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
    elif option.guard_class == guard_pb2.GUARD_CLASS_INTERNAL:
        assert status == grpc.StatusCode.PERMISSION_DENIED
    elif option.authentication == guard_pb2.AUTHENTICATION_TOKEN:
        assert status == grpc.StatusCode.UNAUTHENTICATED
        assert asyncio.run(knock(stack, service, method, "forged.token.here")) == grpc.StatusCode.UNAUTHENTICATED
    elif option.authentication == guard_pb2.AUTHENTICATION_CERTIFICATE:
        assert status == grpc.StatusCode.PERMISSION_DENIED
    else:
        assert status in {
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.FAILED_PRECONDITION,
        }
