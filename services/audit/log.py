"""The log's store: records, their bodies, the tree's nodes and its checkpoints in one database.

One append is one transaction for many records. Whoever appends holds the database's exclusive lock and reads the size
and the newest epoch under it, so that two processes can never fork the log and only the last that opened it appends.
What can be derived from the records is not the append's to write (services/audit/derived.py).
"""

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from services.audit import merkle, nodes
from services.audit.appending import APPEND, SETUP, STORE_HEAD, Append
from services.audit.batch import Appended, Batch, Known
from services.audit.checkpoint import Checkpoint
from services.audit.database import Writer, exclusive, rows, run, snapshot
from services.audit.derived import catch_up
from services.audit.entry import SALT_SIZE, entry_of
from services.audit.hand_over import Keys
from services.audit.note import NoteSigner, NoteVerifier
from services.audit.schema import BODIES, CHECKPOINTS, COLUMNS, DERIVED, RECORDS, create_schema
from services.audit.sequencer import LogBroken, LogFenced, hand_overs, require_key, take_over
from services.audit.upgrade import upgrade
from services.kernel.store.engine import open_engine

_SIZE = "SELECT max(idx) FROM access_records"
_HEAD = "SELECT (SELECT max(epoch) FROM sequencers), (SELECT max(idx) FROM access_records)"

