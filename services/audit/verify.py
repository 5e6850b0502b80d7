"""Verification: everything that the log claims, recomputed from its stored bytes.

record + salt → entry → leaf → nodes → root → checkpoint and its signature, by the key that could sign it, and each
cosignature; and the filter columns from the record. One flipped bit in any of them is a fault; what is erased, with the
record that says so, is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from planier.audit.v1.record_pb2 import AccessRecord
from sqlalchemy import Connection, Row, func, make_url, select

from services.audit import merkle, nodes
from services.audit.cosignature import Cosigner
from services.audit.database import snapshot
from services.audit.derived import BLANK, columns_between, derived_until
from services.audit.entry import columns_of, entry_of_commitment, parse_record
from services.audit.erasure import states_erasure
from services.audit.hand_over import Keys
from services.audit.log import leaf_of
from services.audit.note import NoteError, NoteVerifier
from services.audit.schema import BODIES, CHECKPOINTS, COSIGNATURES, KEYS, RECORDS
from services.audit.sequences import Sequences
from services.kernel.store.engine import open_engine

# Even, so that a pair of leaves is never cut.
_CHUNK = 4_096
MAX_FAULTS = 100
_LAST = (1 << 63) - 1

Derived = tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class LogFault:
    """What is wrong, and at which log index (of a node: its first leaf; of a checkpoint: its size).

    RECORD_ALTERED, COLUMN_ALTERED, LEAF_ALTERED, NODE_ALTERED, ROOT_MISMATCH, SIGNATURE_INVALID, COSIGNATURE_INVALID,
    KEY_INVALID, ENTRY_MISSING, ENTRY_REPEATED or ERASURE_UNAUTHORISED.
    """

    index: int
    fault: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The outcome: sound without a fault; the first MAX_FAULTS of them; `root` recomputed.

    `holes` are counts of one process that no record bears, from 1 to its last: a call that ended before its
    record was durable leaves one too, so they are shown and are no fault of the log.

    `unsigned` newest records lie under no stored checkpoint: the last write's while the log is open or after a crash,
    none after an orderly end. More of them were put there by somebody without the log's key.
    """

    tree_size: int
    root: bytes
    erased: int
    checkpoints: int
    faults: tuple[LogFault, ...]
    holes: dict[str, int]
    unsigned: int

    @property
    def sound(self) -> bool:
        """Whether no fault was found."""
        return not self.faults


