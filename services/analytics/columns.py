"""The current facts of one point and one period as columns in memory, in the order of the map index; no I/O.

Rows stand by (bucket, source, start), as in `fact_placements`: a question is one range of rows in each segment (bucket
and source) that its area meets, found by bisection, then read as slices. What came since the last merge stands in a
tail that is scanned whole; what was superseded or erased since is marked dead. 86 bytes a row. Not safe for threads.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.analytics.area import Area
from services.analytics.counting import Counted
from services.analytics.filters import Filters, States
from services.analytics.segments import (
    Dictionary,
    Ints,
    Mask,
    Segments,
    bisect,
    extend_runs,
    place_of_key,
    ranges,
    slices,
)

# In the order in which rows are given; bucket and source are the segment's.
INDEX = ("bucket", "source", "starts_us", "position", "ends_us", "longitude", "latitude", "kind", "status", "cell")
# What is shown of a fact beside its index row; the fact id in two halves.
DETAILS = ("fact_high", "fact_low", "revision", "recorded_us", "instrument", "attendance_minimum", "attendance_maximum")
FIELDS = INDEX + DETAILS
_TYPES: Mapping[str, Any] = {
    "starts_us": np.int64,
    "position": np.int64,
    "ends_us": np.int64,
    "longitude": np.int32,
    "latitude": np.int32,
    "kind": np.uint16,
    "status": np.uint8,
    "cell": np.int32,
    "fact_high": np.uint64,
    "fact_low": np.uint64,
    "revision": np.int32,
    "recorded_us": np.int64,
    "instrument": np.uint16,
    "attendance_minimum": np.int32,
    "attendance_maximum": np.int32,
    # Its number among the titles; 0 for the many facts that have none.
    "title": np.int32,
}
_NO_BOX = (None, None, None, None)
_FEW = 1024

# Position, start, end, longitude, latitude, source, kind, status, cell, bucket, and the box that plain facts lack.
Row = tuple[Any, ...]


class Block:
    """Columns of one length."""

    def __init__(self, columns: dict[str, Ints]) -> None:
        self.columns = columns
        self.alive = np.ones(len(columns["position"]), dtype=np.bool_)
        self.dead = 0

    def __len__(self) -> int:
        return len(self.alive)

    def kill(self, rows: Ints) -> None:
        """Marks rows as no longer current."""
        self.dead += int(np.count_nonzero(self.alive[rows]))
        self.alive[rows] = False

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.alive.nbytes + sum(column.nbytes for column in self.columns.values()))


@dataclass(frozen=True, slots=True)
class Piece:
    """Candidate slices of the base, and which of their rows match (None: all)."""

    firsts: Ints
    lengths: Ints
    mask: Mask | None

    @property
    def count(self) -> int:
        """Rows that match."""
        return int(self.lengths.sum()) if self.mask is None else int(np.count_nonzero(self.mask))

    def rows(self) -> Ints:
        """Their places in the base."""
        spread = ranges(self.firsts, self.lengths)
        return spread if self.mask is None else spread[self.mask]

    def taken(self, column: Ints) -> Ints:
        """A column's values in the rows that match."""
        values = slices(column, self.firsts, self.lengths)
        return values if self.mask is None else values[self.mask]


