"""Who may hold a right, as the policy sees them: one Holder per clearance, office or declaring system."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from planier.access.v1.events_pb2 import PARTY_PREFECTURE, Party, Role
from planier.common.v1.release_pb2 import Purpose

from services.access.clearances import Area, Clearance
from services.access.convention import Convention, Office, lapses_at
from services.access.instruments import Declarant, Terms
from services.access.list_state import Listing, ListStanding
from services.access.policy import entity
from services.kernel.clock import microseconds

FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
_DAWN = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Holder:
    """A title to act. `name` is unique among the holders of a state; `title` is what a verdict cites."""

    name: str
    basis: str
    title: str = ""
    role: Role.ValueType = Role.ROLE_UNSPECIFIED
    party: Party.ValueType = Party.PARTY_UNSPECIFIED
    organisation: str = ""
    purposes: frozenset[Purpose.ValueType] = frozenset()
    sources: frozenset[str] = frozenset()
    areas: tuple[Area, ...] = ()
    bound: bool = False
    revoked: bool = False
    suspended: bool = False
    undertaken: bool = True
    urgent: bool = False
    valid_from: datetime = _DAWN
    valid_until: datetime = FOREVER
    review_due: datetime = FOREVER
    # Of the Préfecture's people: what its list says of them, in which version; the newest version and its expiry.
    list_standing: str = ""
    listed_in: int = 0
    list_version: int = 0
    list_until: datetime = FOREVER

    def entity(self) -> dict[str, object]:
        """The Cedar entity."""
        return entity(
            "Holder",
            self.name,
            {
                "basis": self.basis,
                "role": Role.Name(self.role).removeprefix("ROLE_"),
                "party": Party.Name(self.party).removeprefix("PARTY_"),
                "purposes": purpose_names(self.purposes),
                "sources": sorted(self.sources),
                "bound": self.bound,
                "revoked": self.revoked,
                "suspended": self.suspended,
                "undertaken": self.undertaken,
                "urgent": self.urgent,
                "valid_from": microseconds(self.valid_from),
                "valid_until": microseconds(self.valid_until),
                "review_due": microseconds(self.review_due),
                "list_standing": self.list_standing,
                "listed_in": self.listed_in,
                "list_version": self.list_version,
                "list_until": microseconds(self.list_until),
            },
        )

    def holds(self, moment: datetime) -> bool:
        """Whether the title stands at an instant."""
        stands = self.bound and self.undertaken and not self.revoked and not self.suspended
        return stands and self.valid_from <= moment < min(self.valid_until, self.review_due)

    def within(self, box: Area | None) -> bool:
        """Whether a look at a box stays in the areas of the title; one that names no box does not."""
        return not self.areas or (box is not None and any(area.holds(box) for area in self.areas))


STRANGER = Holder(name="stranger", basis="STRANGER")


def purpose_names(purposes: Iterable[Purpose.ValueType]) -> list[str]:
    """Purposes as the policy spells them."""
    return sorted(Purpose.Name(purpose).removeprefix("PURPOSE_") for purpose in purposes)


def of_clearance(clearance: Clearance, convention: Convention, at: datetime) -> Holder:
    """The holder that a clearance makes; no sources named means all that the instruments in force at `at` list."""
    return Holder(
        name=f"clearance-{clearance.clearance_id}",
        basis="CLEARANCE",
        title=clearance.clearance_id,
        role=clearance.role,
        party=clearance.party,
        organisation=clearance.person.service,
        purposes=clearance.content.purposes,
        sources=clearance.content.sources or convention.terms(at).sources,
        areas=clearance.content.areas,
        bound=clearance.identity is not None,
        revoked=clearance.revoked,
        suspended=bool(clearance.suspended_by),
        undertaken=not clearance.undertaking_awaited,
        urgent=clearance.urgent,
        valid_from=clearance.content.valid_from,
        valid_until=clearance.content.valid_until,
        review_due=lapses_at(convention, clearance, at) or FOREVER,
    )


def listed(holder: Holder, clearance: Clearance, listing: Listing) -> Holder:
    """The holder with what the Préfecture's list says of its person; the City's people are on no list."""
    if clearance.party != PARTY_PREFECTURE:
        return holder
    standing, current = listing.standing_of(clearance), listing.current
    named = standing in (ListStanding.LISTED, ListStanding.SUSPENDED)
    return replace(
        holder,
        list_standing=standing.name,
        listed_in=current.number if current is not None and named else 0,
        list_version=listing.highest,
        list_until=current.expires_at if current is not None else _DAWN,
    )


def of_office(office: Office, number: int) -> Holder:
    """The holder that an office makes: without sources, since an office by itself reads no facts."""
    return Holder(
        name=f"office-{number}",
        basis="OFFICE",
        title=f"office:{Role.Name(office.role).removeprefix('ROLE_')}",
        role=office.role,
        party=office.party,
        organisation=office.person.service,
        bound=True,
        valid_from=office.since,
        valid_until=office.until or FOREVER,
    )


def of_declarant(declarant: Declarant, terms: Terms) -> Holder:
    """The holder that a declaring system makes: the sources of its own party's instruments."""
    own = [instrument.sources for instrument in terms.instruments if instrument.party == declarant.party]
    return Holder(
        name=f"declarant-{declarant.certificate_identity}",
        basis="DECLARANT",
        title=declarant.certificate_identity,
        party=declarant.party,
        organisation=declarant.name,
        sources=frozenset[str]().union(*own),
        bound=True,
    )
