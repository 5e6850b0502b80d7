"""What the log publishes of itself: checkpoints, tiles, bundles of entries, cosignatures. Hashes and signatures only.

Nothing here reads a record but to compute the entry that commits to it, and an entry that is not the one in the tree
is never given out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from services.audit import merkle, nodes
from services.audit.checkpoint import Checkpoint
from services.audit.cosignature import Cosigner
from services.audit.database import exclusive
from services.audit.entry import entry_of, entry_of_commitment
from services.audit.log import AccessLog, SignedHead
from services.audit.note import NoteError, Signature, parse_signatures
from services.audit.schema import BODIES, CHECKPOINTS, COSIGNATURES, RECORDS
from services.audit.sequencer import hand_overs
from services.audit.tiles import ENTRIES, Tile, TileError, join_entries


class Corrupt(Exception):  # noqa: N818 -- a state of the store
    """What is stored here is not what the tree commits to: it is not given out."""


@dataclass(frozen=True, slots=True)
class Published:
    """A signed head with the cosignatures that have come in; `missing` names the witnesses that have not signed it."""

    head: SignedHead
    cosignatures: tuple[Signature, ...]
    missing: tuple[str, ...]

    @property
    def note(self) -> str:
        """The checkpoint with every signature."""
        return self.head.note + "".join(line.line() for line in self.cosignatures)


class Publication:
    """The public face of one log, under the witnesses whose cosignatures it needs. Blocking, like the log itself."""

    def __init__(self, log: AccessLog, witnesses: Sequence[Cosigner]) -> None:
        self.log = log
        self.witnesses = tuple(witnesses)

    def newest(self) -> Published:
        """The newest head, cosigned or not yet."""
        return self._published(self.log.head())

    def witnessed(self) -> Published | None:
        """The newest head that every witness has cosigned; None where there is none, or no witness."""
        return self.cosigned_by(self.witnesses)

    def cosigned_by(self, witnesses: Sequence[Cosigner]) -> Published | None:
        """The newest head that these witnesses have cosigned; None where there is none, or no witness."""
        with self.log.reading() as connection:
            size = _newest_of_all(connection, witnesses)
            if size is None:
                return None
            row = connection.execute(select(CHECKPOINTS).where(CHECKPOINTS.c.size == size)).one()
        return self._published(SignedHead(Checkpoint(self.log.origin, row.size, row.root), row.note))

    def cosigned_size(self, witness: Cosigner) -> int:
        """The size of the largest head that a witness has cosigned; 0 where there is none."""
        with self.log.reading() as connection:
            return _largest(connection, witness)

    def add(self, head: SignedHead, cosignatures: Sequence[tuple[Cosigner, Signature]]) -> None:
        """Keeps cosignatures that were verified on this head, and the head with them; what is known stays as it is."""
        checkpoint = head.checkpoint
        with exclusive(self.log.engine) as connection:
            known = select(CHECKPOINTS.c.size).where(CHECKPOINTS.c.size == checkpoint.size)
            if connection.execute(known).first() is None:
                row = {"size": checkpoint.size, "root": checkpoint.root, "note": head.note}
                connection.execute(insert(CHECKPOINTS).values(**row))
            for witness, line in cosignatures:
                key = COSIGNATURES.c.size == checkpoint.size, COSIGNATURES.c.verifier_key == witness.text()
                if connection.execute(select(COSIGNATURES.c.size).where(*key)).first() is None:
                    row = {"size": checkpoint.size, "verifier_key": witness.text(), "line": line.line()}
                    connection.execute(insert(COSIGNATURES).values(**row))

    def accept(self, note: str) -> tuple[Checkpoint, tuple[str, ...]]:
        """Takes cosignatures that came as a file: a checkpoint of this log with a witness's line on it.

        Returns the checkpoint and the names of the witnesses whose lines were kept.

        Raises:
            NoteError: it is not this log's checkpoint, or no witness signed it, or a line does not hold.
        """
        checkpoint = self.log.keys().open(note)
        if checkpoint.size > self.log.size() or self.log.root_at(checkpoint.size) != checkpoint.root:
            raise NoteError("a checkpoint that this log never had")
        text, signatures = note.rpartition("\n\n")[::2]
        present = {(line.name, line.key_id) for line in parse_signatures(signatures)}
        own = [witness for witness in self.witnesses if (witness.name, witness.key_id) in present]
        if not own:
            raise NoteError("no witness of this log has signed it")
        kept = [(witness, witness.open(note)[0]) for witness in own]
        self.add(SignedHead(checkpoint, self._log_lines(text, signatures)), kept)
        return checkpoint, tuple(witness.name for witness in own)

    def hand_overs(self) -> list[str]:
        """Every hand-over of the log's key, in order."""
        with self.log.reading() as connection:
            return hand_overs(connection)

    def tile(self, tile: Tile) -> bytes:
        """The bytes of a tile or bundle.

        Raises:
            TileError: the log has not reached it. Corrupt: a stored entry is not the one in the tree.
        """
        with self.log.reading() as connection:
            if tile.level == ENTRIES:
                return join_entries(_entries(connection, tile))
            hashes = _hashes(connection, tile)
        if len(hashes) != tile.width:
            raise TileError("the log has no such tile yet")
        return b"".join(hashes)

    def _published(self, head: SignedHead) -> Published:
        with self.log.reading() as connection:
            query = select(COSIGNATURES).where(COSIGNATURES.c.size == head.checkpoint.size)
            lines = {row.verifier_key: row.line for row in connection.execute(query)}
        present = [witness for witness in self.witnesses if witness.text() in lines]
        signatures = tuple(line for witness in present for line in parse_signatures(lines[witness.text()]))
        missing = tuple(witness.name for witness in self.witnesses if witness.text() not in lines)
        return Published(head, signatures, missing)

    def _log_lines(self, text: str, signatures: str) -> str:
        own = {verifier.key_id for verifier in self.log.keys().verifiers}
        lines = [line.line() for line in parse_signatures(signatures) if line.key_id in own]
        return f"{text}\n\n{''.join(lines)}"


