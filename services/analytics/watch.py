"""What changed on the map of an area after a cursor: every version that matters, in order, none lost and none twice.

The cursor is a position in ingest's store. A page holds what the read model learnt after it, so the answer depends on
the cursor alone and not on who was connected when.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from planier.analytics.v1.analytics_pb2 import CHANGE_KIND_DECLARED
from planier.common.v1 import fact_pb2
from sqlalchemy import Connection

from services.analytics.area import Area
from services.analytics.bulk import marks, run
from services.analytics.placement import E7, bucket_of, shape_of
from services.analytics.projections import code_of
from services.analytics.queries import KnownVersion, permitted
from services.kernel.guard.grant import Grant

# Versions examined for one message.
PAGE = 500
_AFTER = (
    "SELECT v.position, v.fact_id, v.change, v.recorded_us, v.bucket, v.source FROM fact_versions v"
    " WHERE v.position > ? ORDER BY v.position LIMIT ?"
)
_BODIES = "SELECT v.position, v.body FROM fact_versions v WHERE v.position IN (@)"
_BEFORE = (
    "SELECT v.bucket, v.source, v.body FROM fact_versions v WHERE v.position ="
    " (SELECT MAX(h.position) FROM fact_history h WHERE h.fact_id = ? AND h.position < ?)"
)
_ERASED = "SELECT 1 FROM fact_erasures WHERE erased_at > ? AND erased_at <= ? LIMIT 1"
_HEAD = "SELECT position FROM projections WHERE name = 'facts'"


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched: an area, and sources and kinds of which an empty tuple means all."""

    area: Area
    sources: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A fact that is on the map now, with the version that made it so, or one that is no longer (`version` None)."""

    fact_id: str
    version: KnownVersion | None


@dataclass(frozen=True, slots=True)
class Changes:
    """One page: everything up to `position` is told. `whole`: nothing more is known yet."""

    changes: tuple[Change, ...]
    position: int
    whole: bool
    erased: bool


def changes_after(connection: Connection, grant: Grant, watched: Watched, after: int) -> Changes:
    """The changes of one page after a position."""
    rows = run(connection, _AFTER, (after, PAGE))
    head: int = run(connection, _HEAD, ())[0][0]
    whole = len(rows) < PAGE
    reached = max(head, after) if whole else rows[-1][0]
    erased = bool(run(connection, _ERASED, (after, reached)))
    test = _Test(watched, permitted(grant, watched.sources))
    return Changes(tuple(_told(connection, test, rows)), reached, whole, erased)


class _Test:
    """Whether a version is on the watched map."""

    def __init__(self, watched: Watched, sources: Sequence[str]) -> None:
        self._watched = watched
        self._sources = frozenset(sources)
        self._codes = {code_of(source) for source in sources}

    def may_hold(self, bucket: int, source: int) -> bool:
        """Whether any fact of the bucket may be: cheap, and never wrongly no."""
        promise = bucket_of(bucket)
        return source in self._codes and self._watched.area.meets_box(
            promise.west, promise.south, promise.east, promise.north
        )

    def holds(self, fact: fact_pb2.Fact) -> bool:
        """Whether this fact is."""
        watched = self._watched
        if fact.source not in self._sources or (watched.kinds and fact.kind not in watched.kinds):
            return False
        geometry = fact.geometry
        if geometry.HasField("point"):
            longitude, latitude = round(geometry.point.longitude * E7), round(geometry.point.latitude * E7)
            return bool(watched.area.holds_points([longitude], [latitude])[0])
        return bool(watched.area.meets_shapes([shape_of(geometry)])[0])


def _told(connection: Connection, test: _Test, rows: Sequence[tuple[Any, ...]]) -> Iterator[Change]:
    wanted = [row[0] for row in rows if test.may_hold(row[4], row[5])]
    bodies = {}
    if wanted:
        bodies = {row[0]: bytes(row[1]) for row in run(connection, _BODIES.replace("@", marks(len(wanted))), wanted)}
    for position, key, change, recorded_us, _, _ in rows:
        fact_id, body = bytes(key).hex(), bodies.get(position)
        fact = None if body is None else fact_pb2.Fact.FromString(body)
        if fact is not None and test.holds(fact):
            yield Change(fact_id, KnownVersion(position, change, recorded_us, fact))
        elif change != CHANGE_KIND_DECLARED and _was_held(connection, test, bytes(key), position):
            yield Change(fact_id, None)


def _was_held(connection: Connection, test: _Test, key: bytes, position: int) -> bool:
    rows = run(connection, _BEFORE, (key, position))
    if not rows or not test.may_hold(rows[0][0], rows[0][1]):
        return False
    return test.holds(fact_pb2.Fact.FromString(bytes(rows[0][2])))
