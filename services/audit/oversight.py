"""The oversight servicer: own accesses, the officers' decisions, disclosures, what the self-check found."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import UTC

from planier.audit.v1 import oversight_pb2 as pb
from planier.audit.v1.audit_pb2 import ReplayFilter, SequenceHole
from planier.audit.v1.governance_pb2 import Agent
from planier.audit.v1.record_pb2 import LEGAL_BASIS_LEGAL_OBLIGATION, Disclosure
from planier.common.v1.event_pb2 import EventRun

from services.audit.disclosable import disclosable
from services.audit.domain import (
    ApproveRetention,
    Command,
    DecideUnmasking,
    Governance,
    Hold,
    LiftHold,
    Officer,
    PlaceHold,
    Proposal,
    ProposeRetention,
    Unmasking,
)
from services.audit.governing import Governing
from services.audit.integrity import Integrity
from services.audit.reading import LogReader
from services.audit.replay import described
from services.audit.watch import Watch
from services.kernel.errors import Violation, denied, invalid
from services.kernel.rpc.call import Call
from services.kernel.screening import detector_of

OFFICER = "DATA_PROTECTION_OFFICER"

# Runs of access's events, from the first on.
AccessEvents = Callable[[], AsyncIterator[EventRun]]


class OversightServicer:
    """The RPCs of planier.audit.v1.OversightService."""

    def __init__(
        self,
        reader: LogReader,
        governing: Governing,
        watch: Watch,
        integrity: Integrity,
        access_events: AccessEvents,
    ) -> None:
        self._reader = reader
        self._governing = governing
        self._watch = watch
        self._integrity = integrity
        self._access_events = access_events

    async def OwnAccesses(
        self, request: pb.OwnAccessesRequest, call: Call
    ) -> AsyncGenerator[pb.OwnAccessesResponse, None]:
        """Everything recorded under the caller's own identity, in order."""
        subject = call.granted.subject
        own = ReplayFilter(issuer=subject.issuer, subject=subject.subject)
        if request.HasField("occurred_from"):
            own.occurred_from.CopyFrom(request.occurred_from)
        if request.HasField("occurred_until"):
            own.occurred_until.CopyFrom(request.occurred_until)
        described(own, call.data)
        size, pages = await self._reader.open(call, own)
        yield pb.OwnAccessesResponse(tree_size=size)
        async for entries in pages:
            yield pb.OwnAccessesResponse(entries=entries, tree_size=size)

    async def ExportAccessEvents(
        self,
        request: pb.ExportAccessEventsRequest,  # noqa: ARG002 -- the server calls it so
        call: Call,
    ) -> AsyncGenerator[pb.ExportAccessEventsResponse, None]:
        """Access's events in order; those that name the other party's people without payload and salt."""
        mask = await self._reader.mask(call)
        yield pb.ExportAccessEventsResponse()
        parties: dict[str, str] = {}
        async for run in self._access_events():
            shown, withheld = disclosable(run, parties, mask.hides_party)
            call.data.count += len(run.events)
            yield pb.ExportAccessEventsResponse(run=shown, withheld=withheld)

    async def RecordRequisition(self, request: pb.RecordRequisitionRequest, call: Call) -> pb.RecordRequisitionResponse:
        """The disclosure stands in the record that precedes this answer; nothing else is kept of it."""
        _require_officer(call)
        _screen("recipient.organisation", request.recipient.organisation)
        if not (request.recipient.organisation and request.recipient.capacity):
            missing = Violation("recipient", "required", "organisation and capacity are needed")
            raise invalid("RECIPIENT_MISSING", "a disclosure names who received it", missing)
        call.disclosure = Disclosure(
            legal_basis=LEGAL_BASIS_LEGAL_OBLIGATION, reference=request.reference, recipients=[request.recipient]
        )
        data = call.data
        data.sources.extend(request.sources)
        data.references.extend(request.references)
        data.count = request.count
        if request.HasField("period_start"):
            data.period_start.CopyFrom(request.period_start)
        if request.HasField("period_end"):
            data.period_end.CopyFrom(request.period_end)
        if request.content_digest:
            data.filters["content_digest"] = request.content_digest.hex()
        return pb.RecordRequisitionResponse()

    def describe_DecideUnmasking(self, request: pb.DecideUnmaskingRequest, call: Call) -> None:
        """The record names the decision and the pseudonyms."""
        call.data.references.extend([request.unmasking_id, *request.pseudonyms])

    async def DecideUnmasking(self, request: pb.DecideUnmaskingRequest, call: Call) -> pb.DecideUnmaskingResponse:
        """The beneficiary sees them from now on, until the decision lapses."""
        _screen("justification", request.justification)
        command = DecideUnmasking(
            officer=_officer(call),
            unmasking_id=request.unmasking_id.lower(),
            pseudonyms=frozenset(request.pseudonyms),
            issuer=request.beneficiary.issuer,
            subject=request.beneficiary.subject,
            reference=request.reference,
            justification=request.justification,
            valid_until=request.valid_until.ToDatetime(UTC),
            record_id=call.granted.record_id,
        )
        state = await self._execute(command, call)
        return pb.DecideUnmaskingResponse(unmasking=_unmasking(state.unmaskings[command.unmasking_id]))

    def describe_ProposeRetention(self, request: pb.ProposeRetentionRequest, call: Call) -> None:
        """The record names the proposal and its months."""
        call.data.references.append(request.proposal_id)
        call.data.filters["months"] = str(request.months)

    async def ProposeRetention(self, request: pb.ProposeRetentionRequest, call: Call) -> pb.ProposeRetentionResponse:
        """One officer's half, with the justification."""
        _screen("justification", request.justification)
        record_id, proposal_id = call.granted.record_id, request.proposal_id.lower()
        command = ProposeRetention(_officer(call), proposal_id, request.months, request.justification, record_id)
        state = await self._execute(command, call)
        return pb.ProposeRetentionResponse(proposal=_proposal(state.proposals[proposal_id]))

    def describe_ApproveRetention(self, request: pb.ApproveRetentionRequest, call: Call) -> None:
        """The record names the proposal."""
        call.data.references.append(request.proposal_id)

    async def ApproveRetention(self, request: pb.ApproveRetentionRequest, call: Call) -> pb.ApproveRetentionResponse:
        """The other officer's half; in force from here on."""
        _screen("justification", request.justification)
        record_id, proposal_id = call.granted.record_id, request.proposal_id.lower()
        command = ApproveRetention(_officer(call), proposal_id, request.justification, record_id)
        state = await self._execute(command, call)
        return pb.ApproveRetentionResponse(proposal=_proposal(state.proposals[proposal_id]))

    def describe_PlaceHold(self, request: pb.PlaceHoldRequest, call: Call) -> None:
        """The record names the hold and its period."""
        call.data.references.append(request.hold_id)
        call.data.period_start.CopyFrom(request.period_start)
        call.data.period_end.CopyFrom(request.period_end)

    async def PlaceHold(self, request: pb.PlaceHoldRequest, call: Call) -> pb.PlaceHoldResponse:
        """Nothing of the period is erased from here on."""
        start, end = request.period_start.ToDatetime(UTC), request.period_end.ToDatetime(UTC)
        hold_id, record_id = request.hold_id.lower(), call.granted.record_id
        command = PlaceHold(_officer(call), hold_id, start, end, request.reference, record_id)
        state = await self._execute(command, call)
        return pb.PlaceHoldResponse(hold=_hold(state.holds[hold_id]))

    def describe_LiftHold(self, request: pb.LiftHoldRequest, call: Call) -> None:
        """The record names the hold."""
        call.data.references.append(request.hold_id)

    async def LiftHold(self, request: pb.LiftHoldRequest, call: Call) -> pb.LiftHoldResponse:
        """The period ages again."""
        command = LiftHold(_officer(call), request.hold_id.lower(), call.granted.record_id)
        state = await self._execute(command, call)
        return pb.LiftHoldResponse(hold=_hold(state.holds[command.hold_id]))

    async def GetGovernance(
        self,
        request: pb.GetGovernanceRequest,  # noqa: ARG002 -- the server calls it so
        call: Call,
    ) -> pb.GetGovernanceResponse:
        """What was decided and what is in force."""
        state, call.data_position = await asyncio.to_thread(self._governing.current)
        call.data.count = len(state.proposals) + len(state.holds) + len(state.unmaskings)
        return pb.GetGovernanceResponse(
            retention_months=state.months,
            proposals=[_proposal(one) for one in state.proposals.values()],
            holds=[_hold(one) for one in state.holds.values()],
            unmaskings=[_unmasking(one) for one in state.unmaskings.values()],
        )

    async def GetIntegrity(self, request: pb.GetIntegrityRequest, _: Call) -> pb.GetIntegrityResponse:  # noqa: ARG002
        """How far the self-check is, and what it found."""
        return pb.GetIntegrityResponse(
            checked_until=self._watch.checked_until,
            rounds=self._watch.rounds,
            corrupt=[
                pb.CorruptPart(first_index=part.first, end_index=part.end, fault=part.fault)
                for part in self._integrity.corrupt
            ],
            holes=[SequenceHole(instance=hole.instance, missing=hole.missing) for hole in self._watch.holes],
            first_missing=[hole.first for hole in self._watch.holes],
        )

    async def _execute(self, command: Command, call: Call) -> Governance:
        execute = asyncio.to_thread(self._governing.execute, command, call.invocation.traceparent)
        return await asyncio.shield(execute)


