"""The log's key changes: continuity both ways, a retired key that signs nothing, an altered succession found."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.checkpoint import Checkpoint
from services.audit.hand_over import Keys
from services.audit.log import AccessLog
from services.audit.note import NoteError, NoteVerifier, sign_note
from services.audit.rotate import rotate
from services.audit.sequencer import LogBroken, LogFenced
from services.audit.verify import verify_database
from services.kernel.keys import create_key_pair, read_private_key
from tests.fixtures.audit import KEY, ORIGIN, batch, opened, sqlite_url
from tests.integration.test_audit_log import tamper


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each engine."""
    return sqlite_url(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def test_a_key_changes_with_continuity(url: str) -> None:
    """The old key names the new one; who trusts either verifies the whole; the old one signs nothing larger."""
    new = Ed25519PrivateKey.generate()
    with opened(url) as log:
        log.append(batch(5))
        old_head = log.head()
    with opened(url) as running:
        note = rotate(url, ORIGIN, KEY, new)
        with pytest.raises(LogFenced):
            running.append(batch(1))
    with pytest.raises(LogBroken, match="another key"), opened(url):
        pass
    log = AccessLog(url, origin=ORIGIN, key=new)
    log.open()
    log.append(batch(4))
    keys = log.keys()
    new_head = log.head()
    log.close()
    for trusted in (KEY, new):
        known = Keys.across(NoteVerifier(ORIGIN, trusted.public_key()), [note])
        assert known == keys
        assert (known.open(old_head.note).size, known.open(new_head.note).size) == (5, 9)
        report = verify_database(url, trusted.public_key())
        assert (report.sound, report.tree_size, report.unsigned) == (True, 9, 0)
    forged = sign_note(Checkpoint(ORIGIN, 9, new_head.checkpoint.root).text(), ORIGIN, KEY)
    with pytest.raises(NoteError, match="may sign"):
        keys.open(forged)
    stranger = verify_database(url, Ed25519PrivateKey.generate().public_key())
    assert stranger.faults[0].fault == "KEY_INVALID"


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE log_keys SET from_size = 4 WHERE place = 1", "KEY_INVALID"),
        ("UPDATE log_keys SET hand_over = '' WHERE place = 1", "KEY_INVALID"),
        ("UPDATE log_keys SET verifier_key = 'x' WHERE place = 0", "KEY_INVALID"),
        ("DELETE FROM log_keys WHERE place = 1", "SIGNATURE_INVALID"),
    ],
)
def test_an_altered_succession_of_keys_is_found(url: str, statement: str, fault: str) -> None:
    new = Ed25519PrivateKey.generate()
    with opened(url) as log:
        log.append(batch(5))
    rotate(url, ORIGIN, KEY, new)
    log = AccessLog(url, origin=ORIGIN, key=new)
    log.open()
    log.append(batch(1))
    log.close()
    tamper(url, statement, {})
    assert fault in {found.fault for found in verify_database(url, KEY.public_key()).faults}


def test_the_command_that_changes_the_key_writes_the_hand_over(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    for name in ("old", "new"):
        create_key_pair(tmp_path / f"{name}.pem", tmp_path / f"{name}.pub")
    old, new = (read_private_key(tmp_path / f"{name}.pem") for name in ("old", "new"))
    log = AccessLog(url, origin=ORIGIN, key=old)
    log.open()
    log.append(batch(3))
    log.close()
    command = [
        sys.executable, "-m", "services.audit.rotate", "--database-url", url, "--origin", ORIGIN,
        "--old-key", str(tmp_path / "old.pem"), "--new-key", str(tmp_path / "new.pem"),
    ]  # fmt: skip
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert Keys.across(NoteVerifier(ORIGIN, old.public_key()), [done.stdout]).verifiers[1].key == new.public_key()
    # The old key's turn is over: it cannot hand over again.
    assert subprocess.run(command, capture_output=True, cwd=root, check=False).returncode == 1
