"""Reduction of place: never finer than the kind allows, always a valid shape, the same when done again."""

from hypothesis import assume, given
from hypothesis import strategies as st
from planier.common.v1.fact_pb2 import Geometry

from services.ingest.place import flaw, mend, middle, reduce, vertices
from services.kernel.registry import Precision

DEGREES = st.tuples(st.floats(5.30, 5.45), st.floats(43.25, 43.35))
PRECISIONS = st.one_of(
    st.builds(Precision, decimals=st.integers(2, 6)), st.builds(Precision, h3_resolution=st.integers(7, 11))
)


@st.composite
def shapes(draw: st.DrawFn) -> Geometry:
    geometry = Geometry()
    kind = draw(st.sampled_from(["point", "line", "polygon"]))
    scale = draw(st.sampled_from([1.0, 1e-2, 1e-4]))
    west, south = draw(DEGREES)
    offsets = st.tuples(st.floats(0, 0.02), st.floats(0, 0.02))
    points = [(west + x * scale, south + y * scale) for x, y in draw(st.lists(offsets, min_size=3, max_size=8))]
    if kind == "point":
        geometry.point.longitude, geometry.point.latitude = points[0]
    target = (
        geometry.line.points if kind == "line" else geometry.polygon.rings.add().points if kind == "polygon" else None
    )
    if target is not None:
        for longitude, latitude in [*points, points[0]] if kind == "polygon" else points:
            target.add(longitude=longitude, latitude=latitude)
    assume(flaw(geometry) is None)
    return geometry


@given(shapes(), PRECISIONS)
def test_what_is_stored_is_valid_and_no_finer_than_allowed(geometry: Geometry, precision: Precision) -> None:
    reduce(geometry, precision)
    mend(geometry, precision)
    assert flaw(geometry) is None
    if precision.decimals is None:
        assert geometry.WhichOneof("shape") == "point"
        return
    for point in vertices(geometry):
        assert (point.longitude, point.latitude) == (
            round(point.longitude, precision.decimals),
            round(point.latitude, precision.decimals),
        )


@given(shapes(), PRECISIONS)
def test_reducing_twice_changes_nothing(geometry: Geometry, precision: Precision) -> None:
    reduce(geometry, precision)
    once = geometry.SerializeToString()
    reduce(geometry, precision)
    assert geometry.SerializeToString() == once


@given(shapes(), st.integers(7, 11))
def test_a_cell_centre_is_near_what_it_stands_for(geometry: Geometry, resolution: int) -> None:
    longitude, latitude = middle(geometry)
    reduce(geometry, Precision(h3_resolution=resolution))
    # No cell of resolution 7 or finer is 0.03 degrees across.
    assert abs(geometry.point.longitude - longitude) < 0.03
    assert abs(geometry.point.latitude - latitude) < 0.03