def _require_officer(call: Call) -> None:
    if call.granted.role != OFFICER:
        raise denied("NOT_AN_OFFICER", "only a party's data protection officer may", "house.office")


def _officer(call: Call) -> Officer:
    _require_officer(call)
    grant = call.granted
    return Officer(grant.party, grant.subject.issuer, grant.subject.subject)


def _screen(field: str, text: str) -> None:
    detector = detector_of(text)
    if detector is not None:
        found = Violation(field, "personal_data", f"holds personal data ({detector})")
        raise invalid("PERSONAL_DATA", "the text holds personal data", found, clause="art3.anonymised")


def _proposal(proposal: Proposal) -> pb.RetentionProposal:
    return pb.RetentionProposal(
        proposal_id=proposal.proposal_id,
        months=proposal.months,
        proposed_by_party=proposal.proposed_by,
        approved_by_party=proposal.approved_by,
        justifications=proposal.justifications,
    )


def _hold(hold: Hold) -> pb.Hold:
    message = pb.Hold(hold_id=hold.hold_id, reference=hold.reference, party=hold.party, lifted=hold.lifted)
    message.period_start.FromDatetime(hold.start)
    message.period_end.FromDatetime(hold.end)
    return message


def _unmasking(unmasking: Unmasking) -> pb.Unmasking:
    message = pb.Unmasking(
        unmasking_id=unmasking.unmasking_id,
        party=unmasking.party,
        pseudonyms=sorted(unmasking.pseudonyms),
        beneficiary=Agent(issuer=unmasking.issuer, subject=unmasking.subject),
        reference=unmasking.reference,
    )
    message.valid_until.FromDatetime(unmasking.valid_until)
    return message
