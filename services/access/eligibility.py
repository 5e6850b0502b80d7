"""Who may be habilitated at all, whatever path grants: the listed, and those whom an engagement names. Pure."""

from datetime import datetime

from planier.access.v1.events_pb2 import PARTY_PREFECTURE, ROLE_PROVIDER_RECIPIENT

from services.access.clearances import Content
from services.access.convention import State
from services.access.engagements import require_recipient
from services.access.nominative_list import require_listed


def require_eligible(state: State, content: Content, at: datetime) -> None:
    """Raises Problem where the Préfecture's list (art7.list) or the provider's engagement (art8.provider) bars it."""
    if content.party == PARTY_PREFECTURE:
        require_listed(state, content.person, at)
    if content.role == ROLE_PROVIDER_RECIPIENT:
        require_recipient(state, content.engagement_id, content.person, at)
