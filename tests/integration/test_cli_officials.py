"""What officials type, each to its end: founding and notifying, the list and its keys, a prestation, a decision."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.fixtures import access
from tests.fixtures.access_issuer import TestIssuer, issuer_running
from tests.fixtures.desk import Desk, desk_before, done, keys, written
from tests.fixtures.engagements import PROVIDER, PROVIDER_KEY


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    with issuer_running() as opened:
        yield opened


@pytest.fixture
async def desk(tmp_path: Path, issuer: TestIssuer) -> AsyncIterator[Desk]:
    people = ("dga", "validator", "second-validator")
    async with desk_before(tmp_path, issuer, people=people) as opened:
        yield opened


def pair(folder: Path, name: str, key: Ed25519PrivateKey) -> tuple[str, str]:
    """Files of a private key and its public half."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(private), str(public)


async def test_a_deed_is_signed_then_notified_and_only_then_the_term_runs(tmp_path: Path, issuer: TestIssuer) -> None:
    async with desk_before(tmp_path, issuer) as desk:
        deed = access.description()
        del deed["instruments"][0]["notified_at"]
        for holder in deed["office_holders"]:
            holder["identity"]["issuer"] = issuer.url
            holder["from"] = holder["from"].isoformat()
        both = keys(desk, "city", "prefecture")
        done(await desk.planier("convention", "sign", written(tmp_path / "deed.yaml", deed), *both, "--json"))
        await desk.sign_in("dga")
        waiting = await desk.planier("convention", "term", "--as", "dga")
        assert "signée, pas encore notifiée" in waiting.output
        day = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
        notified = ["convention", "notify", "--at", day, "--act", "NOTIF-1"]
        alone = await desk.planier(*notified, *keys(desk, "city"), "--json")
        assert (alone.status, alone.content["error"]["reason"]) == (1, "ACT_SIGNATURE_INVALID")
        done(await desk.planier(*notified, *both, "--json"))
        term = done(await desk.planier("convention", "term", "--as", "dga", "--json"))
        assert (term["in_force"], term["year"]) == (True, 1)
        assert (await desk.planier(*notified, *both, "--json")).content["error"]["reason"] == "ALREADY_NOTIFIED"


async def test_the_list_is_submitted_refused_withdrawn_and_signed_by_the_prefectures_keys(desk: Desk) -> None:
    persons = [{"given_name": "Marc", "usual_name": "Œillet", "service": "DOP", "directorate": "Sécurité publique"}]
    file = written(desk.home / "list.yaml", persons)
    until = (datetime.now(UTC) + timedelta(days=200)).date().isoformat()
    submit = ("list", "submit", file, "--expires", until, "--as", "validator", "--json")
    one = done(await desk.planier(*submit))["proposal_id"]
    refuse = ("list", "refuse", one, "--reason", "service inexact", "--as", "second-validator", "--json")
    assert done(await desk.planier(*refuse))["state"] == "PROPOSAL_STATE_REFUSED"
    two = done(await desk.planier(*submit))["proposal_id"]
    withdraw = ("list", "withdraw", two, "--as", "validator", "--json")
    assert done(await desk.planier(*withdraw))["state"] == "PROPOSAL_STATE_WITHDRAWN"

    own = [pair(desk.home, f"list-{number}", Ed25519PrivateKey.generate()) for number in range(3)]
    public = [part for _, name in own for part in ("--public", name)]
    adopt = ("list", "keys", "--version", "1", "--threshold", "2", *public, *keys(desk, "prefecture"), "--json")
    done(await desk.planier(*adopt))
    three = done(await desk.planier(*submit))["proposal_id"]
    validate = ("list", "validate", three, "--as", "second-validator", "--json")
    short = await desk.planier(*validate, "--key", own[0][0])
    assert (short.status, short.content["error"]["reason"]) == (1, "LIST_SIGNATURES_MISSING")
    assert done(await desk.planier(*validate, "--key", own[0][0], "--key", own[2][0]))["version"] == "1"
    shown = done(await desk.planier("list", "show", "--as", "dga", "--json"))
    entry = shown["persons"][0]["person"]["entry_id"]
    refused = ("list", "refuse-person", entry, "--reason", "hors périmètre", "--as", "dga", "--json")
    assert done(await desk.planier(*refused))["standing"] == "LIST_STANDING_REFUSED"
    read = await desk.planier("list", "show", "--as", "validator")
    assert "hors périmètre" in read.output
    assert "2 of 3 keys" in read.output