class Found:
    """What matches a question: counted, listed or counted by cell."""

    def __init__(self, columns: "Columns", pieces: Sequence[tuple[Ints, Piece]], tail: Ints) -> None:
        self.columns = columns
        self._pieces = pieces
        self._tail = tail
        self.count = sum(piece.count for _, piece in pieces) + len(tail)

    def rows(self) -> list[Row]:
        """Each as a row of the map index."""
        found: list[Row] = []
        for segments, piece in self._pieces:
            found += self.columns.listed(piece.rows(), segments, piece)
        return found + self.columns.listed_tail(self._tail)

    def shown(self) -> dict[str, Ints]:
        """All columns of what matches, sources included, in order of (start, fact id)."""
        columns, names = self.columns, tuple(_TYPES)
        rows = np.concatenate([piece.rows() for _, piece in self._pieces] or [np.empty(0, dtype=np.int64)])
        sources = [columns.tail.columns["source"][self._tail]]
        for segments, piece in self._pieces:
            source = np.repeat(columns.segment_source[segments], piece.lengths)
            sources.insert(-1, source if piece.mask is None else source[piece.mask])
        whole = {
            name: np.concatenate([columns.base.columns[name][rows], columns.tail.columns[name][self._tail]])
            for name in names
        }
        whole["source"] = np.concatenate(sources)
        order = np.lexsort((whole["fact_low"], whole["fact_high"], whole["starts_us"]))
        return {name: column[order] for name, column in whole.items()}

    def taken(self, names: Sequence[str]) -> dict[str, Ints]:
        """Columns of what matches and its sources, in no order; numbers of the dictionaries, as they stand."""
        columns, tail = self.columns, self.columns.tail.columns
        sources = []
        for segments, piece in self._pieces:
            source = np.repeat(columns.segment_source[segments], piece.lengths)
            sources.append(source if piece.mask is None else source[piece.mask])
        found = {
            name: np.concatenate(
                [*(piece.taken(columns.base.columns[name]) for _, piece in self._pieces), tail[name][self._tail]]
            )
            for name in names
        }
        found["source"] = np.concatenate([*sources, tail["source"][self._tail]])
        return found

    def counted(self, minimums: Mapping[tuple[int, int], int]) -> Iterator[Counted]:
        """Counts by cell; of the kinds that have a minimum apart, source and kind 0 for all others."""
        columns, tail = self.columns, self.columns.tail.columns
        cells, guards = len(columns.cells.values), columns.guards(minimums)
        keys = []
        for segments, piece in self._pieces:
            key = piece.taken(columns.base.columns["cell"])
            if guards.any():
                source = np.repeat(columns.segment_source[segments], piece.lengths)
                source = source if piece.mask is None else source[piece.mask]
                key = key + cells * guards[source, piece.taken(columns.base.columns["kind"])]
            keys.append(key)
        guard = guards[tail["source"][self._tail], tail["kind"][self._tail]]
        counts = np.bincount(np.concatenate([*keys, tail["cell"][self._tail] + cells * guard]))
        for place, kind in enumerate([(0, 0), *columns.guarded(minimums)]):
            of_kind = counts[place * cells : (place + 1) * cells]
            found = np.flatnonzero(of_kind)
            if len(found):
                yield Counted(*kind, [columns.cells.values[code] for code in found.tolist()], of_kind[found].tolist())

    def points(self, size: int) -> Iterator[Ints]:
        """Longitude, latitude, cell, source and kind, a line each; some `size` points at a time."""
        columns, names = self.columns, ("longitude", "latitude", "cell", "kind")
        cells, kinds = (np.array(known.values, dtype=np.int64) for known in (columns.cells, columns.kinds))
        sources = np.array(columns.sources.values, dtype=np.int64)
        for segments, piece in self._pieces:
            source = np.repeat(columns.segments.source[segments], piece.lengths)
            source = source if piece.mask is None else source[piece.mask]
            longitude, latitude, cell, kind = (piece.taken(columns.base.columns[name]) for name in names)
            for first in range(0, len(cell), size):
                part = slice(first, first + size)
                yield np.stack([longitude[part], latitude[part], cells[cell[part]], source[part], kinds[kind[part]]])
        if len(self._tail):
            tail = {name: columns.tail.columns[name][self._tail] for name in (*names, "source")}
            of = cells[tail["cell"]], sources[tail["source"]], kinds[tail["kind"]]
            yield np.stack([tail["longitude"], tail["latitude"], *of])


