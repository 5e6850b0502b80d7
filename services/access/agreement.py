"""The founding and the acts that follow it: who must have signed what, and what each makes of the convention."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from planier.access.v1.events_pb2 import (
    APPOINTMENT_KIND_DELEGATION,
    NOTICE_KIND_WIDENING_AMENDMENT,
    Amendment,
    Appointment,
    ConventionAmended,
    ConventionDenounced,
    ConventionNotified,
    ConventionSigned,
    ConventionTerminated,
    DataDestroyed,
    Denunciation,
    Destruction,
    Discharge,
    NoticeIssued,
    Notification,
    OfficeHolderAppointed,
    OfficeHolderDischarged,
    Party,
    PartySignature,
    Termination,
)

from services.access import acts, convention
from services.access import deed as deeds
from services.access.convention import Convention, State, in_force
from services.access.instruments import DELEGATE, amended_terms, founding_terms
from services.access.notices import issued_to_both
from services.access.offices import Office, discharged, office_from
from services.access.people import identity_of
from services.access.term import convention_term, notice_ends
from services.kernel.errors import Problem, conflict, invalid, not_found, precondition

ActEvent = (
    ConventionNotified
    | ConventionAmended
    | ConventionDenounced
    | ConventionTerminated
    | DataDestroyed
    | OfficeHolderAppointed
    | OfficeHolderDischarged
)
_EVENT_OF: Mapping[type, type[ActEvent]] = {
    Notification: ConventionNotified,
    Amendment: ConventionAmended,
    Denunciation: ConventionDenounced,
    Termination: ConventionTerminated,
    Destruction: DataDestroyed,
    Appointment: OfficeHolderAppointed,
    Discharge: OfficeHolderDischarged,
}


@dataclass(frozen=True, slots=True)
class SignConvention:
    """The founding, once. `pinned`: the parties' keys as the deployment knows them; `annex_hash`: of its annex 1."""

    deed: bytes
    signatures: tuple[PartySignature, ...]
    pinned: Mapping[Party.ValueType, bytes]
    annex_hash: str
    record_id: str


@dataclass(frozen=True, slots=True)
class RecordAct:
    """An act after the founding; the same bytes again change nothing."""

    act: bytes
    signatures: tuple[PartySignature, ...]
    pinned: Mapping[Party.ValueType, bytes]
    record_id: str


def sign(state: State, command: SignConvention) -> tuple[ConventionSigned, ...]:
    """The founding event."""
    deed = deeds.verify(command.deed, command.signatures, command.pinned)
    if state.convention is not None:
        if state.convention.deed == command.deed:
            return ()
        raise precondition("CONVENTION_ALREADY_SIGNED", "only an amendment changes it", "art10.avenant")
    if deed.annex_hash != command.annex_hash:
        raise precondition("ANNEX_MISMATCH", "the deed names another annex 1 than this deployment's", "art2.documents")
    return (ConventionSigned(deed=command.deed, signatures=command.signatures, record_id=command.record_id),)


def founded(event: ConventionSigned, recorded_at: datetime) -> Convention:
    """The convention that the founding event makes."""
    deed = deeds.parse(event.deed)
    zone = ZoneInfo(deed.time_zone)
    signed = next(item for item in deed.instruments if item.instrument_id == deeds.CONVENTION)
    notified = signed.notified_at.ToDatetime(UTC) if signed.HasField("notified_at") else None
    return Convention(
        deed=event.deed,
        signed_at=recorded_at,
        zone=zone,
        versions=(founding_terms(deed),),
        offices=tuple(office_from(holder) for holder in deed.office_holders),
        organisations=frozenset((item.party, item.siret) for item in deed.organisations),
        term=convention_term(notified, zone) if notified else None,
    )


def record(state: State, command: RecordAct, at: datetime) -> tuple[ActEvent | NoticeIssued, ...]:
    """The event of an act, and the notices that a widening amendment owes (art3.change)."""
    agreed = in_force(state)
    act = acts.verify(command.act, command.signatures, command.pinned)
    if act.deed_hash != acts.digest(agreed.deed):
        raise precondition("ACT_OF_ANOTHER_DEED", "the act names another deed", "art2.documents")
    known = agreed.acts.get(act.act_id)
    if known is not None:
        if known == acts.digest(command.act):
            return ()
        raise conflict("ACT_EXISTS", "this id names another act")
    content = acts.content_of(act)
    _MAY[type(content)](agreed, content, at)
    event = _EVENT_OF[type(content)](act=command.act, signatures=command.signatures, record_id=command.record_id)
    if isinstance(content, Amendment) and amended_terms(act.act_id, content, agreed.terms(at), at).widens:
        return (event, *issued_to_both(NOTICE_KIND_WIDENING_AMENDMENT, act.act_id, command.record_id))
    return (event,)


def _may_notify(agreed: Convention, notification: Notification, at: datetime) -> None:
    if agreed.term is not None:
        raise precondition("ALREADY_NOTIFIED", "the term runs already", "art9.term")
    if acts.is_after(notification.notified_at, at):
        raise _ahead("art9.term")


def _may_amend(agreed: Convention, amendment: Amendment, at: datetime) -> None:
    if agreed.ended(at):
        raise _ended()
    if amendment.previous_version != agreed.terms(at).version:
        raise precondition("AMENDMENT_OUTDATED", "it amends another version than the one in force", "art10.avenant")
    if amendment.version in {terms.version for terms in agreed.versions}:
        raise precondition("VERSION_EXISTS", "a version of this name was signed already", "art10.avenant")


def _may_denounce(agreed: Convention, denunciation: Denunciation, at: datetime) -> None:
    _must_hold(agreed, at)
    if agreed.denunciation is not None:
        raise precondition("ALREADY_DENOUNCED", "notice was given already", "art9.denunciation")
    if acts.is_after(denunciation.received_at, at):
        raise _ahead("art9.denunciation")


