"""A neighbourhood's facts read once, for the viewports that someone moves over it; exact for each of them.

A viewport's answer takes four statements, of which most is the search itself. Whoever pans asks again a few hundred
metres further: so the features of a wider box are read, and those of the viewport chosen among them.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from planier.analytics.v1.analytics_pb2 import QueryMapResponse
from planier.common.v1 import fact_pb2
from shapely.geometry.base import BaseGeometry

from services.analytics.area import Area
from services.analytics.packing import PLACED, Columns, pack
from services.analytics.placement import shape_of
from services.analytics.queries import MapAnswer, MapQuery
from services.kernel.guard.grant import Grant
from services.kernel.store.base import Position

# More features are a view of a whole city, of which there are few: they are read each time.
MOST_FEATURES: Final = 2_000
# About 1 KiB each.
MOST_HELD: Final = 30_000
# Of neighbourhoods asked about, and of those that hold too much: names, no facts.
MOST_REMEMBERED: Final = 1_000


def around(query: MapQuery) -> Area | None:
    """The neighbourhood of a question; None where none is read: polygons, states, the past.

    Its edges lie on a grid of half to one of the viewport's own sides, so that its neighbours share it.
    """
    area = query.area
    if not area.is_box or query.states or query.nothing or query.as_of_us is not None:
        return None
    side = max(area.east - area.west, area.north - area.south, 1)
    step = 1 << (side.bit_length() - 1)
    return Area(
        area.west // step * step, area.south // step * step, -(-area.east // step) * step, -(-area.north // step) * step
    )


def widened(query: MapQuery, area: Area) -> MapQuery:
    """The question about its neighbourhood."""
    return replace(query, area=area, limit=MOST_FEATURES, state_at_us=0)


@dataclass(frozen=True)
class Neighbourhood:
    """All features of a question, in order, and what their numbers stand for."""

    answer: MapAnswer

    @cached_property
    def _columns(self) -> Columns:
        return Columns.of(self.answer)

    @cached_property
    def _shapes(self) -> dict[int, BaseGeometry]:
        """Of the features that are not a point: by their place."""
        bodies = {index: row[PLACED] for index, (row, _) in enumerate(self.answer.features) if len(row) > PLACED}
        return {index: shape_of(fact_pb2.Fact.FromString(body).geometry) for index, body in bodies.items()}

    @property
    def count(self) -> int:
        """How many it holds."""
        return len(self.answer.features)

    def within(self, area: Area, limit: int) -> QueryMapResponse | None:
        """The answer about a box within; None where that has more features than the limit."""
        columns, west, south, east, north = self._columns, area.west, area.south, area.east, area.north
        chosen = [
            index
            for index, (x, y) in enumerate(zip(columns.longitudes, columns.latitudes, strict=True))
            if west <= x <= east and south <= y <= north
        ]
        if self._shapes:
            return self._with_shapes(area, limit, chosen)
        if len(chosen) > limit:
            return None
        return QueryMapResponse(features=columns.packed(chosen), total=len(chosen))

    def _with_shapes(self, area: Area, limit: int, points: Sequence[int]) -> QueryMapResponse | None:
        """What has a body is in where its shape is; the point that stands for it says nothing."""
        features, shapes = self.answer.features, self._shapes
        near = [index for index in shapes if area.meets_box(*_box(features[index][0]))]
        met = {index for index in near if area.holds_box(*_box(features[index][0]))}
        if open_questions := [index for index in near if index not in met]:
            inside = area.meets_shapes([shapes[index] for index in open_questions])
            met.update(index for index, is_in in zip(open_questions, inside, strict=True) if is_in)
        chosen = sorted(met.union(index for index in points if index not in shapes))
        if len(chosen) > limit:
            return None
        return pack(MapAnswer(tuple(features[index] for index in chosen), names=self.answer.names))


class Neighbourhoods:
    """Those read at the read model's present position; of one event loop."""

    def __init__(self) -> None:
        self._position: Position | None = None
        self._held: dict[Hashable, Neighbourhood] = {}
        self._features = 0
        self._asked: OrderedDict[Hashable, None] = OrderedDict()
        self._crowded: OrderedDict[Hashable, None] = OrderedDict()

    def get(self, position: Position, grant: Grant, key: Hashable) -> Neighbourhood | None:
        """The one of this key, whose sources are the grant's, if it was read at this position."""
        return self._held.get((grant.sources, key)) if position == self._position else None

    def is_wanted(self, key: Hashable) -> bool:
        """Whether somebody looked within this one before, and it was worth reading."""
        if key in self._asked:
            return key not in self._crowded
        self._asked[key] = None
        if len(self._asked) > MOST_REMEMBERED:
            self._asked.popitem(last=False)
        return False

    def keep(self, position: Position, grant: Grant, key: Hashable, found: Neighbourhood) -> None:
        """Remembers it, and forgets those of any other position."""
        if position != self._position or self._features > MOST_HELD:
            self.forget()
            self._position = position
        self._crowded.pop(key, None)
        self._held[(grant.sources, key)] = found
        self._features += found.count

    def avoid(self, key: Hashable) -> None:
        """Remembers that this one is not worth reading, whatever else happens."""
        self._crowded[key] = None
        if len(self._crowded) > MOST_REMEMBERED:
            self._crowded.popitem(last=False)

    def forget(self) -> None:
        """Forgets all facts."""
        self._position = None
        self._held.clear()
        self._features = 0


def _box(row: Sequence[Any]) -> tuple[int, int, int, int]:
    """West, south, east and north of an index row."""
    return row[10], row[11], row[12], row[13]
