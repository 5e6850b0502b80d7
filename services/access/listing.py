"""What the list of clearances shows, page by page (AIP-158), and where a person stands."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime

from planier.access.v1 import access_pb2 as pb

from services.access.convention import (
    Clearance,
    Identity,
    Office,
    Standing,
    State,
    identity_message,
    office_of,
    person_message,
    sees,
)
from services.kernel.errors import Violation, invalid

DEFAULT_PAGE = 100
MOST_A_PAGE = 1000
_PREFIX = b"1:"
_STATES = {
    Standing.GRANTED: pb.CLEARANCE_STATE_GRANTED,
    Standing.BINDING_PROPOSED: pb.CLEARANCE_STATE_BINDING_PROPOSED,
    Standing.ACTIVE: pb.CLEARANCE_STATE_ACTIVE,
    Standing.REVOKED: pb.CLEARANCE_STATE_REVOKED,
    Standing.EXPIRED: pb.CLEARANCE_STATE_EXPIRED,
}


@dataclass(frozen=True, slots=True)
class Page:
    """Clearances in order of their ids, and where the next page begins, or ""."""

    clearances: tuple[Clearance, ...]
    next_page_token: str


def page_of(state: State, office: Office, page_size: int, page_token: str) -> Page:
    """The page after the token, of what an office sees. Raises Problem INVALID_ARGUMENT PAGE_TOKEN_INVALID."""
    after = _decoded(page_token) if page_token else ""
    size = min(page_size or DEFAULT_PAGE, MOST_A_PAGE)
    visible = sorted(
        (item for item in state.clearances.values() if sees(office, item) and item.clearance_id > after),
        key=lambda item: item.clearance_id,
    )
    shown = tuple(visible[:size])
    return Page(shown, _encoded(shown[-1].clearance_id) if len(visible) > size else "")


def message_of(clearance: Clearance, at: datetime) -> pb.Clearance:
    """A clearance as the contract shows it, the identity being the bound or else the proposed one."""
    identity = clearance.identity or clearance.proposed
    message = pb.Clearance(
        clearance_id=clearance.clearance_id,
        person=person_message(clearance.person),
        party=clearance.party,
        role=clearance.role,
        purposes=sorted(clearance.purposes),
        sources=sorted(clearance.sources),
        state=_STATES[clearance.standing(at)],
        identity=identity_message(identity) if identity else None,
    )
    message.valid_from.FromDatetime(clearance.valid_from)
    message.valid_until.FromDatetime(clearance.valid_until)
    return message


def binding_of(state: State, identity: Identity, at: datetime) -> pb.BindingState.ValueType:
    """Where a person who logs in stands: in office or bound, proposed, or known to nobody."""
    if office_of(state, identity, at) is not None:
        return pb.BINDING_STATE_CONFIRMED
    standing = [item.standing(at) for item in state.clearances.values() if identity in (item.identity, item.proposed)]
    if Standing.ACTIVE in standing:
        return pb.BINDING_STATE_CONFIRMED
    return pb.BINDING_STATE_PROPOSED if Standing.BINDING_PROPOSED in standing else pb.BINDING_STATE_UNKNOWN_PERSON


def _encoded(clearance_id: str) -> str:
    return base64.urlsafe_b64encode(_PREFIX + clearance_id.encode()).decode()


def _decoded(page_token: str) -> str:
    try:
        token = base64.b64decode(page_token, altchars=b"-_", validate=True)
        if token.startswith(_PREFIX):
            return token.removeprefix(_PREFIX).decode()
    except (binascii.Error, ValueError):
        pass
    found = Violation("page_token", "token", "must be a next_page_token of this method")
    raise invalid("PAGE_TOKEN_INVALID", "the page token is not one of ours", found)
