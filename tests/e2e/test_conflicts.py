"""From a declaration to a resolved conflict, through the real processes: detection, steps by name, the agenda."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e

START = datetime(2032, 5, 3, 12, tzinfo=UTC)


def fact(source: str, kind: str, number: str, hours: tuple[int, int], *points: tuple[float, float]) -> str:
    start, end = (START + timedelta(hours=hour) for hour in hours)
    return json.dumps(
        {
            "source": source,
            "source_id": number,
            "revision": 1,
            "kind": kind,
            "geometry": {"line": {"points": [{"longitude": x, "latitude": y} for x, y in points]}},
            "periods": [{"start": start.isoformat(), "end": end.isoformat()}],
            "status": "FACT_STATUS_CONFIRMED",
        }
    )


def test_a_march_through_works_is_found_acknowledged_and_resolved(stack: Stack, tmp_path: Path) -> None:
    # West of what the demonstration data uses.
    march = fact("demonstrations", "PROTEST_MARCH", "C2-MARCH", (0, 3), (5.3100, 43.2760), (5.3120, 43.2760))
    works = fact("works", "ROADWORKS", "C2-WORKS", (1, 9), (5.3110, 43.2755), (5.3110, 43.2765))
    for certificate, line in (("cortege", march), ("city-importer", works)):
        file = tmp_path / f"{certificate}.jsonl"
        file.write_text(line + "\n")
        assert (
            stack.planier("cortege", "send", str(file), "--certificate", certificate, "--json").content["accepted"] == 1
        )
    stack.planier("login", "--as", "duty-officer")
    area = "5.309,43.275,5.313,43.277"
    box = ("--area", area, "--rule", "route-works", "--from", START.isoformat())
    # The read model follows within a moment.
    for _ in range(50):
        found = stack.planier("conflicts", *box, "--json").content["conflicts"]
        if found:
            break
        time.sleep(0.2)
    (seen,) = found
    assert seen["state"] == "CONFLICT_STATE_DETECTED"
    assert [one["start"] for one in seen["windows"]] == [(START + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")]

    who = (seen["conflict_id"], "--seen", seen["fingerprint"], "--json")
    assert stack.planier("conflict", "acknowledge", *who).content["state"] == "ACKNOWLEDGED"
    measure = ("--measure", "ROUTE_CHANGE", "--reference", "P-2026/12")
    assert stack.planier("conflict", "resolve", *who, *measure).content["state"] == "RESOLVED"
    (resolved,) = stack.planier("conflicts", *box, "--json").content["conflicts"]
    assert [step["subject"] for step in resolved["steps"]] == ["duty-officer", "duty-officer"]
    assert resolved["steps"][1]["measure"]["reference"] == "P-2026/12"

    agenda = stack.planier("agenda", "--area", area, "--from", "2032-05-01", "--days", "5", "--json").content
    assert {entry["kind"] for entry in agenda["entries"]} == {"PROTEST_MARCH", "ROADWORKS"}
    assert all(entry["conflict_ids"] == [seen["conflict_id"]] for entry in agenda["entries"])
    record: dict[str, Any] = agenda["release"]
    assert record["receipt"]["record_id"]
