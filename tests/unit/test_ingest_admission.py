"""What a declaration must be: one test for each refusal, none of which may echo a value."""

import math

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from planier.common.v1.fact_pb2 import Fact
from planier.ingest.v1.ingest_pb2 import RefusalReason

from services.ingest.admission import Admission, Admitted, Authority
from services.ingest.domain import Refusal
from services.kernel.registry import Registry
from services.kernel.territory import Territory
from tests.fixtures.ingest import CITY, DEPLOY, MARSEILLE, PREFECTURE, REGISTRY, area, march, works

ADMISSION = Admission(REGISTRY, MARSEILLE)


def admit(fact: Fact, authority: Authority = CITY) -> Admitted:
    admitted = ADMISSION.admit(fact, authority)
    assert isinstance(admitted, Admitted), admitted
    return admitted


def refuse(fact: Fact, authority: Authority = CITY) -> tuple[str, str, str, str]:
    """Reason, field, rule and clause."""
    refusal = ADMISSION.admit(fact, authority)
    assert isinstance(refusal, Refusal)
    field, rule, description = refusal.violations[0]
    assert description
    return RefusalReason.Name(refusal.reason).removeprefix("REFUSAL_REASON_"), field, rule, refusal.clause


def test_a_point_is_admitted_with_its_instrument_and_its_title() -> None:
    fact = admit(works()).fact
    assert (fact.title, fact.instrument_id) == ("Travaux rue de Rome", "city-rules")


def test_the_route_of_a_march_gives_its_title() -> None:
    fact = admit(march(), PREFECTURE).fact
    assert fact.title == "Manifestation revendicative · Vieux-Port → Castellane"
    assert fact.instrument_id == "convention"


def test_an_area_without_title_is_named_by_its_middle() -> None:
    fact = admit(area((5.3955, 43.2695), (5.3961, 43.2695), (5.3961, 43.2703), (5.3955, 43.2703))).fact
    assert fact.title == "Festival · Stade Vélodrome"


@pytest.mark.parametrize(
    "detector_text", [("phone", "06 12 34 56 78"), ("email", "a.b@exemple.fr"), ("plate", "AB-123-CD")]
)
def test_personal_data_in_a_title_is_refused_without_being_said_again(detector_text: tuple[str, str]) -> None:
    detector, text = detector_text
    refusal = ADMISSION.admit(works(title=f"Travaux, voir {text}"), CITY)
    assert isinstance(refusal, Refusal)
    assert refusal.violations[0][:2] == ("title", f"personal_data.{detector}")
    assert refusal.clause == "art3.anonymised"
    assert text not in str(refusal)


def test_the_prefecture_gives_no_title() -> None:
    fact = march()
    fact.title = "Marche"
    assert refuse(fact, PREFECTURE) == ("FREE_TEXT_NOT_ALLOWED", "title", "annex.free_text", "art3.anonymised")


def test_a_title_has_at_most_140_characters() -> None:
    assert len(admit(works(title="é" * 140)).fact.title) == 140
    assert refuse(works(title="é" * 141))[:3] == ("INVALID", "title", "string.max_len")


@pytest.mark.parametrize("title", ["deux\nlignes", "cloche\x07", "   "])
def test_a_title_is_one_printable_line(title: str) -> None:
    assert refuse(works(title=title))[:3] == ("INVALID", "title", "title.printable")


def test_a_broken_rule_of_the_contract_names_its_field() -> None:
    fact = works()
    fact.periods[0].end.seconds = fact.periods[0].start.seconds
    assert refuse(fact) == ("INVALID", "periods[0]", "period.order", "")


@pytest.mark.parametrize(("authority", "clause"), [(CITY, "art2.documents"), (PREFECTURE, "art3.nature")])
def test_a_source_that_annex_1_does_not_list(authority: Authority, clause: str) -> None:
    fact = works()
    fact.source = "cameras"
    assert refuse(fact, authority) == ("UNKNOWN_SOURCE", "source", "annex.source", clause)


