"""The access log seen from outside: one access proved, witnessed, copied and verified with three public keys."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.stack.layout import ROOT
from tests.fixtures.stack import Outcome, Stack

pytestmark = pytest.mark.e2e

VERIFIER = ROOT / "tools" / "verify_access_log.py"


def auditor(folder: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    """What the standalone verifier says, run beside nothing of ours."""
    command = [sys.executable, "-I", str(VERIFIER), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.returncode, json.loads(done.stdout)


def keys(checkpoint: Outcome) -> list[str]:
    """The three public keys, as their holders would publish them."""
    found = checkpoint.content
    witnesses = [f"--witness-key={item['verifier_key']}" for item in found["witnesses"]]
    assert len(witnesses) == 2
    return [f"--log-key={found['verifier_key']}", *witnesses]


def witnessed(stack: Stack, size: int) -> Outcome:
    """The log's checkpoint once both witnesses have cosigned a tree of that size."""
    for _ in range(100):
        found = stack.planier("audit", "checkpoint", "--json")
        note = found.content.get("witnessed_checkpoint", "")
        if note and int(note.split("\n")[1]) >= size:
            return found
        time.sleep(0.1)
    raise AssertionError("no witnessed checkpoint")


def test_a_cosignature_comes_by_file(stack: Stack, tmp_path: Path) -> None:
    """As of a party without a server: it shares its state with the one that it may run later."""
    witnessed(stack, 1)
    request, signed = tmp_path / "request", tmp_path / "signed"
    asked = stack.planier("audit", "witness-request", "CITY", "--out", str(request))
    assert asked.status == 0, asked.errors
    command = [
        sys.executable, "-m", "services.audit.witness.by_file", str(request), "--name", "planier.local/city-witness",
        "--key", str(stack.home / "keys" / "city-witness.pem"), "--logs", str(stack.home / "witnessed-logs"),
        "--state", f"sqlite:///{stack.home / 'city-witness' / 'witness.db'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    signed.write_text(done.stdout)
    taken = stack.planier("audit", "cosignature", str(signed), "--json")
    assert taken.status == 0, taken.output
    assert "planier.local/city-witness" in taken.content["cosigned_by"]
    assert stack.planier("audit", "cosignature", str(request), "--json").status == 1


def test_an_access_is_proved_offline_under_both_witnesses(stack: Stack, tmp_path: Path) -> None:
    assert stack.planier("login", "--as", "auditor").status == 0
    stack.planier("login", "--as", "duty-officer")
    looked = stack.planier("map", "--motive", "prise de service", "--json")
    assert looked.status == 0, looked.errors
    receipt = looked.content["release"]["receipt"]
    before = witnessed(stack, int(receipt["index"]) + 1)
    (tmp_path / "old").write_text(before.content["witnessed_checkpoint"])
    proof = str(tmp_path / "access.tlog-proof")
    given = stack.planier("audit", "receipt", receipt["record_id"], "--out", proof, "--as", "auditor", "--json")
    assert given.status == 0, given.output + given.errors
    assert given.content["not_cosigned_by"] == []
    _, found = auditor(tmp_path, "receipt", proof, *keys(before))
    assert found["index"] == int(receipt["index"])
    record = found["record"]
    assert isinstance(record, dict)
    assert (record["record_id"], record["actor"]["subject"]) == (receipt["record_id"], "duty-officer")
    # The proof was an access too: the log has grown.
    witnessed(stack, int(receipt["index"]) + 2)
    extension = str(tmp_path / "extension")
    assert stack.planier("audit", "consistency", "old", "--out", extension, cwd=tmp_path).status == 0
    auditor(tmp_path, "consistency", "old", extension, *keys(before))
    copied = stack.planier("audit", "tiles", str(tmp_path / "copy"), "--json")
    assert copied.status == 0, copied.output + copied.errors
    _, found = auditor(tmp_path, "copy", "copy", "--remembered", "old", *keys(before))
    assert found["tree_size"] == copied.content["tree_size"]
    again = stack.planier("audit", "tiles", str(tmp_path / "copy"), "--json")
    assert again.status == 0, again.output + again.errors