class Columns:
    """Base and tail; `append` and `kill` follow the read model, `merge` makes one of the two."""

    def __init__(self) -> None:
        self.cells = Dictionary()
        self.kinds = Dictionary()
        self.sources = Dictionary()
        self.instruments = Dictionary()
        self.titles = [""]
        self._title_codes = {"": 0}
        self.segments = Segments([], [])
        self.segment_source: Ints = np.empty(0, dtype=np.int64)
        self.base = Block({name: np.empty(0, dtype=kind) for name, kind in _TYPES.items()})
        self._by_position: Ints = np.empty(0, dtype=np.uint32)
        self.tail = self.base
        self._tail_place: dict[int, int] = {}
        self._tail_length = self._tail_dead = 0
        self._reset_tail()

    def __len__(self) -> int:
        """Current facts."""
        return len(self.base) - self.base.dead + self._tail_length - self._tail_dead

    @property
    def size(self) -> int:
        """Bytes of all columns."""
        return int(self.base.size + self.tail.size + self._by_position.nbytes)

    @property
    def waiting(self) -> int:
        """Rows that the next merge would move or drop."""
        return self._tail_length + self.base.dead

    def load(self, chunks: Iterable[Ints], expected: int = 0) -> None:
        """The base, from rows of FIELDS (one array of int64 a chunk, a line a field) in the order of the index.

        Where as many as `expected` come, no row is ever held twice.
        """
        columns = {name: np.empty(expected, dtype=kind) for name, kind in _TYPES.items()}
        keys: list[tuple[int, int]] = []
        lengths: list[int] = []
        first = 0
        for chunk in chunks:
            table = dict(zip(FIELDS, chunk, strict=True))
            extend_runs(keys, lengths, table["bucket"], table["source"])
            last = first + chunk.shape[1]
            for name in _TYPES:
                given = table.get(name)
                if last > len(columns[name]):
                    columns[name] = np.resize(columns[name], max(last, 2 * first))
                columns[name][first:last] = 0 if given is None else self._coded(name, given)
            first = last
        for name, column in columns.items():
            if first < len(column):
                columns[name] = column[:first].copy()
        self.base = Block(columns)
        self._index(Segments(keys, lengths))

    def entitle(self, positions: Sequence[int], titles: Sequence[str]) -> None:
        """Titles of facts of the base; positions of others are passed over."""
        rows, found = self._rows_of(np.array(positions, dtype=np.int64))
        self.base.columns["title"][rows] = self._codes_of(titles)[found]

    def append(self, rows: Sequence[Sequence[int]], titles: Sequence[str]) -> None:
        """New current facts, as rows of FIELDS and their titles, after the ones there are."""
        if not rows:
            return
        table = dict(zip(FIELDS, np.array(rows, dtype=np.int64).T, strict=True))
        table["title"] = self._codes_of(titles)
        first, last = self._tail_length, self._tail_length + len(rows)
        self._reserve(last)
        for name, column in self.tail.columns.items():
            column[first:last] = self._coded(name, table[name]).astype(column.dtype)
        self.tail.alive[first:last] = True
        for offset, position in enumerate(table["position"].tolist()):
            self._tail_place[position] = first + offset
        self._tail_length = last

    def kill(self, positions: Sequence[int]) -> None:
        """Versions that are no longer current; unknown ones are facts that were never here."""
        # Each once: a version may be named as often as it has successors.
        positions = sorted(set(positions))
        for position in positions:
            place = self._tail_place.pop(position, None)
            if place is not None:
                self.tail.alive[place] = False
                self._tail_dead += 1
        rows, _ = self._rows_of(np.array(positions, dtype=np.int64))
        if len(rows):
            self.base.kill(rows)

    def merge(self) -> None:
        """Moves the tail into the base and drops the dead, column by column."""
        tail = np.flatnonzero(self.tail.alive[: self._tail_length])
        new = {name: column[tail] for name, column in self.tail.columns.items()}
        sources = np.array(self.sources.values, dtype=np.int64)
        source = sources[new["source"]] if len(tail) else new["source"]
        order = np.lexsort((new["position"], new["starts_us"], source, new["bucket"]))
        new, source = {name: column[order] for name, column in new.items()}, source[order]
        alive = self.base.alive
        segments = self.segments
        whole = np.concatenate(([0], np.cumsum(alive, dtype=np.int64))) if self.base.dead else None
        lengths = segments.lengths if whole is None else whole[segments.lasts] - whole[segments.firsts]
        merged = dict(zip(segments.keys, lengths.tolist(), strict=True))
        places = self._insertions(new, source, whole)
        for key in zip(new["bucket"].tolist(), source.tolist(), strict=True):
            merged[key] = merged.get(key, 0) + 1
        columns = self.base.columns
        for name in _TYPES:
            kept = columns[name] if whole is None else columns[name][alive]
            columns[name] = np.insert(kept, places, new[name]) if len(places) else kept
        self.base = Block(columns)
        keys = sorted(key for key, length in merged.items() if length)
        self._index(Segments(keys, [merged[key] for key in keys]))
        self._reset_tail()

    def select(
        self,
        area: Area,
        period: tuple[int, int],
        sources: Sequence[int],
        kinds: Sequence[int],
        statuses: Sequence[int],
        wanted: tuple[Sequence[int], int],
    ) -> Found:
        """The facts that the question of the same words in SQL gives; an empty list means all."""
        filters = Filters(self.kinds, area, period, kinds, statuses, States(*wanted))
        pieces = list(self._pieces(filters, area, sources))
        return Found(self, pieces, self._in_tail(filters, sources))

    def guards(self, minimums: Mapping[tuple[int, int], int]) -> Ints:
        """By number of source and of kind: 0, or one more than the place of the kind among the guarded."""
        table = np.zeros((len(self.sources.values), len(self.kinds.values)), dtype=np.int64)
        for place, (source, kind) in enumerate(self.guarded(minimums)):
            row, column = self.sources.find(source), self.kinds.find(kind)
            if row >= 0 and column >= 0:
                table[row, column] = place + 1
        return table

    def guarded(self, minimums: Mapping[tuple[int, int], int]) -> list[tuple[int, int]]:
        """The kinds that have a minimum, in order."""
        return sorted(minimums)

    def listed(self, rows: Ints, segments: Ints, piece: Piece) -> list[Row]:
        """Rows of the base as the map index has them."""
        which = np.repeat(segments, piece.lengths)
        which = which if piece.mask is None else which[piece.mask]
        keys = [self.segments.keys[segment] for segment in which.tolist()]
        return self._listed(self.base, rows, keys)

    def listed_tail(self, rows: Ints) -> list[Row]:
        """Rows of the tail as the map index has them."""
        tail = self.tail.columns
        sources = [self.sources.values[code] for code in tail["source"][rows].tolist()]
        return self._listed(self.tail, rows, list(zip(tail["bucket"][rows].tolist(), sources, strict=True)))

    def _listed(self, block: Block, rows: Ints, keys: Sequence[tuple[int, int]]) -> list[Row]:
        names = ("position", "starts_us", "ends_us", "longitude", "latitude", "kind", "status", "cell")
        taken = (block.columns[name][rows].tolist() for name in names)
        kinds, cells = self.kinds.values, self.cells.values
        return [
            (position, starts, ends, longitude, latitude, source, kinds[kind], status, cells[cell], bucket, *_NO_BOX)
            for (position, starts, ends, longitude, latitude, kind, status, cell), (bucket, source) in zip(
                zip(*taken, strict=True), keys, strict=True
            )
        ]

    def _pieces(self, filters: Filters, area: Area, sources: Sequence[int]) -> Iterator[tuple[Ints, Piece]]:
        segments = self.segments
        near = segments.meeting(area, sources)
        if not len(near):
            return
        firsts, lasts = segments.firsts[near], segments.lasts[near]
        starts, (begin, end) = self.base.columns["starts_us"], filters.period
        first = bisect(starts, firsts, lasts, begin - segments.span_us[near] + 1)
        # A fact that starts within the period meets it; of those before it, the end decides.
        sure = bisect(starts, firsts, lasts, np.full(len(near), begin))
        last = bisect(starts, firsts, lasts, np.full(len(near), end))
        sure = np.minimum(sure, last)
        inside = np.zeros(len(near), dtype=np.bool_)
        if area.is_box:
            inside = (segments.west[near] >= area.west) & (segments.east[near] <= area.east)
            inside &= (segments.south[near] >= area.south) & (segments.north[near] <= area.north)
        for of_these, whole in ((inside & (last > sure), True), (~inside & (last > sure), False)):
            yield from self._piece(filters, near[of_these], sure[of_these], last[of_these], whole=whole, ends=False)
        before = sure > first
        yield from self._piece(filters, near[before], first[before], sure[before], whole=False, ends=True)

    def _piece(
        self, filters: Filters, segments: Ints, firsts: Ints, lasts: Ints, *, whole: bool, ends: bool
    ) -> Iterator[tuple[Ints, Piece]]:
        if len(segments):
            lengths = lasts - firsts

            def column(name: str) -> Ints:
                source = self.base.alive if name == "alive" else self.base.columns[name]
                return slices(source, firsts, lengths)

            yield (
                segments,
                Piece(firsts, lengths, filters.mask(column, dead=bool(self.base.dead), whole=whole, ends=ends)),
            )

    def _in_tail(self, filters: Filters, sources: Sequence[int]) -> Ints:
        length = self._tail_length
        if not length:
            return np.empty(0, dtype=np.int64)
        wanted = np.zeros(len(self.sources.values), dtype=np.bool_)
        wanted[[code for code in map(self.sources.find, sources) if code >= 0]] = True
        mask = filters.mask(lambda name: self._tail_column(name)[:length], dead=True, whole=False, ends=True)
        mask = np.ones(length, dtype=np.bool_) if mask is None else mask
        mask &= self.tail.columns["starts_us"][:length] < filters.period[1]
        return np.flatnonzero(mask & wanted[self.tail.columns["source"][:length]])

    def _tail_column(self, name: str) -> Ints:
        return self.tail.alive if name == "alive" else self.tail.columns[name]

    def _coded(self, name: str, values: Ints) -> Ints:
        coded = {"cell": self.cells, "kind": self.kinds, "source": self.sources, "instrument": self.instruments}
        dictionary = coded.get(name)
        return values if dictionary is None else dictionary.encode(values)

    def _index(self, segments: Segments) -> None:
        self.segments = segments
        self.segment_source = self.sources.encode(segments.source)
        self._by_position = np.argsort(self.base.columns["position"], kind="stable").astype(np.uint32)

    def _codes_of(self, titles: Sequence[str]) -> Ints:
        codes = self._title_codes
        for title in titles:
            if title not in codes:
                codes[title] = len(self.titles)
                self.titles.append(title)
        found: Ints = np.fromiter((codes[title] for title in titles), np.int32, len(titles))
        return found

    def _rows_of(self, positions: Ints) -> tuple[Ints, Mask]:
        """Places in the base of the versions at these positions, of those that are there; and which are."""
        column, order = self.base.columns["position"], self._by_position
        if not len(column):
            return np.empty(0, dtype=np.int64), np.zeros(len(positions), dtype=np.bool_)
        low, high = np.zeros(len(positions), dtype=np.int64), np.full(len(positions), len(column))
        while (open_ := low < high).any():
            middle = np.minimum((low + high) // 2, len(column) - 1)
            below = column[order[middle]] < positions
            low = np.where(open_ & below, middle + 1, low)
            high = np.where(open_ & ~below, middle, high)
        rows = order[np.minimum(low, len(column) - 1)]
        found: Mask = column[rows] == positions
        return rows[found].astype(np.int64), found

    def _insertions(self, new: Mapping[str, Ints], source: Ints, whole: Ints | None) -> Ints:
        """Where each new row goes in the base without its dead."""
        places = np.empty(len(source), dtype=np.int64)
        keys = self.segments.keys
        starts = self.base.columns["starts_us"]
        for index, key in enumerate(zip(new["bucket"].tolist(), source.tolist(), strict=True)):
            place = self.segments.place.get(key)
            if place is None:
                segment = place_of_key(keys, key)
                spot = int(self.segments.firsts[segment]) if segment < len(keys) else len(self.base)
            else:
                first, last = int(self.segments.firsts[place]), int(self.segments.lasts[place])
                spot = first + int(np.searchsorted(starts[first:last], new["starts_us"][index], side="right"))
            places[index] = spot if whole is None else whole[spot]
        return places

    def _reserve(self, length: int) -> None:
        if length <= len(self.tail):
            return
        size = max(_FEW, 2 * length)
        for name, column in self.tail.columns.items():
            grown = np.zeros(size, dtype=column.dtype)
            grown[: self._tail_length] = column[: self._tail_length]
            self.tail.columns[name] = grown
        alive = np.zeros(size, dtype=np.bool_)
        alive[: self._tail_length] = self.tail.alive[: self._tail_length]
        self.tail.alive = alive

    def _reset_tail(self) -> None:
        types = {**_TYPES, "bucket": np.int64, "source": np.int64}
        self.tail = Block({name: np.empty(0, dtype=kind) for name, kind in types.items()})
        self._tail_place = {}
        self._tail_length = self._tail_dead = 0
