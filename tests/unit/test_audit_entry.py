"""Entries, columns, messages of replay, and receipts."""

from hashlib import sha256

import pytest
from planier.audit.v1.audit_pb2 import ReplayEntry
from planier.audit.v1.record_pb2 import AccessRecord, RecordKind
from planier.common.v1.release_pb2 import Withheld

from services.audit.entry import columns_of, entry_of, joined, parse_record
from services.audit.receipt import ReceiptSigner
from services.audit.replay import in_messages
from services.kernel.guard.receipts import verify_receipt
from tests.fixtures.audit import KEY, access_record


def test_an_entry_is_its_version_and_one_hash() -> None:
    assert entry_of(b"s" * 32, b"record") == b"\x01" + sha256(b"s" * 32 + b"record").digest()


@pytest.mark.parametrize(
    ("kind", "permitted"),
    [
        (RecordKind.RECORD_KIND_RELEASE, True),
        (RecordKind.RECORD_KIND_ATTEMPT, True),
        (RecordKind.RECORD_KIND_STREAM_OPENED, True),
        (RecordKind.RECORD_KIND_REFUSAL, False),
        (RecordKind.RECORD_KIND_UNAUTHENTICATED, False),
    ],
)
def test_what_became_of_an_access(kind: RecordKind.ValueType, permitted: bool) -> None:
    assert columns_of(AccessRecord(kind=kind)).permitted is permitted


def test_clauses_that_withheld_a_part_are_found_too() -> None:
    record = access_record()
    record.decision.withheld.append(Withheld(instrument_id="convention", clauses=["art9.term", "art6.purpose"]))
    assert columns_of(record).clauses == "|art6.purpose|art6.habilitation|art9.term|"


def test_a_declaring_system_is_its_certificate() -> None:
    record = access_record()
    record.actor.Clear()
    record.actor.certificate_identity = "spiffe://planier/cortege"
    assert columns_of(record).subject == "spiffe://planier/cortege"


def test_nothing_joined_is_nothing() -> None:
    assert joined([]) == ""
    assert joined(["b", "a"]) == "|b|a|"


@pytest.mark.parametrize("name", ["instance", "rpc", "consultation_id"])
def test_a_nul_is_kept_as_what_every_engine_can_hold(name: str) -> None:
    record = access_record()
    setattr(record, name, "a\0b")
    assert getattr(columns_of(record), name) == "a\ufffdb"


def test_numbers_beyond_the_columns_stand_at_their_bounds() -> None:
    record = access_record(kind=70_000)
    record.sequence = (1 << 64) - 1
    record.occurred_at.seconds = -(1 << 62)
    columns = columns_of(record)
    assert (columns.sequence, columns.kind, columns.occurred_at) == ((1 << 63) - 1, (1 << 15) - 1, -(1 << 63) + 1)


@pytest.mark.parametrize("content", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_record(content: bytes) -> None:
    assert parse_record(content) is None


@pytest.mark.parametrize("limit", [1, 150, 400, 10_000])
def test_messages_hold_all_entries_in_order_within_the_limit(limit: int) -> None:
    entries = [ReplayEntry(index=index, record=bytes(20 * index), leaf_hash=bytes(32)) for index in range(20)]
    runs = list(in_messages(entries, limit))
    assert [entry for run in runs for entry in run] == entries
    assert all(len(run) == 1 or sum(entry.ByteSize() for entry in run) <= limit for run in runs)


def test_receipts_are_those_that_clients_verify() -> None:
    verify_receipt(ReceiptSigner(KEY).sign("0198c0de-0000-7000-8000-000000000001", 7, bytes(32)), KEY.public_key())
