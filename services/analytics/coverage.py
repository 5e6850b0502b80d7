"""What an answer does not know: when each source was last heard of, in all and in the asked area; whether it is silent.

Reads `fact_arrivals` (spans of five minutes); an instant within a span is settled by the versions of that span, so that
an answer as of a moment is the one that a system stopped then would have given.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from planier.analytics.v1.coverage_pb2 import (
    RHYTHM_SILENT,
    RHYTHM_UNKNOWN,
    RHYTHM_USUAL,
    Rhythm,
    SourceCoverage,
)
from planier.analytics.v1.coverage_pb2 import Coverage as Answer
from sqlalchemy import Connection

from services.analytics.area import Area
from services.analytics.bulk import marks, run
from services.analytics.companions import LARGE, SLOT_US, WHOLE, cell_of
from services.analytics.placement import AREA_OF_BUCKET, HAS_AREA, box_of_area
from services.analytics.projections import code_of
from services.analytics.reading import position_on
from services.kernel.store.base import Position

# What is usual is read from the last arrivals: so many spans at most.
GAPS = 200
# Fewer arrivals say nothing of a rhythm; a source that is heard of more than once a day may sleep at night.
FEWEST = 20
SHORTEST_GAP_US = 86_400_000_000
# How long an answer about the present may be reused: spans are of five minutes.
KEPT_SECONDS = 1.0

_PAIRS = (
    f"SELECT DISTINCT source, {AREA_OF_BUCKET} AS cell FROM fact_buckets WHERE source IN (@) AND {HAS_AREA}"  # noqa: S608 -- our own numbers
    f" UNION SELECT DISTINCT source, {WHOLE} FROM fact_buckets WHERE source IN (@)"
    f" UNION SELECT DISTINCT source, {LARGE} FROM fact_buckets WHERE source IN (@)"
)
_CELLS = (
    "SELECT c.source, c.cell, (SELECT MAX(a.slot) FROM fact_arrivals a"  # noqa: S608 -- our own names
    f" WHERE a.source = c.source AND a.cell = c.cell AND a.slot < ?) FROM ({_PAIRS}) c"
)
_SLOTS = "SELECT slot FROM fact_arrivals WHERE source = ? AND cell = 0 AND slot < ? ORDER BY slot DESC LIMIT ?"
_WITHIN = "SELECT DISTINCT source, bucket FROM fact_versions WHERE position >= ? AND position < ? AND source IN (@)"
_PROBE = "SELECT position, recorded_us FROM fact_versions WHERE position >= ? ORDER BY position LIMIT 1"
_END_OF_TIME = 2**62
_ALWAYS = (-_END_OF_TIME, _END_OF_TIME)
# Beyond any edge, in 1e-7 degree.
_ANYWHERE = 2**40


@dataclass(frozen=True, slots=True)
class Freshness:
    """The newest span in which one source was heard of: anywhere, and by coarse cell; what gap is usual."""

    last: int | None
    by_cell: Mapping[int, int]
    usual_us: int = 0

    def within(self, near: Collection[int]) -> int | None:
        """The newest span of what may lie in these cells."""
        return max((slot for cell, slot in self.by_cell.items() if cell in near), default=None)


@dataclass(frozen=True, slots=True)
class Covered:
    """A coverage; between which instants these facts give it again, None where it may be of older facts than asked."""

    answer: Answer
    lasts: tuple[int, int] | None


@dataclass(slots=True)
class _Known:
    """What was read of some sources, when and where the read model stood, and what was answered from it."""

    read_at: float
    position: Position | None
    sources: dict[str, Freshness]
    # The boxes of all their cells, LARGE without one.
    boxes: list[tuple[int, int, int, int, int]]
    lasts: tuple[int, int] = (1, 0)
    answers: dict[frozenset[int] | None, Answer] = field(default_factory=dict)

    @classmethod
    def of(cls, read_at: float, position: Position | None, sources: dict[str, Freshness]) -> "_Known":
        cells = frozenset[int]().union(*(one.by_cell for one in sources.values()))
        return cls(read_at, position, sources, [_edges(cell) for cell in cells])

    def answer(self, area: Area | None, at_us: int) -> Answer:
        """The same message for the same cells, as long as nobody falls silent meanwhile."""
        if not self.lasts[0] <= at_us <= self.lasts[1]:
            self.answers.clear()
            self.lasts = unchanged_between(self.sources.values(), at_us)
        near = None if area is None else self._near(area)
        found = self.answers.get(near)
        if found is None:
            if len(self.answers) >= GAPS:
                self.answers.clear()
            parts = [_message(name, known, near, at_us) for name, known in self.sources.items()]
            found = self.answers[near] = Answer(sources=parts)
        return found

    def _near(self, area: Area) -> frozenset[int]:
        """The cells of any source that meet the area; each is looked at once, however many sources have it."""
        west, south, east, north = area.west, area.south, area.east, area.north
        return frozenset(
            [cell for cell, w, s, e, n in self.boxes if w <= east and e >= west and s <= north and n >= south]
        )


@dataclass(slots=True)
class CoverageReader:
    """Coverage for answers about the present, read again where the read model moved, at most once a second.

    As of a moment it is read each time.
    """

    monotonic: Callable[[], float] = time.monotonic
    _kept: dict[tuple[str, ...], _Known] = field(default_factory=dict)
    _usual: dict[tuple[str, int], int] = field(default_factory=dict)

    def read(
        self, connection: Connection, sources: Sequence[str], area: Area | None, now_us: int, as_of_us: int | None
    ) -> Answer:
        """The coverage of these sources, at `as_of_us` or `now_us`; without an area, of everywhere."""
        return self.covered(connection, sources, area, now_us, as_of_us).answer

    def covered(
        self, connection: Connection, sources: Sequence[str], area: Area | None, now_us: int, as_of_us: int | None
    ) -> Covered:
        """As `read`; nobody changes the answer, which others are given too."""
        names = tuple(sources)
        if as_of_us is not None:
            past = _Known.of(0.0, None, self._ask(connection, names, as_of_us))
            return Covered(past.answer(area, as_of_us), _ALWAYS)
        position = position_on(connection)
        known = self._present(connection, names, position)
        answer = known.answer(area, now_us)
        return Covered(answer, known.lasts if position is not None and known.position == position else None)

    def known(self, position: Position, sources: Sequence[str], area: Area | None, now_us: int) -> Covered | None:
        """The coverage at this position, where nothing has to be read for it."""
        known = self._kept.get(tuple(sources))
        if known is None or known.position != position:
            return None
        answer = known.answer(area, now_us)
        return Covered(answer, known.lasts)

    def _present(self, connection: Connection, sources: tuple[str, ...], position: Position | None) -> _Known:
        now = self.monotonic()
        kept = self._kept.get(sources)
        if kept is not None and (
            now - kept.read_at <= KEPT_SECONDS or (position is not None and kept.position == position)
        ):
            return kept
        if len(self._kept) > GAPS:
            self._kept.clear()
        kept = self._kept[sources] = _Known.of(now, position, self._ask(connection, sources, None))
        return kept

    def _ask(self, connection: Connection, sources: tuple[str, ...], as_of_us: int | None) -> dict[str, Freshness]:
        codes = {code_of(source): source for source in sources}
        last: dict[str, int | None] = dict.fromkeys(sources)
        cells: dict[str, dict[int, int]] = {source: {} for source in sources}
        if codes:
            before = _END_OF_TIME if as_of_us is None else as_of_us // SLOT_US
            sql = _CELLS.replace("@", marks(len(codes)))
            for code, cell, slot in run(connection, sql, (before, *codes, *codes, *codes)):
                _note(last, cells, codes[code], cell, slot)
            if as_of_us is not None:
                for code, cell in _within(connection, list(codes), before, as_of_us):
                    _note(last, cells, codes[code], WHOLE, before)
                    _note(last, cells, codes[code], cell, before)
        return {
            source: Freshness(newest, cells[source], self._usual_gap(connection, source, newest, as_of_us is None))
            for source, newest in last.items()
        }

    def _usual_gap(self, connection: Connection, source: str, newest: int | None, remember: bool) -> int:
        if newest is None:
            return 0
        key = (source, newest)
        if remember and key in self._usual:
            return self._usual[key]
        # The newest span itself may have been found among the versions: it is always one of them.
        slots = [newest, *(row[0] for row in run(connection, _SLOTS, (code_of(source), newest, GAPS)))]
        usual = usual_gap(slots)
        if remember:
            if len(self._usual) > GAPS:
                self._usual.clear()
            self._usual[key] = usual
        return usual


def usual_gap(slots: Sequence[int]) -> int:
    """The gap that 95 % of these arrivals (newest first) stay below, at least a day; 0 where there are too few."""
    if len(slots) < FEWEST:
        return 0
    gaps = sorted(later - earlier for later, earlier in pairwise(slots))
    return max(SHORTEST_GAP_US, SLOT_US * gaps[min(len(gaps) - 1, len(gaps) * 95 // 100)])


def rhythm_of(last: int | None, usual_us: int, at_us: int) -> Rhythm.ValueType:
    """Silent: nothing for more than twice the usual gap."""
    if last is None or not usual_us:
        return RHYTHM_UNKNOWN
    return RHYTHM_SILENT if at_us - last * SLOT_US > 2 * usual_us else RHYTHM_USUAL


def unchanged_between(known: Iterable[Freshness], at_us: int) -> tuple[int, int]:
    """The instants around `at_us` between which no rhythm changes."""
    first, last = _ALWAYS
    for one in known:
        if one.last is None or not one.usual_us:
            continue
        latest_usual = one.last * SLOT_US + 2 * one.usual_us
        if at_us > latest_usual:
            first = max(first, latest_usual + 1)
        else:
            last = min(last, latest_usual)
    return first, last


def _message(name: str, known: Freshness, near: Collection[int] | None, at_us: int) -> SourceCoverage:
    usual = known.usual_us
    rhythm = rhythm_of(known.last, usual, at_us)
    message = SourceCoverage(source=name, rhythm=rhythm, usual_gap_seconds=usual // 1_000_000)
    within = known.last if near is None else known.within(near)
    if known.last is not None:
        message.last_recorded.seconds = known.last * SLOT_US // 1_000_000
    if within is not None:
        message.last_recorded_in_area.seconds = within * SLOT_US // 1_000_000
    return message


def _note(
    last: dict[str, int | None], cells: dict[str, dict[int, int]], source: str, cell: int, slot: int | None
) -> None:
    if slot is None:
        return
    if cell == WHOLE:
        last[source] = max(slot, last[source] or slot)
    else:
        cells[source][cell] = max(slot, cells[source].get(cell, slot))


def _within(connection: Connection, codes: Sequence[int], slot: int, as_of_us: int) -> list[tuple[int, int]]:
    """(source, cell) of what arrived from the beginning of the span to the instant."""
    begin = slot * SLOT_US
    first, end = _position_at(connection, begin), _position_at(connection, as_of_us + 1)
    sql = _WITHIN.replace("@", marks(len(codes)))
    return [(row[0], cell_of(row[1])) for row in run(connection, sql, (first, end, *codes))]


def _position_at(connection: Connection, recorded_us: int) -> int:
    """The first position recorded at or after the instant: instants only grow with positions, so it is bisected."""
    low, high = 0, (run(connection, "SELECT MAX(position) FROM fact_versions", ())[0][0] or 0) + 1
    while low < high:
        middle = (low + high) // 2
        row = run(connection, _PROBE, (middle,))
        if row and row[0][1] < recorded_us:
            low = row[0][0] + 1
        else:
            high = middle
    return low


def _edges(cell: int) -> tuple[int, int, int, int, int]:
    """The cell and its box; what has no cell may lie anywhere."""
    if cell == LARGE:
        return (cell, -_ANYWHERE, -_ANYWHERE, _ANYWHERE, _ANYWHERE)
    return (cell, *box_of_area(cell))
