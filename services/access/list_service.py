"""The RPCs on the nominative list: request → command or query → response. The guard stands before every method."""

from datetime import UTC

from planier.access.v1 import list_pb2 as pb
from planier.access.v1.events_pb2 import PARTY_PREFECTURE

from services.access import list_view
from services.access import nominative_list as lists
from services.access.convention import office_of
from services.access.list_state import listing_of
from services.access.masking import hides, mask_list
from services.access.nominative_list import ListCommand
from services.access.writing import Writing, actor_of, require_screened
from services.kernel.clock import Clock
from services.kernel.errors import denied
from services.kernel.pseudonyms import Pseudonyms
from services.kernel.rpc.call import Call


class ListMethods:
    """The part of planier.access.v1.AccessService that governs and shows the Préfecture's list."""

    _writing: Writing
    _pseudonyms: Pseudonyms
    _clock: Clock

    async def AdoptListKeys(self, request: pb.AdoptListKeysRequest, call: Call) -> pb.AdoptListKeysResponse:
        """Adopts the Préfecture's own keys; the signature in the request is the credential."""
        command = lists.AdoptListKeys(request.keys, request.signature, call.granted.record_id)
        snapshot = await self._writing.execute(command, call)
        return pb.AdoptListKeysResponse(state=snapshot.store_position)

    def describe_SubmitList(self, request: pb.SubmitListRequest, call: Call) -> None:
        """The record names the proposal and counts the persons, never names one."""
        _describe(call, request.proposal_id, len(request.persons))

    async def SubmitList(self, request: pb.SubmitListRequest, call: Call) -> pb.SubmitListResponse:
        """A whole list; without effect until validated."""
        command = lists.SubmitList(
            actor=actor_of(call),
            proposal_id=request.proposal_id.lower(),
            persons=tuple(list_view.lowered(person) for person in request.persons),
            expires_at=request.expires_at.ToDatetime(UTC),
            record_id=call.granted.record_id,
        )
        return pb.SubmitListResponse(proposal=await self._proposed(command, command.proposal_id, call))

    def describe_ProposeListChange(self, request: pb.ProposeListChangeRequest, call: Call) -> None:
        """The record names the proposal and counts the changes."""
        _describe(call, request.proposal_id, len(request.changed) + len(request.removed))

    async def ProposeListChange(self, request: pb.ProposeListChangeRequest, call: Call) -> pb.ProposeListChangeResponse:
        """Changes to the version in force; without effect until validated."""
        command = lists.ProposeListChange(
            actor=actor_of(call),
            proposal_id=request.proposal_id.lower(),
            changed=tuple(list_view.lowered(person) for person in request.changed),
            removed=frozenset(entry_id.lower() for entry_id in request.removed),
            expires_at=request.expires_at.ToDatetime(UTC) if request.HasField("expires_at") else None,
            record_id=call.granted.record_id,
        )
        return pb.ProposeListChangeResponse(proposal=await self._proposed(command, command.proposal_id, call))

    def describe_ValidateList(self, request: pb.ValidateListRequest, call: Call) -> None:
        """The record names the proposal."""
        _describe(call, request.proposal_id)

    async def ValidateList(self, request: pb.ValidateListRequest, call: Call) -> pb.ValidateListResponse:
        """In force once this answers; whoever left the list has lost access."""
        command = lists.ValidateList(
            actor=actor_of(call),
            proposal_id=request.proposal_id.lower(),
            list_hash=request.list_hash,
            letter_hash=request.letter_hash,
            signatures=tuple(request.signatures),
            record_id=call.granted.record_id,
        )
        snapshot = await self._writing.execute(command, call)
        return pb.ValidateListResponse(version=listing_of(snapshot.state).highest)

    def describe_RefuseList(self, request: pb.RefuseListRequest, call: Call) -> None:
        """The record names the proposal, and never holds a reason that points at somebody."""
        require_screened("reason", request.reason)
        _describe(call, request.proposal_id)

    async def RefuseList(self, request: pb.RefuseListRequest, call: Call) -> pb.RefuseListResponse:
        """The proposal ends, with a reason."""
        command = lists.RefuseList(actor_of(call), request.proposal_id.lower(), request.reason, call.granted.record_id)
        return pb.RefuseListResponse(proposal=await self._proposed(command, command.proposal_id, call))

    def describe_WithdrawList(self, request: pb.WithdrawListRequest, call: Call) -> None:
        """The record names the proposal."""
        _describe(call, request.proposal_id)

    async def WithdrawList(self, request: pb.WithdrawListRequest, call: Call) -> pb.WithdrawListResponse:
        """The proposal ends, by its proposer."""
        command = lists.WithdrawList(actor_of(call), request.proposal_id.lower(), call.granted.record_id)
        return pb.WithdrawListResponse(proposal=await self._proposed(command, command.proposal_id, call))

    def describe_RefuseListedPerson(self, request: pb.RefuseListedPersonRequest, call: Call) -> None:
        """The record names the entry."""
        require_screened("reason", request.reason)
        _describe(call, request.entry_id)

    async def RefuseListedPerson(
        self, request: pb.RefuseListedPersonRequest, call: Call
    ) -> pb.RefuseListedPersonResponse:
        """Refuses a listed person, with a reason that the Préfecture reads."""
        command = lists.RefuseListedPerson(
            actor_of(call), request.entry_id.lower(), request.reason, call.granted.record_id
        )
        return pb.RefuseListedPersonResponse(person=await self._marked(command, command.entry_id, call))

    def describe_SuspendListedPerson(self, request: pb.SuspendListedPersonRequest, call: Call) -> None:
        """The record names the entry."""
        require_screened("reason", request.reason)
        _describe(call, request.entry_id)

    async def SuspendListedPerson(
        self, request: pb.SuspendListedPersonRequest, call: Call
    ) -> pb.SuspendListedPersonResponse:
        """Suspends: once this answers, no check anywhere permits under the person's clearances."""
        command = lists.SuspendListedPerson(
            actor_of(call), request.entry_id.lower(), request.reason, call.granted.record_id
        )
        return pb.SuspendListedPersonResponse(person=await self._marked(command, command.entry_id, call))

    def describe_ResumeListedPerson(self, request: pb.ResumeListedPersonRequest, call: Call) -> None:
        """The record names the entry."""
        _describe(call, request.entry_id)

    async def ResumeListedPerson(
        self, request: pb.ResumeListedPersonRequest, call: Call
    ) -> pb.ResumeListedPersonResponse:
        """Lifts the caller's own party's suspension."""
        command = lists.ResumeListedPerson(actor_of(call), request.entry_id.lower(), call.granted.record_id)
        return pb.ResumeListedPersonResponse(person=await self._marked(command, command.entry_id, call))

    async def GetList(self, request: pb.GetListRequest, call: Call) -> pb.GetListResponse:  # noqa: ARG002 -- the server calls it so
        """The newest verified version, who stands how in it, and what is proposed."""
        snapshot = await self._writing.current(call)
        response = list_view.list_of(listing_of(snapshot.state))
        call.data.count = len(response.persons)
        office = office_of(snapshot.state, actor_of(call), self._clock.now())
        if office is None:  # lost between check and query
            raise denied("OFFICE_LOST", "an office is needed to read the list", "house.office")
        if hides(office, PARTY_PREFECTURE):
            mask_list(response, self._pseudonyms)
        return response

    async def _proposed(self, command: ListCommand, proposal_id: str, call: Call) -> pb.ListProposal:
        listing = listing_of((await self._writing.execute(command, call)).state)
        return list_view.proposal_of(listing, listing.proposals[proposal_id])

    async def _marked(self, command: ListCommand, entry_id: str, call: Call) -> pb.ListedPersonStatus:
        listing = listing_of((await self._writing.execute(command, call)).state)
        return list_view.status_of(listing, entry_id)


def _describe(call: Call, reference: str, count: int = 0) -> None:
    call.data.references.append(reference)
    call.data.count = count
