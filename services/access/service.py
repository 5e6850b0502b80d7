"""The gRPC servicer of access: request → command or query → response. The guard stands before every method."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from planier.access.v1 import access_pb2 as pb
from planier.access.v1.events_pb2 import Party
from planier.common.v1.event_pb2 import ReadEventsRequest, ReadEventsResponse
from planier.common.v1.release_pb2 import InstrumentReference

from services.access import listing
from services.access.acts import digest
from services.access.checker import Checks, recognise
from services.access.clearances import Content, areas_of
from services.access.convention import Convention, Identity, office_of
from services.access.decision_service import DecisionMethods
from services.access.deed import raw_public_key
from services.access.domain import (
    AcknowledgeNotice,
    Command,
    ConfirmBinding,
    DecideClearances,
    Decision,
    GrantClearance,
    ProposeBinding,
    RecordAct,
    RecordDpia,
    RequestClearance,
    ResumeClearance,
    RevokeClearance,
    SignConvention,
    SignUndertaking,
    SuspendClearance,
    decide,
)
from services.access.engagement_service import EngagementMethods
from services.access.list_service import ListMethods
from services.access.oidc import IdTokenVerifier
from services.access.people import identity_of, person_of
from services.access.policy import Policy
from services.access.recheck_service import RecheckMethods, Rechecks
from services.access.register import Register
from services.access.snapshot import Snapshot, StateCache
from services.access.statement import statement
from services.access.writing import Writing
from services.kernel.bus.replication import read_events
from services.kernel.clock import Clock
from services.kernel.errors import Violation, denied, invalid, precondition
from services.kernel.guard.grant import Subject
from services.kernel.guard.tokens import RENEW_AUDIENCE, TokenIssuer, TokenVerifier
from services.kernel.pseudonyms import Pseudonyms
from services.kernel.rpc.call import Call
from services.kernel.screening import detector_of
from services.kernel.store.base import EventStore
from services.kernel.traces import MOST_TOGETHER

# Every service takes the token of a person; each asks access again at every request.
AUDIENCES = ("access", "analytics", "audit", "ingest")


@dataclass(frozen=True, slots=True)
class Founding:
    """What this deployment was handed: the parties' keys (32 bytes each) and the hash of its annex 1."""

    party_keys: Mapping[Party.ValueType, bytes]
    annex_hash: str


