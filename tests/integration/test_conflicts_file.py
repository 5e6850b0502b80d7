"""`planier conflicts FILE`: rules over any GeoJSON, without a system; perimeters that a real authority gave out."""

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import shapely
from pyproj import Transformer
from shapely.geometry import shape
from typer.testing import CliRunner

from services.cli import conflicts  # noqa: F401 -- adds its commands to the app
from services.cli.app import app
from tests.fixtures.outside import PERIMETERS

LAMBERT93 = Transformer.from_crs(4326, 2154, always_xy=True)


def run(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["conflicts", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


@pytest.mark.skipif(not PERIMETERS.is_file(), reason=f"{PERIMETERS.name} is other people's data and is not here")
def test_perimeters_that_overlap_in_space_and_time_are_all_found_and_no_others() -> None:
    mapping, territory = "deploy/mappings/jop2024.yaml", "deploy/territory/paris.json"
    found = run(str(PERIMETERS), "--mapping", mapping, "--territory", territory)
    features = json.loads(PERIMETERS.read_bytes())["features"]
    closed = [f for f in features if f["geometry"] and f["properties"]["TYPE_PERI"] in ("Rouge", "Bleu")]
    shapes = [shapely.make_valid(shapely.transform(shapely.force_2d(shape(f["geometry"])), projected)) for f in closed]
    hours = [
        tuple(datetime.strptime(f["properties"][name], "%Y/%m/%d %H:%M:%S.%f") for name in ("DATE_DEBUT", "DATE_FIN"))  # noqa: DTZ007 -- compared among themselves
        for f in closed
    ]
    left, right = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    expected = [
        (one, other)
        for one, other in zip(left.tolist(), right.tolist(), strict=True)
        if one < other and hours[one][0] < hours[other][1] and hours[other][0] < hours[one][1]
    ]
    assert len(expected) > 100
    assert found["total"] == len(found["conflicts"]) == len(expected)
    assert (found["facts"], found["left_out"]) == (875, 6)
    assert {one["rule_id"] for one in found["conflicts"]} == {"perimeter-perimeter"}
    windows = [one["windows"][0] for one in found["conflicts"]]
    assert all(one["start"] <= two["start"] for one, two in pairwise(windows))


def projected(coordinates: Any) -> Any:
    return shapely.get_coordinates(shapely.points(*LAMBERT93.transform(coordinates[:, 0], coordinates[:, 1])))


def feature(source: str, kind: str, start: str, end: str, *line: tuple[float, float]) -> dict[str, Any]:
    properties = {"source": source, "kind": kind, "start": start, "end": end}
    return {"type": "Feature", "properties": properties, "geometry": {"type": "LineString", "coordinates": line}}


def test_a_file_that_says_itself_what_its_features_are_needs_no_mapping(tmp_path: Path) -> None:
    march = feature(
        "demonstrations",
        "PROTEST_MARCH",
        "2026-06-01T14:00+02:00",
        "2026-06-01T17:00+02:00",
        (5.37, 43.3),
        (5.38, 43.3),
    )
    works = feature("works", "ROADWORKS", "2026-05-01T06:00Z", "2026-06-01T14:00Z", (5.375, 43.299), (5.375, 43.301))
    file = tmp_path / "facts.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [march, works]}))
    (one,) = run(str(file))["conflicts"]
    assert one["rule_id"] == "route-works"
    assert one["windows"] == [{"start": "2026-06-01T12:00:00Z", "end": "2026-06-01T14:00:00Z"}]
    assert run(str(file), "--rule", "route-market")["total"] == 0
    del works["properties"]["kind"]
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [march, works]}))
    refused = CliRunner().invoke(app, ["conflicts", str(file), "--json"])
    assert (refused.exit_code, json.loads(refused.stdout)["error"]["violations"][0]["field"]) == (1, "feature 2")
