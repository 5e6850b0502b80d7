"""The convention from the command line: its term, an amendment and what it changes, a delegate, a list of decisions."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.stack.founding import DEED
from tests.fixtures.stack import Outcome, Stack

pytestmark = pytest.mark.e2e


def keys(stack: Stack, *parties: str) -> list[str]:
    return [part for party in parties for part in (f"--{party}-key", str(stack.home / "keys" / f"{party}.pem"))]


def done(outcome: Outcome) -> Any:
    assert outcome.status == 0, outcome.output + outcome.errors
    return outcome.content


def written(path: Path, content: Any) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_an_amendment_creates_house_rules_a_delegate_and_urgency(stack: Stack, folder: Path) -> None:
    for person in ("dga", "dpo", "prefecture-dpo"):
        assert stack.planier("login", "--as", person).status == 0
    term = done(stack.planier("convention", "term", "--as", "dga", "--json"))
    assert (term["in_force"], term["year"]) == (True, 1)
    shown = done(stack.planier("convention", "show", "--as", "dga", "--json"))
    deed = yaml.safe_load(DEED.read_text())
    terms = {
        "previous_version": shown["versions"][-1]["version"],
        "version": "2026.2",
        "document_hash": deed["document_hash"],
        "instruments": shown["versions"][-1]["instruments"],
        "declarants": shown["versions"][-1]["declarants"],
        "house_rules": [{"rule_id": "house.delegate"}, {"rule_id": "house.urgent_clearance"}],
    }
    file = written(folder / "amendment.yaml", terms)
    alone = stack.planier("convention", "amend", file, *keys(stack, "city"), "--json")
    assert (alone.status, alone.content["error"]["reason"]) == (1, "ACT_SIGNATURE_INVALID")
    done(stack.planier("convention", "amend", file, *keys(stack, "city", "prefecture"), "--json"))
    changes = done(stack.planier("convention", "diff", "2026.1", "2026.2", "--as", "dga", "--json"))
    assert {change["what"] for change in changes} == {"house.delegate", "house.urgent_clearance"}

    now = datetime.now(UTC)
    delegate = {
        "kind": "APPOINTMENT_KIND_DELEGATION",
        "holder": {
            "role": "ROLE_GRANTING_DELEGATE",
            "party": "PARTY_CITY",
            "person": {"given_name": "Hugo", "usual_name": "Ricard", "service": "DGA Sécurité"},
            "identity": {"issuer": shown["offices"][0]["holder"]["identity"]["issuer"], "subject": "delegate"},
            "act_reference": "ARR-7",
            "from": now.isoformat(),
        },
        "until": (now + timedelta(days=30)).isoformat(),
    }
    file = written(folder / "delegate.yaml", delegate)
    refused = stack.planier("convention", "appoint", file, *keys(stack, "prefecture"), "--json")
    assert refused.content["error"]["reason"] == "ACT_SIGNATURE_INVALID"
    done(stack.planier("convention", "appoint", file, *keys(stack, "city"), "--json"))

    named = ["--given-name", "Noé", "--usual-name", "Goudes", "--service", "Astreinte", "--address", "Marseille"]
    granted = done(stack.planier("clearance", "grant", *named, "--urgent", "--as", "dga", "--json"))
    assert granted["urgent"]
    for officer in ("dpo", "prefecture-dpo"):
        (notice,) = done(stack.planier("notice", "list", "--as", officer, "--json"))
        assert (notice["kind"], notice["reference"]) == ("NOTICE_KIND_URGENT_CLEARANCE", granted["clearance_id"])
        known = done(stack.planier("notice", "acknowledge", notice["notice_id"], "--as", officer, "--json"))
        assert known["notice"]["acknowledged_at"]


def test_a_list_is_reviewed_by_service_and_a_suspension_lifted(stack: Stack) -> None:
    assert stack.planier("login", "--as", "dga").status == 0
    named = ["--given-name", "Ève", "--usual-name", "Frioul", "--service", "Voirie", "--address", "Marseille"]
    granted = done(stack.planier("clearance", "grant", *named, "--as", "dga", "--json"))
    (reviewed,) = done(stack.planier("clearance", "review", "Voirie", "--as", "dga", "--json"))
    assert len(reviewed["decisions"]) == 2
    name = granted["clearance_id"]
    suspended = done(stack.planier("clearance", "suspend", name, "--as", "dga", "--json"))
    assert suspended["state"] == "CLEARANCE_STATE_SUSPENDED"
    resumed = done(stack.planier("clearance", "resume", name, "--as", "dga", "--json"))
    assert resumed["state"] == "CLEARANCE_STATE_GRANTED"
    until = (datetime.now(UTC) + timedelta(days=365)).date().isoformat()
    renewed = stack.planier("clearance", "decide", "--renew", name, "--until", until, "--as", "dga", "--json")
    assert done(renewed)[0]["valid_until"].startswith(until[:7])
    listed = stack.planier("clearance", "decisions", "--as", "dga")
    assert listed.status == 0
    assert "HAB-" in listed.output


def test_people_read_the_term_the_versions_and_the_policy(stack: Stack) -> None:
    assert stack.planier("login", "--as", "dga").status == 0
    for command, words in (
        (("convention", "term", "--as", "dga"), "en vigueur, année 1 sur 4"),
        (("convention", "show", "--as", "dga"), "house rules"),
        (("convention", "policy"), "## `art9.termination`"),
        (("notice", "--help"), "acknowledge"),
    ):
        outcome = stack.planier(*command)
        assert outcome.status == 0, outcome.output + outcome.errors
        assert words in outcome.output
