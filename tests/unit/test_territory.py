"""The territory as configuration, and the place that names a spot."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.territory import Territory, TerritoryError

FOLDER = Path(__file__).parents[2] / "deploy" / "territory"
MARSEILLE = Territory.load(FOLDER / "marseille.json")


@pytest.mark.parametrize("name", ["marseille", "paris"])
def test_the_files_load(name: str) -> None:
    territory = Territory.load(FOLDER / f"{name}.json")
    assert (territory.name, territory.time_zone, territory.epsg) == (name.capitalize(), "Europe/Paris", 2154)
    assert len([place for place in territory.places if place.name.endswith("arrondissement")]) in {16, 20}


@given(st.floats(5.0, 5.8), st.floats(43.0, 43.6))
def test_nearest_is_what_a_full_comparison_gives(longitude: float, latitude: float) -> None:
    shrink = math.cos(math.radians((MARSEILLE.bounds.south + MARSEILLE.bounds.north) / 2))
    distances = [math.hypot((p.longitude - longitude) * shrink, p.latitude - latitude) for p in MARSEILLE.places]
    found = MARSEILLE.nearest(longitude, latitude)
    assert distances[MARSEILLE.places.index(found)] == pytest.approx(min(distances), abs=1e-12)


def test_the_stadium_is_near_the_stadium() -> None:
    assert MARSEILLE.nearest(5.396, 43.270).name == "Stade Vélodrome"


@pytest.mark.parametrize(
    "change",
    [
        {"bounds": {"west": 6, "south": 43, "east": 5, "north": 44}},
        {"bounds": {"west": 5}},
        {"time_zone": "Europe/Massilia"},
        {"places": []},
        {"places": [{"name": "Paris", "longitude": 2.35, "latitude": 48.85}]},
        {"epsg": "Lambert"},
    ],
)
def test_nonsense_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    document = json.loads((FOLDER / "marseille.json").read_bytes()) | change
    path = tmp_path / "territory.json"
    path.write_text(json.dumps(document))
    with pytest.raises(TerritoryError):
        Territory.load(path)