def test_a_kind_that_annex_1_does_not_list_for_the_prefecture() -> None:
    fact = march()
    fact.kind = "STRIKE"
    assert refuse(fact, PREFECTURE) == ("UNKNOWN_KIND", "kind", "annex.kind", "art3.nature")


def test_a_source_that_no_version_in_force_lists() -> None:
    authority = Authority("PREFECTURE", PREFECTURE.sources - {"demonstrations"})
    assert refuse(march(), authority) == ("UNKNOWN_SOURCE", "source", "instrument.source", "art3.nature")


@pytest.mark.parametrize(("fact", "authority"), [(works(), PREFECTURE), (march(), CITY)])
def test_an_authority_declares_its_own_sources_only(fact: Fact, authority: Authority) -> None:
    assert refuse(fact, authority) == ("NOT_YOUR_SOURCE", "source", "annex.party", "art4.secure_entry")


def test_another_instrument_is_refused() -> None:
    fact = works()
    fact.instrument_id = "convention"
    assert refuse(fact)[:2] == ("WRONG_INSTRUMENT", "instrument_id")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("organiser", "UNION", ("UNKNOWN_ATTRIBUTE", "attributes[2].name", "annex.attribute")),
        ("roadway", "FULL", ("INVALID", "attributes", "attribute.once")),
    ],
)
def test_attributes_come_from_the_dictionary(name: str, value: str, expected: tuple[str, str, str]) -> None:
    fact = works()
    fact.attributes.add(name=name, choice=value)
    assert refuse(fact)[:3] == expected


def test_a_choice_outside_the_list() -> None:
    fact = works()
    fact.attributes[0].choice = "SOMETIMES"
    assert refuse(fact)[:3] == ("UNKNOWN_ATTRIBUTE", "attributes[0].choice", "annex.choice")


@pytest.mark.parametrize("number", [-1, 6.01])
def test_a_number_outside_its_bounds(number: float) -> None:
    fact = works()
    fact.attributes[1].number = number
    assert refuse(fact)[:3] == ("INVALID", "attributes[1].number", "annex.range")


def test_a_number_where_a_choice_is_expected() -> None:
    fact = works()
    fact.attributes[0].number = 1
    assert refuse(fact)[0] == "UNKNOWN_ATTRIBUTE"


def test_a_polygon_that_crosses_itself_is_refused_without_saying_where() -> None:
    refusal = ADMISSION.admit(area((5.38, 43.29), (5.39, 43.30), (5.39, 43.29), (5.38, 43.30)), CITY)
    assert isinstance(refusal, Refusal)
    assert refusal.violations == (("geometry", "geometry.valid", "self-intersection"),)


def test_an_open_ring_is_refused() -> None:
    fact = area((5.38, 43.29), (5.39, 43.29), (5.39, 43.30), (5.38, 43.30))
    fact.geometry.polygon.rings[0].points[-1].longitude = 5.381
    assert refuse(fact)[:3] == ("INVALID_GEOMETRY", "geometry", "geometry.valid")


def test_a_route_that_goes_nowhere_is_refused() -> None:
    fact = march()
    del fact.geometry.line.points[:]
    for _ in range(2):
        fact.geometry.line.points.add(longitude=5.38, latitude=43.29)
    assert refuse(fact, PREFECTURE)[0] == "INVALID_GEOMETRY"


def test_one_point_outside_the_territory_is_enough() -> None:
    fact = march()
    fact.geometry.line.points.add(longitude=2.35, latitude=48.85)
    assert refuse(fact, PREFECTURE)[:3] == ("OUTSIDE_TERRITORY", "geometry", "territory.bounds")


def test_a_place_is_never_stored_better_than_its_kind_allows() -> None:
    for point in admit(march(), PREFECTURE).fact.geometry.line.points:
        assert point.longitude == round(point.longitude, 5)
        assert point.latitude == round(point.latitude, 5)


