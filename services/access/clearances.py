"""Habilitations: nominative, dated, bounded, revocable at once (art6.habilitation); what each is, and becomes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

from planier.access.v1.events_pb2 import (
    REVOCATION_REASON_UNSPECIFIED,
    BindingConfirmed,
    BindingProposed,
    ClearanceGranted,
    ClearanceRefused,
    ClearanceRenewed,
    ClearanceRequested,
    ClearanceResumed,
    ClearanceReviewed,
    ClearanceRevoked,
    ClearanceSuspended,
    NumberedDecision,
    Party,
    RevocationReason,
    Role,
    UndertakingSigned,
)
from planier.access.v1.events_pb2 import Area as AreaMessage
from planier.common.v1.release_pb2 import Purpose

from services.access.people import NO_AFFILIATION, Affiliation, Identity, Person, affiliation_of, identity_of, person_of

ClearanceEvent = (
    ClearanceRequested
    | ClearanceGranted
    | ClearanceRefused
    | ClearanceSuspended
    | ClearanceResumed
    | ClearanceRevoked
    | ClearanceRenewed
    | ClearanceReviewed
    | UndertakingSigned
    | BindingProposed
    | BindingConfirmed
)


class Standing(Enum):
    """Where a clearance is in its life."""

    GRANTED = 1
    BINDING_PROPOSED = 2
    ACTIVE = 3
    REVOKED = 4
    EXPIRED = 5
    REQUESTED = 6
    REFUSED = 7
    SUSPENDED = 8
    UNDERTAKING_AWAITED = 9


# Granted and not over: what can be suspended, renewed and reviewed.
STANDING_TITLES = frozenset(
    {
        Standing.GRANTED,
        Standing.BINDING_PROPOSED,
        Standing.UNDERTAKING_AWAITED,
        Standing.ACTIVE,
        Standing.SUSPENDED,
    }
)


_LONGITUDES, _LATITUDES = 180, 90


@dataclass(frozen=True, slots=True)
class Area:
    """A box of WGS 84 degrees, its edges included."""

    west: float
    south: float
    east: float
    north: float

    def is_box(self) -> bool:
        """Whether it is one; a box across the antimeridian is none. False for what is no number."""
        return (
            -_LONGITUDES <= self.west < self.east <= _LONGITUDES
            and -_LATITUDES <= self.south < self.north <= _LATITUDES
        )

    def holds(self, other: "Area") -> bool:
        """Whether another box lies within it."""
        return (
            self.west <= other.west
            and other.east <= self.east
            and self.south <= other.south
            and other.north <= self.north
        )


@dataclass(frozen=True, slots=True)
class Content:
    """What a clearance permits, to whom and when; what a request asks for and a grant gives."""

    person: Person
    party: Party.ValueType
    role: Role.ValueType
    purposes: frozenset[Purpose.ValueType]
    sources: frozenset[str]
    valid_from: datetime
    valid_until: datetime
    areas: tuple[Area, ...] = ()
    engagement_id: str = ""


class Effect(Enum):
    """What a numbered decision decides."""

    GRANTED = 1
    REFUSED = 2
    SUSPENDED = 3
    RESUMED = 4
    REVOKED = 5
    RENEWED = 6
    REVIEWED = 7


@dataclass(frozen=True, slots=True)
class Decided:
    """A numbered decision as it was taken: HAB-<year>-<number>."""

    number: tuple[int, int]
    effect: Effect
    at: datetime
    by: Identity
    record_id: str
    # What the clearance permits from then on, or what was asked for.
    content: Content
    requested: bool
    urgent: bool
    # French, of a refusal.
    refusal: str = ""
    cause: RevocationReason.ValueType = REVOCATION_REASON_UNSPECIFIED
    # SHA-256 of the undertaking that a grant asks for; empty for none.
    undertaking_hash: bytes = b""
    # The version of the Préfecture's list that was relied upon; 0 for none.
    list_version: int = 0


@dataclass(frozen=True, slots=True)
class Clearance:
    """One habilitation, from its request or its grant on."""

    clearance_id: str
    content: Content
    # The last time that the granting authority looked at it: grant, renewal or review.
    looked_at: datetime
    requested_by: Identity | None = None
    granted_by: Identity | None = None
    urgent: bool = False
    # Whether the confidentiality undertaking is still to be signed.
    undertaking_awaited: bool = False
    proposed: Identity | None = None
    affiliation: Affiliation = NO_AFFILIATION
    identity: Identity | None = None
    refusal: str | None = None
    suspended_by: frozenset[Party.ValueType] = frozenset()
    revoked: bool = False
    # Oldest first.
    decisions: tuple[Decided, ...] = ()

    @property
    def person(self) -> Person:
        """Whom it names."""
        return self.content.person

    @property
    def party(self) -> Party.ValueType:
        """Whose person it names."""
        return self.content.party

    @property
    def role(self) -> Role.ValueType:
        """What it makes of them."""
        return self.content.role

    def standing(self, at: datetime, lapses_at: datetime | None = None) -> Standing:
        """Its standing at an instant; `lapses_at` where a missed review ends it before its own last instant.

        ACTIVE says bound, undertaken and not over, and may precede `valid_from`.
        """
        over = at >= self.content.valid_until or (lapses_at is not None and at >= lapses_at)
        first_that_holds = (
            (self.refusal is not None, Standing.REFUSED),
            (self.revoked, Standing.REVOKED),
            (over, Standing.EXPIRED),
            (self.granted_by is None, Standing.REQUESTED),
            (bool(self.suspended_by), Standing.SUSPENDED),
            (self.proposed is None, Standing.GRANTED),
            (self.identity is None, Standing.BINDING_PROPOSED),
            (self.undertaking_awaited, Standing.UNDERTAKING_AWAITED),
        )
        return next((standing for holds, standing in first_that_holds if holds), Standing.ACTIVE)


def areas_of(messages: Iterable[AreaMessage]) -> tuple[Area, ...]:
    """Messages' areas."""
    return tuple(Area(item.west, item.south, item.east, item.north) for item in messages)


