"""What the list of clearances shows, page by page (AIP-158), and where a person stands."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime

from planier.access.v1 import access_pb2 as pb
from planier.access.v1.events_pb2 import NumberedDecision, Party

from services.access.clearances import area_message
from services.access.convention import (
    Clearance,
    Identity,
    Notice,
    Office,
    Standing,
    State,
    lapses_at,
    office_of,
    sees,
    standing_of,
)
from services.access.people import affiliation_message, identity_message, person_message
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
    Standing.REQUESTED: pb.CLEARANCE_STATE_REQUESTED,
    Standing.REFUSED: pb.CLEARANCE_STATE_REFUSED,
    Standing.SUSPENDED: pb.CLEARANCE_STATE_SUSPENDED,
    Standing.UNDERTAKING_AWAITED: pb.CLEARANCE_STATE_UNDERTAKING_AWAITED,
}

_BOUND = frozenset({Standing.ACTIVE, Standing.UNDERTAKING_AWAITED})


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


def message_of(state: State, clearance: Clearance, at: datetime) -> pb.Clearance:
    """A clearance as the contract shows it, the identity being the bound or else the proposed one."""
    content = clearance.content
    identity = clearance.identity or clearance.proposed
    message = pb.Clearance(
        clearance_id=clearance.clearance_id,
        person=person_message(clearance.person),
        party=clearance.party,
        role=clearance.role,
        purposes=sorted(content.purposes),
        sources=sorted(content.sources),
        state=_STATES[standing_of(state, clearance, at)],
        identity=identity_message(identity) if identity else None,
        areas=[area_message(area) for area in content.areas],
        engagement_id=content.engagement_id,
        urgent=clearance.urgent,
        decisions=[NumberedDecision(year=year, number=number) for year, number in clearance.decisions],
        refusal=clearance.refusal or "",
        affiliation=affiliation_message(clearance.affiliation),
    )
    message.valid_from.FromDatetime(content.valid_from)
    message.valid_until.FromDatetime(content.valid_until)
    due = lapses_at(state.convention, clearance, at) if state.convention else None
    if due is not None:
        message.review_due.FromDatetime(due)
    return message


def undertaking_awaited(state: State, identity: Identity, at: datetime) -> bool:
    """Whether a clearance of a person waits for the confidentiality undertaking."""
    own = (state.clearances[name] for name in state.bound.get(identity, ()))
    return any(standing_of(state, clearance, at) is Standing.UNDERTAKING_AWAITED for clearance in own)


def party_of(state: State, identity: Identity) -> str:
    """Whose person that is, by any office or clearance there ever was, bound or proposed; "" where none names them."""
    offices = state.convention.offices if state.convention else ()
    parties = [office.party for office in offices if office.identity == identity]
    parties += [item.party for item in state.clearances.values() if identity in (item.identity, item.proposed)]
    return Party.Name(parties[0]).removeprefix("PARTY_") if parties else ""


def notices_of(state: State, party: Party.ValueType) -> list[pb.Notice]:
    """The notices to a party's officer, newest first."""
    own = [notice for notice in state.notices.values() if notice.party == party]
    newest = sorted(own, key=lambda notice: (notice.issued_at, notice.notice_id), reverse=True)
    return [notice_message(notice) for notice in newest[:MOST_A_PAGE]]


def notice_message(notice: Notice) -> pb.Notice:
    """A notice as the contract shows it."""
    message = pb.Notice(notice_id=notice.notice_id, party=notice.party, kind=notice.kind, reference=notice.reference)
    message.issued_at.FromDatetime(notice.issued_at)
    if notice.acknowledged_at:
        message.acknowledged_at.FromDatetime(notice.acknowledged_at)
    return message


def binding_of(state: State, identity: Identity, at: datetime) -> pb.BindingState.ValueType:
    """Where a person who logs in stands: in office or bound, proposed, or known to nobody."""
    if office_of(state, identity, at) is not None:
        return pb.BINDING_STATE_CONFIRMED
    standing = [
        standing_of(state, item, at) for item in state.clearances.values() if identity in (item.identity, item.proposed)
    ]
    if _BOUND & set(standing):
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
