"""What the data protection officers are told at once, and what they answer (art3.change, house.urgent_clearance)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from planier.access.v1.events_pb2 import (
    NOTICE_KIND_WIDENING_AMENDMENT,
    ROLE_DATA_PROTECTION_OFFICER,
    DpiaRecorded,
    NoticeAcknowledged,
    NoticeIssued,
    NoticeKind,
    Party,
)

from services.access.convention import Notice, State, in_force, office_of
from services.access.deed import PARTIES
from services.access.instruments import Terms
from services.access.offices import Office
from services.access.people import Identity, identity_message
from services.kernel.errors import denied, not_found, precondition

NoticeEvent = NoticeIssued | NoticeAcknowledged | DpiaRecorded


@dataclass(frozen=True, slots=True)
class AcknowledgeNotice:
    """The officer of the party that was told says that they know; again changes nothing."""

    actor: Identity
    notice_id: str
    record_id: str


@dataclass(frozen=True, slots=True)
class RecordDpia:
    """A data protection officer records the impact study started for an amendment; again changes nothing."""

    actor: Identity
    amendment_id: str
    reference: str
    record_id: str


def issued_to_both(kind: NoticeKind.ValueType, reference: str, record_id: str) -> tuple[NoticeIssued, ...]:
    """One notice for each party's officer."""
    return tuple(
        NoticeIssued(
            notice_id=f"{reference}:{Party.Name(party).removeprefix('PARTY_')}",
            party=party,
            kind=kind,
            reference=reference,
            record_id=record_id,
        )
        for party in PARTIES
    )


def acknowledge(state: State, command: AcknowledgeNotice, at: datetime) -> tuple[NoticeAcknowledged, ...]:
    """The event of an acknowledgement."""
    office = _officer(state, command.actor, at)
    notice = state.notices.get(command.notice_id)
    if notice is None or notice.party != office.party:
        raise not_found("NOTICE_UNKNOWN", "no such notice to this party's officer")
    if notice.acknowledged_at is not None:
        return ()
    actor = identity_message(command.actor)
    return (NoticeAcknowledged(notice_id=notice.notice_id, acknowledged_by=actor, record_id=command.record_id),)


def record_dpia(state: State, command: RecordDpia, at: datetime) -> tuple[DpiaRecorded, ...]:
    """The event of an impact study."""
    _officer(state, command.actor, at)
    versions = state.convention.versions if state.convention else ()
    terms = next((terms for terms in versions if terms.amendment_id == command.amendment_id), None)
    if terms is None or not terms.widens:
        raise not_found("AMENDMENT_UNKNOWN", "no such amendment that widens the nature of the data")
    if terms.dpia_at is not None:
        if terms.dpia_reference == command.reference:
            return ()
        raise precondition("DPIA_RECORDED", "another impact study is recorded for it", "art3.change")
    return (
        DpiaRecorded(
            amendment_id=command.amendment_id,
            reference=command.reference,
            recorded_by=identity_message(command.actor),
            record_id=command.record_id,
        ),
    )


def _officer(state: State, actor: Identity, at: datetime) -> Office:
    office = office_of(state, actor, at)
    if office is None or office.role != ROLE_DATA_PROTECTION_OFFICER:
        raise denied("NOT_DATA_PROTECTION_OFFICER", "only a data protection officer may", "art3.change")
    return office


def evolve(state: State, event: NoticeEvent, recorded_at: datetime) -> State:
    """The state after an event of the notices."""
    if isinstance(event, NoticeIssued):
        notice = Notice(event.notice_id, event.party, event.kind, event.reference, recorded_at)
        return replace(state, notices={**state.notices, notice.notice_id: notice})
    if isinstance(event, NoticeAcknowledged):
        notice = replace(state.notices[event.notice_id], acknowledged_at=recorded_at)
        told = replace(state, notices={**state.notices, notice.notice_id: notice})
        if notice.kind != NOTICE_KIND_WIDENING_AMENDMENT:
            return told
        known = (notice.party, recorded_at)
        return _amended(told, notice.reference, lambda terms: replace(terms, informed=(*terms.informed, known)))
    reference = event.reference
    return _amended(
        state, event.amendment_id, lambda terms: replace(terms, dpia_at=recorded_at, dpia_reference=reference)
    )


def _amended(state: State, amendment_id: str, change: Callable[[Terms], Terms]) -> State:
    """The state with one amendment's terms changed; the same where another has taken its place."""
    convention = in_force(state)
    versions = tuple(change(terms) if terms.amendment_id == amendment_id else terms for terms in convention.versions)
    return replace(state, convention=replace(convention, versions=versions))
