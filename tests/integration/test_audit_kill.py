"""A log whose process is killed at any moment keeps every record that it gave a receipt for."""

import random
import subprocess
import sys
import time
from pathlib import Path

from planier.common.v1.release_pb2 import Receipt

from services.audit import merkle
from services.audit.verify import verify_database
from services.kernel.guard.receipts import verify_receipt
from tests.fixtures.audit import KEY, opened, sqlite_url

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
