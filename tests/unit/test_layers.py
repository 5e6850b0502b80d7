"""Reference layers: what is refused, what is kept, and which version was in use when."""

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.analytics.zones import OUTSIDE, ZoneFinder
from services.kernel.layers import Layer, LayerError, LayerFolder, read_geojson, zones_of
from tests.fixtures.outside import QUARTIERS

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def square(west: float, **properties: Any) -> dict[str, Any]:
    ring = [[west, 43.2], [west + 0.1, 43.2], [west + 0.1, 43.4], [west, 43.4], [west, 43.2]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "properties": {"c": "1", "n": "Belsunce", **properties}, "geometry": geometry}


def collection(*features: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features), **members}


def bow_tie() -> dict[str, Any]:
    feature = square(5.3)
    ring = feature["geometry"]["coordinates"][0]
    ring[1], ring[2] = ring[2], ring[1]
    return feature


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ([], "FeatureCollection"),
        (collection(), "between 1 and"),
        (collection(square(5.3), crs={"properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}), "WGS 84"),
        (collection(square(5.3, c=None)), r"features\[0\]: property c"),
        (collection(square(5.3), square(5.4, n="Noailles")), "two names"),
        (collection(square(5.3, n="x" * 141)), "property n"),
        (collection({**square(5.3), "geometry": None}), "Polygon or MultiPolygon"),
        (collection({**square(5.3), "geometry": {"type": "Point", "coordinates": [5.3, 43.3]}}), "Polygon"),
        (collection(bow_tie()), "cross"),
        (collection(square(892_390.0)), "degrees"),
    ],
)
def test_what_is_no_layer_is_refused_and_told_where(document: Any, where: str) -> None:
    with pytest.raises(LayerError, match=where):
        zones_of(document, "c", "n")


def test_features_of_one_code_are_one_zone() -> None:
    [zone] = zones_of(collection(square(5.3), square(5.4)), "c", "n")
    assert zone.shape.bounds == pytest.approx((5.3, 43.2, 5.5, 43.4))


def test_a_layer_is_found_as_it_was_and_imported_once(tmp_path: Path) -> None:
    folder = LayerFolder(tmp_path)
    first = folder.keep("quartiers", zones_of(collection(square(5.3)), "c", "n"), DAY)
    assert folder.keep("quartiers", first.zones, DAY + timedelta(days=1)).imported_at == DAY
    second = folder.keep("quartiers", zones_of(collection(square(5.4)), "c", "n"), DAY + timedelta(days=2))
    anew = LayerFolder(tmp_path)
    found = [anew.find("quartiers", DAY + timedelta(days=days)) for days in (-1, 0, 1, 2)]
    assert [layer and layer.hash for layer in found] == [None, first.hash, first.hash, second.hash]
    assert anew.names() == ("quartiers",)
    with pytest.raises(LayerError, match="name"):
        folder.keep("../quartiers", first.zones, DAY)


def test_the_same_zones_have_the_same_hash_however_they_were_written(tmp_path: Path) -> None:
    other = copy.deepcopy(square(5.3))
    other["properties"] = dict(reversed(other["properties"].items())) | {"more": 1}
    hashes = {
        LayerFolder(tmp_path / name).keep("q", zones_of(document, "c", "n"), DAY).hash
        for name, document in (("a", collection(square(5.3))), ("b", collection(other, name="x")))
    }
    assert len(hashes) == 1


def test_a_layer_whose_file_was_altered_is_not_used(tmp_path: Path) -> None:
    kept = LayerFolder(tmp_path).keep("quartiers", zones_of(collection(square(5.3)), "c", "n"), DAY)
    file = tmp_path / f"{kept.hash}.geojson"
    file.write_text(file.read_text().replace("Belsunce", "Noailles"))
    with pytest.raises(LayerError, match="not the one"):
        LayerFolder(tmp_path).find("quartiers")


@pytest.mark.skipif(not QUARTIERS.exists(), reason="the file of Marseille's quartiers is not here")
def test_the_quartiers_of_marseille_and_their_arrondissements() -> None:
    document = read_geojson(QUARTIERS)
    quartiers = zones_of(document, "code_qua", "nom")
    arrondissements = zones_of(document, "DEPCO", "NOM_CO")
    assert (len(quartiers), len(arrondissements)) == (111, 16)
    named = {zone.name: zone for zone in quartiers}
    for zones, name in ((quartiers, "Belsunce"), (arrondissements, "Marseille 1er Arrondissemen")):
        finder = ZoneFinder(Layer("x", "", DAY, zones))
        inside = named["Belsunce"].shape.representative_point()
        longitude, latitude = round(inside.x * 1e7), round(inside.y * 1e7)
        [found, outside] = finder.find(*_columns([(longitude, latitude), (24_000_000, 488_000_000)])).tolist()
        assert (zones[found].name, outside) == (name, OUTSIDE)


def _columns(places: list[tuple[int, int]]) -> Any:
    import h3.api.basic_int as h3  # noqa: PLC0415 -- only here
    import numpy as np  # noqa: PLC0415 -- only here

    cells = [h3.latlng_to_cell(latitude / 1e7, longitude / 1e7, 10) for longitude, latitude in places]
    return np.array([[x for x, _ in places], [y for _, y in places], cells])


def test_what_is_not_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "zones.geojson"
    file.write_text(json.dumps(collection(square(5.3)))[:-1])
    with pytest.raises(LayerError, match="not JSON"):
        read_geojson(file)