def _newest_of_all(connection: Connection, witnesses: Sequence[Cosigner]) -> int | None:
    # From the witness that is furthest behind: whoever was away long has few heads to look through.
    ordered = sorted(witnesses, key=lambda witness: _largest(connection, witness))
    if not ordered:
        return None
    slowest, *others = (COSIGNATURES.alias(f"of_{place}") for place in range(len(ordered)))
    query = select(slowest.c.size).where(slowest.c.verifier_key == ordered[0].text())
    for other, witness in zip(others, ordered[1:], strict=True):
        same = select(other.c.size).where(other.c.size == slowest.c.size, other.c.verifier_key == witness.text())
        query = query.where(same.exists())
    found: int | None = connection.execute(query.order_by(slowest.c.size.desc()).limit(1)).scalar()
    return found


def _largest(connection: Connection, witness: Cosigner) -> int:
    query = select(func.max(COSIGNATURES.c.size)).where(COSIGNATURES.c.verifier_key == witness.text())
    return int(connection.execute(query).scalar() or 0)


def _hashes(connection: Connection, tile: Tile) -> list[bytes]:
    first, until = tile.first, tile.first + tile.width
    if tile.level == 0:
        query = select(RECORDS.c.leaf_hash).where(RECORDS.c.idx >= first, RECORDS.c.idx < until)
        return list(connection.execute(query.order_by(RECORDS.c.idx)).scalars())
    return list(nodes.span(connection, tile.node_level, first, until).values())


def _entries(connection: Connection, tile: Tile) -> list[bytes]:
    query = (
        select(RECORDS.c.leaf_hash, BODIES.c.salt, BODIES.c.record, BODIES.c.commitment)
        .join(BODIES, BODIES.c.idx == RECORDS.c.idx, isouter=True)
        .where(RECORDS.c.idx >= tile.first, RECORDS.c.idx < tile.first + tile.width)
        .order_by(RECORDS.c.idx)
    )
    entries = list[bytes]()
    for leaf, salt, record, commitment in connection.execute(query):
        held = salt is not None and record is not None
        entry = entry_of(salt, record) if held else entry_of_commitment(commitment or b"")
        if merkle.leaf_hash(entry) != leaf:
            raise Corrupt("a stored record is not the one that the tree commits to")
        entries.append(entry)
    if len(entries) != tile.width:
        raise TileError("the log has no such bundle yet")
    return entries
