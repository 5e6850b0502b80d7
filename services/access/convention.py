"""What access knows, frozen: the convention with its acts, who holds office, clearances, what officers were told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from planier.access.v1.events_pb2 import (
    PARTY_PREFECTURE,
    ROLE_PREFECTURE_VALIDATOR,
    NoticeKind,
    Party,
    TerminationReason,
)

from services.access.clearances import Clearance, Standing
from services.access.instruments import YEARLY_REVIEW, Declarant, Instrument, Terms
from services.access.offices import Office, held_by
from services.access.people import (
    Identity,
    Person,
    identity_message,
    identity_of,
    person_message,
    person_of,
)
from services.access.term import Term, destruction_due, review_due

if TYPE_CHECKING:
    from services.access.engagements import Engagement
    from services.access.list_state import Listing
from services.kernel.errors import precondition

__all__ = [
    "Clearance",
    "Convention",
    "Declarant",
    "Denunciation",
    "Identity",
    "Instrument",
    "Notice",
    "Office",
    "Person",
    "Standing",
    "State",
    "Termination",
    "Terms",
    "identity_message",
    "identity_of",
    "in_force",
    "lapses_at",
    "office_of",
    "person_message",
    "person_of",
    "sees",
    "standing_of",
]


@dataclass(frozen=True, slots=True)
class Denunciation:
    """One party's notice (art9.denunciation); the convention holds until `until`."""

    party: Party.ValueType
    until: datetime


@dataclass(frozen=True, slots=True)
class Termination:
    """The end at once (art9.termination)."""

    party: Party.ValueType
    reason: TerminationReason.ValueType
    at: datetime


@dataclass(frozen=True, slots=True)
class Notice:
    """What a party's data protection officer was told, and when they said that they know."""

    notice_id: str
    party: Party.ValueType
    kind: NoticeKind.ValueType
    reference: str
    issued_at: datetime
    acknowledged_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Convention:
    """The founding and the acts that followed."""

    deed: bytes = field(repr=False)
    signed_at: datetime
    zone: ZoneInfo
    # The founding first; at most the last is not in force yet.
    versions: tuple[Terms, ...]
    offices: tuple[Office, ...]
    # Each with its SIRET; a party that has none here takes logins of any.
    organisations: frozenset[tuple[Party.ValueType, str]] = frozenset()
    # None until notified: nothing of the convention is in force before (art9.term).
    term: Term | None = None
    denunciation: Denunciation | None = None
    termination: Termination | None = None
    destroyed_at: datetime | None = None
    # SHA-256 of each act by its id.
    acts: Mapping[str, bytes] = field(default_factory=dict)

    def terms(self, at: datetime) -> Terms:
        """The version in force at an instant."""
        return next(
            terms for terms in reversed(self.versions) if (since := terms.in_force_from) is not None and since <= at
        )

    def house_since(self, rule: str, at: datetime) -> datetime | None:
        """Since when a house rule has been in force without a gap, at an instant; None where it is not."""
        since: datetime | None = None
        for terms in self.versions:
            begins = terms.in_force_from
            if begins is None or begins > at:
                continue
            since = (since or begins) if rule in terms.house_rules else None
        return since

    @property
    def ends_at(self) -> datetime | None:
        """The first instant at which it no longer holds, whatever the cause; None before the notification."""
        ends = [self.term.ends] if self.term else []
        if self.denunciation:
            ends.append(self.denunciation.until)
        if self.termination:
            ends.append(self.termination.at)
        return min(ends, default=None)

    def ended(self, at: datetime) -> bool:
        """Whether it is over at an instant."""
        ends = self.ends_at
        return ends is not None and ends <= at

    @property
    def destroy_before(self) -> datetime | None:
        """By when what was transmitted is destroyed, counted from the end; None before the notification."""
        return None if self.ends_at is None else destruction_due(self.ends_at, self.zone)

    def changes_at(self) -> frozenset[datetime]:
        """Every instant at which what the convention permits may change."""
        found = {terms.in_force_from for terms in self.versions} | {self.ends_at}
        found |= {self.term.starts, self.term.ends} if self.term else set()
        found |= {self.denunciation.until} if self.denunciation else set()
        found |= {instrument.expires_at for terms in self.versions for instrument in terms.instruments}
        return frozenset(moment for moment in found if moment is not None)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that decisions rest on."""

    convention: Convention | None = None
    clearances: Mapping[str, Clearance] = field(default_factory=dict)
    # The ids of the clearances that each identity is bound to.
    bound: Mapping[Identity, tuple[str, ...]] = field(default_factory=dict)
    notices: Mapping[str, Notice] = field(default_factory=dict)
    # The last numbered decision: local year and number in it.
    decided: tuple[int, int] = (0, 0)
    # The Préfecture's nominative list; None before its first event.
    listing: "Listing | None" = None
    # Providers' engagements, by id.
    engagements: "Mapping[str, Engagement]" = field(default_factory=dict)


def in_force(state: State) -> Convention:
    """The convention. Raises Problem CONVENTION_NOT_SIGNED."""
    if state.convention is None:
        raise precondition("CONVENTION_NOT_SIGNED", "no convention is in force", "art2.documents")
    return state.convention


def office_of(state: State, identity: Identity, at: datetime) -> Office | None:
    """The office that a person holds at an instant; nobody holds two at once."""
    return held_by(state.convention.offices, identity, at) if state.convention else None


def lapses_at(convention: Convention, clearance: Clearance, at: datetime) -> datetime | None:
    """When a clearance lapses unless it is reviewed, under the rules in force at an instant; None without the rule."""
    since = convention.house_since(YEARLY_REVIEW, at)
    return None if since is None else review_due(max(since, clearance.looked_at), convention.zone)


def standing_of(state: State, clearance: Clearance, at: datetime) -> Standing:
    """A clearance's standing at an instant, a missed review counted."""
    return clearance.standing(at, lapses_at(state.convention, clearance, at) if state.convention else None)


def sees(office: Office, clearance: Clearance | None) -> bool:
    """Whether an office's list holds a clearance: the Préfecture's validator sees the Préfecture's people only."""
    return clearance is not None and (office.role != ROLE_PREFECTURE_VALIDATOR or clearance.party == PARTY_PREFECTURE)
