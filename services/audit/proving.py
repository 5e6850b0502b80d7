"""A proof of one access that its holder can verify alone: the record, its salt, its path in a witnessed tree.

What leaves is one C2SP tlog-proof; its extra data are salt ‖ record, from which whoever holds it computes the entry.
"""

from dataclasses import dataclass

from planier.audit.v1.record_pb2 import AccessRecord
from sqlalchemy import select

from services.audit.entry import parse_record
from services.audit.proof import Proof
from services.audit.publication import Publication
from services.audit.schema import BODIES, RECORDS


@dataclass(frozen=True, slots=True)
class Held:
    """What the log holds under one record id; `content` is salt ‖ record, empty once erased."""

    index: int
    leaf_hash: bytes
    content: bytes
    record: AccessRecord | None


@dataclass(frozen=True, slots=True)
class AccessProof:
    """A proof and what its checkpoint still lacks."""

    proof: Proof
    missing: tuple[str, ...]


def find(publication: Publication, record_id: str) -> Held | None:
    """The record of that id, or None; blocking."""
    query = (
        select(RECORDS.c.idx, RECORDS.c.leaf_hash, BODIES.c.salt, BODIES.c.record)
        .join(BODIES, BODIES.c.idx == RECORDS.c.idx)
        .where(RECORDS.c.record_id == record_id)
    )
    with publication.log.reading() as connection:
        row = connection.execute(query).first()
    if row is None:
        return None
    held = row.salt is not None and row.record is not None
    content = row.salt + row.record if held else b""
    return Held(row.idx, row.leaf_hash, content, parse_record(row.record) if held else None)


def prove(publication: Publication, held: Held, *, content: bool) -> AccessProof:
    """The proof under the newest witnessed head that covers the record, else under the newest head; blocking.

    Salt and record are in it where `content` says so.
    """
    published = publication.witnessed()
    if published is None or published.head.checkpoint.size <= held.index:
        published = publication.newest()
    size = published.head.checkpoint.size
    hashes = publication.log.inclusion_proof(held.index, size)
    proof = Proof(held.index, hashes, published.note, held.content if content else b"")
    return AccessProof(proof, published.missing)
