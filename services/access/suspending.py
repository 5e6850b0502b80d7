"""Suspension: either party stops a person's access at once, alone, and lifts what it stopped (art7.validation)."""

from dataclasses import dataclass
from datetime import datetime

from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    ROLE_PREFECTURE_VALIDATOR,
    ClearanceResumed,
    ClearanceSuspended,
    NumberedDecision,
    RevocationReason,
)

from services.access.clearances import STANDING_TITLES, decision_message
from services.access.convention import State, office_of, standing_of
from services.access.granting import find, granting_office, next_number, refuse_own
from services.access.offices import GRANTING, Office
from services.access.people import Identity, identity_message
from services.kernel.errors import denied, precondition


@dataclass(frozen=True, slots=True)
class SuspendClearance:
    """Suspends at once, either party alone (art7.validation); again changes nothing."""

    actor: Identity
    clearance_id: str
    reason: RevocationReason.ValueType
    record_id: str


@dataclass(frozen=True, slots=True)
class ResumeClearance:
    """Lifts the suspension of the actor's own party."""

    actor: Identity
    clearance_id: str
    record_id: str


def suspend(state: State, command: SuspendClearance, at: datetime) -> tuple[ClearanceSuspended, ...]:
    """The event of a suspension; the City's is a numbered decision."""
    office = _suspending_office(state, command.actor, at)
    clearance = find(state, command.clearance_id, visible_to=office)
    if standing_of(state, clearance, at) not in STANDING_TITLES:
        raise precondition("CLEARANCE_NOT_STANDING", "there is nothing to suspend", "art7.validation")
    if office.party in clearance.suspended_by:
        return ()
    return (
        ClearanceSuspended(
            clearance_id=clearance.clearance_id,
            party=office.party,
            reason=command.reason,
            suspended_by=identity_message(command.actor),
            decision=_number_of(state, office, at),
            record_id=command.record_id,
        ),
    )


def resume(state: State, command: ResumeClearance, at: datetime) -> tuple[ClearanceResumed, ...]:
    """The event that lifts a suspension."""
    office = _suspending_office(state, command.actor, at)
    clearance = find(state, command.clearance_id, visible_to=office)
    refuse_own(office, command.actor, clearance)
    if office.party not in clearance.suspended_by:
        raise precondition("NOT_SUSPENDED", "this party did not suspend it", "art7.validation")
    return (
        ClearanceResumed(
            clearance_id=clearance.clearance_id,
            party=office.party,
            resumed_by=identity_message(command.actor),
            decision=_number_of(state, office, at),
            record_id=command.record_id,
        ),
    )


def _suspending_office(state: State, actor: Identity, at: datetime) -> Office:
    office = office_of(state, actor, at)
    if office is not None and office.role == ROLE_PREFECTURE_VALIDATOR:
        return office
    if office is None or office.role not in GRANTING:
        raise denied("NOT_SUSPENDING", "either party's office suspends, nobody else", "art7.validation")
    return granting_office(state, actor, at)


def _number_of(state: State, office: Office, at: datetime) -> NumberedDecision | None:
    return decision_message(next_number(state, at)) if office.party == PARTY_CITY else None
