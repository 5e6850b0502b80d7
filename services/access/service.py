"""The gRPC servicer of access: request → command or query → response. The guard stands before every method."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from planier.access.v1 import access_pb2 as pb
from planier.access.v1.events_pb2 import Deed, Party
from planier.common.v1.event_pb2 import ReadEventsRequest, ReadEventsResponse
from planier.common.v1.release_pb2 import InstrumentReference

from services.access import listing
from services.access.checker import Checks
from services.access.convention import Clearance, Convention, Identity, identity_of, office_of, person_of
from services.access.deed import raw_public_key
from services.access.domain import (
    Command,
    ConfirmBinding,
    GrantClearance,
    ProposeBinding,
    RevokeClearance,
    SignConvention,
    decide,
)
from services.access.oidc import IdTokenVerifier
from services.access.policy import Policy
from services.access.register import Register
from services.access.snapshot import Snapshot, StateCache
from services.kernel.bus.replication import read_events
from services.kernel.clock import Clock
from services.kernel.errors import denied, precondition
from services.kernel.guard.grant import Subject
from services.kernel.guard.tokens import RENEW_AUDIENCE, TokenIssuer, TokenVerifier
from services.kernel.rpc.call import Call
from services.kernel.store.base import EventStore

# Every service takes the token of a person; each asks access again at every request.
AUDIENCES = ("access", "analytics", "audit", "ingest")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Founding:
    """What this deployment was handed: the parties' keys (32 bytes each) and the hash of its annex 1."""

    party_keys: Mapping[Party.ValueType, bytes]
    annex_hash: str


class AccessServicer:
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
        clock: Clock,
    ) -> None:
        self._store = store
        self._cache = cache
        self._register = register
        self._checks = checks
        self._policy = policy
        self._logins = logins
        self._issuer = issuer
        self._sessions = sessions
        self._token_keys = token_keys
        self._founding = founding
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

    async def GetConvention(self, request: pb.GetConventionRequest, call: Call) -> pb.GetConventionResponse:  # noqa: ARG002 -- the server calls it so
        """The deed as signed, and its term."""
        snapshot = await self._current(call)
        convention = _signed(snapshot)
        response = pb.GetConventionResponse(deed=Deed.FromString(convention.deed))
        response.signed_at.FromDatetime(convention.signed_at)
        response.term_ends_at.FromDatetime(convention.term.ends)
        call.data.count = 1
        return response

    async def GetCommitments(self, request: pb.GetCommitmentsRequest, call: Call) -> pb.GetCommitmentsResponse:  # noqa: ARG002 -- the server calls it so
        """Hashes, versions and public keys; no name and no right."""
        snapshot = await asyncio.to_thread(self._cache.current)
        convention = snapshot.state.convention
        return pb.GetCommitmentsResponse(
            instruments=[
                InstrumentReference(instrument_id=instrument.instrument_id, version=instrument.version)
                for instrument in (convention.instruments if convention else ())
            ],
            annex_hash=convention.annex_hash if convention else "",
            policy_hash=self._policy.hash,
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
        command = ProposeBinding(login.identity, login.given_name, login.usual_name, record_id)
        snapshot = await asyncio.to_thread(self._cache.current)
        if decide(snapshot.state, command, self._clock.now()):
            snapshot = await self._execute(command, call)
        subject = Subject(login.identity.issuer, login.identity.subject, record_id, multi_factor=True)
        token, expires = self._issuer.access_token(subject, AUDIENCES)
        session, _ = self._issuer.session_token(subject)
        response = pb.LoginResponse(
            access_token=token,
            session_token=session,
            binding=listing.binding_of(snapshot.state, login.identity, self._clock.now()),
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
        token, expires = self._issuer.access_token(subject, AUDIENCES)
        response = pb.RenewTokenResponse(access_token=token)
        response.expires_at.FromDatetime(expires)
        return response

    def describe_GrantClearance(self, request: pb.GrantClearanceRequest, call: Call) -> None:
        """The record names the clearance, never the person."""
        call.data.references.append(request.clearance_id)

    async def GrantClearance(self, request: pb.GrantClearanceRequest, call: Call) -> pb.GrantClearanceResponse:
        """Grants; without effect until a login proposes a binding and the party's office confirms it."""
        command = GrantClearance(
            actor=_actor(call),
            clearance_id=request.clearance_id.lower(),
            person=person_of(request.person),
            party=request.party,
            role=request.role,
            purposes=frozenset(request.purposes),
            sources=frozenset(request.sources),
            valid_from=request.valid_from.ToDatetime(UTC),
            valid_until=request.valid_until.ToDatetime(UTC),
            record_id=call.granted.record_id,
        )
        snapshot = await self._execute(command, call)
        return pb.GrantClearanceResponse(clearance=self._listed(snapshot, command.clearance_id))

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
        page = listing.page_of(snapshot.state, office, request.page_size, request.page_token)
        call.data.count = len(page.clearances)
        return pb.ListClearancesResponse(
            clearances=[listing.message_of(clearance, now) for clearance in page.clearances],
            next_page_token=page.next_page_token,
        )

    async def Check(self, request: pb.CheckRequest, call: Call) -> pb.CheckResponse:  # noqa: ARG002 -- the server calls it so
        """Decides a batch under the state at the store's head as of its arrival or later."""
        return await self._checks.decide(request.items)

    async def StreamChecks(self, request: pb.StreamChecksRequest, call: Call) -> pb.StreamChecksResponse:  # noqa: ARG002 -- the server calls it so
        """One batch of a stream, decided as `Check` decides it."""
        return pb.StreamChecksResponse(batch=await self._checks.decide(request.batch.items))

    async def ReadEvents(self, request: ReadEventsRequest, call: Call) -> AsyncIterator[ReadEventsResponse]:  # noqa: ARG002 -- the server calls it so
        """The store's events after a cursor."""
        async for response in read_events(self._store, request):
            yield response

    async def _execute(self, command: Command, call: Call) -> Snapshot:
        return await _to_the_end(lambda: self._register.execute(command, call.invocation.traceparent))

    async def _current(self, call: Call) -> Snapshot:
        snapshot = await asyncio.to_thread(self._cache.current)
        call.data_position = snapshot.position
        return snapshot

    def _listed(self, snapshot: Snapshot, clearance_id: str) -> pb.Clearance:
        clearance: Clearance = snapshot.state.clearances[clearance_id]
        return listing.message_of(clearance, self._clock.now())


def _actor(call: Call) -> Identity:
    subject = call.granted.subject
    return Identity(subject.issuer, subject.subject)


def _signed(snapshot: Snapshot) -> Convention:
    if snapshot.state.convention is None:
        raise precondition("CONVENTION_NOT_SIGNED", "no convention is in force", "art2.documents")
    return snapshot.state.convention


async def _to_the_end(work: Callable[[], Result]) -> Result:
    """Runs blocking work whose effect must be known even where the caller goes away."""
    return await asyncio.shield(asyncio.to_thread(work))
