"""What is recognised as plain is what every rule admits: the short way and the long one give the same answer."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from planier.common.v1.fact_pb2 import FACT_STATUS_CONFIRMED, Fact

from services.ingest.admission import Admission, Admitted, Authority
from services.ingest.plain import PlainFacts
from services.kernel.registry import Choice
from tests.fixtures.ingest import CITY, MARSEILLE, PREFECTURE, REGISTRY

ADMISSION = Admission(REGISTRY, MARSEILLE)
PLAIN = PlainFacts(REGISTRY, MARSEILLE.bounds)
NOW = int(datetime(2026, 9, 1, 8, tzinfo=UTC).timestamp())
KINDS = sorted((source.name, kind) for source in REGISTRY.sources.values() for kind in source.kinds)
SECONDS = (0, -1, 1, NOW, NOW + 60, 253_086_768_000, 2**62, -(2**62))
DEGREES = (5.37999999, 5.0, 0.0, -181.0, float("nan"), float("inf"))
Value = str | float | None


def _period(fact: Fact, field: str, part: str, value: int) -> None:
    setattr(getattr(fact.periods[0], field), part, value)


def _attribute(fact: Fact, name: str, value: Value) -> None:
    attribute = fact.attributes.add(name=name)
    if isinstance(value, str):
        attribute.choice = value
    elif value is not None:
        attribute.number = value


def _sets(field: str, values: Sequence[object]) -> list[Callable[[Fact], None]]:
    return [lambda fact, value=value: setattr(fact, field, value) for value in values]  # type: ignore[misc]


CHANGES: list[Callable[[Fact], Any]] = [
    *_sets("source", ["works", "demonstrations", "nothing", "Works"]),
    *_sets("kind", ["ROADWORKS", "PROTEST_MARCH", "nothing"]),
    *_sets("source_id", ["a" * 80, "a" * 81, "", "-1", "é", "W 1", "W-1\n"]),
    *_sets("revision", [0, 2, 1_000_000, 1_000_001]),
    *_sets("status", [0, 8, 9, -1]),
    *_sets("instrument_id", ["city-rules", "convention", "Other"]),
    *_sets("title", ["Travaux rue de Rome", "x" * 140, "x" * 141, "06 12 34 56 78", " ", "a\nb", "a\u200bb"]),
    *[lambda fact, v=v: setattr(fact.geometry.point, "longitude", v) for v in DEGREES],
    *[lambda fact, v=v: setattr(fact.geometry.point, "latitude", v) for v in DEGREES],
    *[lambda fact, v=v: _period(fact, "start", "seconds", v) for v in SECONDS],
    *[lambda fact, v=v: _period(fact, "end", "seconds", v) for v in SECONDS],
    *[lambda fact, v=v: _period(fact, "start", "nanos", v) for v in (1, 999_999_999, 10**9, -1)],
    *[lambda fact, v=v: _period(fact, "end", "nanos", v) for v in (1, 10**9, -1)],
    *[
        lambda fact, v=v: fact.attendance.MergeFrom(type(fact.attendance)(minimum=v[0], maximum=v[1]))
        for v in ((1, 2), (2, 1), (0, 2_000_000), (0, 2_000_001))
    ],
    lambda fact: fact.periods[0].ClearField("start"),
    lambda fact: fact.periods[0].ClearField("end"),
    lambda fact: fact.periods.append(fact.periods[0]),
    lambda fact: fact.ClearField("periods"),
    lambda fact: fact.ClearField("geometry"),
    lambda fact: fact.geometry.line.points.add(longitude=5.379, latitude=43.289),
    lambda fact: fact.measures.add(kind=1, reference="A-1"),
    lambda fact: fact.measures.add(kind=1, reference="a"),
    lambda fact: _attribute(fact, "unknown", "A"),
    lambda fact: _attribute(fact, "Not a name", "A"),
    lambda fact: fact.attributes.extend(list(fact.attributes)),
]


@st.composite
def facts(draw: st.DrawFn) -> Fact:
    """A right fact of any kind, then changed in up to two places."""
    source, kind = draw(st.sampled_from(KINDS))
    fact = Fact(source=source, kind=kind, source_id="W-1", revision=1, status=FACT_STATUS_CONFIRMED)
    fact.geometry.point.longitude, fact.geometry.point.latitude = 5.379, 43.289
    period = fact.periods.add()
    period.start.seconds, period.end.seconds = NOW, NOW + 3600
    for name, entry in sorted(REGISTRY.sources[source].kinds[kind].attributes.items()):
        if draw(st.booleans()):
            right = sorted(entry.choices) if isinstance(entry, Choice) else [entry.minimum, entry.maximum]
            wrong = [None, "OTHER", "other", -1e12, float("nan"), float("inf")]
            _attribute(fact, name, draw(st.sampled_from([*right * 6, *wrong])))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=2)):
        if fact.periods:
            change(fact)
    return fact


@settings(max_examples=1_500, deadline=None)
@given(facts(), st.sampled_from([CITY, CITY, PREFECTURE, Authority("CITY", frozenset({"works"}))]))
def test_the_short_way_gives_the_answer_of_the_long_one(fact: Fact, authority: Authority) -> None:
    other = Fact.FromString(fact.SerializeToString())
    event(f"plain: {PLAIN.recognise(other, authority.party, authority.sources) is not None}")
    short, long = ADMISSION.admit(fact, authority), ADMISSION.admit_by_rules(other, authority)
    if isinstance(short, Admitted) and isinstance(long, Admitted):
        assert short[:3] == long[:3]
        assert Fact.FromString(short.said) == Fact.FromString(long.said) == short.fact
    else:
        assert short == long
