"""The terms in force: which texts govern which sources, for which purposes, and the house rules of an amendment."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    PARTY_UNSPECIFIED,
    Amendment,
    Deed,
    Party,
)
from planier.access.v1.events_pb2 import Declarant as DeclarantMessage
from planier.access.v1.events_pb2 import Instrument as InstrumentMessage
from planier.common.v1.release_pb2 import Purpose

from services.access.deed import CITY_RULES, CONVENTION
from services.access.purposes import ON_FACTS, inherited

# Rules that no clause demands: both parties create them by an amendment, and nothing else does.
DELEGATE = "house.delegate"
YEARLY_REVIEW = "house.yearly_review"
URGENT_CLEARANCE = "house.urgent_clearance"
HOUSE_RULES = frozenset({DELEGATE, YEARLY_REVIEW, URGENT_CLEARANCE})
_PARTY_OF = {CONVENTION: PARTY_PREFECTURE, CITY_RULES: PARTY_CITY}


@dataclass(frozen=True, slots=True)
class Declarant:
    """A system that declares for a party, known by its certificate."""

    certificate_identity: str
    party: Party.ValueType
    name: str


@dataclass(frozen=True, slots=True)
class Instrument:
    """A legal text in force and the sources it governs; `party` owns the data, `expires_at` is another partner's."""

    instrument_id: str
    version: str
    sources: frozenset[str]
    purposes: frozenset[Purpose.ValueType]
    party: Party.ValueType = PARTY_UNSPECIFIED
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """One signed version of the terms. `message` keeps what screens show beside."""

    version: str
    annex_hash: str
    instruments: tuple[Instrument, ...]
    declarants: tuple[Declarant, ...]
    house_rules: frozenset[str] = frozenset()
    policy_hash: str = ""
    # "" for the founding.
    amendment_id: str = ""
    effective_at: datetime = datetime(1, 1, 1, tzinfo=UTC)
    widens: tuple[str, ...] = ()
    # art3.change: when each party's officer was informed, and when the impact study was recorded.
    informed: tuple[tuple[Party.ValueType, datetime], ...] = ()
    dpia_at: datetime | None = None
    dpia_reference: str = ""
    message: Deed | Amendment = field(default_factory=Deed, repr=False, compare=False)

    @property
    def sources(self) -> frozenset[str]:
        """Every source of annex 1 that some instrument governs."""
        return frozenset().union(*(instrument.sources for instrument in self.instruments))

    @property
    def purposes(self) -> frozenset[Purpose.ValueType]:
        """The purposes on facts that some instrument permits."""
        permitted = frozenset[Purpose.ValueType]().union(*(instrument.purposes for instrument in self.instruments))
        return permitted & ON_FACTS

    def purposes_of(self, sources: frozenset[str]) -> frozenset[Purpose.ValueType]:
        """The purposes on facts of what is derived from these sources together."""
        return inherited(one.purposes & ON_FACTS for one in self.instruments if one.sources & sources)

    @property
    def awaits(self) -> tuple[str, ...]:
        """What art3.change still asks for, in the words of the contract."""
        if not self.widens:
            return ()
        told = {party for party, _ in self.informed}
        missing = [f"notice {Party.Name(party)[6:]}" for party in (PARTY_CITY, PARTY_PREFECTURE) if party not in told]
        return (*missing, *(() if self.dpia_at else ("dpia",)))

    @property
    def in_force_from(self) -> datetime | None:
        """When it comes into force, or None while it waits for what art3.change asks."""
        if self.awaits:
            return None
        done = [moment for _, moment in self.informed] + ([self.dpia_at] if self.dpia_at else [])
        return max([self.effective_at, *done])


def instrument_of(message: InstrumentMessage) -> Instrument:
    """A message's instrument."""
    return Instrument(
        message.instrument_id,
        message.version,
        frozenset(message.sources),
        frozenset(message.purposes),
        _PARTY_OF.get(message.instrument_id, message.party),
        message.expires_at.ToDatetime(UTC) if message.HasField("expires_at") else None,
    )


def founding_terms(deed: Deed) -> Terms:
    """The terms of the deed."""
    return Terms(
        version=deed.convention_version,
        annex_hash=deed.annex_hash,
        instruments=tuple(instrument_of(item) for item in deed.instruments),
        declarants=declarants_of(deed.declarants),
        message=deed,
    )


def amended_terms(amendment_id: str, amendment: Amendment, before: Terms, recorded_at: datetime) -> Terms:
    """The terms of an amendment of those in force; it takes effect when it is recorded, at the earliest."""
    terms = Terms(
        version=amendment.version,
        annex_hash=amendment.annex_hash,
        instruments=tuple(instrument_of(item) for item in amendment.instruments),
        declarants=declarants_of(amendment.declarants),
        house_rules=frozenset(rule.rule_id for rule in amendment.house_rules),
        policy_hash=amendment.policy_hash,
        amendment_id=amendment_id,
        effective_at=max(recorded_at, amendment.effective_at.ToDatetime(UTC)),
        message=amendment,
    )
    return replace(terms, widens=widening(before, terms))


def declarants_of(messages: Iterable[DeclarantMessage]) -> tuple[Declarant, ...]:
    """Messages' declaring systems."""
    return tuple(Declarant(item.certificate_identity, item.party, item.name) for item in messages)


def widening(before: Terms, after: Terms) -> tuple[str, ...]:
    """What of the nature of the data an amendment widens (art3.change), sorted; () where nothing is.

    Another annex 1 counts as widening: its content is not in the event, and a doubt asks for the impact study.
    """
    old = {instrument.instrument_id: instrument for instrument in before.instruments}
    found = {"annex"} if after.annex_hash != before.annex_hash else set()
    for instrument in after.instruments:
        known = old.get(instrument.instrument_id)
        sources = instrument.sources - (known.sources if known else frozenset())
        purposes = (instrument.purposes - (known.purposes if known else frozenset())) & ON_FACTS
        found.update(f"source {source}" for source in sources)
        found.update(f"purpose {Purpose.Name(purpose).removeprefix('PURPOSE_')}" for purpose in purposes)
    return tuple(sorted(found))
