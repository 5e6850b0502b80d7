"""A whole log replayed against its newest signed head: every record's bytes to the root, in one pass and little memory.

The quick check of a copy. What was derived from the records (columns, nodes) is for verify.py, and so is naming what
does not hold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select

from services.audit import merkle
from services.audit.database import Row, rows
from services.audit.entry import VERSION, entry_of_commitment
from services.audit.hand_over import Keys
from services.audit.note import NoteError, NoteVerifier
from services.audit.schema import CHECKPOINTS, KEYS
from services.audit.verify import reading

_CHUNK = 4_096
_BODIES = "SELECT idx, salt, record, commitment FROM access_bodies WHERE idx >= ? AND idx < ? ORDER BY idx"


@dataclass(frozen=True, slots=True)
class Folded:
    """The outcome: `sound` where the records up to the newest signed head give its root."""

    sound: bool
    size: int
    root: bytes


def fold_database(url: str, public_key: Ed25519PublicKey) -> Folded:
    """Replays a copy of a log's database offline; blocking.

    Raises:
        FileNotFoundError: the SQLite database does not exist; looking must not make it.
    """
    with reading(url) as connection:
        return fold_log(connection, public_key)


def fold_log(connection: Connection, public_key: Ed25519PublicKey) -> Folded:
    """Replays every record up to the newest checkpoint that the log's keys signed, of which one is `public_key`."""
    newest = connection.execute(select(CHECKPOINTS).order_by(CHECKPOINTS.c.size.desc()).limit(1)).first()
    frontier = merkle.EMPTY
    for leaves in _leaves(connection, 0 if newest is None else newest.size):
        frontier, _ = frontier.grow(leaves)
    root = frontier.root()
    return Folded(newest is not None and _signs(connection, public_key, newest.note, root), frontier.size, root)


def _leaves(connection: Connection, size: int) -> Iterator[list[bytes]]:
    """Leaf hashes in order, as far as there are bodies without a gap."""
    for first in range(0, size, _CHUNK):
        until = min(first + _CHUNK, size)
        found = rows(connection, _BODIES, (first, until))
        leaves = _hashed(found)
        yield leaves
        if len(found) != until - first or found[-1][0] != until - 1:
            return


def _hashed(found: Sequence[Row]) -> list[bytes]:
    prefix = b"\x00" + VERSION
    return [
        # leaf_of(salt, record), written out: this is the hot path.
        sha256(prefix + sha256(salt + record).digest()).digest()
        if record is not None
        else merkle.leaf_hash(entry_of_commitment(commitment or b""))
        for _, salt, record, commitment in found
    ]


def _signs(connection: Connection, public_key: Ed25519PublicKey, note: str, root: bytes) -> bool:
    stored = connection.execute(select(KEYS.c.verifier_key, KEYS.c.hand_over).order_by(KEYS.c.place)).all()
    try:
        origin = NoteVerifier.parse(stored[0].verifier_key if stored else "").name
        keys = Keys.across(NoteVerifier(origin, public_key), [row.hand_over for row in stored[1:]])
        return keys.open(note).root == root
    except NoteError:
        return False
