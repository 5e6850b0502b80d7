"""Ingest's events as rows of the read model, a batch at a time.

Names are stored as codes that depend on nothing but the name, so that a rebuild gives the same bytes.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from planier.analytics.v1 import analytics_pb2
from planier.common.v1 import fact_pb2
from planier.ingest.v1 import events_pb2
from sqlalchemy import Connection, MetaData

from services.analytics.bulk import in_chunks, insert, insert_new, run, run_many
from services.analytics.companions import Companions
from services.analytics.conflicts.projection import Crossing, Version
from services.analytics.conflicts.tables import CrossingTables
from services.analytics.placement import Placement, bucket_of, place
from services.analytics.tables import Tables
from services.kernel.store.base import StoredEvent

_COLUMNS = ", ".join(column.name for column in Tables().placements.columns)
_CLOSE = (
    "INSERT INTO fact_superseded~ (@, superseded_us) SELECT @, ? FROM fact_placements~"
    " WHERE bucket = ? AND source = ? AND starts_us = ? AND position = ?"
).replace("@", _COLUMNS)
_NEWEST = (
    "SELECT v.fact_id, v.position, v.bucket, v.source, v.starts_us, v.body FROM fact_versions~ v"
    " JOIN (SELECT MAX(position) AS position FROM fact_history~ WHERE fact_id IN (@) GROUP BY fact_id) n"
    " ON n.position = v.position"
)
_ALL_OF = (
    "SELECT v.bucket, v.source, v.starts_us, v.position, v.fact_id FROM fact_history~ h"
    " JOIN fact_versions~ v ON v.position = h.position WHERE h.fact_id IN (@)"
)
_DROP_BUCKET = (
    "DELETE FROM fact_buckets~ WHERE source = ? AND plain = ? AND west = ? AND bucket = ?"
    " AND NOT EXISTS (SELECT 1 FROM fact_placements~ p WHERE p.bucket = ? AND p.source = ?)"
    " AND NOT EXISTS (SELECT 1 FROM fact_superseded~ s WHERE s.bucket = ? AND s.source = ?)"
)
_UNPLACE = "DELETE FROM fact_placements~ WHERE bucket = ? AND source = ? AND starts_us = ? AND position = ?"
_UNPLACE_SUPERSEDED = "DELETE FROM fact_superseded~ WHERE bucket = ? AND source = ? AND starts_us = ? AND position = ?"
_FORGET_HISTORY = "DELETE FROM fact_history~ WHERE fact_id = ? AND position = ?"
_FORGET_VERSION = "DELETE FROM fact_versions~ WHERE position = ?"
_NAMES = "SELECT code, text FROM fact_names~"

Row = tuple[Any, ...]


@lru_cache(maxsize=4096)
def code_of(name: str) -> int:
    """The code that stands for a source, a kind or an instrument: 32 bits of its hash, signed."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big", signed=True)


# Position, bucket, source, start and body of a version.
_Newest = tuple[int, int, int, int, bytes]
_Later = events_pb2.FactAmended | events_pb2.FactCancelled | events_pb2.FactErased


class FactProjection:
    """Ingest's facts as versions and placements; an erased fact leaves no row, in the past neither."""

    name = "facts"
    version = 4

    def __init__(self, suffix: str = "", crossing: Crossing | None = None) -> None:
        self._tables = Tables(suffix)
        self._crossing = crossing
        self._crossing_tables = CrossingTables(suffix, self._tables.metadata)
        self._companions = Companions(self._tables.metadata, suffix)

    @property
    def metadata(self) -> MetaData:
        """The tables of this suffix, companions and crossing's included; these stay empty where no rules are given."""
        return self._tables.metadata

    def beside(self, suffix: str) -> "FactProjection":
        """The same projection over tables of that suffix."""
        return FactProjection(suffix, self._crossing)

    def apply(self, connection: Connection, events: Sequence[StoredEvent]) -> None:
        """Writes the effect of consecutive events: a few statements for the whole batch, whatever its size."""
        batch = _Batch(self._tables)
        for event in events:
            if event.payload is not None:
                _READERS.get(event.type, _ignore)(batch, event, event.payload)
        batch.settle(connection)
        gone = self._companions.going(connection, batch.erased)
        batch.write(connection)
        self._companions.write(connection, events, batch.versions.values(), gone)
        if self._crossing is not None:
            concerned = {code_of(source) for source in self._crossing.sources}
            versions = [
                Version(row[1], row[0], row[4], row[12]) for row in batch.versions.values() if row[9] in concerned
            ]
            self._crossing.apply(connection, self._crossing_tables, versions, batch.erased)


