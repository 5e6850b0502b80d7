"""The facts that may feed tension statistics, in columns, and the rule of which those are; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.kernel.registry import CONVENTION, Kind, Nature, Registry, Source

# What the convention shows on a map it never makes statistics of (art6.purpose): written here besides annex 1's own
# `feeds_tension`, so that no edition of the annex, signed by mistake, could change it.
NEVER_SOURCES: Final = frozenset({"demonstrations", "scheduled-operations", "official-visits"})
NEVER_KINDS: Final = frozenset(
    {
        "PROTEST_MARCH",
        "STATIC_GATHERING",
        "MOTORISED_PROTEST",
        "SECURITY_OPERATION",
        "TRAFFIC_OPERATION",
        "OFFICIAL_VISIT",
        "OFFICIAL_CEREMONY",
    }
)
# Finest cells that the read model keeps.
FINEST: Final = 10


@dataclass(frozen=True, slots=True)
class Feed:
    """One kind that feeds tension, with what annex 1 says of it and of its source."""

    source: str
    source_label: str
    nature: Nature
    kind: str
    label: str
    minimum_count: int
    # The finest H3 resolution that its precision of place supports.
    resolution: int

    @property
    def discovered(self) -> bool:
        """Whether it is found by those who look for it."""
        return self.nature == "discovered"


def feeds(registry: Registry, sources: Iterable[str], kinds: Iterable[str] = ()) -> tuple[Feed, ...]:
    """The kinds of those sources that may feed tension, in order of name; among `kinds` where some are named."""
    wanted = frozenset(kinds)
    return tuple(
        _feed(source, kind)
        for source in sorted(registry.sources.values(), key=lambda source: source.name)
        if source.name in frozenset(sources) - NEVER_SOURCES
        and source.feeds_tension
        and source.instrument_id != CONVENTION
        for kind in sorted(source.kinds.values(), key=lambda kind: kind.name)
        if kind.name not in NEVER_KINDS and (not wanted or kind.name in wanted)
    )


def _feed(source: Source, kind: Kind) -> Feed:
    resolution = kind.precision.h3_resolution
    finest = FINEST if resolution is None else min(resolution, FINEST)
    return Feed(source.name, source.label, source.nature, kind.name, kind.label, kind.minimum_count, finest)


@dataclass(frozen=True, slots=True)
class Facts:
    """One entry a fact in each column; `feed` indexes `feeds`, `cell` indexes `cells`, which are of resolution 10.

    Places are in 1e-7 degree, instants in microseconds.
    """

    feeds: tuple[Feed, ...]
    cells: npt.NDArray[np.uint64]
    feed: npt.NDArray[np.int16]
    cell: npt.NDArray[np.int64]
    longitude: npt.NDArray[np.int32]
    latitude: npt.NDArray[np.int32]
    starts_us: npt.NDArray[np.int64]
    recorded_us: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.feed)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Facts":
        """Those facts only."""
        return Facts(
            self.feeds,
            self.cells,
            self.feed[chosen],
            self.cell[chosen],
            self.longitude[chosen],
            self.latitude[chosen],
            self.starts_us[chosen],
            self.recorded_us[chosen],
        )

    def beside(self, other: "Facts") -> "Facts":
        """These facts and others of the same feeds."""
        if not len(other):
            return self
        join = np.concatenate
        return Facts(
            self.feeds,
            join([self.cells, other.cells]),
            join([self.feed, other.feed]),
            join([self.cell, other.cell + len(self.cells)]),
            join([self.longitude, other.longitude]),
            join([self.latitude, other.latitude]),
            join([self.starts_us, other.starts_us]),
            join([self.recorded_us, other.recorded_us]),
        )

    def flags(self, values: Iterable[bool]) -> npt.NDArray[np.bool_]:
        """A value for each feed, as a value for each fact."""
        found: npt.NDArray[np.bool_] = np.fromiter(values, bool, len(self.feeds))[self.feed]
        return found
