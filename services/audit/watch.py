"""The log checks itself: part after part, from the records' bytes up to the signed root, and that no number is missing.

One part at a time (4,096 leaves, some 40 ms), so that the check never stands in a writer's way; ten million records
are one round of 2,442 turns. Parts known to be altered are checked again at each turn, so that a restored one is read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.guard_pb2 import OPERATION_ERASE
from sqlalchemy import Connection, Row, select

from services.audit import merkle
from services.audit.entry import columns_of, entry_of_commitment, parse_record
from services.audit.integrity import PART, Integrity
from services.audit.log import AccessLog, leaf_of
from services.audit.schema import BODIES, CHECKPOINTS, COLUMNS, NODES, RECORDS
from services.audit.sequences import Hole, Sequences
from services.kernel.telemetry import Telemetry

_PART_LEVEL = PART.bit_length() - 1
ACCESS_LOG = "access-log"
# The filter in which a statement of erasure names its indices, as "0-499,502-502".
ERASED = "indices"


class Watch:
    """One turn after the other over the log. Blocking: call `turn` from a worker thread."""

    def __init__(self, log: AccessLog, integrity: Integrity, telemetry: Telemetry) -> None:
        self._log = log
        self._integrity = integrity
        self._telemetry = telemetry
        self._sequences = Sequences()
        self._next = 0
        self.rounds = 0
        self.holes: tuple[Hole, ...] = ()

    @property
    def checked_until(self) -> int:
        """How far the present round has come."""
        return self._next

    def turn(self, now: float) -> None:
        """Checks the next part and those known to be altered, and follows the counts. `now` is monotonic."""
        with self._log.reading() as connection:
            size = self._log.frontier().size
            places = {part.first for part in self._integrity.corrupt} | ({self._next} if self._next < size else set())
            for first in sorted(places):
                fault = part_fault(connection, first, min(first + PART, size), size)
                if fault is None:
                    self._integrity.sound(first)
                else:
                    self._integrity.found(*fault)
            self._sequences.follow(connection, size, now)
        self._next += PART
        if self._next >= size:
            self._next, self.rounds = 0, self.rounds + 1
        self.holes = self._sequences.holes(now)
        self._telemetry.state("planier.audit.holes", sum(hole.missing for hole in self.holes))


def part_fault(connection: Connection, first: int, end: int, size: int) -> tuple[int, str] | None:
    """The first fault of a part [first, end) of a log of `size`, as (log index, name); None where it holds.

    `first` is a multiple of PART. Rows against leaves and columns, leaves against nodes, nodes against the signed root.
    """
    leaves = _rows_fault(connection, first, end)
    if isinstance(leaves, tuple):
        return leaves
    _, grown = merkle.EMPTY.grow(leaves)
    nodes = {(level, (first >> level) + index): value for level, index, value in grown}
    return _nodes_fault(connection, nodes, first) or _root_fault(connection, first, size)


def _rows_fault(connection: Connection, first: int, end: int) -> list[bytes] | tuple[int, str]:
    bounds = RECORDS.c.idx >= first, RECORDS.c.idx < end
    records = {row.idx: row for row in connection.execute(select(RECORDS).where(*bounds))}
    bodies = {
        row.idx: row for row in connection.execute(select(BODIES).where(BODIES.c.idx >= first, BODIES.c.idx < end))
    }
    leaves = []
    for index in range(first, end):
        record, body = records.get(index), bodies.get(index)
        if record is None or body is None:
            return index, "ENTRY_MISSING"
        fault = _erasure_fault(connection, record, body) if body.record is None else _row_fault(record, body)
        if fault:
            return index, fault
        leaves.append(bytes(record.leaf_hash))
    return leaves


def _row_fault(record: Row[Any], body: Row[Any]) -> str:
    if body.salt is None or body.erased_by is not None:
        return "ENTRY_MISSING"
    if leaf_of(body.salt, body.record) != record.leaf_hash:
        return "RECORD_ALTERED"
    if body.commitment is not None:
        return "COLUMN_ALTERED"
    parsed = parse_record(body.record)
    if parsed is None or parsed.record_id != record.record_id or tuple(record[3:]) != columns_of(parsed):
        return "COLUMN_ALTERED"
    return ""


def _erasure_fault(connection: Connection, record: Row[Any], body: Row[Any]) -> str:
    """An erasure is one only where the record that it cites states it."""
    if body.salt is not None or body.erased_by is None:
        return "ENTRY_MISSING"
    if any(getattr(record, name) is not None for name in COLUMNS):
        return "COLUMN_ALTERED"
    if body.commitment is None or merkle.leaf_hash(entry_of_commitment(body.commitment)) != record.leaf_hash:
        return "LEAF_ALTERED"
    stated = connection.execute(select(BODIES.c.record).where(BODIES.c.idx == body.erased_by)).scalar()
    parsed = parse_record(stated) if stated is not None else None
    return "" if parsed is not None and states_erasure(parsed, record.idx) else "ERASURE_UNAUTHORISED"


def states_erasure(record: AccessRecord, index: int) -> bool:
    """Whether a record says that the log erased this index at the end of its time (services/audit/retention.py)."""
    if record.operation != OPERATION_ERASE or record.resource != ACCESS_LOG:
        return False
    for run in record.data.filters.get(ERASED, "").split(","):
        first, _, last = run.partition("-")
        if first.isdecimal() and last.isdecimal() and int(first) <= index <= int(last):
            return True
    return False


def _nodes_fault(connection: Connection, nodes: Mapping[merkle.Node, bytes], first: int) -> tuple[int, str] | None:
    """Inner nodes of one part against those recomputed from its leaves."""
    for level in range(1, _PART_LEVEL + 1):
        wanted = {index: value for (node_level, index), value in nodes.items() if node_level == level}
        if not wanted:
            break
        query = select(NODES.c.idx, NODES.c.hash).where(
            NODES.c.level == level, NODES.c.idx >= min(wanted), NODES.c.idx <= max(wanted)
        )
        stored: dict[int, bytes] = {row.idx: row.hash for row in connection.execute(query)}
        for index in sorted(wanted):
            if stored.get(index) != wanted[index]:
                return max(first, index << level), "NODE_ALTERED"
    return None


def _root_fault(connection: Connection, first: int, size: int) -> tuple[int, str] | None:
    """The part's place in the newest signed tree that holds it: each node above it is that of its two children."""
    query = select(CHECKPOINTS).where(CHECKPOINTS.c.size <= size).order_by(CHECKPOINTS.c.size.desc()).limit(1)
    head = connection.execute(query).first()
    if head is None or head.size <= first:
        return None
    for level in range(_PART_LEVEL + 1, head.size.bit_length()):
        index = first >> level
        if (index + 1) << level > head.size:
            break
        found = _stored(connection, [(level, index), (level - 1, 2 * index), (level - 1, 2 * index + 1)])
        if found[0] != merkle.node_hash(found[1], found[2]):
            return first, "NODE_ALTERED"
    peaks = _stored(connection, merkle.complete_nodes((0, head.size)))
    return None if merkle.fold(peaks) == head.root else (first, "ROOT_MISMATCH")


def _stored(connection: Connection, wanted: Sequence[merkle.Node]) -> list[bytes]:
    """Stored hashes of complete nodes, leaves included; b"" for one that is missing."""
    found = []
    for level, index in wanted:
        query = (
            select(NODES.c.hash).where(NODES.c.level == level, NODES.c.idx == index)
            if level
            else select(RECORDS.c.leaf_hash).where(RECORDS.c.idx == index)
        )
        found.append(bytes(connection.execute(query).scalar() or b""))
    return found