class AccessServicer(ListMethods, EngagementMethods, DecisionMethods, RecheckMethods):
    """planier.access.v1.AccessService."""

    def __init__(
        self,
        *,
        store: EventStore,
        cache: StateCache,
        register: Register,
        checks: Checks,
        policy: Policy,
        logins: IdTokenVerifier,
        issuer: TokenIssuer,
        sessions: TokenVerifier,
        token_keys: Mapping[str, Ed25519PublicKey],
        founding: Founding,
        pseudonyms: Pseudonyms,
        clock: Clock,
    ) -> None:
        self._store = store
        self._cache = cache
        self._writing = Writing(register, cache)
        self._rechecks = Rechecks(store)
        self._checks = checks
        self._policy = policy
        self._logins = logins
        self._issuer = issuer
        self._sessions = sessions
        self._token_keys = token_keys
        self._founding = founding
        self._pseudonyms = pseudonyms
        self._clock = clock

    async def SignConvention(self, request: pb.SignConventionRequest, call: Call) -> pb.SignConventionResponse:
        """Founds the installation, once; the same deed again gives the same answer."""
        command = SignConvention(
            deed=request.deed,
            signatures=tuple(request.signatures),
            pinned=self._founding.party_keys,
            annex_hash=self._founding.annex_hash,
            record_id=call.granted.record_id,
        )
        snapshot = await self._execute(command, call)
        return pb.SignConventionResponse(state=snapshot.store_position)

    async def RecordAct(self, request: pb.RecordActRequest, call: Call) -> pb.RecordActResponse:
        """Records what the parties signed after the deed; the same act again gives the same answer."""
        command = RecordAct(request.act, tuple(request.signatures), self._founding.party_keys, call.granted.record_id)
        snapshot = await self._execute(command, call)
        return pb.RecordActResponse(state=snapshot.store_position)

    async def GetConvention(self, request: pb.GetConventionRequest, call: Call) -> pb.GetConventionResponse:  # noqa: ARG002 -- the server calls it so
        """The deed as signed, every version since, the term and the offices."""
        snapshot = await self._current(call)
        call.data.count = 1
        return statement(_signed(snapshot), self._clock.now())

    async def GetCommitments(self, request: pb.GetCommitmentsRequest, call: Call) -> pb.GetCommitmentsResponse:  # noqa: ARG002 -- the server calls it so
        """Hashes, versions and public keys; no name and no right."""
        snapshot = await asyncio.to_thread(self._cache.current)
        convention = snapshot.state.convention
        terms = convention.terms(self._clock.now()) if convention else None
        return pb.GetCommitmentsResponse(
            instruments=[
                InstrumentReference(instrument_id=instrument.instrument_id, version=instrument.version)
                for instrument in (terms.instruments if terms else ())
            ],
            annex_hash=terms.annex_hash if terms else "",
            policy_hash=self._policy.hash,
            deed_hash=digest(convention.deed) if convention else b"",
            state=snapshot.store_position,
            token_keys=[
                pb.TokenKey(key_id=key_id, public_key=raw_public_key(key)) for key_id, key in self._token_keys.items()
            ],
        )

    async def Login(self, request: pb.LoginRequest, call: Call) -> pb.LoginResponse:
        """A session for whom the identity provider vouches for; rights follow from clearance or office alone.

        The session's id is the id of the login's own record: every later record of the session points at it.
        """
        login = await self._logins.verify(request.id_token, request.nonce)
        record_id = call.granted.record_id
        command = ProposeBinding(login.identity, login.given_name, login.usual_name, record_id, login.affiliation)
        snapshot = await asyncio.to_thread(self._cache.current)
        if decide(snapshot.state, command, self._clock.now()):
            snapshot = await self._execute(command, call)
        party = listing.party_of(snapshot.state, login.identity)
        subject = Subject(login.identity.issuer, login.identity.subject, record_id, multi_factor=True, party=party)
        token, expires = self._issuer.access_token(subject, AUDIENCES)
        session, _ = self._issuer.session_token(subject)
        now = self._clock.now()
        response = pb.LoginResponse(
            access_token=token,
            session_token=session,
            binding=listing.binding_of(snapshot.state, login.identity, now),
            undertaking_awaited=listing.undertaking_awaited(snapshot.state, login.identity, now),
        )
        response.expires_at.FromDatetime(expires)
        return response

    def describe_RenewToken(self, request: pb.RenewTokenRequest, call: Call) -> None:
        """The record of a renewal names its session."""
        subject = self._sessions.verify(request.session_token, RENEW_AUDIENCE)
        call.data.references.append(subject.session_id)

    async def RenewToken(self, request: pb.RenewTokenRequest, call: Call) -> pb.RenewTokenResponse:  # noqa: ARG002 -- the server calls it so
        """Five more minutes of the same session, eight hours after its login at most."""
        subject = self._sessions.verify(request.session_token, RENEW_AUDIENCE)
        # Who was a stranger at the login may be bound to a clearance since.
        snapshot = await asyncio.to_thread(self._cache.current)
        party = listing.party_of(snapshot.state, Identity(subject.issuer, subject.subject))
        token, expires = self._issuer.access_token(replace(subject, party=party), AUDIENCES)
        response = pb.RenewTokenResponse(access_token=token)
        response.expires_at.FromDatetime(expires)
        return response

    def describe_GrantClearance(self, request: pb.GrantClearanceRequest, call: Call) -> None:
        """The record names the clearance, never the person."""
        call.data.references.append(request.clearance_id)

    async def GrantClearance(self, request: pb.GrantClearanceRequest, call: Call) -> pb.GrantClearanceResponse:
        """Grants; without effect until a login proposes a binding and the party's office confirms it."""
        command = GrantClearance(
            _actor(call), request.clearance_id.lower(), _content(request), call.granted.record_id, request.urgent
        )
        snapshot = await self._execute(command, call)
        return pb.GrantClearanceResponse(clearance=self._listed(snapshot, command.clearance_id))

    def describe_RequestClearance(self, request: pb.RequestClearanceRequest, call: Call) -> None:
        """The record names the clearance, never the person."""
        call.data.references.append(request.clearance_id)

    async def RequestClearance(self, request: pb.RequestClearanceRequest, call: Call) -> pb.RequestClearanceResponse:
        """Asks the granting authority; nothing is permitted by it."""
        command = RequestClearance(
            _actor(call), request.clearance_id.lower(), _content(request), call.granted.record_id
        )
        snapshot = await self._execute(command, call)
        return pb.RequestClearanceResponse(clearance=self._listed(snapshot, command.clearance_id))

    def describe_DecideClearances(self, request: pb.DecideClearancesRequest, call: Call) -> None:
        """The record names every clearance of the list."""
        call.data.references.extend(decision.clearance_id for decision in request.decisions)

    async def DecideClearances(self, request: pb.DecideClearancesRequest, call: Call) -> pb.DecideClearancesResponse:
        """Decides a list that the granting authority reviewed, all of it or nothing."""
        command = DecideClearances(
            _actor(call),
            tuple(_decision(number, item) for number, item in enumerate(request.decisions)),
            request.service,
            call.granted.record_id,
        )
        snapshot = await self._execute(command, call)
        listed = [self._listed(snapshot, decision.clearance_id) for decision in command.decisions]
        return pb.DecideClearancesResponse(clearances=listed)

    def describe_SuspendClearance(self, request: pb.SuspendClearanceRequest, call: Call) -> None:
        """The record names the clearance."""
        call.data.references.append(request.clearance_id)

    async def SuspendClearance(self, request: pb.SuspendClearanceRequest, call: Call) -> pb.SuspendClearanceResponse:
        """Suspends: once this answers, no check anywhere permits under the clearance."""
        clearance_id = request.clearance_id.lower()
        command = SuspendClearance(_actor(call), clearance_id, request.reason, call.granted.record_id)
        snapshot = await self._execute(command, call)
        return pb.SuspendClearanceResponse(clearance=self._listed(snapshot, clearance_id))

    def describe_ResumeClearance(self, request: pb.ResumeClearanceRequest, call: Call) -> None:
        """The record names the clearance."""
        call.data.references.append(request.clearance_id)

    async def ResumeClearance(self, request: pb.ResumeClearanceRequest, call: Call) -> pb.ResumeClearanceResponse:
        """Lifts the suspension of the caller's party; the other's, if any, stands."""
        clearance_id = request.clearance_id.lower()
        snapshot = await self._execute(ResumeClearance(_actor(call), clearance_id, call.granted.record_id), call)
        return pb.ResumeClearanceResponse(clearance=self._listed(snapshot, clearance_id))

    async def SignUndertaking(self, request: pb.SignUndertakingRequest, call: Call) -> pb.SignUndertakingResponse:
        """Signs for each clearance of the caller that waits for it."""
        actor = _actor(call)
        snapshot = await self._execute(SignUndertaking(actor, request.text_hash, call.granted.record_id), call)
        own = snapshot.state.bound.get(actor, ())
        return pb.SignUndertakingResponse(clearances=[self._listed(snapshot, name) for name in own])

    async def ListNotices(self, request: pb.ListNoticesRequest, call: Call) -> pb.ListNoticesResponse:  # noqa: ARG002 -- the server calls it so
        """The notices to the caller's party, newest first."""
        snapshot = await self._current(call)
        office = office_of(snapshot.state, _actor(call), self._clock.now())
        if office is None:  # lost between check and query
            raise denied("OFFICE_LOST", "an office is needed to read notices", "art3.change")
        found = listing.notices_of(snapshot.state, office.party)
        call.data.count = len(found)
        return pb.ListNoticesResponse(notices=found)

    def describe_AcknowledgeNotice(self, request: pb.AcknowledgeNoticeRequest, call: Call) -> None:
        """The record names the notice."""
        call.data.references.append(request.notice_id)

    async def AcknowledgeNotice(self, request: pb.AcknowledgeNoticeRequest, call: Call) -> pb.AcknowledgeNoticeResponse:
        """The officer knows: one of the two that art3.change asks for."""
        command = AcknowledgeNotice(_actor(call), request.notice_id, call.granted.record_id)
        snapshot = await self._execute(command, call)
        return pb.AcknowledgeNoticeResponse(notice=listing.notice_message(snapshot.state.notices[request.notice_id]))

    def describe_RecordDpia(self, request: pb.RecordDpiaRequest, call: Call) -> None:
        """The record names the amendment."""
        call.data.references.append(request.amendment_id)

    async def RecordDpia(self, request: pb.RecordDpiaRequest, call: Call) -> pb.RecordDpiaResponse:
        """Records the impact study started for a widening amendment."""
        command = RecordDpia(_actor(call), request.amendment_id.lower(), request.reference, call.granted.record_id)
        snapshot = await self._execute(command, call)
        return pb.RecordDpiaResponse(state=snapshot.store_position)

    def describe_RevokeClearance(self, request: pb.RevokeClearanceRequest, call: Call) -> None:
        """The record names the clearance."""
        call.data.references.append(request.clearance_id)

    async def RevokeClearance(self, request: pb.RevokeClearanceRequest, call: Call) -> pb.RevokeClearanceResponse:
        """Revokes: once this answers, no check anywhere permits under the clearance."""
        clearance_id = request.clearance_id.lower()
        command = RevokeClearance(_actor(call), clearance_id, request.reason, call.granted.record_id)
        snapshot = await self._execute(command, call)
        return pb.RevokeClearanceResponse(clearance=self._listed(snapshot, clearance_id))

    def describe_ConfirmBinding(self, request: pb.ConfirmBindingRequest, call: Call) -> None:
        """The record names the clearance."""
        call.data.references.append(request.clearance_id)

    async def ConfirmBinding(self, request: pb.ConfirmBindingRequest, call: Call) -> pb.ConfirmBindingResponse:
        """Binds the proposed identity: from here on the clearance has its effect."""
        clearance_id = request.clearance_id.lower()
        identity = identity_of(request.identity)
        command = ConfirmBinding(_actor(call), clearance_id, identity, call.granted.record_id)
        snapshot = await self._execute(command, call)
        return pb.ConfirmBindingResponse(clearance=self._listed(snapshot, clearance_id))

    async def ListClearances(self, request: pb.ListClearancesRequest, call: Call) -> pb.ListClearancesResponse:
        """A page of the clearances that the caller's office sees, by id."""
        snapshot = await self._current(call)
        now = self._clock.now()
        office = office_of(snapshot.state, _actor(call), now)
        if office is None:  # lost between check and query
            raise denied("OFFICE_LOST", "an office is needed to read the list", "house.office")
        state, hidden = snapshot.state, self._pseudonyms
        page = listing.page_of(state, office, request.page_size, request.page_token, hidden)
        call.data.count = len(page.clearances)
        return pb.ListClearancesResponse(
            clearances=[listing.shown_to(state, office, item, now, hidden) for item in page.clearances],
            next_page_token=page.next_page_token,
        )

    def recognise_Check(self, request: pb.CheckRequest) -> bool:
        """Most batches keep the contract's rules; saying so costs less than judging each."""
        return recognise(request.items)

    async def Check(self, request: pb.CheckRequest, call: Call) -> pb.CheckResponse:  # noqa: ARG002 -- the server calls it so
        """Decides a batch under the state at the store's head as of its arrival or later."""
        return await self._checks.decide(request.items)

    def recognise_StreamChecks(self, request: pb.StreamChecksRequest) -> bool:
        """As Check; of the traces there are no more than a message may name."""
        return recognise(request.batch.items) and len(request.traceparents) <= MOST_TOGETHER

    async def StreamChecks(self, request: pb.StreamChecksRequest, call: Call) -> pb.StreamChecksResponse:  # noqa: ARG002 -- the server calls it so
        """One batch of a stream, decided as `Check` decides it."""
        return pb.StreamChecksResponse(batch=await self._checks.decide(request.batch.items))

    async def ReadEvents(self, request: ReadEventsRequest, call: Call) -> AsyncIterator[ReadEventsResponse]:  # noqa: ARG002 -- the server calls it so
        """The store's events after a cursor."""
        async for response in read_events(self._store, request):
            yield response

    async def _execute(self, command: Command, call: Call) -> Snapshot:
        return await self._writing.execute(command, call)

    async def _current(self, call: Call) -> Snapshot:
        return await self._writing.current(call)

    def _listed(self, snapshot: Snapshot, clearance_id: str) -> pb.Clearance:
        return listing.message_of(snapshot.state, snapshot.state.clearances[clearance_id], self._clock.now())