def prestation(person_id: str) -> dict[str, Any]:
    today = datetime.now(UTC).date()
    return {
        "provider": {"siret": PROVIDER.siret, "name": PROVIDER.name},
        "service": "étude de fréquentation",
        "purposes": ["SITUATION"],
        "sources": ["works"],
        "persons": [
            {"person_id": person_id, "person": {"given_name": "Paule", "usual_name": "Remise"}, "siret": PROVIDER.siret}
        ],
        "valid_from": (today - timedelta(days=1)).isoformat(),
        "valid_until": (today + timedelta(days=30)).isoformat(),
        "destruction_days": 10,
    }


async def test_a_prestation_from_its_opening_to_its_certificate(desk: Desk) -> None:
    private, public = pair(desk.home, "provider", PROVIDER_KEY)
    person_id = str(uuid4())
    file = written(desk.home / "prestation.yaml", prestation(person_id))
    opened = done(await desk.planier("engagement", "open", file, "--key", public, "--as", "dga", "--json"))
    name = opened["engagement_id"]
    hand_over = ("engagement", "hand-over", name, "--to", person_id, "--source", "works", "--as", "dga", "--json")
    assert len(done(await desk.planier(*hand_over))["hand_overs"]) == 1
    ended = done(await desk.planier("engagement", "end", name, "--as", "dga", "--json"))
    assert ended["state"] == "ENGAGEMENT_STATE_DESTRUCTION_DUE"
    late = await desk.planier(*hand_over)
    assert (late.status, late.content["error"]["reason"]) == (1, "ENGAGEMENT_NOT_UNDER_WAY")
    (listed,) = done(await desk.planier("engagement", "list", "--as", "dga", "--json"))
    assert listed["certificate_due_at"] > listed["ended_at"]
    assert done(await desk.planier("engagement", "list", "--overdue", "--as", "dga", "--json")) == []

    document, certificate = desk.home / "attestation.pdf", desk.home / "certificate.json"
    document.write_bytes(b"%PDF attestation")
    destroyed = datetime.now(UTC).isoformat()
    attest = ("engagement", "attest", name, "--document", str(document), "--key", private, "--siret", PROVIDER.siret)
    assert (await desk.planier(*attest, "--destroyed", destroyed, "--out", str(certificate))).status == 0
    closed = done(await desk.planier("engagement", "certify", name, str(certificate), "--as", "dga", "--json"))
    assert closed["state"] == "ENGAGEMENT_STATE_CLOSED"


async def test_a_decision_is_read_printed_and_the_same_each_time(desk: Desk) -> None:
    named = ["--given-name", "Ève", "--usual-name", "Frioul", "--service", "Voirie", "--address", "Marseille"]
    granted = done(await desk.planier("clearance", "grant", *named, "--as", "dga", "--json"))
    number = f"HAB-{granted['decisions'][0]['year']}-{granted['decisions'][0]['number']:04d}"
    page, print_out = desk.home / "decision.html", desk.home / "decision.pdf"
    read = ("clearance", "decision", number, "--as", "dga", "--html", str(page), "--pdf", str(print_out))
    decision = done(await desk.planier(*read, "--json"))
    assert decision["text_hash"] == sha256(decision["text"].encode()).hexdigest()
    assert decision["title"] == f"Décision d'habilitation n° {number}"
    first = (page.read_bytes(), print_out.read_bytes())
    shown = await desk.planier(*read)
    assert decision["text"] in shown.output
    assert first == (page.read_bytes(), print_out.read_bytes())
    assert decision["text_hash"] in first[0].decode()
    assert first[1].startswith(b"%PDF")
    own = await desk.planier("clearance", "decision", number, "--own", "--as", "dga", "--json")
    assert (own.status, json.loads(own.output)["error"]["reason"]) == (1, "DECISION_UNKNOWN")
    assert (await desk.planier("clearance", "decision", "7", "--as", "dga")).status == 2
