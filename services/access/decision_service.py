"""The RPCs that show numbered decisions. The guard stands before every method."""

from planier.access.v1 import decision_pb2 as pb
from planier.access.v1.events_pb2 import NumberedDecision

from services.access import decision_document as documents
from services.access.clearances import Clearance, Decided
from services.access.convention import State, office_of, sees
from services.access.masking import hides
from services.access.people import Identity
from services.access.writing import Writing, actor_of
from services.kernel.clock import Clock
from services.kernel.rpc.call import Call

MOST = 200


class DecisionMethods:
    """The part of planier.access.v1.AccessService that shows numbered decisions."""

    _writing: Writing
    _clock: Clock

    async def GetDecision(self, request: pb.GetDecisionRequest, call: Call) -> pb.GetDecisionResponse:
        """One decision, of a person whose name the caller's office may read."""
        call.data.references.append(_cited(request.number))
        state = (await self._writing.current(call)).state
        office = office_of(state, actor_of(call), self._clock.now())
        clearance, decided = documents.find(state, (request.number.year, request.number.number))
        if office is None or not sees(office, clearance) or hides(office, clearance.party):
            raise documents.unknown()
        call.data.count = 1
        return pb.GetDecisionResponse(document=_shown(state, clearance, decided))

    async def ListOwnDecisions(self, request: pb.ListOwnDecisionsRequest, call: Call) -> pb.ListOwnDecisionsResponse:  # noqa: ARG002 -- the server calls it so
        """What was decided of the caller, and of the caller's requests."""
        state = (await self._writing.current(call)).state
        shown = [_shown(state, *one) for one in own_decisions(state, actor_of(call))[:MOST]]
        call.data.count = len(shown)
        call.data.references.extend(_cited(one.number) for one in shown)
        return pb.ListOwnDecisionsResponse(documents=shown)


def own_decisions(state: State, actor: Identity) -> list[tuple[Clearance, Decided]]:
    """The decisions on a person's clearances, bound by confirmation, and on those they requested; newest first."""
    found = [
        (clearance, decided)
        for clearance in state.clearances.values()
        if actor in (clearance.identity, clearance.requested_by)
        for decided in clearance.decisions
    ]
    return sorted(found, key=lambda one: one[1].number, reverse=True)


def _cited(number: NumberedDecision) -> str:
    return documents.number_text((number.year, number.number))


def _shown(state: State, clearance: Clearance, decided: Decided) -> pb.DecisionDocument:
    document = documents.document_of(state, decided)
    year, number = decided.number
    message = pb.DecisionDocument(
        number=NumberedDecision(year=year, number=number),
        clearance_id=clearance.clearance_id,
        title=document.title,
        visas=document.visas,
        articles=[pb.DecisionArticle(title=one.title, sentences=one.sentences) for one in document.articles],
        signature=document.signature,
        text=document.text,
        text_hash=document.hash,
    )
    message.decided_at.FromDatetime(decided.at)
    return message
