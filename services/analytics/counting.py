"""How many index rows match, by fine cell: grouped by PostgreSQL, listed by SQLite and grouped here.

SQLite groups by sorting, which costs more than to find the rows (0.5 microseconds a row beside 0.2 to 0.3). It lists
the cells of one bucket after another instead, each list one text, in the order in which it reads them anyway.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection

from services.analytics.bulk import run, run_in_pages
from services.analytics.segments import Ints

# Lists of buckets read at once, and characters of lists counted at once: some hundred thousand cells.
_LISTS, _HEAP = 256, 2_000_000


class Counted(NamedTuple):
    """Counts of different cells, of one kind of a source, or of all that are not apart (0, 0)."""

    source: int
    kind: int
    cells: Sequence[int]
    counts: Sequence[int]


# The body of a statement over `fact_placements p` joined to `fact_buckets b`, and its values.
Part = tuple[str, Sequence[object]]


def counted(connection: Connection, parts: Iterable[Part], guarded: Collection[tuple[int, int]]) -> Iterator[Counted]:
    """The index rows of every part, counted by cell.

    Kinds that are `guarded` (source, kind) are counted apart; source and kind of all others are 0.
    """
    if connection.dialect.name == "postgresql":
        return chain.from_iterable(_grouped(connection, body, values, guarded) for body, values in parts)
    return _listed(connection, parts, guarded)


def _grouped(
    connection: Connection, body: str, values: Sequence[object], guarded: Collection[tuple[int, int]]
) -> Iterator[Counted]:
    """By cell alone where nothing is guarded: grouping by three costs half as much again."""
    if not guarded:
        rows = run(connection, "SELECT p.cell, COUNT(*)" + body + " GROUP BY p.cell", values)
        yield Counted(0, 0, [row[0] for row in rows], [row[1] for row in rows])
        return
    by_kind: dict[tuple[int, int], Counter[int]] = {}
    sql = "SELECT p.cell, p.source, p.kind, COUNT(*)" + body + " GROUP BY p.cell, p.source, p.kind"
    for cell, source, kind, count in run(connection, sql, values):
        key = (source, kind) if (source, kind) in guarded else (0, 0)
        by_kind.setdefault(key, Counter())[cell] += count
    for (source, kind), counts in by_kind.items():
        yield Counted(source, kind, list(counts), list(counts.values()))


def _listed(connection: Connection, parts: Iterable[Part], guarded: Collection[tuple[int, int]]) -> Iterator[Counted]:
    kinds = ", group_concat(p.kind)" if guarded else ""
    # As buckets come, those with one western edge together: each name more to group by costs 0.05 us a row.
    sql = "SELECT b.source, group_concat(p.cell)" + kinds + "@ GROUP BY b.source, b.west"
    pages = (run_in_pages(connection, sql.replace("@", body), values, _LISTS) for body, values in parts)
    for heap in _in_heaps(chain.from_iterable(pages)):
        if not guarded:
            yield _tallied(_numbers(row[1] for row in heap), 0, 0)
            continue
        for source, rows in groupby(heap, itemgetter(0)):
            of_source = list(rows)
            cells = _numbers(row[1] for row in of_source)
            of = _numbers(row[2] for row in of_source)
            apart = [kind for place, kind in guarded if place == source]
            yield _tallied(cells[~np.isin(of, apart)], 0, 0)
            for kind in apart:
                yield _tallied(cells[of == kind], source, kind)


def _in_heaps(pages: Iterable[Sequence[tuple[Any, ...]]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Rows of a page and of those after it, until their lists are long: counts are added up once a heap."""
    heap: list[tuple[Any, ...]] = []
    size = 0
    for page in pages:
        heap += page
        size += sum(len(row[1]) for row in page)
        if size > _HEAP:
            yield heap
            heap, size = [], 0
    if heap:
        yield heap


def _numbers(lists: Iterable[str]) -> Ints:
    found: Ints = np.fromstring(",".join(lists), dtype=np.int64, sep=",")
    return found


def _tallied(cells: Ints, source: int, kind: int) -> Counted:
    places, counts = np.unique(cells, return_counts=True)
    return Counted(source, kind, places.tolist(), counts.tolist())
