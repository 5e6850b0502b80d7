"""The one path: declared as Cortège, seen by an authorised person, recorded before the answer, replayed and proved."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e
START = datetime(2031, 5, 1, 14, tzinfo=UTC)


def march(source_id: str, **changes: Any) -> dict[str, Any]:
    """A march along the Canebière, far from the demonstration's month."""
    return {
        "source": "demonstrations",
        "source_id": source_id,
        "revision": 1,
        "kind": "PROTEST_MARCH",
        "status": "FACT_STATUS_DECLARED",
        "geometry": {
            "line": {
                "points": [
                    {"longitude": 5.3741, "latitude": 43.2955},
                    {"longitude": 5.3846, "latitude": 43.2996},
                ]
            }
        },
        "periods": [
            {"start": START.isoformat(), "end": (START + timedelta(hours=2)).isoformat()},
        ],
        "attributes": [{"name": "roadway", "choice": "FULL"}],
        **changes,
    }


def write(path: Path, *facts: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    return str(path)


def look(stack: Stack, *arguments: str) -> Any:
    period = ("--from", START.isoformat(), "--to", (START + timedelta(hours=1)).isoformat())
    outcome = stack.planier("map", *period, "--as", "duty-officer", "--json", *arguments)
    assert outcome.status == 0, outcome.output + outcome.errors
    return outcome.content


def test_declared_seen_recorded_replayed_and_proved(stack: Stack, folder: Path) -> None:
    file = write(folder / "facts.jsonl", march("PATH-1"))
    sent = stack.planier("cortege", "send", file, "--json")
    assert sent.status == 0, sent.output + sent.errors
    assert sent.content["accepted"] == 1
    again = stack.planier("cortege", "send", file, "--json")
    assert again.content == {"duplicate": 1, "refusals": []}

    assert stack.planier("login", "--as", "duty-officer").status == 0
    answer = look(stack, "--source", "demonstrations")
    # Others of this session declare marches too.
    assert {row["title"] for row in answer["features"]} == {"Manifestation revendicative · Vieux-Port → Réformés"}
    receipt = answer["release"]["receipt"]

    assert stack.planier("login", "--as", "auditor").status == 0
    replayed = stack.planier("audit", "replay", "--record", receipt["record_id"], "--as", "auditor", "--json")
    [row] = replayed.content["records"]
    record = row["record"]
    assert row["index"] == int(receipt["index"])
    assert (row["who"], row["method"], row["purpose"]) == ("duty-officer", "QueryMap", "SITUATION")
    assert record["data"]["count"] == str(len(answer["features"]))
    assert "Canebi" not in json.dumps(record)
    verified = stack.planier("audit", "verify", "--as", "auditor", "--json")
    assert verified.status == 0
    assert verified.content["sound"]


def test_one_bad_item_never_spoils_its_neighbours(stack: Stack, folder: Path) -> None:
    file = write(
        folder / "mixed.jsonl",
        march("MIXED-1"),
        march("MIXED-2", title="contact: someone@example.org"),
        march("MIXED-3", kind="PARADE"),
        march("MIXED-4", source="works"),
        march("MIXED-5", geometry={"point": {"longitude": 2.35, "latitude": 48.85}}),
    )
    sent = stack.planier("cortege", "send", file, "--json")
    assert sent.status == 2
    assert sent.content["accepted"] == 1
    reasons = {item["source_id"]: item["reason"].removeprefix("REFUSAL_REASON_") for item in sent.content["refusals"]}
    assert reasons["MIXED-2"] in {"PERSONAL_DATA", "FREE_TEXT_NOT_ALLOWED"}
    assert reasons["MIXED-3"] == "UNKNOWN_KIND"
    assert reasons["MIXED-4"] == "NOT_YOUR_SOURCE"
    assert reasons["MIXED-5"] == "OUTSIDE_TERRITORY"
    assert "example.org" not in sent.output


def test_what_was_known_before_an_amendment_is_still_known(stack: Stack, folder: Path) -> None:
    assert stack.planier("cortege", "send", write(folder / "f.jsonl", march("ASOF-1")), "--json").status == 0
    stack.planier("login", "--as", "duty-officer")
    before = datetime.now(UTC).isoformat()
    cancelled = stack.planier("cortege", "cancel", "demonstrations", "ASOF-1", "--revision", "2", "--json")
    assert cancelled.status == 0, cancelled.output + cancelled.errors
    fact_id = cancelled.content["verdict"]["fact_id"]
    now = {row["fact"]: row["status"] for row in look(stack)["features"]}
    then = {row["fact"]: row["status"] for row in look(stack, "--as-of", before)["features"]}
    assert now[fact_id] == "CANCELLED"
    assert then[fact_id] == "DECLARED"


def test_an_erased_fact_is_nowhere(stack: Stack, folder: Path) -> None:
    assert stack.planier("cortege", "send", write(folder / "f.jsonl", march("ERASED-NUMBER-1")), "--json").status == 0
    stack.planier("login", "--as", "duty-officer")
    state = stack.planier("cortege", "state", "demonstrations", "ERASED-NUMBER-1", "--json").content
    before = datetime.now(UTC).isoformat()
    erased = stack.planier("cortege", "erase", "demonstrations", "ERASED-NUMBER-1", "--reason", "LEGAL_ORDER", "--json")
    assert erased.status == 0, erased.output + erased.errors
    for arguments in ((), ("--as-of", before)):
        assert state["fact_id"] not in {row["fact"] for row in look(stack, *arguments)["features"]}
    again = stack.planier("cortege", "send", write(folder / "f.jsonl", march("ERASED-NUMBER-1")), "--json")
    assert [item["reason"] for item in again.content["refusals"]] == ["REFUSAL_REASON_ERASED"]


def test_revoked_means_refused_at_the_very_next_look(stack: Stack) -> None:
    for person in ("dga", "prefecture-officer"):
        assert stack.planier("login", "--as", person).status == 0
    period = ("--from", START.isoformat(), "--to", (START + timedelta(hours=1)).isoformat())
    assert stack.planier("map", *period, "--as", "prefecture-officer", "--json").status == 0
    listed = stack.planier("clearance", "list", "--as", "dga", "--json").content
    [clearance] = [item for item in listed if item["identity"]["subject"] == "prefecture-officer"]
    with stack.watching("--as", "prefecture-officer") as watch:
        assert watch.stdout is not None
        assert "cursor" in json.loads(watch.stdout.readline())
        assert stack.planier("clearance", "revoke", clearance["clearance_id"], "--as", "dga", "--json").status == 0
        # Re-checked every 500 ms: whatever the watch still told, it ends by itself, and says why.
        ended = watch.stdout.read()
        assert watch.wait(20) == 1
    assert "art6.habilitation" in ended
    refused = stack.planier("map", *period, "--as", "prefecture-officer", "--json")
    assert refused.status == 1
    assert refused.content["error"]["code"] == "PERMISSION_DENIED"
    assert refused.content["error"]["clause"] == "art6.habilitation"
