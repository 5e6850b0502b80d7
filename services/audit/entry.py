"""From a record's bytes to its log entry, and to the columns that replay filters on.

An entry is version ‖ SHA-256(salt ‖ record): it commits to the record and tells nothing of it, so that record and salt
can be erased while the tree stands.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from planier.audit.v1.record_pb2 import AccessRecord, RecordKind

VERSION = b"\x01"
SALT_SIZE = 32


class Columns(NamedTuple):
    """What replay filters on, derived from the record's bytes alone; verification derives it again.

    `occurred_at` is microseconds since 1970 in UTC; `clauses` and `sources` are "|a|b|", "" for none.
    """

    occurred_at: int
    kind: int
    issuer: str
    # The person, or the identity of the declaring system's certificate.
    subject: str
    party: str
    rpc: str
    purpose: int
    # False: a refusal or an unauthenticated attempt.
    permitted: bool
    consultation_id: str
    instance: str
    sequence: int
    clauses: str
    sources: str


_BIGGEST = (1 << 63) - 1
_BIGGEST_ENUM = (1 << 15) - 1
_NOT_PERMITTED = frozenset({RecordKind.RECORD_KIND_REFUSAL, RecordKind.RECORD_KIND_UNAUTHENTICATED})


def entry_of(salt: bytes, record: bytes) -> bytes:
    """The log entry that commits to a record under a 32-byte salt."""
    return VERSION + sha256(salt + record).digest()


def entry_of_commitment(commitment: bytes) -> bytes:
    """The entry of an erased record, from what its erasure left of it."""
    return VERSION + commitment


def parse_record(record: bytes) -> AccessRecord | None:
    """The record, or None where the bytes are not one."""
    try:
        return AccessRecord.FromString(record)
    except DecodeError:
        return None


def is_of_service(record: bytes, service: str) -> bool:
    """Whether the record is of an access that went through this service, or of strangers at its door.

    Bytes that are no record are the log's to refuse.
    """
    parsed = parse_record(record)
    if parsed is None or parsed.rpc.startswith(f"/planier.{service}.v"):
        return True
    return not parsed.rpc and parsed.kind == RecordKind.RECORD_KIND_UNAUTHENTICATED


def columns_of(record: AccessRecord) -> Columns:
    """The columns of one record, as both engines can hold them: NUL as U+FFFD, numbers within their bounds."""
    actor, occurred, decision = record.actor, record.occurred_at, record.decision
    # Slices: a repeated field is iterated item by item, a list at once.
    clauses, withheld = decision.clauses[:], decision.withheld
    if withheld:
        clauses = list(dict.fromkeys([*clauses, *(clause for left_out in withheld for clause in left_out.clauses)]))
    kind = record.kind
    columns = Columns(
        occurred.seconds * 1_000_000 + occurred.nanos // 1_000,
        kind,
        actor.issuer,
        actor.subject or actor.certificate_identity,
        actor.party,
        record.rpc,
        record.purpose,
        kind not in _NOT_PERMITTED,
        record.consultation_id,
        record.instance,
        record.sequence,
        joined(clauses),
        joined(record.data.sources[:]),
    )
    return columns if _is_storable(columns) else _storable(columns)


def _is_storable(columns: Columns) -> bool:
    occurred_at, kind, issuer, subject, party, rpc, purpose, _, look, instance, sequence, clauses, sources = columns
    return (
        -_BIGGEST <= occurred_at <= _BIGGEST
        and 0 <= kind <= _BIGGEST_ENUM
        and 0 <= purpose <= _BIGGEST_ENUM
        and sequence <= _BIGGEST
        and "\0" not in f"{issuer}{subject}{party}{rpc}{look}{instance}{clauses}{sources}"
    )


def _storable(columns: Columns) -> Columns:
    bounds = {"occurred_at": _BIGGEST, "sequence": _BIGGEST, "kind": _BIGGEST_ENUM, "purpose": _BIGGEST_ENUM}
    values: dict[str, Any] = columns._asdict()
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = value.replace("\0", "\ufffd")
        elif name in bounds:
            values[name] = max(-bounds[name], min(bounds[name], value))
    return Columns(**values)


def joined(values: Sequence[str]) -> str:
    """Values between bars, so that a search for "|value|" finds whole values only."""
    text = "|".join(values)
    return f"|{text}|" if text else ""
