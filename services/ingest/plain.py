"""The common declaration recognised at a tenth of the cost: one point, one period, what annex 1 lists.

Sound, not complete: what is recognised here passes every rule of the contract and of `Admission`, what is not goes
through them all, and only they say why. tests/property/test_ingest_plain.py holds the two together.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from planier.common.v1.fact_pb2 import Attribute, Fact, FactStatus

from services.kernel.instants import is_instant
from services.kernel.registry import Choice, Kind, Quantity, Registry, Source
from services.kernel.screening import find_personal_data
from services.kernel.territory import Bounds

# As protos/planier/common/v1/fact.proto declares them.
_SOURCE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_.:-]{0,79}")
_CHOICE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_MOST_REVISIONS: Final = 1_000_000
_MOST_ATTENDANCE: Final = 2_000_000
_MOST_ATTRIBUTES: Final = 30
_LONGEST_TITLE: Final = 140
_STATUSES: Final = frozenset(FactStatus.values()) - {0}


@dataclass(frozen=True, slots=True)
class Listing:
    """What annex 1 lists a kind under, and the codes that its attributes may take."""

    source: Source
    kind: Kind
    choices: Mapping[str, frozenset[str]]
    quantities: Mapping[str, Quantity]


class PlainFacts:
    """Annex 1 as tables of what is surely right."""

    def __init__(self, registry: Registry, bounds: Bounds) -> None:
        self._bounds = bounds
        self._listings = {
            (source.name, kind.name): _listing(source, kind)
            for source in registry.sources.values()
            for kind in source.kinds.values()
        }

    def recognise(self, fact: Fact, party: str, sources: frozenset[str]) -> Listing | None:
        """The listing of a fact without unknown fields that every rule admits; None where that is not plain. 3 µs."""
        name = fact.source
        listing = self._listings.get((name, fact.kind))
        if listing is None or listing.source.party != party or name not in sources:
            return None
        attributes = fact.attributes
        plain = (
            _SOURCE_ID.fullmatch(fact.source_id) is not None
            and 1 <= fact.revision <= _MOST_REVISIONS
            and fact.status in _STATUSES
            and fact.instrument_id in ("", listing.source.instrument_id)
            and not fact.measures
            and self._is_placed(fact)
            and _is_timed(fact)
            and (not attributes or _are_listed(attributes, listing))
            and _has_plain_title(fact.title, listing)
        )
        return listing if plain else None

    def _is_placed(self, fact: Fact) -> bool:
        """A point within the territory; bounds hold no NaN."""
        geometry = fact.geometry
        if not geometry.HasField("point"):
            return False
        point = geometry.point
        return self._bounds.holds(point.longitude, point.latitude)


def _listing(source: Source, kind: Kind) -> Listing:
    entries = kind.attributes.values()
    choices = {
        entry.name: frozenset(code for code in entry.choices if _CHOICE.fullmatch(code))
        for entry in entries
        if isinstance(entry, Choice)
    }
    return Listing(source, kind, choices, {entry.name: entry for entry in entries if isinstance(entry, Quantity)})


def _is_timed(fact: Fact) -> bool:
    """One period, after 1970, in whole order of seconds; and a range of attendance in order, if any."""
    periods, attendance = fact.periods, fact.attendance
    if len(periods) != 1 or not attendance.minimum <= attendance.maximum <= _MOST_ATTENDANCE:
        return False
    period = periods[0]
    start, end = period.start, period.end
    return 0 < start.seconds < end.seconds and is_instant(start) and is_instant(end)


def _are_listed(attributes: Sequence[Attribute], listing: Listing) -> bool:
    if len(attributes) > 1 and (
        len(attributes) > _MOST_ATTRIBUTES or len({attribute.name for attribute in attributes}) != len(attributes)
    ):
        return False
    return all(_is_listed(attribute, listing) for attribute in attributes)


def _is_listed(attribute: Attribute, listing: Listing) -> bool:
    codes = listing.choices.get(attribute.name)
    if codes is not None:
        return attribute.choice in codes
    quantity = listing.quantities.get(attribute.name)
    if quantity is None or attribute.WhichOneof("value") != "number":
        return False
    return quantity.minimum <= attribute.number <= quantity.maximum


def _has_plain_title(title: str, listing: Listing) -> bool:
    if not title:
        return True
    return (
        listing.source.free_text
        and len(title) <= _LONGEST_TITLE
        and title.isprintable()
        and not title.isspace()
        and find_personal_data(title) is None
    )
