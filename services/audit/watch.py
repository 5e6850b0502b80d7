"""The log checks itself: part after part, from the records' bytes up to the signed root, and that no number is missing.

One part at a time (4,096 leaves, some 40 ms), so that the check never stands in a writer's way; ten million records
are one round of 2,442 turns. Parts known to be altered are checked again at each turn, so that a restored one is read.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from services.audit import merkle, nodes
from services.audit.derived import BLANK, columns_between, derived_until
from services.audit.entry import columns_of, entry_of_commitment, parse_record
from services.audit.erasure import states_erasure
from services.audit.integrity import PART, Integrity
from services.audit.log import AccessLog, leaf_of
from services.audit.schema import BODIES, CHECKPOINTS, RECORDS
from services.audit.sequences import Hole, Sequences
from services.kernel.telemetry import Telemetry

_PART_LEVEL = PART.bit_length() - 1


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
        self._log.catch_up()
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
    return _nodes_fault(connection, grown, first) or _root_fault(connection, first, size)


def _rows_fault(connection: Connection, first: int, end: int) -> list[bytes] | tuple[int, str]:
    bounds = RECORDS.c.idx >= first, RECORDS.c.idx < end
    records = {row.idx: row for row in connection.execute(select(RECORDS).where(*bounds))}
    bodies = {
        row.idx: row for row in connection.execute(select(BODIES).where(BODIES.c.idx >= first, BODIES.c.idx < end))
    }
    # What was recorded a moment ago may not be derived yet.
    until, columns = derived_until(connection), columns_between(connection, first, end)
    leaves = []
    for index in range(first, end):
        record, body = records.get(index), bodies.get(index)
        if record is None or body is None:
            return index, "ENTRY_MISSING"
        fault = _erasure_fault(connection, record, body) if body.record is None else _row_fault(record, body)
        if not fault and index < until and columns.get(index) != _columns(body.record):
            fault = "COLUMN_ALTERED"
        if fault:
            return index, fault
        leaves.append(bytes(record.leaf_hash))
    return leaves


def _columns(content: bytes | None) -> tuple[Any, ...]:
    parsed = parse_record(content) if content is not None else None
    return BLANK if parsed is None else columns_of(parsed)


def _row_fault(record: Row[Any], body: Row[Any]) -> str:
    if body.salt is None or body.erased_by is not None:
        return "ENTRY_MISSING"
    if leaf_of(body.salt, body.record) != record.leaf_hash:
        return "RECORD_ALTERED"
    if body.commitment is not None:
        return "COLUMN_ALTERED"
    parsed = parse_record(body.record)
    if parsed is None or parsed.record_id != record.record_id:
        return "COLUMN_ALTERED"
    return ""


def _erasure_fault(connection: Connection, record: Row[Any], body: Row[Any]) -> str:
    """An erasure is one only where the record that it cites states it."""
    if body.salt is not None or body.erased_by is None:
        return "ENTRY_MISSING"
    if body.commitment is None or merkle.leaf_hash(entry_of_commitment(body.commitment)) != record.leaf_hash:
        return "LEAF_ALTERED"
    stated = connection.execute(select(BODIES.c.record).where(BODIES.c.idx == body.erased_by)).scalar()
    parsed = parse_record(stated) if stated is not None else None
    return "" if parsed is not None and states_erasure(parsed, record.idx) else "ERASURE_UNAUTHORISED"


def _nodes_fault(connection: Connection, grown: Sequence[merkle.Run], first: int) -> tuple[int, str] | None:
    """Inner nodes of one part against those recomputed from its leaves."""
    for level, start, hashes in grown:
        low = (first >> level) + start
        found = nodes.span(connection, level, low, low + len(hashes))
        for place, value in enumerate(hashes):
            if found.get(low + place) != value:
                return max(first, (low + place) << level), "NODE_ALTERED"
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
    found = nodes.stored(connection, wanted)
    return [found.get(node, b"") for node in wanted]
