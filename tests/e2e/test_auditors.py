"""What auditors, officers and persons do with the log, as they would type it, on a running installation."""

import csv
import io
import json
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.stack.layout import ROOT
from tests.e2e.test_path import march, write
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e
START = datetime(2031, 5, 1, 14, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def looked(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A demonstration, seen by one person of each party, and everybody signed in."""
    file = write(tmp_path_factory.mktemp("facts") / "facts.jsonl", march("AUDITED-1"))
    assert stack.planier("cortege", "send", file, "--json").status == 0
    for person in ("auditor", "dpo", "prefecture-dpo", "prefecture-officer", "duty-officer"):
        assert stack.planier("login", "--as", person).status == 0
    for person in ("duty-officer", "prefecture-officer"):
        end = START + timedelta(hours=1)
        period = ("--from", START.isoformat(), "--to", end.isoformat())
        seen = stack.planier("map", *period, "--as", person, "--json", "--motive", "veille du premier mai")
        assert seen.status == 0, seen.output + seen.errors


def audit(stack: Stack, *arguments: str, person: str = "auditor") -> Any:
    outcome = stack.planier("audit", *arguments, "--as", person, "--json")
    assert outcome.status == 0, outcome.output + outcome.errors
    return outcome.content


def test_replay_in_each_form_and_at_any_speed(stack: Stack) -> None:
    looks = ("replay", "--rpc", "/planier.analytics.v1.AnalyticsService/QueryMap", "--purpose", "SITUATION")
    records = audit(stack, *looks, "--organisation", "Centre de supervision urbain")["records"]
    assert {row["who"] for row in records} == {"duty-officer"}
    lines = stack.planier("audit", *looks, "--format", "jsonl", "--as", "auditor").output.splitlines()
    assert [json.loads(line)["index"] for line in lines][-2:] >= [records[-1]["index"]]
    table = stack.planier("audit", *looks, "--format", "csv", "--as", "auditor").output
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["index"] for row in rows] == [str(json.loads(line)["index"]) for line in lines]
    assert {row["operation"] for row in rows} == {"CONSULT"}
    began = time.monotonic()
    paced = stack.planier(
        "audit", *looks, "--format", "jsonl", "--speed", "0.001", "--longest-pause", "0.5", "--as", "auditor"
    )
    assert paced.output.splitlines() == lines
    assert time.monotonic() - began > 0.5 * (len(lines) - 1)


def test_the_other_partys_people_are_pseudonyms_and_names_come_from_access(stack: Stack) -> None:
    everything = audit(stack, "replay", "--names", "--format", "jsonl")["records"]
    assert "Andréa Malmousque" in {row["who"] for row in everything if "who" in row}
    text = json.dumps(everything, ensure_ascii=False)
    assert "prefecture-officer" not in text
    assert any(row["masked"] and row["who"].startswith("PREFECTURE-") for row in everything if "who" in row)
    own = audit(stack, "replay", "--format", "jsonl", person="prefecture-dpo")["records"]
    assert "prefecture-officer" in {row["who"] for row in own if "who" in row}
    assert "duty-officer" not in json.dumps(own)


def test_who_saw_this_demonstration(stack: Stack) -> None:
    arguments = (
        "timeline",
        "--source",
        "demonstrations",
        "--source-id",
        "AUDITED-1",
        "--area",
        "5.374,43.295,5.385,43.3",
    )
    period = ("--from", START.isoformat(), "--to", (START + timedelta(hours=2)).isoformat())
    found = audit(stack, *arguments, *period)["accesses"]
    relations = {(row["method"], row["relation"]) for row in found}
    assert ("QueryMap", "MAY_HAVE_SHOWN") in relations
    assert ("DeclareFacts", "NAMED") in relations or ("StreamFacts", "NAMED") in relations
    assert {row["record"]["motive"] for row in found if row["method"] == "QueryMap"} == {"veille du premier mai"}
    assert stack.planier("audit", "timeline", "--person", "duty-officer", "--as", "auditor").status == 0


def test_persons_see_their_own(stack: Stack) -> None:
    records = audit(stack, "mine", person="duty-officer")["records"]
    assert {row["who"] for row in records} == {"duty-officer"}


def test_what_was_served_is_proved_and_a_forged_receipt_is_named(stack: Stack, folder: Path) -> None:
    proved = stack.planier("audit", "prove-served", "--json")
    assert proved.status == 0, proved.output
    assert proved.content["proved"] > 5
    kept = (stack.home / "client" / "receipts.jsonl").read_text().splitlines()
    forged = {**json.loads(kept[0]), "index": "99999"}
    path = folder / "receipts.jsonl"
    path.write_text("\n".join([json.dumps(forged), kept[1], "{"]))
    refused = stack.planier("audit", "prove-served", "--receipts", str(path), "--json")
    assert refused.status == 1
    assert [fault["fault"] for fault in refused.content["faults"]] == ["RECEIPT_INVALID", "RECEIPT_MALFORMED"]


def test_a_log_that_does_not_extend_what_was_seen_is_refused(stack: Stack, folder: Path) -> None:
    assert stack.planier("audit", "verify", "--as", "auditor", "--json").status == 0
    remembered = stack.home / "client" / "checkpoint.txt"
    since = stack.planier("audit", "verify", "--since", str(remembered), "--json")
    assert since.content["sound"]
    path = folder / "checkpoint.txt"
    path.write_text(remembered.read_text().replace("planier.local", "planier.other", 1))
    assert (
        stack.planier("audit", "verify", "--since", str(path), "--json").content["error"]["reason"]
        == "CHECKPOINT_INVALID"
    )


def test_staff_are_not_evaluated_with_the_log(stack: Stack) -> None:
    # The commands themselves offer no other purpose than oversight; a client of one's own is refused alike.
    assert "--purpose" in stack.planier("audit", "replay", "--help").output
    assert (
        stack.planier("audit", "replay", "--as", "duty-officer", "--json").content["error"]["clause"] == "house.office"
    )


def test_officers_decide_and_it_shows(stack: Stack) -> None:
    masked = [row for row in audit(stack, "replay", "--party", "PREFECTURE")["records"] if row["masked"]]
    pseudonym = masked[0]["who"]
    decision = (
        "--reference",
        "PV-7",
        "--because",
        "anomalie à expliquer",
        "--pseudonym",
        pseudonym,
        "--for",
        "auditor",
    )
    assert stack.planier("audit", "unmask", *decision, "--as", "dpo", "--json").status == 1
    audit(stack, "unmask", *decision, person="prefecture-dpo")
    shown = audit(stack, "replay", "--record", masked[0]["record"]["record_id"])["records"]
    assert not shown[0]["masked"]
    proposal = audit(stack, "retention", "--months", "24", "--because", "contentieux en cours", person="dpo")
    approve = ("retention", "--approve", proposal["proposal"]["proposal_id"], "--because", "même contentieux")
    audit(stack, *approve, person="prefecture-dpo")
    audit(stack, "hold", "--reference", "REQ-1", "--from", "2026-01-01", "--to", "2026-02-01", person="dpo")
    audit(stack, "requisition", "--reference", "TJ-9", "--to-whom", "Tribunal judiciaire", "--count", "2", person="dpo")
    found = audit(stack, "governance")
    assert found["retention_months"] == 24
    [disclosed] = audit(stack, "replay", "--operation", "DISCLOSE")["records"]
    assert disclosed["record"]["disclosure"]["legal_basis"] == "LEGAL_BASIS_LEGAL_OBLIGATION"
    assert stack.planier("audit", "holes", "--json").status == 0


def witnessed(stack: Stack) -> list[str]:
    """The three public keys, once both witnesses have cosigned what is in the log now."""
    size = stack.planier("audit", "checkpoint", "--json").content["tree_size"]
    for _ in range(100):
        found = stack.planier("audit", "checkpoint", "--json").content
        note = found.get("witnessed_checkpoint", "")
        if note and int(note.split("\n")[1]) >= int(size):
            witnesses = [f"--witness-key={item['verifier_key']}" for item in found["witnesses"]]
            return [f"--log-key={found['verifier_key']}", *witnesses]
        time.sleep(0.1)
    raise AssertionError("no witnessed checkpoint")


def test_a_whole_export_is_verified_by_a_third_party(stack: Stack, folder: Path) -> None:
    keys = witnessed(stack)
    exported = audit(stack, "export", str(folder / "log"))
    assert exported["records"] == exported["tree_size"] > 20
    assert exported["masked"] > 0
    assert 0 < exported["access_events_withheld"] < exported["access_events"]
    command = [sys.executable, "-I", str(ROOT / "tools" / "verify_access_log.py"), "copy", "log", *keys]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["records"] == exported["records"] - exported["masked"] - exported["erased"]
    text = (folder / "log" / "records.jsonl").read_text() + (folder / "log" / "access-events.jsonl").read_text()
    fields = ("record", "shown", "payload")
    lines = [json.loads(line) for line in text.splitlines()]
    contents = [b64decode(line[name]) for line in lines for name in fields if line.get(name)]
    assert not any(b"prefecture-officer" in content or b"Catalans" in content for content in contents)
    # The decisions' state of access is among the events: what they rested on can be recomputed from this folder.
    digests = {json.loads(line)["digest"] for line in (folder / "log" / "access-events.jsonl").read_text().splitlines()}
    cited = [
        row["record"]["decision"]["access_state"] for row in audit(stack, "replay", "--purpose", "SITUATION")["records"]
    ]
    assert {b64decode(state["digest"]).hex() for state in cited} <= digests
    path = folder / "log" / "records.jsonl"
    records = path.read_text().splitlines()
    place = next(place for place, line in enumerate(records) if "record" in json.loads(line))
    altered = json.loads(records[place])
    altered["record"] = b64encode(b64decode(altered["record"])[:-1]).decode()
    path.write_text("\n".join([*records[:place], json.dumps(altered), *records[place + 1 :]]) + "\n")
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert "RECORD_ALTERED" in done.stdout + done.stderr


def test_a_period_is_reported(stack: Stack, folder: Path) -> None:
    page, paper = folder / "rapport.html", folder / "rapport.pdf"
    found = audit(stack, "report", "--from", "2026-01-01", "--html", str(page), "--pdf", str(paper))
    assert paper.read_bytes().startswith(b"%PDF-")
    text = page.read_text()
    assert "Centre de supervision urbain" in text
    assert "Malmousque" not in text
    assert "duty-officer" not in text
    assert found["sections"]["Synthèse"]["rows"]
