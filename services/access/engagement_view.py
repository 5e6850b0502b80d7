"""What engagements show to those who may read them."""

from datetime import datetime

from planier.access.v1 import engagement_pb2 as pb
from planier.access.v1.engagement_events_pb2 import EngagedPerson, Provider

from services.access.convention import Convention, State
from services.access.engagements import Engagement, EngagementStanding
from services.access.people import person_message

_STATES = {
    EngagementStanding.PLANNED: pb.ENGAGEMENT_STATE_PLANNED,
    EngagementStanding.UNDER_WAY: pb.ENGAGEMENT_STATE_UNDER_WAY,
    EngagementStanding.DESTRUCTION_DUE: pb.ENGAGEMENT_STATE_DESTRUCTION_DUE,
    EngagementStanding.OVERDUE: pb.ENGAGEMENT_STATE_OVERDUE,
    EngagementStanding.CLOSED: pb.ENGAGEMENT_STATE_CLOSED,
}


def all_of(state: State, at: datetime, *, overdue: bool) -> list[pb.Engagement]:
    """The engagements at an instant in order of their ids; only the overdue ones where asked."""
    if state.convention is None:
        return []
    found = [_message(state.engagements[one], state.convention, at) for one in sorted(state.engagements)]
    return [one for one in found if not overdue or one.state == pb.ENGAGEMENT_STATE_OVERDUE]


def one_of(state: State, engagement_id: str, at: datetime) -> pb.Engagement:
    """One engagement at an instant; an empty message where there is none."""
    known = state.engagements.get(engagement_id)
    return _message(known, state.convention, at) if known and state.convention else pb.Engagement()


def _message(engagement: Engagement, convention: Convention, at: datetime) -> pb.Engagement:
    terms = engagement.terms
    message = pb.Engagement(
        engagement_id=engagement.engagement_id,
        state=_STATES[engagement.standing(convention, at)],
        provider=Provider(siret=terms.provider.siret, name=terms.provider.name),
        service=terms.service,
        purposes=sorted(terms.purposes),
        sources=sorted(terms.sources),
        persons=[
            EngagedPerson(person_id=one.person_id, person=person_message(one.person), siret=one.siret)
            for one in terms.persons
        ],
        subcontractors=[Provider(siret=one.siret, name=one.name) for one in terms.subcontractors],
        cause=engagement.cause,
        document_hash=engagement.document_hash,
        hand_overs=[
            pb.HandOver(hand_over_id=one.hand_over_id, person_id=one.person_id, sources=sorted(one.sources))
            for one in engagement.hand_overs.values()
        ],
    )
    message.valid_from.FromDatetime(terms.valid_from)
    message.valid_until.FromDatetime(terms.valid_until)
    message.certificate_due_at.FromDatetime(engagement.certificate_due(convention))
    if at >= engagement.ends(convention):
        message.ended_at.FromDatetime(engagement.ends(convention))
    if engagement.certified_at is not None:
        message.certified_at.FromDatetime(engagement.certified_at)
    return message