# How far back a leaf is looked for by its hash, which has no index (see schema): a bounded scan of some milliseconds.
RECENT = 65_536
# All ids in one value: a list of hundreds of variables costs more to prepare than to look up.
_KNOWN = (
    "SELECT r.record_id, r.idx, r.leaf_hash, b.salt, b.record FROM access_records r"
    " JOIN access_bodies b ON b.idx = r.idx WHERE r.record_id "
)
_KNOWN_SQLITE = _KNOWN + "IN (SELECT value FROM json_each(?))"  # noqa: S608 -- a constant
_KNOWN_POSTGRESQL = _KNOWN + "= ANY(?)"


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A checkpoint and the note that signs it."""

    checkpoint: Checkpoint
    note: str


class AccessLog:
    """The access log of one database. Blocking: call it from a worker thread; threads may share it.

    `origin` is the checkpoint's origin and key name; `key` signs checkpoints; `instance` names this process.
    """

    def __init__(
        self,
        url: str,
        *,
        origin: str,
        key: Ed25519PrivateKey,
        instance: str = "",
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.engine = open_engine(url)
        self.origin = origin
        self._signer = NoteSigner(origin, key)
        self._writer = Writer(self.engine, SETUP)
        self._instance = instance
        self._epoch = 0
        self._random_bytes = random_bytes
        self._frontier = merkle.EMPTY
        self._unstored: SignedHead | None = None
        # Held over the commit and the signature after it, so that heads of this process are signed in order.
        self._turn = threading.Lock()

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What `append` raises where the database cannot be written."""
        return SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error

    @property
    def verifier(self) -> NoteVerifier:
        """What verifies this log's checkpoints."""
        return self._signer.verifier

    def open(self) -> None:
        """Creates the schema, takes the log over from whoever had it, signs the head left unsigned.

        Raises:
            LogBroken: the tree has not the newest signed root any more, or another key's turn it is; the database is
                let go.
        """
        try:
            self._open()
        except BaseException:
            self.engine.dispose()
            raise

    def _open(self) -> None:
        with exclusive(self.engine) as connection:
            upgrade(connection)
            create_schema(connection)
            require_key(connection, self.verifier)
            self._frontier = _load_frontier(connection)
            newest = connection.execute(select(CHECKPOINTS).order_by(CHECKPOINTS.c.size.desc()).limit(1)).first()
            if newest is not None and self._root_at(connection, newest.size) != newest.root:
                raise LogBroken("the stored tree is not the one that was signed")
            self._epoch = take_over(connection, self._instance)
        if newest is None or newest.size < self._frontier.size:
            self._unstored = self._sign(self._frontier)
            self.store_checkpoint()

    def close(self) -> None:
        """Stores the newest checkpoint and lets the database go."""
        self.store_checkpoint()
        self._writer.close()
        self.engine.dispose()

    def append(self, items: Sequence[tuple[str, bytes]]) -> list[Appended]:
        """Makes records durable and in the tree, in one transaction; one result per item (record id, bytes), in order.

        A known id with the same bytes gives its first result again, with other bytes CONFLICT; bytes that are not an
        AccessRecord of that id give INVALID. Then signs the new head: never before the commit.

        Raises:
            LogFenced: another process has opened the log since; nothing was written.
        """
        with self._turn:
            try:
                return self._append_at_once(items) if self._writer.at_once else self._append(items, look=False)
            except (IntegrityError, self.engine.dialect.loaded_dbapi.IntegrityError):
                # Nothing was written. Some are known already, as after a client's second try, and are looked up; or
                # another process has the log.
                return self._append(items, look=True)

    def _append_at_once(self, items: Sequence[tuple[str, bytes]]) -> list[Appended]:
        new = self._lay_out(items, self._frontier, {})
        self._writer.run(APPEND, new.row())
        return self._appended(new)

    def _append(self, items: Sequence[tuple[str, bytes]], *, look: bool) -> list[Appended]:
        with self._writer.transaction() as connection:
            ((epoch, last),) = rows(connection, _HEAD)
            if epoch != self._epoch:
                raise LogFenced("another process has opened the log since")
            frontier = self._current_frontier(connection, _size_after(last))
            known = _known(connection, [record_id for record_id, _ in items if "\0" not in record_id]) if look else {}
            new = self._lay_out(items, frontier, known)
            new.write(connection)
        return self._appended(new)

    def _lay_out(self, items: Sequence[tuple[str, bytes]], frontier: merkle.Frontier, known: Known) -> Append:
        batch = Batch(frontier.size)
        batch.lay_out(items, known, self._random_bytes(SALT_SIZE * len(items)))
        grown, runs = frontier.grow(batch.leaves)
        return Append(self._epoch, batch, runs, grown, _values(self._unstored))

    def _appended(self, new: Append) -> list[Appended]:
        self._frontier = new.grown
        self._unstored = self._sign(new.grown) if new.batch.leaves else None
        return new.batch.results

    def catch_up(self) -> int:
        """Derives what replay filters on for every durable record, before any look; returns until which index."""
        return catch_up(self.engine)

    def erase(self, indices: Sequence[int], erased_by: int) -> None:
        """Forgets records, salts and columns; `erased_by` is the log index of the record that states the erasure.

        What stays is the commitment, which says nothing of a record without its salt: the entry can still be served.
        """
        with exclusive(self.engine) as connection:
            if not 0 <= erased_by < _size(connection):
                raise ValueError("an erasure cites a record of the log")
            kept = BODIES.c.idx.in_(indices), BODIES.c.erased_by.is_(None)
            found = connection.execute(select(BODIES.c.idx, BODIES.c.salt, BODIES.c.record).where(*kept)).all()
            if not found:
                return
            blank = dict.fromkeys(COLUMNS)
            connection.execute(update(DERIVED).where(DERIVED.c.idx.in_([row.idx for row in found])).values(**blank))
            bodies = update(BODIES).where(BODIES.c.idx == bindparam("at"))
            values = bodies.values(salt=None, record=None, erased_by=erased_by, commitment=bindparam("left"))
            connection.execute(values, [{"at": row.idx, "left": entry_of(row.salt, row.record)[1:]} for row in found])

    def keys(self) -> Keys:
        """The log's keys so far, each with the sizes that it may sign."""
        with self.reading() as connection:
            return Keys.across(self.verifier, hand_overs(connection))

    def frontier(self) -> merkle.Frontier:
        """The tree as it is durable now."""
        with self.reading() as connection:
            return _load_frontier(connection)

    def head(self) -> SignedHead:
        """The newest signed head; what it covers is durable. Deterministic: the same tree signs to the same bytes."""
        return self._sign(self.frontier())

    def store_checkpoint(self) -> None:
        """Stores the newest signed head, which otherwise waits for the next append's transaction."""
        with self._turn:
            if self._unstored is None:
                return
            with exclusive(self.engine) as connection:
                run(connection, STORE_HEAD, _values(self._unstored))
            self._unstored = None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read transaction that sees one state."""
        with snapshot(self.engine) as connection:
            yield connection

    def size(self) -> int:
        """The number of records that are durable."""
        with self.reading() as connection:
            return _size(connection)

    def root_at(self, size: int) -> bytes:
        """The tree hash at a size that the log has reached; ValueError beyond."""
        with self.reading() as connection:
            if size > _size(connection):
                raise ValueError("beyond the log")
            return self._root_at(connection, size)

    def index_of_leaf(self, leaf_hash: bytes) -> int | None:
        """Where a leaf is among the newest RECENT, or None; a receipt states the index of any."""
        recent = RECORDS.c.leaf_hash == leaf_hash, RECORDS.c.idx >= self.size() - RECENT
        with self.reading() as connection:
            found: int | None = connection.execute(select(RECORDS.c.idx).where(*recent).limit(1)).scalar()
            return found

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """Proof that leaf `index` is in the tree of `size`; ValueError where there is none."""
        with self.reading() as connection:
            return self._prove(connection, merkle.inclusion_path(index, size), size)

    def consistency_proof(self, first: int, second: int) -> tuple[bytes, ...]:
        """Proof that the tree of `second` extends that of `first`; ValueError where there is none."""
        with self.reading() as connection:
            return self._prove(connection, merkle.consistency_path(first, second), second)

    def _prove(self, connection: Connection, path: Sequence[merkle.Leaves], size: int) -> tuple[bytes, ...]:
        if size > _size(connection):
            raise ValueError("beyond the log")
        wanted = [node for leaves in path for node in merkle.complete_nodes(leaves)]
        return merkle.hashes(path, nodes.proving(connection, wanted))

    def _root_at(self, connection: Connection, size: int) -> bytes:
        wanted = merkle.complete_nodes((0, size))
        found = nodes.stored(connection, wanted)
        return merkle.fold([found.get(node, b"") for node in wanted])

    def _current_frontier(self, connection: Connection, size: int) -> merkle.Frontier:
        """The frontier at the size read under the lock; another process may have appended since ours was kept."""
        return self._frontier if self._frontier.size == size else _load_frontier(connection)

    def _sign(self, frontier: merkle.Frontier) -> SignedHead:
        checkpoint = Checkpoint(self.origin, frontier.size, frontier.root())
        return SignedHead(checkpoint, self._signer.sign(checkpoint.text()))


def _values(head: SignedHead | None) -> tuple[int, bytes, str] | tuple[None, None, None]:
    return (None, None, None) if head is None else (head.checkpoint.size, head.checkpoint.root, head.note)


def leaf_of(salt: bytes, record: bytes) -> bytes:
    """The leaf hash of a record under its salt."""
    return merkle.leaf_hash(entry_of(salt, record))


def _size(connection: Connection) -> int:
    ((last,),) = rows(connection, _SIZE)
    return _size_after(last)


def _size_after(last: int | None) -> int:
    return 0 if last is None else int(last) + 1


def _load_frontier(connection: Connection) -> merkle.Frontier:
    size = _size(connection)
    wanted = merkle.complete_nodes((0, size))
    found = nodes.stored(connection, wanted)
    if len(found) != len(wanted):
        raise LogBroken("a node of the tree is missing")
    return merkle.Frontier(size, {level: found[level, index] for level, index in wanted})


def _known(connection: Connection, ids: Sequence[str]) -> Known:
    """Which of these records the log holds already."""
    if connection.dialect.name == "sqlite":
        found = rows(connection, _KNOWN_SQLITE, (json.dumps(ids),))
    else:
        found = rows(connection, _KNOWN_POSTGRESQL, (list(ids),))
    return {row[0]: (row[1], row[2], row[3], row[4]) for row in found}
