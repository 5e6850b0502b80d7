"""Answers in columns: one list a field instead of one message a feature, a tenth of the cost at 350 features."""

from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from typing import Any

import numpy as np
from planier.analytics.v1.analytics_pb2 import CellColumns, FeatureColumns, QueryMapResponse
from planier.analytics.v1.coverage_pb2 import Suppression
from planier.common.v1 import fact_pb2

from services.analytics.placement import microseconds_of
from services.analytics.queries import Found, MapAnswer, Shown
from services.analytics.segments import Ints
from services.analytics.suppression import Counts

SECOND_US = 1_000_000
# Columns of the index; a body may follow them.
PLACED = 14


def pack(answer: MapAnswer) -> QueryMapResponse:
    """The answer as it travels, without its release mark."""
    if answer.counts is not None:
        ordered = sorted(answer.counts.shown.items())
        columns = CellColumns(
            resolution=answer.resolution, cells=[cell for cell, _ in ordered], counts=[count for _, count in ordered]
        )
        withheld = suppression_of(answer.counts, answer.names)
        return QueryMapResponse(cells=columns, total=answer.total, withheld=withheld)
    return QueryMapResponse(features=pack_features(answer), total=answer.total)


def suppression_of(counts: Counts[Any], names: Mapping[int, str]) -> Suppression | None:
    """What was too small to be shown; None where nothing was."""
    if not counts.withheld and not counts.rare:
        return None
    return Suppression(count=counts.withheld, kinds=sorted({names[kind] for _, kind in counts.rare}))


def pack_features(answer: MapAnswer) -> FeatureColumns:
    """The features in columns."""
    if answer.shown is not None:
        return _shown(answer.shown, answer.names)
    packed = FeatureColumns()
    if not answer.features:
        return packed
    rows, details = zip(*answer.features, strict=True)
    # Rows to columns once; a body behind the columns of the index is left out.
    _, starts, ends, longitudes, latitudes, sources, kinds, statuses, *_rest = zip(*rows, strict=False)
    _, fact_ids, revisions, recorded, instruments, titles, least, most = zip(*details, strict=True)
    packed.source_index.extend(_indexed(sources, answer.names, packed.sources))
    packed.kind_index.extend(_indexed(kinds, answer.names, packed.kinds))
    packed.instrument_index.extend(_indexed(instruments, answer.names, packed.instruments))
    packed.statuses.extend(statuses)
    packed.longitude_e7.extend(longitudes)
    packed.latitude_e7.extend(latitudes)
    packed.fact_ids.extend([bytes(fact_id).hex() for fact_id in fact_ids])
    packed.revisions.extend(revisions)
    packed.recorded_at_us.extend(recorded)
    packed.titles.extend(titles)
    packed.attendance_minimum.extend(least)
    packed.attendance_maximum.extend(most)
    if any(len(row) > PLACED for row in rows):
        _add_periods_and_shapes(packed, rows)
        return packed
    packed.period_counts.extend([1] * len(rows))
    packed.starts.extend([start // SECOND_US for start in starts])
    packed.ends.extend([-(-end // SECOND_US) for end in ends])
    return packed


def _shown(shown: Shown, names: Mapping[int, str]) -> FeatureColumns:
    """Columns to columns: no feature is ever a thing of its own."""
    held, count, packed = shown.held, shown.count, FeatureColumns()
    if not count:
        return packed
    packed.source_index.extend(_renumbered(held["source"], shown.sources, names, packed.sources))
    packed.kind_index.extend(_renumbered(held["kind"], shown.kinds, names, packed.kinds))
    packed.instrument_index.extend(_renumbered(held["instrument"], shown.instruments, names, packed.instruments))
    halves = np.stack([held["fact_high"], held["fact_low"]], axis=1).astype(">u8").tobytes().hex()
    packed.fact_ids.extend([halves[first : first + 32] for first in range(0, 32 * count, 32)])
    packed.titles.extend(shown.titles)
    packed.period_counts.extend([1] * count)
    packed.starts.extend((held["starts_us"] // SECOND_US).tolist())
    packed.ends.extend((-(-held["ends_us"] // SECOND_US)).tolist())
    plain = (
        (packed.statuses, "status"),
        (packed.longitude_e7, "longitude"),
        (packed.latitude_e7, "latitude"),
        (packed.revisions, "revision"),
        (packed.recorded_at_us, "recorded_us"),
        (packed.attendance_minimum, "attendance_minimum"),
        (packed.attendance_maximum, "attendance_maximum"),
    )
    for column, name in plain:
        column.extend(held[name].tolist())
    return packed


def _renumbered(
    numbers: Ints, codes: Sequence[int], names: Mapping[int, str], dictionary: MutableSequence[str]
) -> list[int]:
    """As `_indexed`, from numbers that stand for codes."""
    used = np.unique(numbers).tolist()
    ordered = sorted({names[codes[number]] for number in used})
    dictionary.extend(ordered)
    places = np.zeros(len(codes), dtype=np.int64)
    places[used] = [ordered.index(names[codes[number]]) for number in used]
    found: list[int] = places[numbers].tolist()
    return found


def _indexed(codes: Sequence[int], names: Mapping[int, str], dictionary: MutableSequence[str]) -> list[int]:
    """The place of each code's name in a dictionary that holds the names in use, sorted."""
    used = sorted({names[code] for code in codes})
    dictionary.extend(used)
    place = {name: index for index, name in enumerate(used)}
    by_code = {code: place[names[code]] for code in set(codes)}
    return [by_code[code] for code in codes]


def _add_periods_and_shapes(packed: FeatureColumns, rows: Iterable[Found]) -> None:
    counts, starts, ends = [], [], []
    for index, row in enumerate(rows):
        body = row[PLACED] if len(row) > PLACED else None
        if body is None:
            counts.append(1)
            starts.append(_second(row[1]))
            ends.append(-_second(-row[2]))
            continue
        fact = fact_pb2.Fact.FromString(body)
        periods = sorted((microseconds_of(period.start), microseconds_of(period.end)) for period in fact.periods)
        counts.append(len(periods))
        starts += [_second(start) for start, _ in periods]
        ends += [-_second(-end) for _, end in periods]
        if not fact.geometry.HasField("point"):
            packed.shape_index.append(index)
            packed.shapes.append(fact.geometry)
    packed.period_counts.extend(counts)
    packed.starts.extend(starts)
    packed.ends.extend(ends)


def _second(moment_us: int) -> int:
    """Whole seconds, rounded down; an end is rounded up (`-_second(-end)`), so that no period becomes empty."""
    return moment_us // SECOND_US
