"""What the two data protection officers decide about the log: frozen state, decisions and events; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from planier.audit.v1.governance_pb2 import (
    Agent,
    HoldLifted,
    HoldPlaced,
    RetentionApproved,
    RetentionProposed,
    UnmaskingDecided,
)

from services.kernel.errors import Violation, conflict, denied, invalid, not_found, precondition

# The supervisory authority's recommendation on logs: six months to a year, up to three with a justification.
DEFAULT_MONTHS = 12
MOST_MONTHS = 36
MOST_UNMASKING = timedelta(days=90)
RETENTION = "house.log_retention"
NAMES = "house.own_names"
_NOT_OFFICER = "only a party's data protection officer decides about the log"


@dataclass(frozen=True, slots=True)
class Officer:
    """A party's data protection officer, as access knows the caller."""

    party: str
    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Unmasking:
    """Who may see which of a party's people (no pseudonym: all of them), until when (exclusive)."""

    unmasking_id: str
    party: str
    pseudonyms: frozenset[str]
    issuer: str
    subject: str
    reference: str
    valid_until: datetime

    def shows(self, party: str, pseudonym: str, issuer: str, subject: str, at: datetime) -> bool:
        """Whether this viewer may see that person of the party at an instant."""
        return (
            (party, issuer, subject) == (self.party, self.issuer, self.subject)
            and at < self.valid_until
            and (not self.pseudonyms or pseudonym in self.pseudonyms)
        )


@dataclass(frozen=True, slots=True)
class Proposal:
    """A retention in months that one officer proposes; in force once the other party's approves."""

    proposal_id: str
    months: int
    proposed_by: str
    justifications: tuple[str, ...]
    approved_by: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """A period, half-open, of which nothing is erased."""

    hold_id: str
    start: datetime
    end: datetime
    reference: str
    party: str
    lifted: bool = False


@dataclass(frozen=True, slots=True)
class Governance:
    """Everything decided so far."""

    months: int = DEFAULT_MONTHS
    proposals: Mapping[str, Proposal] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    unmaskings: Mapping[str, Unmasking] = field(default_factory=dict)

    def is_held(self, at: datetime) -> bool:
        """Whether what happened at an instant is under a hold."""
        return any(not hold.lifted and hold.start <= at < hold.end for hold in self.holds.values())


@dataclass(frozen=True, slots=True)
class DecideUnmasking:
    """Let a person see who stands behind pseudonyms of the officer's own party."""

    officer: Officer
    unmasking_id: str
    pseudonyms: frozenset[str]
    issuer: str
    subject: str
    reference: str
    justification: str
    valid_until: datetime
    record_id: str


@dataclass(frozen=True, slots=True)
class ProposeRetention:
    """One officer's half."""

    officer: Officer
    proposal_id: str
    months: int
    justification: str
    record_id: str


@dataclass(frozen=True, slots=True)
class ApproveRetention:
    """The other's."""

    officer: Officer
    proposal_id: str
    justification: str
    record_id: str


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """Keep a period whatever its age."""

    officer: Officer
    hold_id: str
    start: datetime
    end: datetime
    reference: str
    record_id: str


@dataclass(frozen=True, slots=True)
class LiftHold:
    """Let a period age again."""

    officer: Officer
    hold_id: str
    record_id: str


Command = DecideUnmasking | ProposeRetention | ApproveRetention | PlaceHold | LiftHold
Event = UnmaskingDecided | RetentionProposed | RetentionApproved | HoldPlaced | HoldLifted
EVENTS: Mapping[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (UnmaskingDecided, RetentionProposed, RetentionApproved, HoldPlaced, HoldLifted)
}


def decide(state: Governance, command: Command, at: datetime) -> tuple[Event, ...]:
    """The events that a command causes at an instant, none where it was done before. Raises Problem if it may not."""
    if not command.officer.party:
        raise denied("NOT_AN_OFFICER", _NOT_OFFICER, NAMES)
    match command:
        case DecideUnmasking():
            return _unmask(state, command, at)
        case ProposeRetention():
            return _propose(state, command)
        case ApproveRetention():
            return _approve(state, command)
        case PlaceHold():
            return _hold(state, command)
        case LiftHold():
            return _lift(state, command)


def _unmask(state: Governance, command: DecideUnmasking, at: datetime) -> tuple[Event, ...]:
    officer = command.officer
    known = state.unmaskings.get(command.unmasking_id)
    if known is not None:
        if known == _unmasking_of(command):
            return ()
        raise conflict("UNMASKING_EXISTS", "this id names another decision")
    if any(not pseudonym.startswith(f"{officer.party}-") for pseudonym in command.pseudonyms):
        raise denied("NOT_YOUR_PEOPLE", "each party's officer unmasks its own people only", NAMES)
    if (command.issuer, command.subject) == (officer.issuer, officer.subject):
        raise denied("OWN_UNMASKING", "nobody decides for themselves", NAMES)
    if not at < command.valid_until <= at + MOST_UNMASKING:
        wrong = Violation("valid_until", "period", f"must be within the next {MOST_UNMASKING.days} days")
        raise invalid("UNMASKING_INVALID", "an unmasking is bounded in time", wrong, clause=NAMES)
    event = UnmaskingDecided(
        unmasking_id=command.unmasking_id,
        party=officer.party,
        pseudonyms=sorted(command.pseudonyms),
        beneficiary=Agent(issuer=command.issuer, subject=command.subject),
        reference=command.reference,
        justification=command.justification,
        valid_until=_timestamp(command.valid_until),
        decided_by=_agent(officer),
        record_id=command.record_id,
    )
    return (event,)


