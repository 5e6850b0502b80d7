"""What holds over one interval of time: the terms in force, the resources of the policy, who has which titles."""

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cedarpy import Entities
from planier.common.v1.release_pb2 import PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT

from services.access.convention import Convention, Identity, State
from services.access.holders import FOREVER, Holder, listed, of_clearance, of_declarant, of_office, purpose_names
from services.access.instruments import Instrument, Terms
from services.access.list_state import listing_of
from services.access.policy import Policy, entity
from services.access.purposes import ON_FACTS
from services.kernel.clock import microseconds

# Resource of the guard's option → entity type of the policy. A resource without a type ("session") is never permitted.
GOVERNED = {"facts": "Facts", "declarations": "Declarations"}
SYSTEM = {
    "clearances": ("Clearances", (PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)),
    "clearance-requests": ("Requests", (PURPOSE_ADMINISTRATION,)),
    "suspensions": ("Suspensions", (PURPOSE_ADMINISTRATION,)),
    "bindings": ("Bindings", (PURPOSE_ADMINISTRATION,)),
    "undertakings": ("Undertakings", (PURPOSE_ADMINISTRATION,)),
    "notices": ("Notices", (PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)),
    "convention": ("Convention", (PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)),
    "access-log": ("AccessLog", (PURPOSE_OVERSIGHT,)),
    "nominative-list": ("NominativeList", (PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)),
    "listed-persons": ("ListedPersons", (PURPOSE_ADMINISTRATION,)),
    "engagements": ("Engagements", (PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)),
    "log-governance": ("LogGovernance", (PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)),
    "own-accesses": ("OwnAccesses", (PURPOSE_OVERSIGHT,)),
}
_NEVER = datetime(1, 1, 1, tzinfo=UTC)
# People whose titles are kept ready in one view; beyond, all are forgotten at once.
_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Titles:
    """What one subject may act under, and every instant at which one of these begins or ends."""

    holders: tuple[Holder, ...]
    changes_at: tuple[datetime, ...]
    bounded: bool

    def interval(self, moment: datetime) -> int:
        """Which interval between two changes an instant is in."""
        return bisect_right(self.changes_at, moment)


@dataclass(slots=True)
class View:
    """One interval between two changes of the convention. Not frozen: it remembers what it built."""

    convention: Convention
    terms: Terms
    state: State
    policy: Policy
    at: datetime
    house_rules: list[str] = field(init=False)
    _resources: dict[tuple[str, str], dict[str, object]] = field(init=False)
    _people: dict[Identity, Titles] = field(default_factory=dict)
    _entities: dict[tuple[str, str], Entities] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.house_rules = sorted(self.terms.house_rules)
        self._resources = _resources(self.convention, self.terms)

    def titles(self, identity: Identity) -> Titles:
        """A person's offices and clearances."""
        known = self._people.get(identity)
        if known is None:
            if len(self._people) >= _KEPT:
                self._people.clear()
                self._entities.clear()
            known = self._people[identity] = self._titles_of(identity)
        return known

    def declarant(self, certificate_identity: str) -> Holder | None:
        """The title of a declaring system, or None where the terms name no such one."""
        declarants = self.terms.declarants
        found = next((item for item in declarants if item.certificate_identity == certificate_identity), None)
        return of_declarant(found, self.terms) if found else None

    def entities(self, holder: Holder, kind: str) -> Entities:
        """The holder beside the resources of one entity type, as the policy takes them; alone where there is none.

        Few on purpose: Cedar reads and checks an entity in about as long as it takes to decide.
        """
        known = self._entities.get((holder.name, kind))
        if known is None:
            beside = [resource for (found, _), resource in self._resources.items() if found == kind]
            known = self._entities[holder.name, kind] = self.policy.entities([holder.entity(), *beside])
        return known

    def _titles_of(self, identity: Identity) -> Titles:
        offices = enumerate(self.convention.offices)
        clearances = (self.state.clearances[name] for name in self.state.bound.get(identity, ()))
        holders = (
            *(of_office(office, number) for number, office in offices if office.identity == identity),
            *(
                listed(of_clearance(clearance, self.convention, self.at), clearance, listing_of(self.state))
                for clearance in clearances
            ),
        )
        changes = {moment for h in holders for moment in (h.valid_from, h.valid_until, h.review_due, h.list_until)}
        return Titles(holders, tuple(sorted(changes)), any(holder.areas for holder in holders))


class Views:
    """The views of a state, one for each interval that was asked about."""

    def __init__(self, policy: Policy, state: State) -> None:
        self._policy = policy
        self._state = state
        self._changes_at = sorted(state.convention.changes_at()) if state.convention else []
        self._views: dict[int, View] = {}

    def at(self, moment: datetime) -> tuple[int, View] | None:
        """The view of an instant and its interval's number; None before the founding."""
        convention = self._state.convention
        if convention is None:
            return None
        interval = bisect_right(self._changes_at, moment)
        view = self._views.get(interval)
        if view is None:
            view = View(convention, convention.terms(moment), self._state, self._policy, moment)
            self._views[interval] = view
        return interval, view


def _resources(convention: Convention, terms: Terms) -> dict[tuple[str, str], dict[str, object]]:
    ends = {
        "starts": convention.term.starts if convention.term else FOREVER,
        "ends": convention.term.ends if convention.term else _NEVER,
        "denounced": convention.denunciation.until if convention.denunciation else FOREVER,
        "terminated": convention.termination.at if convention.termination else FOREVER,
    }
    term = {name: microseconds(moment) for name, moment in ends.items()}

    def attributes(instrument: Instrument) -> dict[str, object]:
        return {
            "instrument": instrument.instrument_id,
            "purposes": purpose_names(instrument.purposes & ON_FACTS),
            "term": term,
            "expires": microseconds(instrument.expires_at or FOREVER),
        }

    found: dict[tuple[str, str], dict[str, object]] = {
        (kind, "all"): {"purposes": purpose_names(purposes)} for kind, purposes in SYSTEM.values()
    }
    for kind in GOVERNED.values():
        found.update({(kind, item.instrument_id): attributes(item) for item in terms.instruments})
    return {(kind, name): entity(kind, name, stated) for (kind, name), stated in found.items()}
