"""Counts too small to be shown, left out so that neither they nor their differences can be read; pure.

Annex 1 gives each kind the smallest count that an aggregate may show. A kind's part of a place (a cell, a zone) below
it is left out; where all that is left out of the kind would itself stay below it, the next smallest parts go too
(complementary suppression); a kind that lies below its minimum as a whole is not counted at all, only named.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

Place = TypeVar("Place", bound=Hashable)
# Codes of a source and of one of its kinds.
KindCode = tuple[int, int]
Minimums = Mapping[KindCode, int]

NONE: Minimums = {}


class Counted(NamedTuple):
    """Counts of different cells, of one kind of a source, or of all that are not apart (0, 0)."""

    source: int
    kind: int
    cells: Sequence[int]
    counts: Sequence[int]


@dataclass(frozen=True, slots=True)
class Counts(Generic[Place]):
    """What may be shown: counts by place, how many facts no count shows, codes of the kinds too rare as a whole."""

    shown: Counter[Place]
    withheld: int = 0
    rare: tuple[KindCode, ...] = ()

    @property
    def total(self) -> int:
        """Every fact but those of the rare kinds."""
        return self.shown.total() + self.withheld


@dataclass(slots=True)
class Tally(Generic[Place]):
    """Counts by place; of kinds with a minimum apart, by kind."""

    minimums: Minimums
    free: Counter[Place] = field(default_factory=Counter)
    guarded: dict[KindCode, Counter[Place]] = field(default_factory=dict)

    def add(self, place: Place, kind: KindCode, count: int = 1) -> None:
        """Counts facts of one kind at one place."""
        if kind in self.minimums:
            self.guarded.setdefault(kind, Counter())[place] += count
        else:
            self.free[place] += count

    def add_all(self, kind: KindCode, places: Sequence[Place], counts: Sequence[int]) -> None:
        """Counts facts of one kind at many places."""
        known = self.guarded.setdefault(kind, Counter()) if kind in self.minimums else self.free
        # Into an empty counter at the speed of a dictionary: by far the usual case.
        known.update(dict(zip(places, counts, strict=True)))

    def at(self, places: Mapping[Place, Any]) -> "Tally[Any]":
        """The same facts counted at other places, such as a cell's ancestor."""
        moved: Tally[Any] = Tally(self.minimums)
        for place, count in self.free.items():
            moved.free[places[place]] += count
        for kind, counts in self.guarded.items():
            coarser = moved.guarded[kind] = Counter()
            for place, count in counts.items():
                coarser[places[place]] += count
        return moved

    def places(self) -> set[Place]:
        """Every place that counts something."""
        return set(self.free).union(*self.guarded.values())

    def shown(self) -> Counts[Place]:
        """What may be shown of it."""
        shown, withheld, rare = Counter(self.free), 0, []
        for kind in sorted(self.guarded):
            kept, left_out = _suppress(self.guarded[kind], self.minimums[kind])
            if kept is None:
                rare.append(kind)
                continue
            shown.update(kept)
            withheld += left_out
        return Counts(shown, withheld, tuple(rare))


def _suppress(counts: Counter[Place], minimum: int) -> tuple[Counter[Place] | None, int]:
    """The parts of one kind that may be shown, and the sum of the others; None: it is too rare as a whole."""
    if counts.total() < minimum:
        return None, 0
    kept, left_out = Counter[Place](), 0
    # Ties by place: the same answer whatever the order of reading.
    for place, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        if count < minimum or 0 < left_out < minimum:
            left_out += count
        else:
            kept[place] = count
    return kept, left_out