def _propose(state: Governance, command: ProposeRetention) -> tuple[Event, ...]:
    known = state.proposals.get(command.proposal_id)
    if known is not None:
        if (known.months, known.proposed_by) == (command.months, command.officer.party):
            return ()
        raise conflict("PROPOSAL_EXISTS", "this id names another proposal")
    if not DEFAULT_MONTHS <= command.months <= MOST_MONTHS:
        wrong = Violation("months", "range", f"must be from {DEFAULT_MONTHS} to {MOST_MONTHS}")
        raise invalid("RETENTION_INVALID", "the log is kept one to three years", wrong, clause=RETENTION)
    event = RetentionProposed(
        proposal_id=command.proposal_id,
        months=command.months,
        justification=command.justification,
        party=command.officer.party,
        proposed_by=_agent(command.officer),
        record_id=command.record_id,
    )
    return (event,)


def _approve(state: Governance, command: ApproveRetention) -> tuple[Event, ...]:
    proposal = state.proposals.get(command.proposal_id)
    if proposal is None:
        raise not_found("PROPOSAL_UNKNOWN", "no such proposal")
    if proposal.proposed_by == command.officer.party:
        raise denied("OTHER_PARTY_NEEDED", "the other party's officer approves", RETENTION)
    if proposal.approved_by:
        return ()
    event = RetentionApproved(
        proposal_id=command.proposal_id,
        justification=command.justification,
        party=command.officer.party,
        approved_by=_agent(command.officer),
        record_id=command.record_id,
    )
    return (event,)


def _hold(state: Governance, command: PlaceHold) -> tuple[Event, ...]:
    known = state.holds.get(command.hold_id)
    if known is not None:
        if (known.start, known.end, known.party) == (command.start, command.end, command.officer.party):
            return ()
        raise conflict("HOLD_EXISTS", "this id names another hold")
    if not command.start < command.end:
        wrong = Violation("period_end", "period", "must be after period_start")
        raise invalid("HOLD_INVALID", "a hold has a period", wrong)
    event = HoldPlaced(
        hold_id=command.hold_id,
        period_start=_timestamp(command.start),
        period_end=_timestamp(command.end),
        reference=command.reference,
        party=command.officer.party,
        placed_by=_agent(command.officer),
        record_id=command.record_id,
    )
    return (event,)


def _lift(state: Governance, command: LiftHold) -> tuple[Event, ...]:
    hold = state.holds.get(command.hold_id)
    if hold is None:
        raise not_found("HOLD_UNKNOWN", "no such hold")
    if hold.party != command.officer.party:
        raise precondition("HOLD_OF_OTHER_PARTY", "the party that placed a hold lifts it", RETENTION)
    if hold.lifted:
        return ()
    lifted_by = _agent(command.officer)
    return (
        HoldLifted(hold_id=hold.hold_id, party=command.officer.party, lifted_by=lifted_by, record_id=command.record_id),
    )


def evolve(state: Governance, event: Event) -> Governance:
    """The state after an event; nothing is judged again here."""
    match event:
        case UnmaskingDecided():
            return replace(state, unmaskings={**state.unmaskings, event.unmasking_id: _unmasked(event)})
        case RetentionProposed():
            proposal = Proposal(event.proposal_id, event.months, event.party, (event.justification,))
            return replace(state, proposals={**state.proposals, event.proposal_id: proposal})
        case RetentionApproved():
            known = state.proposals[event.proposal_id]
            justified = (*known.justifications, event.justification)
            approved = replace(known, approved_by=event.party, justifications=justified)
            return replace(state, months=approved.months, proposals={**state.proposals, event.proposal_id: approved})
        case HoldPlaced():
            start, end = event.period_start.ToDatetime(UTC), event.period_end.ToDatetime(UTC)
            hold = Hold(event.hold_id, start, end, event.reference, event.party)
            return replace(state, holds={**state.holds, event.hold_id: hold})
        case HoldLifted():
            lifted = replace(state.holds[event.hold_id], lifted=True)
            return replace(state, holds={**state.holds, event.hold_id: lifted})


def months_before(at: datetime, months: int) -> datetime:
    """The instant that many calendar months earlier; the month's last day where it has no such day."""
    whole = at.year * 12 + at.month - 1 - months
    year, month = divmod(whole, 12)
    for day in range(at.day, at.day - 4, -1):
        try:
            return at.replace(year=year, month=month + 1, day=day)
        except ValueError:
            continue
    raise AssertionError


def _unmasking_of(command: DecideUnmasking) -> Unmasking:
    return Unmasking(
        command.unmasking_id, command.officer.party, command.pseudonyms, command.issuer, command.subject,
        command.reference, command.valid_until,
    )  # fmt: skip


def _unmasked(event: UnmaskingDecided) -> Unmasking:
    return Unmasking(
        event.unmasking_id, event.party, frozenset(event.pseudonyms), event.beneficiary.issuer,
        event.beneficiary.subject, event.reference, event.valid_until.ToDatetime(UTC),
    )  # fmt: skip


def _agent(officer: Officer) -> Agent:
    return Agent(issuer=officer.issuer, subject=officer.subject)


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
