"""The tree's nodes as stored: leaf hashes with their records, inner nodes in runs of what one append completed."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from services.audit import merkle
from services.audit.database import insert, rows
from services.audit.merkle import HASH_SIZE
from services.audit.schema import NODES

# The most hashes of a run: a longer one would leave its page for others, and a proof of a large log reads some 20 runs.
WIDTH = 16
# One descent of the index a node: SQLite scans the whole table for a row value IN (VALUES …).
_INNER = (
    "WITH wanted (level, idx) AS (VALUES @) SELECT w.level, w.idx,"
    " (SELECT substr(n.hashes, CAST(1 + 32 * (w.idx - n.first) AS INTEGER), 32) FROM tree_runs n"
    " WHERE n.level = w.level AND n.first <= w.idx ORDER BY n.first DESC LIMIT 1) FROM wanted w"
)
_LEAVES = "SELECT idx, leaf_hash FROM access_records WHERE idx IN (@)"
# Levels that a proof computes from the leaves beside its own, which one page holds, instead of reading a page for each:
# at 10 million leaves 280 MB hold them, and 40 MB all above, which stay in memory.
_COMPUTED = 4
_BETWEEN = "SELECT idx, leaf_hash FROM access_records WHERE idx >= ? AND idx < ?"
_SPAN = (
    "SELECT first, hashes FROM tree_runs WHERE level = ? AND first < ? AND first >= coalesce("
    "(SELECT max(m.first) FROM tree_runs m WHERE m.level = ? AND m.first <= ?), 0) ORDER BY first"
)
_COUNT = "SELECT coalesce(sum(length(hashes)), 0) FROM tree_runs"


def store(connection: Connection, runs: Sequence[merkle.Run]) -> None:
    """Stores inner nodes that an append completed."""
    cut = [
        (level, first + start, b"".join(hashes[start : start + WIDTH]))
        for level, first, hashes in runs
        for start in range(0, len(hashes), WIDTH)
    ]
    insert(connection, NODES, cut)


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
    """Complete nodes by (level, index): high ones as stored, low ones from their leaves; those missing are absent."""
    found = dict(stored(connection, [node for node in wanted if node[0] >= _COMPUTED]))
    blocks: dict[int, list[merkle.Node]] = {}
    for level, index in wanted:
        if level < _COMPUTED:
            blocks.setdefault(index << level >> _COMPUTED, []).append((level, index))
    for block, low in blocks.items():
        first = block << _COMPUTED
        leaves: dict[int, bytes] = dict(rows(connection, _BETWEEN, (first, first + (1 << _COMPUTED))))
        for level, index in low:
            start = index << level
            hashes = [leaves.get(place, b"") for place in range(start, start + (1 << level))]
            if all(hashes):
                while len(hashes) > 1:
                    hashes = [merkle.node_hash(a, b) for a, b in zip(hashes[::2], hashes[1::2], strict=True)]
                found[level, index] = hashes[0]
    return found


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
    ((stored_bytes,),) = rows(connection, _COUNT)
    return int(stored_bytes) == HASH_SIZE * sum(size >> level for level in range(1, size.bit_length()))
