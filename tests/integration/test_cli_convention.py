"""The convention from the command line: its term, an amendment and what it changes, a delegate, a list of decisions."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fixtures import access
from tests.fixtures.access_issuer import TestIssuer, issuer_running
from tests.fixtures.desk import Desk, desk_before, done, keys, written


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    with issuer_running() as opened:
        yield opened


@pytest.fixture
async def desk(tmp_path: Path, issuer: TestIssuer) -> AsyncIterator[Desk]:
    async with desk_before(tmp_path, issuer, people=("dga", "dpo", "prefecture-dpo")) as opened:
        yield opened


async def test_an_amendment_creates_house_rules_a_delegate_and_urgency(desk: Desk) -> None:
    term = done(await desk.planier("convention", "term", "--as", "dga", "--json"))
    assert term["notified_at"] == "2025-03-01T09:00:00Z"
    shown = done(await desk.planier("convention", "show", "--as", "dga", "--json"))
    terms = {
        "previous_version": shown["versions"][-1]["version"],
        "version": "2026-2",
        "annex_hash": shown["versions"][-1]["annex_hash"],
        "document_hash": access.description()["document_hash"],
        "instruments": shown["versions"][-1]["instruments"],
        "declarants": shown["versions"][-1]["declarants"],
        "house_rules": [{"rule_id": "house.delegate"}, {"rule_id": "house.urgent_clearance"}],
    }
    file = written(desk.home / "amendment.yaml", terms)
    alone = await desk.planier("convention", "amend", file, *keys(desk, "city"), "--json")
    assert (alone.status, alone.content["error"]["reason"]) == (1, "ACT_SIGNATURE_INVALID")
    done(await desk.planier("convention", "amend", file, *keys(desk, "city", "prefecture"), "--json"))
    changes = done(await desk.planier("convention", "diff", "2025-03", "2026-2", "--as", "dga", "--json"))
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
    file = written(desk.home / "delegate.yaml", delegate)
    refused = await desk.planier("convention", "appoint", file, *keys(desk, "prefecture"), "--json")
    assert refused.content["error"]["reason"] == "ACT_SIGNATURE_INVALID"
    done(await desk.planier("convention", "appoint", file, *keys(desk, "city"), "--json"))

    named = ["--given-name", "Noé", "--usual-name", "Goudes", "--service", "Astreinte", "--address", "Marseille"]
    granted = done(await desk.planier("clearance", "grant", *named, "--urgent", "--as", "dga", "--json"))
    assert granted["urgent"]
    for officer in ("dpo", "prefecture-dpo"):
        (notice,) = done(await desk.planier("notice", "list", "--as", officer, "--json"))
        assert (notice["kind"], notice["reference"]) == ("NOTICE_KIND_URGENT_CLEARANCE", granted["clearance_id"])
        known = done(await desk.planier("notice", "acknowledge", notice["notice_id"], "--as", officer, "--json"))
        assert known["notice"]["acknowledged_at"]


async def test_a_list_is_reviewed_by_service_and_a_suspension_lifted(desk: Desk) -> None:
    named = ["--given-name", "Ève", "--usual-name", "Frioul", "--service", "Voirie", "--address", "Marseille"]
    granted = done(await desk.planier("clearance", "grant", *named, "--as", "dga", "--json"))
    (reviewed,) = done(await desk.planier("clearance", "review", "Voirie", "--as", "dga", "--json"))
    assert len(reviewed["decisions"]) == 2
    name = granted["clearance_id"]
    suspended = done(await desk.planier("clearance", "suspend", name, "--as", "dga", "--json"))
    assert suspended["state"] == "CLEARANCE_STATE_SUSPENDED"
    resumed = done(await desk.planier("clearance", "resume", name, "--as", "dga", "--json"))
    assert resumed["state"] == "CLEARANCE_STATE_GRANTED"
    until = (datetime.now(UTC) + timedelta(days=365)).date().isoformat()
    renewed = await desk.planier("clearance", "decide", "--renew", name, "--until", until, "--as", "dga", "--json")
    assert done(renewed)[0]["valid_until"].startswith(until[:7])
    listed = await desk.planier("clearance", "decisions", "--as", "dga")
    assert listed.status == 0
    assert "HAB-" in listed.output


async def test_people_read_the_term_the_versions_and_the_policy(desk: Desk) -> None:
    for command, words in (
        (("convention", "term", "--as", "dga"), "en vigueur, année"),
        (("convention", "show", "--as", "dga"), "house rules"),
        (("convention", "policy"), "## `art9.termination`"),
        (("notice", "--help"), "acknowledge"),
    ):
        outcome = await desk.planier(*command)
        assert outcome.status == 0, outcome.output + outcome.errors
        assert words in outcome.output


async def test_an_office_ends_notice_is_given_and_a_termination_is_followed_to_the_destruction(desk: Desk) -> None:
    both = keys(desk, "city", "prefecture")
    again = await desk.planier("convention", "notify", "--at", "2025-04-01", "--act", "N-2", *both, "--json")
    assert (again.status, again.content["error"]["clause"]) == (1, "art9.term")

    shown = done(await desk.planier("convention", "show", "--as", "dga", "--json"))
    auditor = next(one["holder"] for one in shown["offices"] if one["holder"]["role"] == "ROLE_AUDITOR")
    ended = {**{name: auditor[name] for name in ("role", "party", "identity")}, "act_reference": "FIN-1"}
    file = written(desk.home / "discharge.yaml", ended)
    done(await desk.planier("convention", "discharge", file, *keys(desk, "city"), "--json"))

    letter = ["--party", "CITY", "--received", "2026-01-05", "--letter", "LRAR-1"]
    done(await desk.planier("convention", "denounce", *letter, *keys(desk, "city"), "--json"))

    certificate = desk.home / "certificate.pdf"
    certificate.write_bytes(b"%PDF destruction")
    proof = ["convention", "destroyed", str(certificate), "--at", "2026-01-06", *keys(desk, "city"), "--json"]
    assert (await desk.planier(*proof)).status == 1
    breach = ["--party", "PREFECTURE", "--reason", "BREACH", "--act", "R-1"]
    done(await desk.planier("convention", "terminate", *breach, *keys(desk, "prefecture"), "--json"))
    term = done(await desk.planier("convention", "term", "--as", "dga", "--json"))
    assert (term["denounced_by"], term["termination_reason"]) == ("PARTY_CITY", "TERMINATION_REASON_BREACH")
    proof[4] = term["terminated_at"]
    done(await desk.planier(*proof))
    assert done(await desk.planier("convention", "term", "--as", "dga", "--json"))["destroyed_at"]


async def test_a_wider_amendment_waits_for_the_impact_study_that_an_officer_records(desk: Desk) -> None:
    shown = done(await desk.planier("convention", "show", "--as", "dga", "--json"))
    signed = shown["versions"][-1]
    first, *others = signed["instruments"]
    terms = {
        "previous_version": signed["version"],
        "version": "2026-2",
        "annex_hash": signed["annex_hash"],
        "document_hash": access.description()["document_hash"],
        "instruments": [{**first, "sources": [*first["sources"], "weather"]}, *others],
        "declarants": signed["declarants"],
    }
    file = written(desk.home / "amendment.yaml", terms)
    done(await desk.planier("convention", "amend", file, *keys(desk, "city", "prefecture"), "--json"))
    for officer in ("dpo", "prefecture-dpo"):
        (notice,) = done(await desk.planier("notice", "list", "--as", officer, "--json"))
        done(await desk.planier("notice", "acknowledge", notice["notice_id"], "--as", officer, "--json"))
    study = ["notice", "dpia", notice["reference"], "--reference", "AIPD-7"]
    done(await desk.planier(*study, "--as", "dpo", "--json"))
    widened = done(await desk.planier("convention", "show", "--as", "dga", "--json"))["versions"][-1]
    assert (widened["version"], widened["state"]) == ("2026-2", "VERSION_STATE_IN_FORCE")


async def test_a_coordinator_signs_the_undertaking_and_requests_a_clearance(desk: Desk) -> None:
    named = ["--given-name", "Inès", "--usual-name", "Malmousque", "--service", "Voirie", "--address", "Marseille"]
    grant = ["clearance", "grant", *named, "--role", "COORDINATOR", "--as", "dga", "--json"]
    name = done(await desk.planier(*grant))["clearance_id"]
    await desk.sign_in("coordinator")
    done(await desk.planier("clearance", "confirm", name, "--as", "dga", "--json"))
    other = ["--given-name", "Ugo", "--usual-name", "Vallon", "--service", "Voirie", "--address", "Marseille"]
    request = ["clearance", "request", *other, "--as", "coordinator", "--json"]
    early = await desk.planier(*request)
    assert (early.status, early.content["error"]["clause"]) == (1, "art6.habilitation")
    done(await desk.planier("clearance", "undertake", "--accept", "--as", "coordinator", "--json"))
    assert done(await desk.planier(*request))["state"] == "CLEARANCE_STATE_REQUESTED"
