"""The territory served: its bounds, time zone, metric projection, and the well-known places that name a spot.

Everything that binds the platform to one city is in one file (deploy/territory/*.json): another city is another file.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

_GRID: Final = 48  # cells a side: about 600 m, so that a look-up compares two or three places
_MOST_KNOWN: Final = 50_000  # 10 MiB


class TerritoryError(ValueError):
    """The file does not describe a territory; the message says where."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A rectangle in WGS 84 degrees, both ends included."""

    west: float
    south: float
    east: float
    north: float

    def holds(self, longitude: float, latitude: float) -> bool:
        """Whether the point is inside."""
        return self.west <= longitude <= self.east and self.south <= latitude <= self.north


_WORLD: Final = Bounds(-180, -89, 180, 89)


@dataclass(frozen=True, slots=True)
class Place:
    """A place that the public knows by name."""

    name: str
    longitude: float
    latitude: float


@dataclass(frozen=True, slots=True)
class Territory:
    """One city as configuration: IANA time zone, EPSG code of its metric projection, bounds, gazetteer."""

    name: str
    time_zone: str
    epsg: int
    bounds: Bounds
    places: tuple[Place, ...]
    # Places that can be nearest somewhere in a cell, filled on demand: at most _GRID ** 2 entries.
    _near: dict[tuple[int, int], tuple[Place, ...]] = field(default_factory=dict, repr=False, compare=False)
    # The answers given: reduced coordinates repeat, a city has some 16,000 cells of resolution 10.
    _known: dict[tuple[float, float], Place] = field(default_factory=dict, repr=False, compare=False)
    # What a degree of longitude is to one of latitude at the territory's middle.
    _shrink: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        middle = math.radians((self.bounds.south + self.bounds.north) / 2)
        object.__setattr__(self, "_shrink", math.cos(middle))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The territory in a file; TerritoryError where it is not one."""
        try:
            document = json.loads(path.read_bytes())
            bounds = Bounds(**{side: float(value) for side, value in document["bounds"].items()})
            places = tuple(_place(item) for item in document["places"])
            territory = cls(document["name"], document["time_zone"], int(document["epsg"]), bounds, places)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"{path.name}: not a territory ({type(error).__name__}: {error})"
            raise TerritoryError(msg) from None
        territory.validate()
        return territory

    def validate(self) -> None:
        """TerritoryError where bounds, time zone or places make no sense."""
        bounds = self.bounds
        if not (_WORLD.holds(bounds.west, bounds.south) and _WORLD.holds(bounds.east, bounds.north)) or not (
            bounds.west < bounds.east and bounds.south < bounds.north
        ):
            msg = f"{self.name}: bounds are not a rectangle"
            raise TerritoryError(msg)
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            msg = f"{self.name}: unknown time zone"
            raise TerritoryError(msg) from None
        if not self.places or len({place.name for place in self.places}) != len(self.places):
            msg = f"{self.name}: places must exist, each under its own name"
            raise TerritoryError(msg)
        outside = [place.name for place in self.places if not bounds.holds(place.longitude, place.latitude)]
        if outside:
            msg = f"{self.name}: outside the bounds: {', '.join(outside)}"
            raise TerritoryError(msg)

    def nearest(self, longitude: float, latitude: float) -> Place:
        """The well-known place nearest to a point, exact on the local plane; 0.2 µs for a point asked before."""
        point = (longitude, latitude)
        place = self._known.get(point)
        if place is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            place = self._known[point] = self._nearest(longitude, latitude)
        return place

    def _nearest(self, longitude: float, latitude: float) -> Place:
        bounds = self.bounds
        column = int((longitude - bounds.west) / (bounds.east - bounds.west) * _GRID)
        row = int((latitude - bounds.south) / (bounds.north - bounds.south) * _GRID)
        cell = (min(max(column, 0), _GRID - 1), min(max(row, 0), _GRID - 1))
        candidates = self._near.get(cell)
        if candidates is None:
            candidates = self._near[cell] = self._candidates(cell)
        if len(candidates) == 1 and bounds.holds(longitude, latitude):
            return candidates[0]
        if not bounds.holds(longitude, latitude):
            candidates = self.places
        return min(candidates, key=lambda place: self._squared(place, longitude, latitude))

    def _squared(self, place: Place, longitude: float, latitude: float) -> float:
        # Equirectangular at the territory's middle: within a city it orders distances as the geodesic does.
        return ((place.longitude - longitude) * self._shrink) ** 2 + (place.latitude - latitude) ** 2

    def _candidates(self, cell: tuple[int, int]) -> tuple[Place, ...]:
        """Places no farther, at best, from the cell than the best place is at worst."""
        bounds = self.bounds
        width, height = (bounds.east - bounds.west) / _GRID, (bounds.north - bounds.south) / _GRID
        west, south = bounds.west + cell[0] * width, bounds.south + cell[1] * height
        middle = (west + width / 2, south + height / 2)
        radius = math.sqrt(self._squared(Place("", west, south), *middle)) * (1 + 1e-9)
        distances = [(math.sqrt(self._squared(place, *middle)), place) for place in self.places]
        reach = min(distance for distance, _ in distances) + 2 * radius
        return tuple(place for distance, place in distances if distance <= reach)


def _place(item: dict[str, Any]) -> Place:
    return Place(str(item["name"]), float(item["longitude"]), float(item["latitude"]))
