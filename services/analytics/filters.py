"""The tests of one question over slices of columns: which rows match; pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from services.analytics import states
from services.analytics.area import Area
from services.analytics.segments import Dictionary, Ints, Mask


class States(NamedTuple):
    """States asked for, relative to a moment; none: all."""

    wanted: Sequence[int]
    moment_us: int


class Filters:
    """The tests of one question over slices of columns."""

    def __init__(
        self,
        known_kinds: Dictionary,
        area: Area,
        period: tuple[int, int],
        kinds: Sequence[int],
        statuses: Sequence[int],
        wanted: States,
    ) -> None:
        self.area = area
        self.period = period
        self._states = wanted
        self._kinds = np.array([known_kinds.find(kind) for kind in kinds], dtype=np.int64)
        self._statuses = np.array(statuses, dtype=np.int64)

    def mask(self, column: Callable[[str], Ints], *, dead: bool, whole: bool, ends: bool) -> Mask | None:
        """Which rows match; None: all. `whole`: they are within the area; `ends`: some may end before the period."""
        parts: list[Mask] = []
        area = self.area
        if not whole:
            longitude, latitude = column("longitude"), column("latitude")
            inside = (longitude >= area.west) & (longitude <= area.east)
            inside &= (latitude >= area.south) & (latitude <= area.north)
            if not area.is_box:
                inside[inside] = area.meets_points(longitude[inside].tolist(), latitude[inside].tolist())
            parts.append(inside)
        if ends:
            parts.append(column("ends_us") > self.period[0])
        if dead:
            parts.append(column("alive"))
        if len(self._kinds):
            parts.append(np.isin(column("kind"), self._kinds))
        if len(self._statuses):
            parts.append(np.isin(column("status"), self._statuses))
        if self._states.wanted:
            parts.append(states.mask(*self._states, column("starts_us"), column("ends_us"), column("status")))
        if not parts:
            return None
        found = parts[0]
        for part in parts[1:]:
            found = found & part
        return found