def _may_destroy(agreed: Convention, destruction: Destruction, at: datetime) -> None:
    if not agreed.ended(at):
        raise precondition("CONVENTION_HOLDS", "nothing is destroyed while the convention holds", "art9.termination")
    if agreed.destroyed_at is not None:
        raise precondition("ALREADY_DESTROYED", "the destruction was certified already", "art9.termination")
    if acts.is_after(destruction.destroyed_at, at) or not agreed.ended(destruction.destroyed_at.ToDatetime(UTC)):
        raise invalid("ACT_INVALID", "it is dated before the end or after now", clause="art9.termination")


def _may_appoint(agreed: Convention, appointment: Appointment, at: datetime) -> None:
    if appointment.kind == APPOINTMENT_KIND_DELEGATION and agreed.house_since(DELEGATE, at) is None:
        raise precondition("HOUSE_RULE_MISSING", "no amendment in force creates a delegate", DELEGATE)
    office = _office_of(appointment, at)
    if office.until is not None and office.until <= office.since:
        raise invalid("ACT_INVALID", "it ends before it begins", clause="art6.habilitation")
    if any(held.identity == office.identity and held.meets(office.since, office.until) for held in agreed.offices):
        raise precondition("OFFICE_HELD", "one person holds one office at a time", "art6.habilitation")


def _may_discharge(agreed: Convention, discharge: Discharge, at: datetime) -> None:
    identity = identity_of(discharge.identity)
    left = discharged(agreed.offices, discharge.role, discharge.party, identity, at)
    if left == agreed.offices:
        raise not_found("OFFICE_UNKNOWN", "no such office is held, or will be")


def _may_terminate(agreed: Convention, _: Termination, at: datetime) -> None:
    _must_hold(agreed, at)


def _must_hold(agreed: Convention, at: datetime) -> None:
    if agreed.term is None:
        raise precondition("NOT_NOTIFIED", "the convention was not notified yet", "art9.term")
    if agreed.ended(at):
        raise _ended()


def _ended() -> Problem:
    return precondition("CONVENTION_ENDED", "the convention is over; a new one is needed", "art9.term")


def _ahead(clause: str) -> Problem:
    return invalid("ACT_INVALID", "it is dated after now", clause=clause)


_MAY: Mapping[type, Callable[[Convention, Any, datetime], None]] = {
    Notification: _may_notify,
    Amendment: _may_amend,
    Denunciation: _may_denounce,
    Termination: _may_terminate,
    Destruction: _may_destroy,
    Appointment: _may_appoint,
    Discharge: _may_discharge,
}


@dataclass(frozen=True, slots=True)
class _Recorded:
    """An act as its event holds it."""

    act_id: str
    signers: frozenset[Party.ValueType]
    at: datetime


def evolve(agreed: Convention, event: ActEvent, recorded_at: datetime) -> Convention:
    """The convention after an act."""
    act = acts.parse(event.act)
    recorded = _Recorded(act.act_id, frozenset(signature.party for signature in event.signatures), recorded_at)
    content = acts.content_of(act)
    changed = _BECOMES[type(content)](agreed, content, recorded)
    return replace(changed, acts={**agreed.acts, act.act_id: acts.digest(event.act)})


def _notified(agreed: Convention, notification: Notification, _: _Recorded) -> Convention:
    return replace(agreed, term=convention_term(notification.notified_at.ToDatetime(UTC), agreed.zone))


def _amended(agreed: Convention, amendment: Amendment, recorded: _Recorded) -> Convention:
    before = agreed.terms(recorded.at)
    # What was signed before and is not in force yet gives way: it was negotiated upon the same version.
    kept = agreed.versions[: agreed.versions.index(before) + 1]
    return replace(agreed, versions=(*kept, amended_terms(recorded.act_id, amendment, before, recorded.at)))


def _denounced(agreed: Convention, denunciation: Denunciation, recorded: _Recorded) -> Convention:
    # One party's word alone does not date the letter: its notice runs from the day of recording.
    both = len(recorded.signers) > 1
    received = denunciation.received_at.ToDatetime(UTC) if both else recorded.at
    given = convention.Denunciation(denunciation.party, notice_ends(received, agreed.zone))
    return replace(agreed, denunciation=given)


def _terminated(agreed: Convention, termination: Termination, recorded: _Recorded) -> Convention:
    ended = convention.Termination(termination.party, termination.reason, recorded.at)
    return replace(agreed, termination=ended)


def _destroyed(agreed: Convention, destruction: Destruction, _: _Recorded) -> Convention:
    return replace(agreed, destroyed_at=destruction.destroyed_at.ToDatetime(UTC))


def _appointed(agreed: Convention, appointment: Appointment, recorded: _Recorded) -> Convention:
    return replace(agreed, offices=(*agreed.offices, _office_of(appointment, recorded.at)))


def _discharged(agreed: Convention, discharge: Discharge, recorded: _Recorded) -> Convention:
    identity = identity_of(discharge.identity)
    left = discharged(agreed.offices, discharge.role, discharge.party, identity, recorded.at)
    return replace(agreed, offices=left)


def _office_of(appointment: Appointment, at: datetime) -> Office:
    until = appointment.until.ToDatetime(UTC) if appointment.HasField("until") else None
    return office_from(appointment.holder, appointment.kind, until, not_before=at)


_BECOMES: Mapping[type, Callable[[Convention, Any, _Recorded], Convention]] = {
    Notification: _notified,
    Amendment: _amended,
    Denunciation: _denounced,
    Termination: _terminated,
    Destruction: _destroyed,
    Appointment: _appointed,
    Discharge: _discharged,
}
