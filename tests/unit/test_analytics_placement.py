"""Where facts are put, and what buckets promise of them."""

import h3.api.basic_int as h3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planier.common.v1 import fact_pb2

from services.analytics.placement import (
    CELL_RESOLUTION,
    E7,
    area_of,
    box_of_area,
    bucket_of,
    parent,
    place,
    westernmost,
)
from services.analytics.queries import roll_up
from services.analytics.suppression import Tally
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US

anywhere = st.tuples(st.floats(-179.9, 179.9), st.floats(-89.9, 89.9))


@given(anywhere, st.floats(0, 40), st.floats(0, 40), st.integers(1, 10**15))
def test_a_bucket_holds_the_box_and_the_duration_of_its_facts(
    corner: tuple[float, float], width: float, height: float, span_us: int
) -> None:
    east, north = min(corner[0] + width, 180), min(corner[1] + height, 90)
    geometry = built.line(corner, (east, north)) if (east, north) != corner else built.point(*corner)
    where = place(built.fact(geometry=geometry, periods=[(NEW_YEAR_US, NEW_YEAR_US + span_us)]))
    promised = bucket_of(where.bucket)
    assert promised.west <= where.west <= where.longitude <= where.east <= promised.east
    assert promised.south <= where.south <= where.latitude <= where.north <= promised.north
    assert span_us <= promised.span_us


@given(anywhere, st.integers(0, E7), st.integers(0, E7))
def test_no_bucket_of_an_area_begins_west_of_where_the_index_is_asked_from(
    point: tuple[float, float], width: int, height: int
) -> None:
    bucket = bucket_of(place(built.fact(geometry=built.point(*point))).bucket)
    # Areas that touch the bucket's box at its corners, and whole worlds.
    for west, south in ((bucket.east, bucket.north), (bucket.west - width, bucket.south - height)):
        east, north = min(west + width, 180 * E7), min(south + height, 90 * E7)
        assert westernmost(west, south, east, north) <= bucket.west


@given(anywhere)
def test_an_area_of_arrivals_holds_the_facts_of_its_buckets(point: tuple[float, float]) -> None:
    where = place(built.fact(geometry=built.point(*point)))
    area = area_of(where.bucket)
    assert area is not None
    west, south, east, north = box_of_area(area)
    assert west <= where.longitude <= east
    assert south <= where.latitude <= north


@given(anywhere, st.integers(0, CELL_RESOLUTION))
def test_parents_are_those_of_h3(point: tuple[float, float], resolution: int) -> None:
    cell = h3.latlng_to_cell(point[1], point[0], CELL_RESOLUTION)
    assert parent(cell, resolution) == h3.cell_to_parent(cell, resolution)


@pytest.mark.parametrize(
    ("geometry", "periods", "plain"),
    [
        (built.point(5.37, 43.3), 1, 1),
        (built.point(5.37, 43.3), 2, 0),
        (built.line((5.37, 43.3), (5.38, 43.31)), 1, 0),
    ],
)
def test_only_a_point_with_one_period_is_plain(geometry: fact_pb2.Geometry, periods: int, plain: int) -> None:
    when = [(NEW_YEAR_US + day * 24 * HOUR_US, NEW_YEAR_US + (day * 24 + 1) * HOUR_US) for day in range(periods)]
    assert bucket_of(place(built.fact(geometry=geometry, periods=when)).bucket).plain == plain


def test_a_shape_that_crosses_itself_is_still_placed_within_its_box() -> None:
    bow_tie = built.polygon((5.3, 43.2), (5.4, 43.3), (5.4, 43.2), (5.3, 43.3))
    where = place(built.fact(geometry=fact_pb2.Geometry(polygon=bow_tie)))
    assert (where.west, where.east) == (round(5.3 * E7), round(5.4 * E7))
    assert where.west <= where.longitude <= where.east


def test_cells_are_rolled_up_to_the_finest_resolution_that_fits() -> None:
    fine = [h3.latlng_to_cell(43.3, 5.30 + step / 1000, CELL_RESOLUTION) for step in range(100)]
    tally: Tally[int] = Tally({(1, 2): 1})
    for cell in fine:
        tally.add(cell, (1, cell % 3))
    size = len(set(fine))
    for budget in (size, size - 1, 7, 1):
        resolution, rolled = roll_up(tally, budget)
        assert rolled.shown().total == 100
        assert len(rolled.places()) <= budget
        finer = {parent(cell, resolution + 1) for cell in fine} if resolution < CELL_RESOLUTION else set()
        assert not finer or len(finer) > budget
