"""Tables that go with the facts in the same projection: what arrived when and where, words of titles, erasures.

They are written in the transaction that writes the versions they speak of (words: that which completes their lot), from
these versions alone, so that every answer is of one position. An erased fact leaves nothing in them but the numbers of
its positions.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from planier.ingest.v1 import events_pb2
from sqlalchemy import BigInteger, Column, Connection, Integer, LargeBinary, MetaData, Table, Text

from services.analytics import postings as lots
from services.analytics.bulk import in_chunks, insert, insert_new, run, run_many
from services.analytics.placement import area_of
from services.analytics.words import grams
from services.kernel.store.base import StoredEvent

# Arrivals are counted by spans of five minutes.
SLOT_US = 300_000_000
# In the place of a cell: the whole source; shapes too large for a cell of resolution 7.
WHOLE, LARGE = 0, 1

Row = tuple[Any, ...]


class Gone(NamedTuple):
    """A version about to be deleted because its fact is erased."""

    position: int
    fact_id: bytes
    bucket: int
    source: int
    starts_us: int
    recorded_us: int
    title: str


_GONE = (
    "SELECT v.position, v.fact_id, v.bucket, v.source, v.starts_us, v.recorded_us, v.title FROM fact_history~ h"
    " JOIN fact_versions~ v ON v.position = h.position WHERE h.fact_id IN (@)"
)
_ARRIVED = (
    "INSERT INTO fact_arrivals~ (source, cell, slot, facts) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (source, cell, slot) DO UPDATE SET facts = fact_arrivals~.facts + excluded.facts"
)
_DROP_ARRIVALS = "DELETE FROM fact_arrivals~ WHERE source = ? AND cell = ? AND slot = ? AND facts <= 0"
# In order and limited: before the first ANALYZE, PostgreSQL would read the whole table for the bounds alone.
_IN_LOT = (
    "SELECT position, starts_us, title FROM fact_versions~ WHERE position > ? AND position <= ?"
    " ORDER BY position LIMIT ?"
)
_ENTRIES = "SELECT entries FROM search_postings~ WHERE word = ? AND lot = ?"
_DROP_ENTRIES = "DELETE FROM search_postings~ WHERE word = ? AND lot = ?"
_DROP_UNUSED = (
    "DELETE FROM search_grams~ WHERE word = ? AND NOT EXISTS (SELECT 1 FROM search_postings~ s WHERE s.word = ?)"
)
_ERASED = "INSERT INTO fact_erasures~ (erased_at, position) VALUES (?, ?) ON CONFLICT DO NOTHING"
_VERSIONS = frozenset(
    kind.DESCRIPTOR.full_name for kind in (events_pb2.FactDeclared, events_pb2.FactAmended, events_pb2.FactCancelled)
)
_FACT_ERASED = events_pb2.FactErased.DESCRIPTOR.full_name


class Companions:
    """The tables of one suffix."""

    def __init__(self, metadata: MetaData, suffix: str = "") -> None:
        self._suffix = suffix
        self.arrivals = Table(
            f"fact_arrivals{suffix}",
            metadata,
            Column("source", Integer, primary_key=True),
            Column("cell", BigInteger, primary_key=True),
            Column("slot", BigInteger, primary_key=True),
            Column("facts", BigInteger, nullable=False),
            sqlite_with_rowid=False,
        )
        self.erasures = Table(
            f"fact_erasures{suffix}",
            metadata,
            Column("erased_at", BigInteger, primary_key=True),
            Column("position", BigInteger, primary_key=True),
            sqlite_with_rowid=False,
        )
        self.postings = Table(
            f"search_postings{suffix}",
            metadata,
            Column("word", Text, primary_key=True),
            Column("lot", BigInteger, primary_key=True),
            Column("latest_us", BigInteger, nullable=False),
            Column("facts", Integer, nullable=False),
            Column("entries", LargeBinary, nullable=False),
            sqlite_with_rowid=False,
        )
        # The vocabulary: what is near a word is looked for among these, however many facts have it.
        self.grams = Table(
            f"search_grams{suffix}",
            metadata,
            Column("gram", Text, primary_key=True),
            Column("word", Text, primary_key=True),
            sqlite_with_rowid=False,
        )

    def going(self, connection: Connection, erased: Collection[bytes]) -> list[Gone]:
        """The versions of these facts, before they are deleted."""
        if not erased:
            return []
        rows = in_chunks(connection, self._sql(_GONE), erased)
        return [Gone(row[0], bytes(row[1]), *row[2:]) for row in rows]

    def write(
        self, connection: Connection, events: Sequence[StoredEvent], versions: Iterable[Row], gone: Sequence[Gone]
    ) -> None:
        """The effect of consecutive events, beside the rows of `fact_versions` that they made and deleted."""
        self._count(connection, list(versions), gone)
        learnt, whole = lots.whole_lots(events[0].position - 1), lots.whole_lots(events[-1].position)
        self._forget(connection, [version for version in gone if version.position <= learnt])
        for lot in range(learnt, whole, lots.LOT):
            self._learn(connection, lot)
        run_many(connection, self._sql(_ERASED), sorted(_erasures(events, gone)))

    def _count(self, connection: Connection, added: Sequence[Row], gone: Sequence[Gone]) -> None:
        counts: Counter[tuple[int, int, int]] = Counter()
        for row in added:
            source, slot = row[9], row[4] // SLOT_US
            counts[source, WHOLE, slot] += 1
            counts[source, cell_of(row[8]), slot] += 1
        for version in gone:
            slot = version.recorded_us // SLOT_US
            counts[version.source, WHOLE, slot] -= 1
            counts[version.source, cell_of(version.bucket), slot] -= 1
        changed = sorted((*key, count) for key, count in counts.items() if count)
        run_many(connection, self._sql(_ARRIVED), changed)
        if gone:
            run_many(connection, self._sql(_DROP_ARRIVALS), [row[:3] for row in changed])

    def _learn(self, connection: Connection, lot: int) -> None:
        rows: list[Any] = run(connection, self._sql(_IN_LOT), (lot, lot + lots.LOT, lots.LOT))
        found = sorted(lots.by_word(rows).items())
        insert(connection, self.postings, [(word, lot, *lots.packed(entries)) for word, entries in found])
        insert_new(connection, self.grams, sorted((gram, word) for word, _ in found for gram in grams(word)))

    def _forget(self, connection: Connection, gone: Sequence[Gone]) -> None:
        """Rewrites the rows of the words that erased versions had, without them."""
        lost = lots.by_word([(version.position, version.starts_us, version.title) for version in gone])
        for word, entries in sorted(lost.items()):
            for lot in sorted({lots.lot_of(position) for _, position in entries}):
                ((held,),) = run(connection, self._sql(_ENTRIES), (word, lot))
                kept = set(map(tuple, lots.unpacked(bytes(held)).tolist())) - set(entries)
                run_many(connection, self._sql(_DROP_ENTRIES), [(word, lot)])
                if kept:
                    insert(connection, self.postings, [(word, lot, *lots.packed(kept))])
        run_many(connection, self._sql(_DROP_UNUSED), [(word, word) for word in sorted(lost)])

    def _sql(self, text: str) -> str:
        return text.replace("~", self._suffix)


def cell_of(bucket: int) -> int:
    """The area that arrivals of a bucket are counted in (services/analytics/placement.py)."""
    area = area_of(bucket)
    return LARGE if area is None else area


def _erasures(events: Sequence[StoredEvent], gone: Sequence[Gone]) -> set[tuple[int, int]]:
    """(position of the erasure, position of a version that it took): the same live and when rebuilt later.

    Live, the versions are still there or in the same batch; later, the store says of each empty event what erased it.
    """
    found = {(event.erased_by, event.position) for event in events if event.payload is None and event.erased_by}
    before: dict[str, list[int]] = {}
    at: Mapping[str, int] = {
        event.stream: event.position for event in events if event.type == _FACT_ERASED and event.payload is not None
    }
    for version in gone:
        before.setdefault(f"fact-{version.fact_id.hex()}", []).append(version.position)
    for event in events:
        if event.type in _VERSIONS and event.payload is not None and event.stream in at:
            before.setdefault(event.stream, []).append(event.position)
    for stream, erased_at in at.items():
        found.update((erased_at, position) for position in before.get(stream, ()) if position < erased_at)
    return found
