"""Zones of tension over the demonstration's past, as an officer asks for them."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e


def test_an_officer_asks_where_tension_lies_and_the_look_is_recorded_under_that_purpose(stack: Stack) -> None:
    assert stack.planier("login", "--as", "duty-officer").status == 0
    asked = ("tension", "--from", "1998-01-01", "--resolution", "7", "--as", "duty-officer", "--method")
    outcome = stack.planier(*asked, "--json")
    assert outcome.status == 0, outcome.output + outcome.errors
    answer = outcome.content
    assert answer["method"]["support"] == "h3-7"
    assert int(answer["method"]["steps"]) > 300
    assert int(answer["total"]) > 300
    assert answer["method"]["annex_hash"]
    assert any("n'entrent jamais" in caution for caution in answer["cautions"])
    assert {count["source"] for count in answer["counts"]} <= {
        "residents-reports",
        "municipal-police-reports",
        "offences",
        "infractions",
    }
    for zone in answer["zones"]:
        assert zone["q"] <= 0.05
        assert zone["reason"].startswith("Faits anormalement")
    assert answer["zones"]
    assert stack.planier("login", "--as", "auditor").status == 0
    record_id = answer["release"]["receipt"]["record_id"]
    replayed = stack.planier("audit", "replay", "--record", record_id, "--as", "auditor", "--json")
    (row,) = replayed.content["records"]
    assert (row["who"], row["method"], row["purpose"]) == ("duty-officer", "QueryTension", "TENSION")
    assert "demonstrations" not in row["record"]["data"]["sources"]

    told = stack.planier(*asked)
    assert told.status == 0, told.output + told.errors
    assert "Ces chiffres montrent où des faits sont enregistrés" in told.output
    assert "Gi*" in told.output


def test_a_reference_layer_is_named_and_the_answer_says_in_which_version(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "bands.geojson"
    edges = [5.2 + 0.05 * number for number in range(9)]
    bands = [
        {
            "type": "Feature",
            "properties": {"code": f"B{number}", "nom": f"Bande {number}"},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[west, 43.1], [east, 43.1], [east, 43.5], [west, 43.5], [west, 43.1]]],
            },
        }
        for number, (west, east) in enumerate(pairwise(edges))
    ]
    file.write_text(json.dumps({"type": "FeatureCollection", "features": bands}))
    kept = stack.planier("layer", "import", str(file), "--name", "bandes", "--code", "code", "--label", "nom", "--json")
    assert kept.status == 0, kept.output + kept.errors
    assert stack.planier("login", "--as", "duty-officer").status == 0
    asked = ("tension", "--layer", "bandes", "--by-layer", "--from", "1998-01-01", "--method", "--as", "duty-officer")
    outcome = stack.planier(*asked, "--json")
    assert outcome.status == 0, outcome.output + outcome.errors
    answer = outcome.content
    assert (answer["layer"]["name"], answer["layer"]["hash"]) == ("bandes", kept.content["hash"])
    assert answer["method"]["support"] == "polygons"
    assert {zone["name"] for zone in answer["zones"]} <= {f"Bande {number}" for number in range(8)}
    unknown = stack.planier("tension", "--layer", "inconnue", "--as", "duty-officer", "--json")
    assert unknown.status != 0
    assert "LAYER_UNKNOWN" in unknown.output + unknown.errors


def test_a_quiet_place_has_an_answer_too(stack: Stack) -> None:
    assert stack.planier("login", "--as", "duty-officer").status == 0
    outcome = stack.planier("tension", "--area", "5.52,43.17,5.53,43.18", "--as", "duty-officer")
    assert outcome.status == 0, outcome.output + outcome.errors
    assert "Aucune zone significative" in outcome.output