def verify_database(url: str, public_key: Ed25519PublicKey) -> VerifyReport:
    """Verifies a whole log offline, given the public key it is known by; blocking.

    Raises:
        FileNotFoundError: the SQLite database does not exist; looking must not make it.
    """
    with reading(url) as connection:
        return verify_log(connection, public_key)


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """A read transaction over a log's database that nobody serves; FileNotFoundError where there is no such file."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise FileNotFoundError("no such database")
    engine = open_engine(url)
    try:
        with snapshot(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def verify_log(connection: Connection, public_key: Ed25519PublicKey, size: int | None = None) -> VerifyReport:
    """Verifies the log up to a size it has reached (None: all of it, and that nothing lies beyond)."""
    return _Verification(connection, public_key).run(size)


@dataclass(slots=True)
class _Verification:
    connection: Connection
    key: Ed25519PublicKey
    faults: list[LogFault] = field(default_factory=list)
    erased: int = 0
    checkpoints: int = 0
    # The size of the newest checkpoint that holds.
    signed: int = 0
    frontier: merkle.Frontier = merkle.EMPTY
    # Which numbers of each process are there.
    sequences: Sequences = field(default_factory=Sequences)
    # Columns follow the log: what lies beyond is not derived yet, which is no fault.
    derived_until: int = 0
    # The statement of erasure looked at last: 500 erasures cite the same.
    statement: tuple[int, AccessRecord | None] = (-1, None)
    # None: the log's keys do not hold together, and so no signature does.
    keys: Keys | None = None

    def run(self, size: int | None) -> VerifyReport:
        stop = _stored_size(self.connection) if size is None else size
        self.derived_until = derived_until(self.connection)
        self._keys()
        for head in self._heads(-1, 0):
            self._checkpoint(head)
        for first in range(0, stop, _CHUNK):
            until = min(first + _CHUNK, stop)
            self._extend(self._leaves(first, until, stop))
            if self.frontier.size != until:
                break
        if size is None:
            self._nothing_beyond()
            self._repetitions()
            self._cosignatures()
        return VerifyReport(
            self.frontier.size,
            self.frontier.root(),
            self.erased,
            self.checkpoints,
            tuple(self.faults[:MAX_FAULTS]),
            {hole.instance: hole.missing for hole in self.sequences.holes()},
            self.frontier.size - self.signed,
        )

    def _fault(self, index: int, fault: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(LogFault(index, fault))

    def _leaves(self, first: int, until: int, stop: int) -> list[bytes]:
        """The leaves to rebuild the tree from, up to the first that cannot be known."""
        bounds = RECORDS.c.idx >= first, RECORDS.c.idx < until
        records = {row.idx: row for row in self.connection.execute(select(RECORDS).where(*bounds))}
        query = select(BODIES).where(BODIES.c.idx >= first, BODIES.c.idx < until)
        bodies = {row.idx: row for row in self.connection.execute(query)}
        derived = columns_between(self.connection, first, until)
        leaves = list[bytes]()
        for index in range(first, until):
            leaf = self._leaf(index, records.get(index), bodies.get(index), derived.get(index), stop)
            if leaf is None:
                break
            leaves.append(leaf)
        return leaves

    def _leaf(
        self, index: int, record: Row[Any] | None, body: Row[Any] | None, derived: Derived, stop: int
    ) -> bytes | None:
        """The leaf by the record's own bytes where they are there, else as stored; None where neither is."""
        if record is None or body is None:
            self._fault(index, "ENTRY_MISSING")
            return None if record is None else bytes(record.leaf_hash)
        stored: bytes = record.leaf_hash
        if body.record is None and body.salt is None:
            self._erasure(index, record, body, derived, stop)
            return stored
        if body.record is None or body.salt is None or body.erased_by is not None:
            self._fault(index, "ENTRY_MISSING")
            return stored
        if body.commitment is not None:
            self._fault(index, "COLUMN_ALTERED")
        computed = leaf_of(body.salt, body.record)
        if computed != stored:
            return self._settle(index, stored, computed)
        self._columns(index, record, body.record, derived)
        return stored

    def _settle(self, index: int, stored: bytes, computed: bytes) -> bytes:
        """Which of record and leaf was altered, by the parent that the tree holds; the record where nothing tells."""
        sibling = self.connection.execute(select(RECORDS.c.leaf_hash).where(RECORDS.c.idx == (index ^ 1))).scalar()
        parent = nodes.stored(self.connection, [(1, index >> 1)]).get((1, index >> 1))
        pair = (sibling or b"", computed) if index & 1 else (computed, sibling or b"")
        if parent is not None and parent == merkle.node_hash(*pair):
            self._fault(index, "LEAF_ALTERED")
            return computed
        self._fault(index, "RECORD_ALTERED")
        return stored

    def _erasure(self, index: int, record: Row[Any], body: Row[Any], derived: Derived, stop: int) -> None:
        if body.erased_by is None or not 0 <= body.erased_by < stop:
            self._fault(index, "ENTRY_MISSING")
            return
        if derived != BLANK and index < self.derived_until:
            self._fault(index, "COLUMN_ALTERED")
        if not self._is_stated(index, body.erased_by):
            self._fault(index, "ERASURE_UNAUTHORISED")
        if body.commitment is None or merkle.leaf_hash(entry_of_commitment(body.commitment)) != record.leaf_hash:
            self._fault(index, "LEAF_ALTERED")
        self.erased += 1
        self.sequences.add(None, None)

    def _is_stated(self, index: int, erased_by: int) -> bool:
        """Whether the record that an erasure cites authorises it; that record is verified in its own place."""
        if self.statement[0] != erased_by:
            content = self.connection.execute(select(BODIES.c.record).where(BODIES.c.idx == erased_by)).scalar()
            self.statement = erased_by, parse_record(content) if content is not None else None
        stated = self.statement[1]
        return stated is not None and index < erased_by and states_erasure(stated, index)

    def _columns(self, index: int, record: Row[Any], content: bytes, derived: Derived) -> None:
        parsed = parse_record(content)
        other = parsed is None or record.record_id != parsed.record_id
        if other or (index < self.derived_until and derived != _expected(parsed)):
            self._fault(index, "COLUMN_ALTERED")
        if parsed is None:
            return
        self.sequences.add(parsed.instance, parsed.sequence)

    def _extend(self, leaves: list[bytes]) -> None:
        """Grows the tree, stopping at each checkpoint's size to compare, then compares the inner nodes."""
        first, runs = self.frontier.size, list[merkle.Run]()
        until = first + len(leaves)
        heads = self._heads(first, until)
        for stop in [*(head.size for head in heads), until]:
            self.frontier, grown = self.frontier.grow(leaves[self.frontier.size - first : stop - first])
            runs += grown
            if heads and heads[0].size == stop:
                self._checkpoint(heads.pop(0))
        self._nodes(runs)

    def _nodes(self, grown: list[merkle.Run]) -> None:
        for level, start, hashes in grown:
            stored = nodes.span(self.connection, level, start, start + len(hashes))
            for index, value in enumerate(hashes, start):
                if stored.get(index) != value:
                    self._fault(index << level, "NODE_ALTERED")

    def _heads(self, after: int, until: int) -> list[Row[Any]]:
        query = select(CHECKPOINTS).where(CHECKPOINTS.c.size > after, CHECKPOINTS.c.size <= until)
        return list(self.connection.execute(query.order_by(CHECKPOINTS.c.size)))

    def _keys(self) -> None:
        """The log's keys, each handed over by the one before, of which one is the key that the verifier trusts."""
        rows = self.connection.execute(select(KEYS).order_by(KEYS.c.place)).all()
        try:
            origin = NoteVerifier.parse(rows[0].verifier_key if rows else "").name
            found = Keys.across(NoteVerifier(origin, self.key), [row.hand_over for row in rows[1:]])
        except NoteError:
            self._fault(0, "KEY_INVALID")
            return
        named = zip((0, *found.bounds), found.verifiers, strict=True)
        wanted = [(place, size, verifier.text()) for place, (size, verifier) in enumerate(named)]
        if [tuple(row[:3]) for row in rows] != wanted or rows[0].hand_over:
            self._fault(0, "KEY_INVALID")
        self.keys = found

    def _checkpoint(self, head: Row[Any]) -> None:
        self.checkpoints += 1
        root = self.frontier.root()
        try:
            claimed = self.keys.open(head.note) if self.keys is not None else None
        except NoteError:
            claimed = None
        if claimed is None:
            self._fault(head.size, "SIGNATURE_INVALID")
            return
        if head.root != root or claimed.root != root or claimed.size != head.size:
            self._fault(head.size, "ROOT_MISMATCH")
            return
        self.signed = head.size

    def _cosignatures(self) -> None:
        """Each witness's line, by the key that its row names; who is a witness, the auditor knows."""
        query = select(COSIGNATURES, CHECKPOINTS.c.note).outerjoin(
            CHECKPOINTS, CHECKPOINTS.c.size == COSIGNATURES.c.size
        )
        for row in self.connection.execution_options(yield_per=_CHUNK).execute(query):
            try:
                Cosigner.parse(row.verifier_key).open((row.note or "") + row.line)
            except NoteError:
                self._fault(row.size, "COSIGNATURE_INVALID")

    def _repetitions(self) -> None:
        """No two leaves are equal: each has a salt of its own."""
        leaf = RECORDS.c.leaf_hash
        query = select(func.max(RECORDS.c.idx)).group_by(leaf).having(func.count() > 1).limit(MAX_FAULTS)
        for index in self.connection.execute(query).scalars():
            self._fault(index, "ENTRY_REPEATED")

    def _nothing_beyond(self) -> None:
        size = self.frontier.size
        if self._heads(size, _LAST):
            self._fault(size, "ENTRY_MISSING")
        if not nodes.count_is(self.connection, size):
            self._fault(size, "NODE_ALTERED")
        if self.derived_until > size:
            self._fault(size, "COLUMN_ALTERED")


def _expected(record: AccessRecord | None) -> Derived:
    return BLANK if record is None else columns_of(record)


def _stored_size(connection: Connection) -> int:
    """Where the log ends by any of its tables: a record cut off from its body still counts."""
    lasts = [connection.execute(select(func.max(table.c.idx))).scalar() for table in (RECORDS, BODIES)]
    return max(-1 if last is None else int(last) for last in lasts) + 1
