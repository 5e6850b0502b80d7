"""Which accesses concern a fact: those that name it, and those whose area, period, source and kind may have held it."""

from planier.audit.v1.audit_pb2 import (
    RELATION_MAY_HAVE_SHOWN,
    RELATION_NAMED,
    RELATION_UNSPECIFIED,
    FactSought,
    Relation,
)
from planier.audit.v1.record_pb2 import AccessRecord, Area, DataReference

from services.audit.entry import columns_of

_FACTS = "facts"


def relation(record: AccessRecord, fact: FactSought) -> Relation.ValueType:
    """How an access concerns a fact; what it may have shown is an upper bound of what was seen."""
    data = record.data
    if _is_named(data, fact):
        return RELATION_NAMED
    described = fact.HasField("area") and fact.HasField("period_start") and fact.HasField("period_end")
    if not described or record.resource != _FACTS or not columns_of(record).permitted:
        return RELATION_UNSPECIFIED
    return RELATION_MAY_HAVE_SHOWN if _may_hold(data, fact) else RELATION_UNSPECIFIED


def meet(one: Area, other: Area) -> bool:
    """Whether two areas share a point, edges included."""
    return one.west <= other.east and other.west <= one.east and one.south <= other.north and other.south <= one.north


def _is_named(data: DataReference, fact: FactSought) -> bool:
    if fact.fact_id and fact.fact_id in data.references:
        return True
    return bool(fact.source_id) and fact.source_id in data.references and fact.source in data.sources


def _may_hold(data: DataReference, fact: FactSought) -> bool:
    """Whether the look's bounds meet the fact's; a bound that a look does not state excludes nothing."""
    starts, ends = fact.period_start.ToMicroseconds(), fact.period_end.ToMicroseconds()
    return (
        (not fact.source or fact.source in data.sources)
        and (not fact.kind or not data.kinds or fact.kind in data.kinds)
        and (not data.HasField("area") or meet(fact.area, data.area))
        and (not data.HasField("period_start") or data.period_start.ToMicroseconds() < ends)
        and (not data.HasField("period_end") or starts < data.period_end.ToMicroseconds())
        # A look at named things shows those only.
        and not data.references
    )
