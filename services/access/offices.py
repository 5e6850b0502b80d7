"""Offices: who holds one, from when to when, under which act: by the deed or a party's signed act only."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from planier.access.v1.events_pb2 import (
    APPOINTMENT_KIND_HOLDER,
    PARTY_CITY,
    PARTY_PREFECTURE,
    ROLE_AUDITOR,
    ROLE_DATA_PROTECTION_OFFICER,
    ROLE_GRANTING_AUTHORITY,
    ROLE_GRANTING_DELEGATE,
    ROLE_PREFECTURE_VALIDATOR,
    AppointmentKind,
    OfficeHolder,
    Party,
    Role,
)

from services.access.people import Identity, Person, identity_of, person_of

# Which party fills each office.
PARTIES_OF_OFFICE = {
    ROLE_GRANTING_AUTHORITY: (PARTY_CITY,),
    ROLE_GRANTING_DELEGATE: (PARTY_CITY,),
    ROLE_PREFECTURE_VALIDATOR: (PARTY_PREFECTURE,),
    ROLE_AUDITOR: (PARTY_CITY, PARTY_PREFECTURE),
    ROLE_DATA_PROTECTION_OFFICER: (PARTY_CITY, PARTY_PREFECTURE),
}
GRANTING = (ROLE_GRANTING_AUTHORITY, ROLE_GRANTING_DELEGATE)


@dataclass(frozen=True, slots=True)
class Office:
    """An office and who holds it, over [since, until)."""

    role: Role.ValueType
    party: Party.ValueType
    person: Person
    identity: Identity
    since: datetime
    until: datetime | None = None
    kind: AppointmentKind.ValueType = APPOINTMENT_KIND_HOLDER
    act_reference: str = ""

    def holds(self, at: datetime) -> bool:
        """Whether it is held at an instant."""
        return self.since <= at and (self.until is None or at < self.until)

    def meets(self, since: datetime, until: datetime | None) -> bool:
        """Whether it is held at some instant of [since, until)."""
        return (until is None or self.since < until) and (self.until is None or since < self.until)


def office_from(
    holder: OfficeHolder,
    kind: AppointmentKind.ValueType = APPOINTMENT_KIND_HOLDER,
    until: datetime | None = None,
    not_before: datetime | None = None,
) -> Office:
    """The office of a holder named in a deed or an act; an act does not work backwards."""
    since = getattr(holder, "from").ToDatetime(UTC)  # a keyword of Python
    return Office(
        role=holder.role,
        party=holder.party,
        person=person_of(holder.person),
        identity=identity_of(holder.identity),
        since=since if not_before is None else max(since, not_before),
        until=until,
        kind=kind,
        act_reference=holder.act_reference,
    )


def held_by(offices: Iterable[Office], identity: Identity, at: datetime) -> Office | None:
    """The office that a person holds at an instant; nobody holds two at once."""
    return next((office for office in offices if office.identity == identity and office.holds(at)), None)


def discharged(
    offices: Iterable[Office], role: Role.ValueType, party: Party.ValueType, identity: Identity, at: datetime
) -> tuple[Office, ...]:
    """The offices with that one ended at an instant; what had not begun by then never will."""
    found: list[Office] = []
    for office in offices:
        same = (office.role, office.party, office.identity) == (role, party, identity)
        if not same or (office.until is not None and office.until <= at):
            found.append(office)
        elif office.since < at:
            found.append(replace(office, until=at))
    return tuple(found)
