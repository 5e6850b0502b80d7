"""The ledger of erasures: what was flushed is read again, a torn end is forgotten, damage is not."""

import resource
import signal
from pathlib import Path

import pytest

from services.ingest.ledger import Erasure, Ledger, LedgerDamaged

FIRST = Erasure("a" * 32, "ERASURE_REASON_RETENTION", "CITY", "r1")
SECOND = Erasure("b" * 32, "ERASURE_REASON_PERSONAL_DATA", "PREFECTURE", "r2")


def test_reads_what_was_appended_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "erasures.jsonl"
    assert Ledger(path).read() == ()
    Ledger(path).append(FIRST)
    Ledger(path).append(SECOND)
    assert Ledger(path).read() == (FIRST, SECOND)


def test_a_line_cut_short_by_a_crash_is_cut_off_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "erasures.jsonl"
    Ledger(path).append(FIRST)
    with path.open("ab") as file:
        file.write(b'{"fact_id":"cc')
    assert Ledger(path).read() == (FIRST,)
    Ledger(path).append(SECOND)
    assert Ledger(path).read() == (FIRST, SECOND)


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b'{"fact_id":1,"reason":"","party":"","record_id":""}\n', b"[]\n"])
def test_a_damaged_line_stops_the_service(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "erasures.jsonl"
    path.write_bytes(line)
    with pytest.raises(LedgerDamaged):
        Ledger(path).read()


def test_a_line_that_the_disk_takes_in_part_is_an_error_and_leaves_no_trace(tmp_path: Path) -> None:
    """Else the erasure would be committed without its line, and the next line would make the ledger unreadable."""
    path = tmp_path / "erasures.jsonl"
    Ledger(path).append(FIRST)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
        with pytest.raises(OSError, match="written whole"):
            Ledger(path).append(SECOND)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert Ledger(path).read() == (FIRST,)
    Ledger(path).append(SECOND)
    assert Ledger(path).read() == (FIRST, SECOND)
