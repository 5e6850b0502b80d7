"""What people do about conflicts: frozen history, pure decide and evolve over analytics' own events.

One stream a conflict. That a conflict exists, and that it is open again, follows from the facts: no event says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from google.protobuf.message import Message
from planier.access.v1.events_pb2 import Identity, Party
from planier.analytics.v1.events_pb2 import ConflictAcknowledged, ConflictResolved
from planier.common.v1.fact_pb2 import Measure, MeasureKind

from services.kernel.errors import Violation, denied, invalid, precondition

CITY: Final = "CITY"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, as the guard knows them."""

    issuer: str
    subject: str
    party: str
    organisation: str
    record_id: str


# A measure that was taken: its kind and the act's reference.
Taken = tuple[MeasureKind.ValueType, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """The conflict as it now is: its fingerprint, and the kinds of measures that answer its rule.

    `withdrawn`: the measures that its facts had and no longer have.
    """

    conflict_id: str
    fingerprint: str
    answers: tuple[MeasureKind.ValueType, ...]
    withdrawn: frozenset[Taken] = frozenset()


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """A person has seen the conflict and takes it on; `fingerprint` is what they saw."""

    actor: Actor
    seen: Seen
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Resolve:
    """A person says which measure resolves the conflict: its kind and the act's reference."""

    actor: Actor
    seen: Seen
    fingerprint: str
    kind: MeasureKind.ValueType
    reference: str


Command = Acknowledge | Resolve
Event = ConflictAcknowledged | ConflictResolved
EVENTS: Mapping[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind for kind in (ConflictAcknowledged, ConflictResolved)
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one person; `measure` is what resolves."""

    kind: Literal["ACKNOWLEDGED", "RESOLVED"]
    at_us: int
    fingerprint: str
    issuer: str
    subject: str
    party: str
    organisation: str
    record_id: str
    measure: Taken | None = None


# The steps of one conflict, oldest first.
History = tuple[Step, ...]


def stream_of(conflict_id: str) -> str:
    """The stream of a conflict."""
    return f"conflict-{conflict_id}"


def decide(history: History, command: Command) -> tuple[Event, ...]:
    """The events that a command causes: none where its author has said so before. Raises Problem where it may not."""
    if command.actor.party != CITY:
        raise denied("CITY_ONLY", "the Préfecture's access is read-only", "art7.consultation")
    if command.fingerprint != command.seen.fingerprint:
        raise precondition("CONFLICT_CHANGED", "the conflict is no longer what was seen: look again")
    last = history[-1] if history and history[-1].fingerprint == command.fingerprint else None
    match command:
        case Acknowledge():
            return _acknowledge(last, command)
        case Resolve():
            return _resolve(last, command)


def evolve(history: History, event: Event, at_us: int) -> History:
    """The history after an event; nothing is judged again here."""
    if isinstance(event, ConflictAcknowledged):
        return (*history, _step("ACKNOWLEDGED", event, event.acknowledged_by, at_us))
    measure = (event.measure.kind, event.measure.reference)
    return (*history, _step("RESOLVED", event, event.resolved_by, at_us, measure))


def _acknowledge(last: Step | None, command: Acknowledge) -> tuple[Event, ...]:
    if last is not None and last.kind == "RESOLVED":
        if last.measure not in command.seen.withdrawn:
            raise precondition("CONFLICT_RESOLVED", "the conflict is resolved already")
        last = None
    actor = command.actor
    if last is not None and (last.issuer, last.subject) == (actor.issuer, actor.subject):
        return ()
    return (
        ConflictAcknowledged(
            conflict_id=command.seen.conflict_id,
            fingerprint=command.fingerprint,
            acknowledged_by=Identity(issuer=actor.issuer, subject=actor.subject),
            party=_party(actor),
            organisation=actor.organisation,
            record_id=actor.record_id,
        ),
    )


def _resolve(last: Step | None, command: Resolve) -> tuple[Event, ...]:
    if command.kind not in command.seen.answers:
        wrong = Violation("measure.kind", "answers", "must be a kind of measure that the conflict's rule names")
        raise invalid("MEASURE_DOES_NOT_ANSWER", "this measure does not resolve such a conflict", wrong)
    if (command.kind, command.reference) in command.seen.withdrawn:
        raise precondition("MEASURE_WITHDRAWN", "the facts had this measure and no longer have it")
    if last is not None and last.measure == (command.kind, command.reference):
        return ()
    actor = command.actor
    return (
        ConflictResolved(
            conflict_id=command.seen.conflict_id,
            fingerprint=command.fingerprint,
            resolved_by=Identity(issuer=actor.issuer, subject=actor.subject),
            party=_party(actor),
            organisation=actor.organisation,
            measure=Measure(kind=command.kind, reference=command.reference),
            record_id=actor.record_id,
        ),
    )


def _party(actor: Actor) -> Party.ValueType:
    return Party.Value(f"PARTY_{actor.party}")


def _step(
    kind: Literal["ACKNOWLEDGED", "RESOLVED"],
    event: Event,
    who: Identity,
    at_us: int,
    measure: Taken | None = None,
) -> Step:
    party = Party.Name(event.party).removeprefix("PARTY_")
    names = who.issuer, who.subject, party, event.organisation, event.record_id
    return Step(kind, at_us, event.fingerprint, *names, measure)