def area_message(area: Area) -> AreaMessage:
    """An area as a message."""
    return AreaMessage(west=area.west, south=area.south, east=area.east, north=area.north)


def decision_message(number: tuple[int, int] | None) -> NumberedDecision | None:
    """A decision's number as a message."""
    return None if number is None else NumberedDecision(year=number[0], number=number[1])


def number_of(event: ClearanceEvent) -> tuple[int, int] | None:
    """The numbered decision that an event bears; those of before 0.2 and the Préfecture's bear none."""
    if isinstance(event, _UNDECIDING):
        return None
    return (event.decision.year, event.decision.number) if event.HasField("decision") else None


def content_of(event: ClearanceRequested | ClearanceGranted) -> Content:
    """What an event asks for or gives."""
    return Content(
        person=person_of(event.person),
        party=event.party,
        role=event.role,
        purposes=frozenset(event.purposes),
        sources=frozenset(event.sources),
        valid_from=event.valid_from.ToDatetime(UTC),
        valid_until=event.valid_until.ToDatetime(UTC),
        areas=areas_of(event.areas),
        engagement_id=event.engagement_id,
    )


def evolve(
    known: Clearance | None, event: ClearanceEvent, recorded_at: datetime, listed_in: Callable[[Content], int]
) -> Clearance:
    """The clearance after an event; every event but a request and a grant follows one of the same clearance.

    `listed_in`: which version of the Préfecture's list names the person then; 0 for none.
    """
    changed = _after(known, event, recorded_at)
    decided = _decided(changed, event, recorded_at, listed_in(changed.content))
    before = known.decisions if known else ()
    return changed if decided is None else replace(changed, decisions=(*before, decided))


def _after(known: Clearance | None, event: ClearanceEvent, recorded_at: datetime) -> Clearance:
    if isinstance(event, ClearanceRequested):
        return Clearance(
            event.clearance_id, content_of(event), recorded_at, requested_by=identity_of(event.requested_by)
        )
    if isinstance(event, ClearanceGranted):
        return Clearance(
            event.clearance_id,
            content_of(event),
            recorded_at,
            requested_by=known.requested_by if known else None,
            granted_by=identity_of(event.granted_by),
            urgent=event.urgent,
            undertaking_awaited=bool(event.undertaking_hash),
        )
    if known is None:
        raise KeyError(event.clearance_id)
    return _changed(known, event, recorded_at)


def _decided(clearance: Clearance, event: ClearanceEvent, at: datetime, list_version: int) -> Decided | None:
    number = number_of(event)
    if number is None or isinstance(event, _UNDECIDING):
        return None
    effect, by = _EFFECTS[type(event)]
    return Decided(
        number=number,
        effect=effect,
        at=at,
        by=identity_of(getattr(event, by)),
        record_id=event.record_id,
        content=clearance.content,
        requested=clearance.requested_by is not None,
        urgent=clearance.urgent,
        refusal=event.reason if isinstance(event, ClearanceRefused) else "",
        cause=event.reason if isinstance(event, _CAUSED) else REVOCATION_REASON_UNSPECIFIED,
        undertaking_hash=event.undertaking_hash if isinstance(event, ClearanceGranted) else b"",
        list_version=list_version,
    )


_UNDECIDING = (ClearanceRequested, UndertakingSigned, BindingProposed, BindingConfirmed)
_CAUSED = (ClearanceSuspended, ClearanceRevoked)
# What each event decides, and which of its members says by whom.
_EFFECTS: Mapping[type, tuple[Effect, str]] = {
    ClearanceGranted: (Effect.GRANTED, "granted_by"),
    ClearanceRefused: (Effect.REFUSED, "refused_by"),
    ClearanceSuspended: (Effect.SUSPENDED, "suspended_by"),
    ClearanceResumed: (Effect.RESUMED, "resumed_by"),
    ClearanceRevoked: (Effect.REVOKED, "revoked_by"),
    ClearanceRenewed: (Effect.RENEWED, "renewed_by"),
    ClearanceReviewed: (Effect.REVIEWED, "reviewed_by"),
}


def _changed(known: Clearance, event: ClearanceEvent, recorded_at: datetime) -> Clearance:
    match event:
        case BindingProposed():
            affiliation = affiliation_of(event.affiliation)
            return replace(known, proposed=identity_of(event.identity), affiliation=affiliation)
        case BindingConfirmed():
            return replace(known, identity=identity_of(event.identity))
        case ClearanceSuspended():
            return replace(known, suspended_by=known.suspended_by | {event.party})
        case ClearanceResumed():
            return replace(known, suspended_by=known.suspended_by - {event.party})
        case ClearanceRenewed():
            content = replace(known.content, valid_until=event.valid_until.ToDatetime(UTC))
            return replace(known, content=content, looked_at=recorded_at)
    return _marked(known, event, recorded_at)


def _marked(known: Clearance, event: ClearanceEvent, recorded_at: datetime) -> Clearance:
    match event:
        case ClearanceRefused():
            return replace(known, refusal=event.reason)
        case ClearanceRevoked():
            return replace(known, revoked=True)
        case ClearanceReviewed():
            return replace(known, looked_at=recorded_at)
    return replace(known, undertaking_awaited=False)
