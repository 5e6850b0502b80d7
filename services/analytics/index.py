"""Statements over the map index: the buckets that a question meets, and in each of them one range of starts; pure.

Where a fact is one point and one period (a plain one) they decide; of all others they give candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.analytics import states
from services.analytics.bulk import marks
from services.analytics.placement import FAR_WEST, westernmost
from services.analytics.projections import code_of

if TYPE_CHECKING:  # it asks this file
    from services.analytics.queries import MapQuery

_MEETS = "b.plain = ? AND b.west >= ? AND b.west <= ? AND b.east >= ? AND b.south <= ? AND b.north >= ?"
_LIES_WITHIN = "b.west >= ? AND b.east <= ? AND b.south >= ? AND b.north <= ?"
_IN_BUCKET = (
    "p.bucket = b.bucket AND p.source = b.source AND p.starts_us < ? AND p.starts_us > ? - b.span_us AND p.ends_us > ?"
)
_POINT = " AND p.longitude BETWEEN ? AND ? AND p.latitude BETWEEN ? AND ?"
_BOX = " AND p.west <= ? AND p.east >= ? AND p.south <= ? AND p.north >= ?"

Statement = tuple[str, tuple[object, ...]]
Values = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """Conditions on the buckets `b` and on the rows `p` of a table, with their values."""

    table: str
    buckets: str
    of_buckets: Values
    rows: str
    of_rows: Values

    def select(self, what: str, rest: str = "") -> Statement:
        """A row for each that matches."""
        joined = f" FROM fact_buckets b CROSS JOIN {self.table} p WHERE {self.buckets} AND {self.rows}"
        return "SELECT " + what + joined + rest, (*self.of_buckets, *self.of_rows)

    def of_each_bucket(self, what: str) -> Statement:
        """A bucket's source and an aggregate of its rows; no row is compared with the one before it to group them."""
        inner = f"SELECT {what} FROM {self.table} p WHERE {self.rows}"  # noqa: S608 -- our own words
        sql = f"SELECT b.source, ({inner}) FROM fact_buckets b WHERE {self.buckets}"  # noqa: S608 -- our own words
        return sql, (*self.of_rows, *self.of_buckets)


class Index:
    """The bodies of one map question."""

    def __init__(self, query: "MapQuery", sources: Sequence[int]) -> None:
        self._query = query
        area = query.area
        self._place = (area.west, area.east, area.south, area.north)
        self._meets = (area.east, area.west, area.north, area.south)
        self._period = (query.ends_us, query.starts_us, query.starts_us)
        self._sources = tuple(sources)
        self._filter, self._values = _filters(query)

    def plain(self, table: str) -> Body:
        """Plain facts in the area."""
        return self._body(table, "", (), _POINT, self._place, plain=True)

    def plain_apart(self, table: str) -> tuple[Body, Body]:
        """The same in two: those of buckets that lie within the area, whose places need no look, and the others."""
        whole = self._body(table, " AND " + _LIES_WITHIN, self._place, "", (), plain=True)
        edge = self._body(table, " AND NOT (" + _LIES_WITHIN + ")", self._place, _POINT, self._place, plain=True)
        return whole, edge

    def others(self, table: str) -> Body:
        """Facts of a shape or several periods whose box meets the area's."""
        return self._body(table, "", (), _BOX, self._meets, plain=False)

    def _body(self, table: str, buckets: str, of_buckets: Values, place: str, of_place: Values, *, plain: bool) -> Body:
        query = self._query
        area = query.area
        west = westernmost(area.west, area.south, area.east, area.north) if plain else FAR_WEST
        sources = " AND b.source IN (" + marks(len(self._sources)) + ")"
        state, of_state = states.condition(query.states, query.state_at_us, plain=plain) if query.states else ("", ())
        past, of_past = (" AND p.superseded_us > ?", (query.as_of_us,)) if table == "fact_superseded" else ("", ())
        return Body(
            table,
            _MEETS + buckets + sources,
            (int(plain), west, *self._meets, *of_buckets, *self._sources),
            _IN_BUCKET + place + self._filter + (" AND " + state if state else "") + past,
            (*self._period, *of_place, *self._values, *of_state, *of_past),
        )


def _filters(query: "MapQuery") -> Statement:
    sql, values = "", list[object]()
    for column, wanted in (("p.kind", [code_of(kind) for kind in query.kinds]), ("p.status", list(query.statuses))):
        if wanted:
            sql += " AND " + column + " IN (" + marks(len(wanted)) + ")"
            values += wanted
    if query.changed_since_us is not None:
        sql += " AND p.recorded_us >= ?"
        values.append(query.changed_since_us)
    if query.as_of_us is not None:
        sql += " AND p.recorded_us <= ?"
        values.append(query.as_of_us)
    return sql, tuple(values)
