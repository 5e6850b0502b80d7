"""One append's records: laid out in order, so that an item sees those before it, and as each engine takes them."""

import json
from collections.abc import Sequence
from enum import Enum
from hashlib import sha256
from typing import NamedTuple

from google.protobuf.message import DecodeError
from planier.audit.v1.record_pb2 import AccessRecord

from services.audit.database import Row
from services.audit.entry import SALT_SIZE, VERSION

# A leaf's hash is that of this and of the commitment (merkle.leaf_hash of entry.entry_of, written out).
_LEAF = b"\x00" + VERSION
# What the log holds under an id: index, leaf hash, salt, record.
Known = dict[str, tuple[int, bytes, bytes | None, bytes | None]]


class Outcome(Enum):
    """What became of one record of a batch."""

    RECORDED = "RECORDED"
    CONFLICT = "CONFLICT"
    INVALID = "INVALID"


class Appended(NamedTuple):
    """One result; `log_index` and `leaf_hash` only where RECORDED (now or before)."""

    outcome: Outcome
    record_id: str
    log_index: int = -1
    leaf_hash: bytes = b""


class Batch:
    """New records from index `first` on, and the result of every item."""

    def __init__(self, first: int) -> None:
        self.leaves: list[bytes] = []
        self.results: list[Appended] = []
        self.first = first
        self._ids: list[str] = []
        # Salt and record of each, one after the other.
        self._contents: list[bytes] = []

    def lay_out(self, items: Sequence[tuple[str, bytes]], known: Known, salts: bytes) -> None:
        """Adds each item and its result, or says why not; `known` learns what is added. The hot path."""
        leaves, ids, contents, results = self.leaves, self._ids, self._contents, self.results
        parse, new, recorded, prefix, index = (
            AccessRecord.FromString,
            tuple.__new__,
            Outcome.RECORDED,
            _LEAF,
            self.first,
        )
        offset = 0
        for record_id, record in items:
            try:
                is_fit = parse(record).record_id == record_id != ""
            except DecodeError:
                is_fit = False
            # No engine looks for an id that holds NUL.
            if not is_fit or "\0" in record_id:
                results.append(Appended(Outcome.INVALID, record_id))
                continue
            if record_id in known:
                results.append(_again(record_id, record, known[record_id]))
                continue
            salt = salts[offset : offset + SALT_SIZE]
            offset += SALT_SIZE
            content = salt + record
            leaf = sha256(prefix + sha256(content).digest()).digest()
            known[record_id] = index, leaf, salt, record
            leaves.append(leaf)
            ids.append(record_id)
            contents.append(content)
            results.append(new(Appended, (recorded, record_id, index, leaf)))
            index += 1

    def packed(self) -> tuple[str, bytes, str, bytes]:
        """For SQLite: the ids; the leaf hashes; of each record, where salt and record begin and its size; those bytes.

        Lists are JSON. A place is one number, the beginning above 32 bits of size.
        """
        places, at = list[int](), 0
        for content in self._contents:
            places.append(at << 32 | len(content) - SALT_SIZE)
            at += len(content)
        return json.dumps(self._ids), b"".join(self.leaves), json.dumps(places), b"".join(self._contents)

    def rows(self) -> tuple[list[Row], list[Row]]:
        """For PostgreSQL: rows of access_records and of access_bodies."""
        numbered = list(enumerate(zip(self._ids, self.leaves, self._contents, strict=True), self.first))
        records = [(index, record_id, leaf) for index, (record_id, leaf, _) in numbered]
        bodies = [(index, content[:SALT_SIZE], content[SALT_SIZE:], None, None) for index, (*_, content) in numbered]
        return records, bodies


def _again(record_id: str, record: bytes, known: tuple[int, bytes, bytes | None, bytes | None]) -> Appended:
    """The first result of an id that the log holds; CONFLICT for other bytes, or where it is erased."""
    index, leaf, salt, stored = known
    if stored != record or salt is None:
        return Appended(Outcome.CONFLICT, record_id)
    return Appended(Outcome.RECORDED, record_id, index, leaf)
