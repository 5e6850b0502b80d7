"""Synthetic facts of one city over 28 years, and what people look at; the same arrays for ours and for peers."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import h3.api.basic_int as h3
import numpy as np
import numpy.typing as npt
from planier.common.v1 import fact_pb2
from planier.ingest.v1 import events_pb2

from services.analytics.placement import CELL_RESOLUTION, E7, EXTENTS
from services.analytics.projections import code_of
from services.kernel.store.base import StoredEvent

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
WEST, SOUTH, EAST, NORTH = 5.228, 43.169, 5.532, 43.391
BEGIN, END = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1998, 2026))
SOURCES = tuple(f"source-{number:02}" for number in range(13))
KINDS = tuple(f"KIND_{number:02}" for number in range(60))
MINUTE_US = 60_000_000
# Some have titles, as sources with free text do; recorded facts have none.
TITLED = frozenset(SOURCES[8:])


@dataclass(frozen=True, slots=True)
class Points:
    """One fact a row, in order of time: degrees on the grid of 1e-7, seconds, indices of source and kind."""

    longitude: Floats
    latitude: Floats
    second: Ints
    source: Ints
    kind: Ints

    def __len__(self) -> int:
        return len(self.second)


@dataclass(frozen=True, slots=True)
class Viewport:
    """A box, a period in seconds and three sources."""

    west: float
    south: float
    east: float
    north: float
    begin: int
    end: int
    sources: tuple[int, ...]


def points(count: int, seed: int = 13) -> Points:
    """Half of them around 400 places of 60 to 900 m, a quarter around ten quarters, the others anywhere."""
    random = np.random.default_rng(seed)
    longitude, latitude = random.uniform(WEST, EAST, count), random.uniform(SOUTH, NORTH, count)
    kind_of_place = random.random(count)
    for below, above, places, spread in ((0.0, 0.55, 400, (60, 900)), (0.55, 0.8, 10, (900, 1300))):
        chosen = np.flatnonzero((kind_of_place >= below) & (kind_of_place < above))
        x, y = random.normal(5.38, 0.03, places), random.normal(43.30, 0.025, places)
        weight = random.pareto(1.2, places) + 0.2
        place = random.choice(places, len(chosen), p=weight / weight.sum())
        degrees = random.uniform(*spread, places)[place] / 111_000
        longitude[chosen] = x[place] + random.normal(0, 1.37, len(chosen)) * degrees
        latitude[chosen] = y[place] + random.normal(0, 1, len(chosen)) * degrees
    rank = 1 / np.arange(1, len(SOURCES) + 1)
    kinds = 1 / np.arange(1, len(KINDS) + 1) ** 0.8
    return Points(
        np.round(np.clip(longitude, WEST, EAST) * E7) / E7,
        np.round(np.clip(latitude, SOUTH, NORTH) * E7) / E7,
        BEGIN + np.sort(random.beta(2.2, 1.4, count) * (END - BEGIN)).astype(np.int64),
        random.choice(len(SOURCES), count, p=rank / rank.sum()),
        random.choice(len(KINDS), count, p=kinds / kinds.sum()),
    )


def viewports(data: Points, count: int = 200, seed: int = 5) -> list[Viewport]:
    """Boxes of 300 m to 10 km around facts, a week to three years, three sources."""
    random = np.random.default_rng(seed)
    found = []
    for row in random.integers(0, len(data), count):
        half = 0.3 * 2 ** random.uniform(0, 5) / 111 / 2
        span = int(86400 * 7 * 2 ** random.uniform(0, 7.3))
        x, y, begin = float(data.longitude[row]), float(data.latitude[row]), int(data.second[row]) - span // 2
        sources = tuple(sorted(random.choice(len(SOURCES), 3, replace=False).tolist()))
        found.append(Viewport(x - half * 1.37, y - half, x + half * 1.37, y + half, begin, begin + span, sources))
    return found


def events(data: Points, size: int) -> Iterator[list[StoredEvent]]:
    """The facts as ingest's events, `size` at a time; recorded in the order of time. Digests are not made."""
    declared = events_pb2.FactDeclared.DESCRIPTOR.full_name
    rows = zip(
        *(column.tolist() for column in (data.longitude, data.latitude, data.second, data.source, data.kind)),
        strict=True,
    )
    batch: list[StoredEvent] = []
    for position, (longitude, latitude, second, source, kind) in enumerate(rows, 1):
        fact = fact_pb2.Fact(
            source=SOURCES[source],
            source_id=f"B-{position}",
            revision=1,
            kind=KINDS[kind],
            title=f"Chantier {position % 997}" if SOURCES[source] in TITLED else "",
            geometry=fact_pb2.Geometry(point=fact_pb2.LngLat(longitude=longitude, latitude=latitude)),
            instrument_id="city-rules",
            status=fact_pb2.FACT_STATUS_ENDED,
        )
        period = fact.periods.add()
        period.start.seconds, period.end.seconds = second, second + 60
        key = f"{position:032x}"
        payload = events_pb2.FactDeclared(fact_id=key, fact=fact, party="CITY").SerializeToString()
        # As a first load would: 5,000 a second.
        recorded_us = END * 1_000_000 + position * 200
        batch.append(
            StoredEvent(
                *(position, f"fact-{key}", 1, declared, key, recorded_us, "identity", b"", b"", payload, b"", 0, "")
            )
        )
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def index_rows(data: Points, size: int = 1_000_000) -> Iterator[Ints]:
    """The facts as the columns load them: a line a field, in the order of the index."""
    cell, coarse = _cells(data, CELL_RESOLUTION), _cells(data, EXTENTS[0][1]) & ~0xFFFF
    codes = {name: np.array([code_of(text) for text in names]) for name, names in (("s", SOURCES), ("k", KINDS))}
    source = codes["s"][data.source]
    order = np.lexsort((np.arange(len(data)), data.second, source, coarse))
    for first in range(0, len(data), size):
        part = order[first : first + size]
        starts = data.second[part] * 1_000_000
        yield np.stack(
            [
                coarse[part],
                source[part],
                starts,
                part + 1,
                starts + MINUTE_US,
                np.round(data.longitude[part] * E7).astype(np.int64),
                np.round(data.latitude[part] * E7).astype(np.int64),
                codes["k"][data.kind[part]],
                np.full(len(part), fact_pb2.FACT_STATUS_ENDED),
                cell[part],
                *(np.zeros(len(part), dtype=np.int64), part + 1),
                np.ones(len(part), dtype=np.int64),
                END * 1_000_000 + 200 * (part + 1),
                np.full(len(part), code_of("city-rules")),
                *(np.zeros(len(part), dtype=np.int64),) * 2,
            ]
        )


def _cells(data: Points, resolution: int) -> Ints:
    of: Any = h3.latlng_to_cell
    count = len(data)
    # In parts: a list of all pairs of 25 million would be gigabytes.
    parts = (slice(first, first + 100_000) for first in range(0, count, 100_000))
    pairs = (
        pair for part in parts for pair in zip(data.latitude[part].tolist(), data.longitude[part].tolist(), strict=True)
    )
    return np.fromiter((of(latitude, longitude, resolution) for latitude, longitude in pairs), np.int64, count)
