"""Answers to map questions asked again while nothing changed: many screens show the same viewport.

An answer is a pure function of the question, the permitted sources, where the read model stands, and, in what it says
of silent sources, the time. All four are its key: nothing older than the read model is ever given, and what was given
to one person is given to another only where both may see the same. Each look is checked and recorded all the same.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from planier.analytics.v1.analytics_pb2 import QueryMapResponse

from services.analytics.area import Area
from services.analytics.queries import MapQuery
from services.kernel.store.base import Position

MOST_BYTES: Final = 32 * 2**20
# What an answer takes beside its bytes, as a message.
OVERHEAD_BYTES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, which nobody changes any more, and the first and last instant of which it is true."""

    response: QueryMapResponse
    since_us: int
    until_us: int


class Answers:
    """The answers given at the read model's present position; of one event loop."""

    def __init__(self) -> None:
        self._position: Position | None = None
        self._kept: dict[Hashable, Kept] = {}
        self._bytes = 0

    def get(self, position: Position, key: Hashable, now_us: int) -> Kept | None:
        """The answer to this question at this position and instant, if it was given before."""
        if position != self._position:
            return None
        kept = self._kept.get(key)
        return kept if kept is not None and kept.since_us <= now_us <= kept.until_us else None

    def keep(self, position: Position, key: Hashable, kept: Kept) -> None:
        """Remembers the answer, and forgets those of any other position."""
        if position != self._position or self._bytes > MOST_BYTES:
            self.forget()
            self._position = position
        self._kept[key] = kept
        self._bytes += kept.response.ByteSize() + OVERHEAD_BYTES

    def forget(self) -> None:
        """Forgets all: the read model moved, and what was erased must not stay in memory."""
        self._position = None
        self._kept.clear()
        self._bytes = 0


def key_of(
    query: MapQuery, sources: tuple[str, ...], within: Area | None = None, limit: int | None = None
) -> Hashable | None:
    """What the answer depends on beside position and time; None where it is not kept: polygons, and states.

    Of the question itself, or of the same one about the area `within` up to `limit` features.
    """
    area, limit = within or query.area, query.limit if limit is None else limit
    if not area.is_box or query.states:
        return None
    return (
        (area.west, area.south, area.east, area.north, query.starts_us, query.ends_us),
        sources,
        query.kinds,
        query.statuses,
        (query.as_of_us, query.changed_since_us, limit, query.cell_budget, query.nothing),
    )
