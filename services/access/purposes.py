"""The closed vocabulary of purposes and its partial order (art6.purpose).

`p` is within `q` where whoever does `q` does `p` too: zones of tension are identified by crossing sources, and crossing
begins with knowing what happens. The purposes on the system are within themselves only, those refused by name within
nothing. The order says what is broader, and widens nothing: a text and a clearance permit the purposes that they name,
not those within them.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import Enum

from planier.common.v1.release_pb2 import (
    PURPOSE_ADMINISTRATION,
    PURPOSE_CROSSING,
    PURPOSE_OVERSIGHT,
    PURPOSE_SITUATION,
    PURPOSE_TENSION,
    PURPOSE_UNSPECIFIED,
    Purpose,
)

# Each purpose with those within it: the whole of the order, written down.
WITHIN: Mapping[Purpose.ValueType, frozenset[Purpose.ValueType]] = {
    PURPOSE_SITUATION: frozenset({PURPOSE_SITUATION}),
    PURPOSE_CROSSING: frozenset({PURPOSE_SITUATION, PURPOSE_CROSSING}),
    PURPOSE_TENSION: frozenset({PURPOSE_SITUATION, PURPOSE_CROSSING, PURPOSE_TENSION}),
    PURPOSE_ADMINISTRATION: frozenset({PURPOSE_ADMINISTRATION}),
    PURPOSE_OVERSIGHT: frozenset({PURPOSE_OVERSIGHT}),
}
# The only purposes that an instrument may permit on facts; those on the system follow from office (policy/).
ON_FACTS = WITHIN[PURPOSE_TENSION]
ON_SYSTEM = WITHIN.keys() - ON_FACTS
REFUSED_BY_NAME = frozenset(Purpose.values()) - WITHIN.keys() - {PURPOSE_UNSPECIFIED}


class Standing(Enum):
    """What a purpose is beside those that a text permits; the words of a violation."""

    PERMITTED = "permitted"
    MISSING = "a purpose is needed"
    UNKNOWN = "is not of the convention's vocabulary"
    REFUSED = "is refused by name"
    BROADER = "is broader than what is permitted"
    OTHER = "is not among what is permitted"


def is_within(purpose: Purpose.ValueType, other: Purpose.ValueType) -> bool:
    """Whether a purpose is the other, or narrower. Of the closed vocabulary only: elsewhere False."""
    return purpose in WITHIN.get(other, ())


def standing(purpose: Purpose.ValueType, permitted: Collection[Purpose.ValueType]) -> Standing:
    """What a purpose is where a text permits some."""
    if purpose == PURPOSE_UNSPECIFIED:
        return Standing.MISSING
    if purpose in REFUSED_BY_NAME:
        return Standing.REFUSED
    if purpose not in WITHIN:
        return Standing.UNKNOWN
    if purpose in permitted:
        return Standing.PERMITTED
    narrower = any(is_within(one, purpose) for one in permitted)
    return Standing.BROADER if narrower and not any(is_within(purpose, one) for one in permitted) else Standing.OTHER


def faults(asked: Collection[Purpose.ValueType], permitted: Collection[Purpose.ValueType]) -> tuple[str, ...]:
    """Why what is asked for is not all permitted, sorted; () where it is."""
    found = {standing(purpose, permitted) for purpose in asked or (PURPOSE_UNSPECIFIED,)}
    return tuple(sorted(one.value for one in found - {Standing.PERMITTED}))


def inherited(permitted: Iterable[Collection[Purpose.ValueType]]) -> frozenset[Purpose.ValueType]:
    """The purposes of what is derived from several sources: those that the text of each permits. Of no source, none.

    Maps, aggregates, zones, conflicts, packages. Under a purpose that only some permit, a look is limited to these.
    """
    texts = [frozenset(one) for one in permitted]
    return frozenset.intersection(*texts) if texts else frozenset()
