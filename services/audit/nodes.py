"""The tree's nodes as stored: leaf hashes with their records, inner nodes in runs of what one append completed."""

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from services.audit import merkle
from services.audit.database import insert, rows, run
from services.audit.merkle import HASH_SIZE
from services.audit.schema import NODES

# The most hashes of a run: a longer one would leave its page for others, and a proof of a large log reads some 20 runs.
WIDTH = 16
# In a packed run's number: level above index of the first above count.
_LEVEL, _COUNTED = 57, 5


def insertion(heads: str, hashes: str) -> str:
    """SQLite's statement that stores packed runs, given the expressions of their two values."""
    return (
        f"INSERT INTO tree_runs (level, first, hashes) SELECT value >> {_LEVEL},"  # noqa: S608 -- constants
        f" (value >> {_COUNTED}) & {(1 << _LEVEL - _COUNTED) - 1},"
        f" substr({hashes}, {WIDTH * HASH_SIZE} * key + 1, {HASH_SIZE} * (value & {(1 << _COUNTED) - 1}))"
        f" FROM json_each({heads})"
    )


_STORE = insertion("?1", "?2")
# One descent of the index a node: SQLite scans the whole table for a row value IN (VALUES …).
_INNER = (
    "WITH wanted (level, idx) AS (VALUES @) SELECT w.level, w.idx,"
    " (SELECT substr(n.hashes, CAST(1 + 32 * (w.idx - n.first) AS INTEGER), 32) FROM tree_runs n"
    " WHERE n.level = w.level AND n.first <= w.idx ORDER BY n.first DESC LIMIT 1) FROM wanted w"
)
_LEAVES = "SELECT idx, leaf_hash FROM access_records WHERE idx IN (@)"
# A proof reads of the levels below _STORED only these, and computes those between from the 16 nodes beside its own,
# which one page holds: at 10 million leaves it reads two pages that may not be in memory instead of nine.
_READ = (4, 0)
_STORED = 8
_BLOCK = 4
_LEAVES_BETWEEN = "SELECT idx, leaf_hash FROM access_records WHERE idx >= ? AND idx < ?"
_SPAN = (
    "SELECT first, hashes FROM tree_runs WHERE level = ? AND first < ? AND first >= coalesce("
    "(SELECT max(m.first) FROM tree_runs m WHERE m.level = ? AND m.first <= ?), 0) ORDER BY first"
)
# A run has at most WIDTH hashes, so whichever holds one of these begins as many before them at most.
_BETWEEN = f"SELECT first, hashes FROM tree_runs WHERE level = ? AND first > ? - {WIDTH} AND first < ?"  # noqa: S608 -- a constant
_TOTAL = "SELECT coalesce(sum(length(hashes)), 0) FROM tree_runs"


def store(connection: Connection, runs: Sequence[merkle.Run]) -> None:
    """Stores inner nodes that an append completed."""
    if connection.dialect.name == "sqlite":
        run(connection, _STORE, packed(runs))
    else:
        insert(connection, NODES, _cut(runs))


def packed(runs: Sequence[merkle.Run]) -> tuple[str, bytes]:
    """For SQLite: a number a run, in JSON; the hashes of each in as many bytes as the longest has."""
    cut, full = _cut(runs), WIDTH * HASH_SIZE
    heads = [level << _LEVEL | first << _COUNTED | len(hashes) // HASH_SIZE for level, first, hashes in cut]
    return json.dumps(heads), b"".join(hashes.ljust(full) for *_, hashes in cut)


def _cut(runs: Sequence[merkle.Run]) -> list[tuple[int, int, bytes]]:
    return [
        (level, first + start, b"".join(hashes[start : start + WIDTH]))
        for level, first, hashes in runs
        for start in range(0, len(hashes), WIDTH)
    ]


def stored(connection: Connection, wanted: Sequence[merkle.Node]) -> Mapping[merkle.Node, bytes]:
    """Complete nodes by (level, index), leaves included; those missing are absent."""
    leaves = tuple(index for level, index in wanted if level == 0)
    inner = [node for node in wanted if node[0]]
    found: dict[merkle.Node, bytes] = {}
    if leaves:
        some = rows(connection, _LEAVES.replace("@", ", ".join("?" * len(leaves))), leaves)
        found.update(((0, index), bytes(leaf)) for index, leaf in some)
    if inner:
        values = tuple(number for node in inner for number in node)
        sql = _INNER.replace("@", ", ".join(["(?, ?)"] * len(inner)))
        found.update(((level, index), bytes(value)) for level, index, value in rows(connection, sql, values) if value)
    return found


def proving(connection: Connection, wanted: Sequence[merkle.Node]) -> Mapping[merkle.Node, bytes]:
    """Complete nodes by (level, index): high ones as stored, low ones computed; those missing are absent."""
    found = dict(stored(connection, [node for node in wanted if node[0] >= _STORED]))
    blocks: dict[tuple[int, int], list[merkle.Node]] = {}
    for level, index in wanted:
        if level < _STORED:
            base = next(base for base in _READ if base <= level)
            blocks.setdefault((base, index << level - base >> _BLOCK), []).append((level, index))
    for (base, block), nodes in blocks.items():
        first = block << _BLOCK
        below = _between(connection, base, first, first + (1 << _BLOCK))
        for level, index in nodes:
            start = (index << level - base) - first
            hashes = below[start : start + (1 << level - base)]
            if all(hashes):
                while len(hashes) > 1:
                    hashes = [merkle.node_hash(a, b) for a, b in zip(hashes[::2], hashes[1::2], strict=True)]
                found[level, index] = hashes[0]
    return found


def _between(connection: Connection, level: int, low: int, high: int) -> list[bytes]:
    """The hashes of one level from `low` until before `high`; b"" for one that is missing."""
    between = [b""] * (high - low)
    if level == 0:
        for index, leaf in rows(connection, _LEAVES_BETWEEN, (low, high)):
            between[index - low] = bytes(leaf)
        return between
    for first, hashes in rows(connection, _BETWEEN, (level, low, high)):
        for index in range(max(first, low), min(first + len(hashes) // HASH_SIZE, high)):
            at = (index - first) * HASH_SIZE
            between[index - low] = bytes(hashes[at : at + HASH_SIZE])
    return between


def span(connection: Connection, level: int, first: int, until: int) -> dict[int, bytes]:
    """The inner nodes of one level from `first` until before `until`, by index; those missing are absent."""
    found: dict[int, bytes] = {}
    for start, hashes in rows(connection, _SPAN, (level, until, level, first)):
        low, high = max(start, first), min(start + len(hashes) // HASH_SIZE, until)
        for index in range(low, high):
            at = (index - start) * HASH_SIZE
            found[index] = bytes(hashes[at : at + HASH_SIZE])
    return found


def count_is(connection: Connection, size: int) -> bool:
    """Whether there are as many inner nodes as a tree of this size has, to the byte."""
    ((stored_bytes,),) = rows(connection, _TOTAL)
    return int(stored_bytes) == HASH_SIZE * sum(size >> level for level in range(1, size.bit_length()))
