"""A log whose process is killed at any moment keeps every record that it gave a receipt for."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from planier.common.v1.release_pb2 import Receipt

from services.audit import merkle
from services.audit.checkpoint import parse_checkpoint
from services.audit.cosignature import Cosigner
from services.audit.log import AccessLog
from services.audit.note import NoteVerifier
from services.audit.publication import Publication
from services.audit.verify import verify_database
from services.kernel.guard.receipts import verify_receipt
from tests.fixtures.audit import KEY, ORIGIN, batch, opened, sqlite_url

ROUNDS = 8
# Appends batches until killed; a receipt leaves, as a line of hex, only after the append that it is for.
WRITER = """
import sys
from services.audit.receipt import ReceiptSigner
from tests.fixtures.audit import KEY, batch, opened

signer = ReceiptSigner(KEY)
with opened(sys.argv[1]) as log:
    print("open", flush=True)
    for number in range(100_000):
        for result in log.append(batch(1 + number % 7)):
            receipt = signer.sign(result.record_id, result.log_index, result.leaf_hash)
            print(receipt.SerializeToString().hex(), flush=True)
"""


def killed_writer(url: str, seconds: float) -> list[Receipt]:
    """The receipts that a writer gave before it was killed without warning."""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    time.sleep(seconds)
    process.kill()
    given, _ = process.communicate()
    # The last line may be cut.
    return [Receipt.FromString(bytes.fromhex(line)) for line in given.split("\n")[:-1]]


def test_every_receipt_holds_after_kill_9(tmp_path: Path) -> None:
    url, chance = sqlite_url(tmp_path), random.Random(6962)  # noqa: S311 -- moments, not secrets
    receipts: list[Receipt] = []
    for _ in range(ROUNDS):
        receipts += killed_writer(url, chance.uniform(0.01, 0.2))
        report = verify_database(url, KEY.public_key())
        assert report.faults == ()
        assert report.tree_size >= len(receipts)
    with opened(url) as log:
        head = log.head().checkpoint
        for receipt in receipts:
            verify_receipt(receipt, KEY.public_key())
            proof = log.inclusion_proof(receipt.index, head.size)
            assert merkle.verify_inclusion(receipt.index, head.size, receipt.leaf_hash, proof, head.root)
    assert len({receipt.index for receipt in receipts}) == len(receipts) > 0


# Dies without warning at one named step of a log's life, after five records and a head that were acknowledged.
STEPS = """
import os, signal, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from services.audit import log as store, rotate as rotation
from services.audit.cosignature import Cosigner, cosign
from services.audit.publication import Publication
from tests.fixtures.audit import KEY, ORIGIN, batch, opened

step, url = sys.argv[1:]
NEW = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)

def dying(function, after=False):
    def replaced(*arguments, **named):
        if after:
            function(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return replaced

def dying_after(log, table):
    # Within the one statement of an append, once a row of that table is written.
    with log._writer.transaction() as connection:
        driver = connection.connection.driver_connection
        driver.create_function("die", 0, dying(None))
        driver.execute(f"CREATE TEMP TRIGGER dying AFTER INSERT ON {table} BEGIN SELECT die(); END")

with opened(url) as log:
    log.append(batch(5))
    log.store_checkpoint()
    print(log.head().note, end="", flush=True)
    head = log.head()
    witness = Cosigner("w", KEY.public_key())
    line = cosign(head.checkpoint.text(), "w", KEY, 1)
    if step == "a record written, not its body":
        dying_after(log, "access_records")
        log.append(batch(3))
    elif step == "rows written, not committed":
        dying_after(log, "tree_runs")
        log.append(batch(3))
    elif step == "rows and head written, not committed":
        log.append(batch(3))
        dying_after(log, "checkpoints")
        log.append(batch(3))
    elif step == "committed, not signed":
        log._sign = dying(log._sign)
        log.append(batch(3))
    elif step == "signed, not stored":
        log.append(batch(3))
        os.kill(os.getpid(), signal.SIGKILL)
    elif step == "checkpoint written, not committed":
        log.append(batch(3))
        store.run = dying(store.run, after=True)
        log.store_checkpoint()
    elif step == "cosigned, not committed":
        import services.audit.publication as published
        published.insert = dying(published.insert)
        Publication(log, [witness]).add(head, [(witness, line)])
    elif step == "cosigned":
        Publication(log, [witness]).add(head, [(witness, line)])
        os.kill(os.getpid(), signal.SIGKILL)
if step == "handed over, not committed":
    rotation.take_over = dying(rotation.take_over)
    rotation.rotate(url, ORIGIN, KEY, NEW)
elif step == "handed over":
    rotation.rotate(url, ORIGIN, KEY, NEW)
    os.kill(os.getpid(), signal.SIGKILL)
"""
NEW = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
# Of each step: how many records the log holds afterwards, and whether the new key is its key then.
KILLED_AT = {
    "a record written, not its body": (5, False),
    "rows written, not committed": (5, False),
    "rows and head written, not committed": (8, False),
    "committed, not signed": (8, False),
    "signed, not stored": (8, False),
    "checkpoint written, not committed": (8, False),
    "cosigned, not committed": (5, False),
    "cosigned": (5, False),
    "handed over, not committed": (5, False),
    "handed over": (5, True),
}


@pytest.mark.parametrize("step", KILLED_AT)
def test_a_log_killed_at_any_step_goes_on_from_where_it_was(tmp_path: Path, step: str) -> None:
    url, root = sqlite_url(tmp_path), Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", STEPS, step, url], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == -9, done.stderr
    size, handed_over = KILLED_AT[step]
    log = AccessLog(url, origin=ORIGIN, key=NEW if handed_over else KEY)
    log.open()
    assert log.size() == size
    # The head that was given out before is a head of this log still.
    given = parse_checkpoint(NoteVerifier(ORIGIN, KEY.public_key()).open(done.stdout))
    assert log.root_at(given.size) == given.root
    log.append(batch(2))
    assert log.head().checkpoint.size == size + 2
    cosigned = Publication(log, [Cosigner("w", KEY.public_key())]).witnessed()
    assert (cosigned is not None) is (step == "cosigned")
    log.close()
    report = verify_database(url, (NEW if handed_over else KEY).public_key())
    assert (report.sound, report.tree_size, report.unsigned) == (True, size + 2, 0)