def _actor(call: Call) -> Identity:
    subject = call.granted.subject
    return Identity(subject.issuer, subject.subject)


def _content(request: pb.GrantClearanceRequest | pb.RequestClearanceRequest) -> Content:
    return Content(
        person=person_of(request.person),
        party=request.party,
        role=request.role,
        purposes=frozenset(request.purposes),
        sources=frozenset(request.sources),
        valid_from=request.valid_from.ToDatetime(UTC),
        valid_until=request.valid_until.ToDatetime(UTC),
        areas=areas_of(request.areas),
        engagement_id=request.engagement_id,
    )


def _decision(number: int, item: pb.ClearanceDecision) -> Decision:
    detector = detector_of(item.reason)
    if detector is not None:
        found = Violation(f"decisions[{number}].reason", "personal_data", f"holds personal data ({detector})")
        raise invalid("REASON_PERSONAL_DATA", "the reason holds personal data", found, clause="art3.anonymised")
    until = item.valid_until.ToDatetime(UTC) if item.HasField("valid_until") else None
    return Decision(item.clearance_id.lower(), item.kind, item.reason, until, item.revocation)


def _signed(snapshot: Snapshot) -> Convention:
    if snapshot.state.convention is None:
        raise precondition("CONVENTION_NOT_SIGNED", "no convention is in force", "art2.documents")
    return snapshot.state.convention
