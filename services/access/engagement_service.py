"""The RPCs on providers' engagements: request → command or query → response. The guard stands before every method."""

from datetime import UTC

from planier.access.v1 import engagement_pb2 as pb

from services.access import engagement_view
from services.access import engagements as domain
from services.access.engagements import EngagementCommand, HandOver, Terms, provider_of, recipient_of
from services.access.writing import Writing, actor_of, require_screened
from services.kernel.clock import Clock
from services.kernel.rpc.call import Call


class EngagementMethods:
    """The part of planier.access.v1.AccessService that governs and shows providers' engagements."""

    _writing: Writing
    _clock: Clock

    def describe_OpenEngagement(self, request: pb.OpenEngagementRequest, call: Call) -> None:
        """The record names the engagement and its sources, never a person."""
        require_screened("service", request.service)
        call.data.references.append(request.engagement_id)
        call.data.sources.extend(request.sources)

    async def OpenEngagement(self, request: pb.OpenEngagementRequest, call: Call) -> pb.OpenEngagementResponse:
        """Opens; refused to whoever owes a certificate of destruction."""
        terms = Terms(
            provider=provider_of(request.provider),
            service=request.service,
            purposes=frozenset(request.purposes),
            sources=frozenset(request.sources),
            persons=tuple(recipient_of(one) for one in request.persons),
            subcontractors=tuple(provider_of(one) for one in request.subcontractors),
            valid_from=request.valid_from.ToDatetime(UTC),
            valid_until=request.valid_until.ToDatetime(UTC),
            destruction_days=request.destruction_days,
            certificate_key=request.certificate_key,
        )
        command = domain.OpenEngagement(actor_of(call), request.engagement_id.lower(), terms, call.granted.record_id)
        return pb.OpenEngagementResponse(engagement=await self._engagement(command, call))

    def describe_EndEngagement(self, request: pb.EndEngagementRequest, call: Call) -> None:
        """The record names the engagement."""
        call.data.references.append(request.engagement_id)

    async def EndEngagement(self, request: pb.EndEngagementRequest, call: Call) -> pb.EndEngagementResponse:
        """Ends at once; the obligation to destroy runs from here."""
        command = domain.EndEngagement(
            actor_of(call), request.engagement_id.lower(), request.cause, call.granted.record_id
        )
        return pb.EndEngagementResponse(engagement=await self._engagement(command, call))

    def describe_AuthoriseHandOver(self, request: pb.AuthoriseHandOverRequest, call: Call) -> None:
        """The record names the engagement, the hand-over and its sources."""
        call.data.references.extend((request.engagement_id, request.hand_over_id))
        call.data.sources.extend(request.sources)

    async def AuthoriseHandOver(self, request: pb.AuthoriseHandOverRequest, call: Call) -> pb.AuthoriseHandOverResponse:
        """A package may be made; refused outside the engagement and to whoever owes a certificate."""
        hand_over = HandOver(request.hand_over_id.lower(), request.person_id, frozenset(request.sources))
        command = domain.AuthoriseHandOver(
            actor_of(call), request.engagement_id.lower(), hand_over, call.granted.record_id
        )
        return pb.AuthoriseHandOverResponse(engagement=await self._engagement(command, call))

    def describe_CertifyDestruction(self, request: pb.CertifyDestructionRequest, call: Call) -> None:
        """The record names the engagement."""
        call.data.references.append(request.engagement_id)

    async def CertifyDestruction(
        self, request: pb.CertifyDestructionRequest, call: Call
    ) -> pb.CertifyDestructionResponse:
        """Closes the engagement on the provider's signed certificate."""
        command = domain.CertifyDestruction(
            actor_of(call),
            request.engagement_id.lower(),
            request.certificate,
            request.signature,
            call.granted.record_id,
        )
        return pb.CertifyDestructionResponse(engagement=await self._engagement(command, call))

    async def ListEngagements(self, request: pb.ListEngagementsRequest, call: Call) -> pb.ListEngagementsResponse:
        """Every engagement, or those whose certificate is overdue."""
        state = (await self._writing.current(call)).state
        found = engagement_view.all_of(state, self._clock.now(), overdue=request.overdue)
        call.data.count = len(found)
        return pb.ListEngagementsResponse(engagements=found)

    async def _engagement(self, command: EngagementCommand, call: Call) -> pb.Engagement:
        state = (await self._writing.execute(command, call)).state
        return engagement_view.one_of(state, command.engagement_id, self._clock.now())
