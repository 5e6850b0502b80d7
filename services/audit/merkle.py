"""RFC 6962 Merkle tree hashes and proofs, as pure functions over bytes.

Every hash is 32 bytes of SHA-256. A proof is a tuple of hashes, in the order of RFC 6962 2.1.1 and 2.1.2. A node is
(level, index): the root of the complete subtree over leaves [index << level, (index + 1) << level).

Six of them are for outside test vectors too: leaf_hash(entry), root_hash(entries), inclusion_proof(index, entries),
consistency_proof(first, entries) give bytes or raise ValueError; verify_inclusion(index, size, leaf, proof, root) and
verify_consistency(first, second, first_root, second_root, proof) give True or False whatever the proof holds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()

Node = tuple[int, int]
Leaves = tuple[int, int]
# Consecutive nodes of one level: (level, index of the first, hashes).
Run = tuple[int, int, list[bytes]]


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one log entry (RFC 6962 2.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node (RFC 6962 2.1)."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: enough to append and to give the root.

    `peaks` maps each level whose bit is set in `size` to the root of that complete subtree.
    """

    size: int
    peaks: Mapping[int, bytes]

    def root(self) -> bytes:
        """The tree hash; of no leaves, SHA-256 of nothing."""
        return fold([self.peaks[level] for level in sorted(self.peaks, reverse=True)])

    def grow(self, leaves: Sequence[bytes]) -> tuple["Frontier", list[Run]]:
        """Appends leaf hashes; gives the new frontier and the inner nodes completed, a run a level.

        One inner node a leaf on average: O(1) amortised.
        """
        peaks, runs = dict(self.peaks), list[Run]()
        level, first, fresh = 0, self.size, list(leaves)
        while fresh:
            if first & 1:
                fresh = [peaks[level], *fresh]
            peaks.pop(level, None)
            if len(fresh) & 1:
                peaks[level] = fresh[-1]
            first, level = first >> 1, level + 1
            fresh = [sha256(b"\x01" + a + b).digest() for a, b in zip(fresh[::2], fresh[1::2], strict=False)]
            if fresh:
                runs.append((level, first, fresh))
        return Frontier(self.size + len(leaves), peaks), runs


EMPTY = Frontier(0, {})


def single(runs: Iterable[Run]) -> Iterator[tuple[Node, bytes]]:
    """Each node of the runs, with its hash."""
    return (((level, first + place), value) for level, first, hashes in runs for place, value in enumerate(hashes))


def fold(subtrees: Sequence[bytes]) -> bytes:
    """The hash over adjacent complete subtrees, the largest first."""
    if not subtrees:
        return EMPTY_ROOT
    value = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        value = node_hash(left, value)
    return value


def split(count: int) -> int:
    """The largest power of two smaller than `count` (count >= 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def complete_nodes(leaves: Leaves) -> list[Node]:
    """The complete subtrees, largest first, that make up the subtree over leaves [low, high)."""
    low, high = leaves
    found = list[Node]()
    while low < high:
        level = (high - low).bit_length() - 1
        found.append((level, low >> level))
        low += 1 << level
    return found


def inclusion_path(index: int, size: int) -> list[Leaves]:
    """The subtrees whose hashes prove that leaf `index` is in the tree of `size`, leaf to root (RFC 6962 2.1.1)."""
    if not 0 <= index < size:
        raise ValueError("index outside the tree")
    low, high, path = 0, size, list[Leaves]()
    while high - low > 1:
        middle = low + split(high - low)
        if index < middle:
            path.append((middle, high))
            high = middle
        else:
            path.append((low, middle))
            low = middle
    return path[::-1]


def consistency_path(first: int, second: int) -> list[Leaves]:
    """The subtrees whose hashes prove that the tree of `second` extends that of `first` (RFC 6962 2.1.2).

    An empty tree proves nothing: `first` is at least 1.
    """
    if not 1 <= first <= second:
        raise ValueError("sizes out of order")
    low, high, whole, path = 0, second, True, list[Leaves]()
    while first != high:
        middle = low + split(high - low)
        if first <= middle:
            path.append((middle, high))
            high = middle
        else:
            path.append((low, middle))
            low, whole = middle, False
    if not whole:
        path.append((low, high))
    return path[::-1]


def hashes(path: Sequence[Leaves], nodes: Mapping[Node, bytes]) -> tuple[bytes, ...]:
    """The hash of each subtree of a path, from stored complete nodes; KeyError where one is missing."""
    return tuple(fold([nodes[node] for node in complete_nodes(leaves)]) for leaves in path)


def tree_nodes(entries: Sequence[bytes]) -> dict[Node, bytes]:
    """Every complete node of the tree over `entries`."""
    leaves = [leaf_hash(entry) for entry in entries]
    _, inner = EMPTY.grow(leaves)
    return {(0, index): value for index, value in enumerate(leaves)} | dict(single(inner))


def root_hash(entries: Sequence[bytes]) -> bytes:
    """The tree hash over `entries`."""
    return EMPTY.grow([leaf_hash(entry) for entry in entries])[0].root()


def inclusion_proof(index: int, entries: Sequence[bytes]) -> tuple[bytes, ...]:
    """Proof that `entries[index]` is in the tree over `entries`."""
    return hashes(inclusion_path(index, len(entries)), tree_nodes(entries))


def consistency_proof(first: int, entries: Sequence[bytes]) -> tuple[bytes, ...]:
    """Proof that the tree over `entries` extends that over `entries[:first]`."""
    return hashes(consistency_path(first, len(entries)), tree_nodes(entries))


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows leaf hash `leaf` at `index` of the tree of `size` with hash `root` (RFC 9162 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes(leaf, root, *proof):
        return False
    position, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            value = node_hash(sibling, value)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and value == root


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the tree (`second`, `second_root`) extends (`first`, `first_root`).

    RFC 9162 2.1.4.2. Of an empty first tree nothing can be shown, not even to another empty one: False.
    """
    if not 1 <= first <= second:
        return False
    if first == second:
        return not proof and first_root == second_root
    if not _are_hashes(first_root, second_root, *proof):
        return False
    steps = list(proof) if first & (first - 1) else [first_root, *proof]
    if not proof or not steps:
        return False
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def _are_hashes(*values: object) -> bool:
    return all(isinstance(value, bytes) and len(value) == HASH_SIZE for value in values)
