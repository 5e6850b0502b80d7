"""Who may hold a right, as the policy sees them: one Holder per clearance, office or declaring system."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from planier.access.v1.events_pb2 import PARTY_PREFECTURE, Party, Role
from planier.common.v1.release_pb2 import Purpose

from services.access.convention import Clearance, Convention, Declarant, Identity, Office, State
from services.access.deed import PARTY_OF_INSTRUMENT
from services.access.list_state import Listing, ListStanding, listing_of
from services.access.policy import entity
from services.kernel.clock import microseconds

_FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
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
    bound: bool = False
    revoked: bool = False
    valid_from: datetime = _DAWN
    valid_until: datetime = _FOREVER
    # Of the Préfecture's people: what its list says of them, in which version; the newest version and its expiry.
    list_standing: str = ""
    listed_in: int = 0
    list_version: int = 0
    list_until: datetime = _DAWN

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
                "valid_from": microseconds(self.valid_from),
                "valid_until": microseconds(self.valid_until),
                "list_standing": self.list_standing,
                "listed_in": self.listed_in,
                "list_version": self.list_version,
                "list_until": microseconds(self.list_until),
            },
        )

    def holds(self, moment: datetime) -> bool:
        """Whether the title stands at an instant."""
        return self.bound and not self.revoked and self.valid_from <= moment < self.valid_until


STRANGER = Holder(name="stranger", basis="STRANGER")


def purpose_names(purposes: Iterable[Purpose.ValueType]) -> list[str]:
    """Purposes as the policy spells them."""
    return sorted(Purpose.Name(purpose).removeprefix("PURPOSE_") for purpose in purposes)


def of_clearance(clearance: Clearance, convention: Convention) -> Holder:
    """The holder that a clearance makes; no sources named means all that the instruments list."""
    return Holder(
        name=f"clearance-{clearance.clearance_id}",
        basis="CLEARANCE",
        title=clearance.clearance_id,
        role=clearance.role,
        party=clearance.party,
        organisation=clearance.person.service,
        purposes=clearance.purposes,
        sources=clearance.sources or convention.sources,
        bound=clearance.identity is not None,
        revoked=clearance.revoked,
        valid_from=clearance.valid_from,
        valid_until=clearance.valid_until,
    )


def listed(holder: Holder, clearance: Clearance, listing: Listing) -> Holder:
    """The holder with what the Préfecture's list says of its person; the City's people are on no list."""
    if clearance.party != PARTY_PREFECTURE:
        return holder
    standing, current = listing.standing_of(clearance), listing.current
    named = current is not None and standing in (ListStanding.LISTED, ListStanding.SUSPENDED)
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
    )


def of_declarant(declarant: Declarant, convention: Convention) -> Holder:
    """The holder that a declaring system makes: the sources of its own party's instrument."""
    own = [i.sources for i in convention.instruments if PARTY_OF_INSTRUMENT[i.instrument_id] == declarant.party]
    return Holder(
        name=f"declarant-{declarant.certificate_identity}",
        basis="DECLARANT",
        title=declarant.certificate_identity,
        party=declarant.party,
        organisation=declarant.name,
        sources=frozenset[str]().union(*own),
        bound=True,
    )


@dataclass(frozen=True, slots=True)
class Holders:
    """Every holder of a state, found by who asks."""

    by_identity: Mapping[Identity, tuple[Holder, ...]]
    by_certificate: Mapping[str, Holder]


def holders_of(state: State) -> Holders:
    """The index of a state; only bound clearances have an identity to be found by."""
    if state.convention is None:
        return Holders({}, {})
    found: dict[Identity, tuple[Holder, ...]] = {}
    for number, office in enumerate(state.convention.offices):
        found[office.identity] = (*found.get(office.identity, ()), of_office(office, number))
    for clearance in state.clearances.values():
        if clearance.identity is not None:
            holder = listed(of_clearance(clearance, state.convention), clearance, listing_of(state))
            found[clearance.identity] = (*found.get(clearance.identity, ()), holder)
    declarants = {d.certificate_identity: of_declarant(d, state.convention) for d in state.convention.declarants}
    return Holders(found, declarants)
