"""A whole log exported by an auditor and verified by a third party, with a real audit service and its tiles' door."""

import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, ClearanceGranted, Party, Person

from services.audit.copy import CHECKPOINT
from services.cli import audit_export, session
from services.cli.audit_export import EVENTS, MANIFEST, RECORDS
from services.cli.profile import Profile
from services.kernel.bus.runs import pack
from services.kernel.clock import RandomIds, SystemClock
from services.kernel.errors import Problem
from services.kernel.store.base import GENESIS, Append, NewEvent
from services.kernel.store.opening import create_schema, open_store
from services.stack.layout import ROOT
from tests.fixtures.oversight import Oversight, of_person, running


def access_of(folder: Path) -> list[Any]:
    """Runs of a real store: a clearance of each party, one of them the City's."""
    store = open_store(f"sqlite:///{folder / 'access.db'}", clock=SystemClock())
    create_schema(store.engine)
    for party in (PARTY_CITY, PARTY_PREFECTURE):
        store.append([Append(f"clearance-{party}", None, (granted(party),))])
    runs = list(pack(store.store_id, GENESIS, store.read_all(0, 10)))
    store.close()
    return runs


def granted(party: Party.ValueType) -> NewEvent:
    name = {PARTY_CITY: "Malmousque", PARTY_PREFECTURE: "Catalans"}[party]
    event = ClearanceGranted(clearance_id=str(party), party=party, person=Person(given_name="A", usual_name=name))
    return NewEvent(event.DESCRIPTOR.full_name, event.SerializeToString(), RandomIds().new())


def profile_of(service: Oversight, folder: Path, port: int, tiles: int) -> Profile:
    unused = folder / "unused"
    return Profile(
        home=folder, addresses={"audit": f"127.0.0.1:{port}"}, issuer="", client_id="", certificates=folder,
        log_key=folder / "log.pub", territory=unused, annex=unused, layers=unused, tiles=f"https://127.0.0.1:{tiles}",
    )  # fmt: skip


def verified(folder: Path, key: str) -> tuple[int, str]:
    command = [sys.executable, "-I", str(ROOT / "tools" / "verify_access_log.py"), "copy", "log", f"--log-key={key}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return done.returncode, done.stdout + done.stderr


def lines(path: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_third_party_verifies_what_an_auditor_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path, tiles="127.0.0.1:0") as service:
        people = [("andrea", "CITY"), ("sacha", "PREFECTURE")] * 150
        service.append([of_person(number, *who) for number, who in enumerate(people, 1)])
        service.events.extend(access_of(tmp_path))
        await service.audit.outside.start()
        profile = profile_of(service, tmp_path, service.port, service.audit.outside.port)
        monkeypatch.setattr(Profile, "load", classmethod(lambda _: profile))
        token = service.metadata("auditor")[0][1].removeprefix("Bearer ")
        signed_in = session.Session("auditor", token, "", datetime.now(UTC) + timedelta(minutes=4), "CONFIRMED")

        async def current(*_: object) -> session.Session:
            return signed_in

        monkeypatch.setattr(session, "current", current)
        await audit_export._export(tmp_path / "log", CHECKPOINT, "export", "", as_json=True)
        manifest = json.loads(capsys.readouterr().out)
        key = service.audit.log.verifier.text()
        altered = service.events.pop()
        altered.events[0].commitment = bytes(32)
        service.events.append(altered)
        with pytest.raises(Problem, match="EVENTS_ALTERED"):
            await audit_export._export(tmp_path / "again", CHECKPOINT, "export", "", as_json=True)
    assert_whole(tmp_path / "log", manifest)
    status, words = verified(tmp_path, key)
    assert status == 0, words
    assert json.loads(words)["records"] == 150
    records = (tmp_path / "log" / RECORDS).read_text().splitlines()
    other = {**json.loads(records[0]), "record": json.loads(records[2])["record"]}
    (tmp_path / "log" / RECORDS).write_text("\n".join([json.dumps(other), *records[1:]]) + "\n")
    status, words = verified(tmp_path, key)
    assert (status, "RECORD_ALTERED" in words) == (1, True)


def assert_whole(folder: Path, manifest: Mapping[str, Any]) -> None:
    assert manifest == json.loads((folder / MANIFEST).read_text())
    shown = {name: manifest[name] for name in ("tree_size", "records", "masked", "erased", "access_events")}
    assert shown == {"tree_size": 300, "records": 300, "masked": 150, "erased": 0, "access_events": 2}
    assert manifest["access_events_withheld"] == 1
    contents = [
        b64decode(line[name]) for file in (RECORDS, EVENTS) for line in lines(folder / file)
        for name in ("record", "shown", "payload") if line.get(name)
    ]  # fmt: skip
    assert any(b"andrea" in content for content in contents)
    assert any(b"Malmousque" in content for content in contents)
    assert not any(b"sacha" in content or b"Catalans" in content for content in contents)
    assert [line["digest"] for line in lines(folder / EVENTS)][-1] == manifest["access_digest"]
