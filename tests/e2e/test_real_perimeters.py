"""Perimeters that a real police authority gave out, declared as Cortège would, in a territory set to Paris."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from shapely.geometry import shape

from services.stack.layout import ROOT
from tests.fixtures.outside import PERIMETERS
from tests.fixtures.stack import Stack

MAPPING = "deploy/mappings/jop2024.yaml"
PARIS = ZoneInfo("Europe/Paris")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not PERIMETERS.is_file(), reason=f"{PERIMETERS.name} is other people's data and is not here"),
]


def sound(feature: dict[str, Any]) -> bool:
    return bool(feature["geometry"]) and shape(feature["geometry"]).is_valid


def hours(feature: dict[str, Any]) -> tuple[str, str]:
    """Start and end in UTC, as the map gives them, from the file's local times."""
    both = []
    for name in ("DATE_DEBUT", "DATE_FIN"):
        local = datetime.strptime(feature["properties"][name], "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=PARIS)
        both.append(local.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z"))
    return both[0], both[1]


def test_every_sound_perimeter_is_on_the_map_at_its_hours(tmp_path: Path) -> None:
    features = json.loads(PERIMETERS.read_bytes())["features"]
    stack = Stack(tmp_path / "var", ("--no-demo", "--territory", str(ROOT / "deploy" / "territory" / "paris.json")))
    stack.start()
    try:
        sent = stack.planier("cortege", "send", str(PERIMETERS), "--mapping", MAPPING, "--json")
        expected = {f"JOP2024-{place:04d}": feature for place, feature in enumerate(features, 1)}
        unsound = {number for number, feature in expected.items() if not sound(feature)}
        assert {item["source_id"] for item in sent.content["refusals"]} == unsound
        assert all(item["violations"][0]["field"] == "geometry" for item in sent.content["refusals"])
        assert sent.content["accepted"] == len(features) - len(unsound)

        stack.planier("login", "--as", "duty-officer")
        window = ("--from", "2024-07-01T00:00:00Z", "--to", "2024-10-01T00:00:00Z")
        answer = stack.planier("map", *window, "--limit", "2000", "--json").content
        wanted = Counter(hours(feature) for number, feature in expected.items() if number not in unsound)
        assert Counter((row["from"], row["to"]) for row in answer["features"]) == wanted
    finally:
        stack.stop()
