"""What the list of clearances shows, page by page (AIP-158), and where a person stands."""

import base64
import binascii
from collections.abc import Iterable
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
from services.access.masking import hides, mask_clearance
from services.access.people import affiliation_message, identity_message, person_message
from services.kernel.errors import Problem, Violation, invalid
from services.kernel.pseudonyms import Pseudonyms

DEFAULT_PAGE = 100
MOST_A_PAGE = 1000
_PREFIX = b"2:"
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


def page_of(state: State, office: Office, page_size: int, page_token: str, pseudonyms: Pseudonyms) -> Page:
    """The page after the token, of what an office sees. Raises Problem INVALID_ARGUMENT PAGE_TOKEN_INVALID.

    A token names the last clearance of its page by a pseudonym: that page may not say its id.
    """
    visible = sorted(
        (item for item in state.clearances.values() if sees(office, item)), key=lambda item: item.clearance_id
    )
    names = (_place(item, pseudonyms) for item in visible)
    begins = _after(_decoded(page_token), names) if page_token else 0
    ends = begins + min(page_size or DEFAULT_PAGE, MOST_A_PAGE)
    shown = tuple(visible[begins:ends])
    return Page(shown, _encoded(_place(shown[-1], pseudonyms)) if len(visible) > ends else "")


def shown_to(state: State, office: Office, clearance: Clearance, at: datetime, pseudonyms: Pseudonyms) -> pb.Clearance:
    """A clearance as an office may see it: of the other party's people no name, where it oversees."""
    message = message_of(state, clearance, at)
    if hides(office, clearance.party):
        mask_clearance(message, pseudonyms)
    return message


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
        decisions=[NumberedDecision(year=one.number[0], number=one.number[1]) for one in clearance.decisions],
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


def _place(clearance: Clearance, pseudonyms: Pseudonyms) -> str:
    return pseudonyms.of_thing("page", clearance.clearance_id)


def _after(place: str, names: Iterable[str]) -> int:
    """How many clearances a page that ended at that place leaves behind; none is ever removed."""
    found = next((number for number, name in enumerate(names, 1) if name == place), None)
    if found is None:
        raise _bad_token()
    return found


def _encoded(place: str) -> str:
    return base64.urlsafe_b64encode(_PREFIX + place.encode()).decode()


def _decoded(page_token: str) -> str:
    try:
        token = base64.b64decode(page_token, altchars=b"-_", validate=True)
        if token.startswith(_PREFIX):
            return token.removeprefix(_PREFIX).decode()
    except (binascii.Error, ValueError):
        pass
    raise _bad_token()


def _bad_token() -> Problem:
    found = Violation("page_token", "token", "must be a next_page_token of this method")
    return invalid("PAGE_TOKEN_INVALID", "the page token is not one of ours", found)