class _Batch:
    """Rows that consecutive events will write, keyed by position; each fact's events are folded in order."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.versions: dict[int, Row] = {}
        self.placements: dict[int, Row] = {}
        self.superseded: dict[int, Row] = {}
        self.erased: set[bytes] = set()
        self.names: set[str] = set()
        self.codes: dict[tuple[str, str, str], tuple[int, int, int]] = {}
        # Events that need what came before them, kept until `settle` has read it.
        self.later: list[tuple[StoredEvent, _Later]] = []
        # By fact: its newest version; what _CLOSE needs of the one to close.
        self.newest: dict[bytes, _Newest] = {}
        self.closed: dict[bytes, Row] = {}

    def add(self, event: StoredEvent, fact_id: bytes, change: int, fact: fact_pb2.Fact) -> None:
        """One version, current until another supersedes it."""
        position, recorded_us = event.position, event.recorded_at_us
        where = place(fact)
        names = fact.source, fact.kind, fact.instrument_id
        codes = self.codes.get(names)
        if codes is None:
            self.names.update(names)
            codes = self.codes[names] = (code_of(names[0]), code_of(names[1]), code_of(names[2]))
        source, kind, instrument = codes
        starts_us, ends_us, _, _, _, _, longitude, latitude, cell, bucket = where
        attendance = fact.attendance
        self.versions[position] = (
            position,
            fact_id,
            fact.revision,
            change,
            recorded_us,
            instrument,
            attendance.minimum,
            attendance.maximum,
            bucket,
            source,
            starts_us,
            fact.title,
            fact.SerializeToString(),
        )
        self.placements[position] = (
            bucket,
            source,
            starts_us,
            position,
            ends_us,
            longitude,
            latitude,
            kind,
            fact.status,
            cell,
            recorded_us,
            *_box(where),
        )

    def settle(self, connection: Connection) -> None:
        """Folds amendments, cancellations and erasures, in order, with one look-up for all of them."""
        if not self.later:
            return
        wanted = {bytes.fromhex(message.fact_id) for _, message in self.later}
        for fact_id, position, bucket, source, starts_us, body in in_chunks(
            connection, self.tables.sql(_NEWEST), wanted
        ):
            self.newest[bytes(fact_id)] = (position, bucket, source, starts_us, bytes(body))
        for row in self.versions.values():
            if row[1] in wanted:
                self._now_newest(row)
        for event, message in self.later:
            fact_id = bytes.fromhex(message.fact_id)
            if isinstance(message, events_pb2.FactErased):
                self._erase(fact_id, event.position)
            else:
                self._change(event, fact_id, message)

    def _change(
        self, event: StoredEvent, fact_id: bytes, message: events_pb2.FactAmended | events_pb2.FactCancelled
    ) -> None:
        previous = self.newest.get(fact_id)
        change: int = analytics_pb2.CHANGE_KIND_AMENDED
        if isinstance(message, events_pb2.FactAmended):
            fact = message.fact
        elif previous is None:
            return
        else:
            change = analytics_pb2.CHANGE_KIND_CANCELLED
            fact = fact_pb2.Fact.FromString(previous[4])
            fact.status, fact.revision = fact_pb2.FACT_STATUS_CANCELLED, message.revision
        if previous is not None:
            self._close(fact_id, previous, event.recorded_at_us)
        self.add(event, fact_id, change, fact)
        self._now_newest(self.versions[event.position])

    def _close(self, fact_id: bytes, previous: _Newest, superseded_us: int) -> None:
        position, bucket, source, starts_us, _ = previous
        pending = self.placements.pop(position, None)
        if pending is not None:
            self.superseded[position] = (*pending, superseded_us)
        else:
            self.closed[fact_id] = (superseded_us, bucket, source, starts_us, position)

    def _now_newest(self, row: Row) -> None:
        self.newest[row[1]] = (row[0], row[8], row[9], row[10], row[12])

    def _erase(self, fact_id: bytes, erased_at: int) -> None:
        self.erased.add(fact_id)
        self.closed.pop(fact_id, None)
        self.newest.pop(fact_id, None)
        for position in [row[0] for row in self.versions.values() if row[1] == fact_id and row[0] < erased_at]:
            del self.versions[position]
            self.placements.pop(position, None)
            self.superseded.pop(position, None)

    def write(self, connection: Connection) -> None:
        """Erasures, then closures, then new rows."""
        tables, sql = self.tables, self.tables.sql
        emptied = self._delete(connection)
        closed = list(self.closed.values())
        run_many(connection, sql(_CLOSE), closed)
        run_many(connection, sql(_UNPLACE), [row[1:] for row in closed])
        versions = list(self.versions.values())
        self._write_names(connection)
        buckets = sorted({(row[9], row[8]) for row in versions})
        insert_new(connection, tables.buckets, [(source, *bucket_of(bucket)) for source, bucket in buckets])
        insert(connection, tables.versions, versions)
        # In the order of their keys: neighbours share pages.
        insert(connection, tables.history, sorted((row[1], row[0]) for row in versions))
        insert(connection, tables.placements, sorted(self.placements.values(), key=itemgetter(0, 1, 2)))
        insert(connection, tables.superseded, list(self.superseded.values()))
        gone = [(source, *bucket_of(bucket)[:3], *(bucket, source) * 2) for bucket, source in sorted(emptied)]
        run_many(connection, sql(_DROP_BUCKET), gone)

    def _delete(self, connection: Connection) -> set[tuple[int, int]]:
        """Deletes every version of the erased facts; returns the (bucket, source) that held them."""
        if not self.erased:
            return set()
        sql = self.tables.sql
        rows = in_chunks(connection, sql(_ALL_OF), self.erased)
        keys = [tuple(row[:4]) for row in rows]
        run_many(connection, sql(_UNPLACE), keys)
        run_many(connection, sql(_UNPLACE_SUPERSEDED), keys)
        run_many(connection, sql(_FORGET_HISTORY), [(row[4], row[3]) for row in rows])
        run_many(connection, sql(_FORGET_VERSION), [(row[3],) for row in rows])
        return {(row[0], row[1]) for row in rows}

    def _write_names(self, connection: Connection) -> None:
        """Two names of one code (odds of 1 in 100,000 for 300 names) would mix two sources: then it stops."""
        if not self.names:
            return
        known: dict[int, str] = {row[0]: row[1] for row in run(connection, self.tables.sql(_NAMES), ())}
        new = {code_of(name): name for name in sorted(self.names) if code_of(name) not in known}
        known.update(new)
        if any(known[code_of(name)] != name for name in self.names):
            raise RuntimeError("two names share a code: the read model needs a longer hash")
        insert(connection, self.tables.names, list(new.items()))


def _box(where: Placement) -> tuple[int | None, ...]:
    if bucket_of(where.bucket).plain:
        return (None, None, None, None)
    return (where.west, where.south, where.east, where.north)


def _declared(batch: _Batch, event: StoredEvent, payload: bytes) -> None:
    message = events_pb2.FactDeclared.FromString(payload)
    batch.add(event, bytes.fromhex(message.fact_id), analytics_pb2.CHANGE_KIND_DECLARED, message.fact)


def _amended(batch: _Batch, event: StoredEvent, payload: bytes) -> None:
    batch.later.append((event, events_pb2.FactAmended.FromString(payload)))


def _cancelled(batch: _Batch, event: StoredEvent, payload: bytes) -> None:
    batch.later.append((event, events_pb2.FactCancelled.FromString(payload)))


def _erased(batch: _Batch, event: StoredEvent, payload: bytes) -> None:
    batch.later.append((event, events_pb2.FactErased.FromString(payload)))


def _ignore(batch: _Batch, event: StoredEvent, payload: bytes) -> None:
    """Events of other services' concern."""


_READERS = {
    "planier.ingest.v1.FactDeclared": _declared,
    "planier.ingest.v1.FactAmended": _amended,
    "planier.ingest.v1.FactCancelled": _cancelled,
    "planier.ingest.v1.FactErased": _erased,
}
