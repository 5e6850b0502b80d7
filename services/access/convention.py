"""What access knows, frozen: the convention in force, offices, declarants, clearances and where each stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from planier.access.v1.events_pb2 import PARTY_PREFECTURE, ROLE_PREFECTURE_VALIDATOR, Party, Role
from planier.access.v1.events_pb2 import Identity as IdentityMessage
from planier.access.v1.events_pb2 import Person as PersonMessage
from planier.common.v1.release_pb2 import Purpose

from services.access.deed import FACT_PURPOSES
from services.access.term import Term

if TYPE_CHECKING:
    from services.access.engagements import Engagement
    from services.access.list_state import Listing


@dataclass(frozen=True, slots=True)
class Identity:
    """A person at the identity provider."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Person:
    """A person as the law names one."""

    given_name: str
    usual_name: str
    service: str = ""
    professional_address: str = ""


@dataclass(frozen=True, slots=True)
class Office:
    """An office of the deed and who holds it, from an instant on."""

    role: Role.ValueType
    party: Party.ValueType
    person: Person
    identity: Identity
    since: datetime


@dataclass(frozen=True, slots=True)
class Declarant:
    """A system that declares for a party, known by its certificate."""

    certificate_identity: str
    party: Party.ValueType
    name: str


@dataclass(frozen=True, slots=True)
class Instrument:
    """A legal text in force and the sources it governs."""

    instrument_id: str
    version: str
    sources: frozenset[str]
    purposes: frozenset[Purpose.ValueType]


@dataclass(frozen=True, slots=True)
class Convention:
    """What the founding event settled."""

    version: str
    annex_hash: str
    instruments: tuple[Instrument, ...]
    offices: tuple[Office, ...]
    declarants: tuple[Declarant, ...]
    zone: ZoneInfo
    term: Term
    deed: bytes = field(repr=False)
    signed_at: datetime

    @property
    def sources(self) -> frozenset[str]:
        """Every source of annex 1 that some instrument governs."""
        return frozenset().union(*(instrument.sources for instrument in self.instruments))

    @property
    def purposes(self) -> frozenset[Purpose.ValueType]:
        """The purposes on facts that some instrument permits."""
        permitted = frozenset[Purpose.ValueType]().union(*(instrument.purposes for instrument in self.instruments))
        return permitted & FACT_PURPOSES


class Standing(Enum):
    """Where a clearance is in its life."""

    GRANTED = 1
    BINDING_PROPOSED = 2
    ACTIVE = 3
    REVOKED = 4
    EXPIRED = 5


@dataclass(frozen=True, slots=True)
class Clearance:
    """An habilitation: nominative, dated, bounded, revocable (art6.habilitation)."""

    clearance_id: str
    person: Person
    party: Party.ValueType
    role: Role.ValueType
    purposes: frozenset[Purpose.ValueType]
    sources: frozenset[str]
    valid_from: datetime
    valid_until: datetime
    granted_by: Identity
    proposed: Identity | None = None
    identity: Identity | None = None
    revoked: bool = False

    def standing(self, at: datetime) -> Standing:
        """Its standing at an instant; ACTIVE says bound and not over, and may precede `valid_from`."""
        if self.revoked:
            return Standing.REVOKED
        if at >= self.valid_until:
            return Standing.EXPIRED
        if self.identity is not None:
            return Standing.ACTIVE
        return Standing.GRANTED if self.proposed is None else Standing.BINDING_PROPOSED


@dataclass(frozen=True, slots=True)
class State:
    """Everything that decisions rest on."""

    convention: Convention | None = None
    clearances: Mapping[str, Clearance] = field(default_factory=dict)
    # The Préfecture's nominative list; None before its first event.
    listing: "Listing | None" = None
    # Providers' engagements, by id.
    engagements: "Mapping[str, Engagement]" = field(default_factory=dict)


def office_of(state: State, identity: Identity, at: datetime) -> Office | None:
    """The office that a person holds at an instant; the deed gives each person one at most."""
    offices = state.convention.offices if state.convention else ()
    return next((office for office in offices if office.identity == identity and office.since <= at), None)


def sees(office: Office, clearance: Clearance | None) -> bool:
    """Whether an office's list holds a clearance: the Préfecture's validator sees the Préfecture's people only."""
    return clearance is not None and (office.role != ROLE_PREFECTURE_VALIDATOR or clearance.party == PARTY_PREFECTURE)


def person_of(message: PersonMessage) -> Person:
    """A message's person."""
    return Person(message.given_name, message.usual_name, message.service, message.professional_address)


def person_message(person: Person) -> PersonMessage:
    """A person as a message."""
    return PersonMessage(
        given_name=person.given_name,
        usual_name=person.usual_name,
        service=person.service,
        professional_address=person.professional_address,
    )


def identity_of(message: IdentityMessage) -> Identity:
    """A message's identity."""
    return Identity(message.issuer, message.subject)


def identity_message(identity: Identity) -> IdentityMessage:
    """An identity as a message."""
    return IdentityMessage(issuer=identity.issuer, subject=identity.subject)