def _report(longitude: float) -> Fact:
    fact = works(title="", at=longitude)
    fact.source, fact.kind = "residents-reports", "NOISE"
    del fact.attributes[:]
    return fact


def test_neighbours_of_one_cell_cannot_be_told_apart() -> None:
    here, next_door = admit(_report(5.37900)), admit(_report(5.37905))
    assert here.fact.geometry == next_door.fact.geometry
    # The digest is of this body: nobody can search for the place that was declared.
    assert here.body == next_door.body


def test_an_area_of_a_coarse_kind_becomes_a_point() -> None:
    fact = area((5.38, 43.29), (5.39, 43.29), (5.39, 43.30), kind="NOISE", source="residents-reports")
    assert admit(fact).fact.geometry.WhichOneof("shape") == "point"


def test_an_area_smaller_than_its_precision_becomes_a_point() -> None:
    fact = area(
        (5.3800, 43.2900),
        (5.38001, 43.2900),
        (5.38001, 43.29001),
        kind="SECURITY_OPERATION",
        source="scheduled-operations",
    )
    geometry = admit(fact, PREFECTURE).fact.geometry
    assert math.isclose(geometry.point.longitude, 5.38)


def test_what_no_field_names_is_not_stored() -> None:
    smuggled = Fact.FromString(works().SerializeToString() + b"\xa2\x06\x0bjean dupont")
    admitted = admit(smuggled)
    assert b"dupont" not in admitted.fact.SerializeToString() + admitted.body


def test_the_body_of_a_retry_does_not_depend_on_the_gazetteer() -> None:
    elsewhere = Territory.load(DEPLOY / "territory" / "marseille.json")
    renamed = Territory(elsewhere.name, elsewhere.time_zone, elsewhere.epsg, elsewhere.bounds, elsewhere.places[5:])
    one = ADMISSION.admit(march(), PREFECTURE)
    other = Admission(Registry.load(DEPLOY / "annex" / "annex-1.json"), renamed).admit(march(), PREFECTURE)
    assert isinstance(one, Admitted)
    assert isinstance(other, Admitted)
    assert one.fact.title != other.fact.title
    assert one.body == other.body


def test_an_area_that_its_precision_pinches_keeps_its_parts() -> None:
    west, east = ((5.370, 43.290), (5.372, 43.290), (5.372, 43.2909999)), ((5.374, 43.290), (5.376, 43.290))
    back = ((5.376, 43.292), (5.374, 43.292), (5.374, 43.291001), (5.372, 43.291001), (5.372, 43.292), (5.370, 43.292))
    fact = area(*west, (5.374, 43.2909999), *east, *back, kind="OFFICIAL_VISIT", source="official-visits")
    geometry = admit(fact, PREFECTURE).fact.geometry
    assert [len(polygon.rings) for polygon in geometry.multi_polygon.polygons] == [1, 1]


@pytest.mark.parametrize(
    ("start", "end", "rule"),
    [
        (Timestamp(seconds=2**62), Timestamp(seconds=2**62 + 1), "timestamp.instant"),
        (Timestamp(seconds=-(2**62)), Timestamp(seconds=1), "timestamp.instant"),
        (Timestamp(seconds=1, nanos=-1), Timestamp(seconds=2), "timestamp.instant"),
        (Timestamp(seconds=1), Timestamp(seconds=2, nanos=2_000_000_000), "timestamp.instant"),
        (Timestamp(seconds=1, nanos=100), Timestamp(seconds=1, nanos=200), "period.order"),
    ],
)
def test_a_time_that_no_engine_can_hold_never_enters(start: Timestamp, end: Timestamp, rule: str) -> None:
    """Its event could be neither projected nor skipped: every reader would stop there for ever."""
    fact = works()
    del fact.periods[:]
    fact.periods.add(start=start, end=end)
    assert refuse(fact) == ("INVALID", "periods[0]", rule, "")
