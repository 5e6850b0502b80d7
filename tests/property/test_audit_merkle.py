"""The tree and its proofs against RFC 6962's recursive definition and pymerkle, and proofs that must not hold."""

from collections.abc import Sequence
from hashlib import sha256

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.audit import merkle

ENTRIES = [f"entry {number}".encode() for number in range(300)]


def definition(entries: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 2.1, as it is written there."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    middle = 1
    while middle * 2 < len(entries):
        middle *= 2
    return sha256(b"\x01" + definition(entries[:middle]) + definition(entries[middle:])).digest()


ROOTS = [definition(ENTRIES[:size]) for size in range(301)]
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]


@pytest.mark.parametrize("size", range(65))
def test_every_proof_of_every_small_tree(size: int) -> None:
    nodes = merkle.tree_nodes(ENTRIES[:size])
    assert merkle.root_hash(ENTRIES[:size]) == ROOTS[size]
    for index in range(size):
        proof = merkle.hashes(merkle.inclusion_path(index, size), nodes)
        assert merkle.verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size])
        for other in range(size):
            assert other == index or not merkle.verify_inclusion(other, size, LEAVES[index], proof, ROOTS[size])
    for first in range(1, size + 1):
        proof = merkle.hashes(merkle.consistency_path(first, size), nodes)
        assert merkle.verify_consistency(first, size, ROOTS[first], ROOTS[size], proof)
        for other in range(1, size + 1):
            same = ROOTS[other] == ROOTS[first]
            assert same or not merkle.verify_consistency(first, size, ROOTS[other], ROOTS[size], proof)


def test_every_proof_of_every_tree_up_to_300() -> None:
    nodes = merkle.tree_nodes(ENTRIES)
    for size in range(301):
        frontier = merkle.Frontier(size, {level: nodes[level, at] for level, at in merkle.complete_nodes((0, size))})
        assert frontier.root() == ROOTS[size]
        for index in range(size):
            proof = merkle.hashes(merkle.inclusion_path(index, size), nodes)
            assert merkle.verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size])
            assert not merkle.verify_inclusion(index ^ 1, size, LEAVES[index], proof, ROOTS[size])
        for first in range(1, size + 1):
            proof = merkle.hashes(merkle.consistency_path(first, size), nodes)
            assert merkle.verify_consistency(first, size, ROOTS[first], ROOTS[size], proof)
            assert first == size or not merkle.verify_consistency(first, size, ROOTS[first - 1], ROOTS[size], proof)


LARGE = 40_000
LARGE_LEAVES = [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(LARGE)]


@pytest.fixture(scope="module")
def large() -> dict[merkle.Node, bytes]:
    _, inner = merkle.EMPTY.grow(LARGE_LEAVES)
    return dict(merkle.single(inner)) | {(0, index): value for index, value in enumerate(LARGE_LEAVES)}


@settings(max_examples=200)
@given(st.data())
def test_proofs_of_large_trees(large: dict[merkle.Node, bytes], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, LARGE))
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))

    def root(count: int) -> bytes:
        return merkle.fold([large[node] for node in merkle.complete_nodes((0, count))])

    path = merkle.hashes(merkle.inclusion_path(index, size), large)
    assert len(path) <= size.bit_length()
    assert merkle.verify_inclusion(index, size, LARGE_LEAVES[index], path, root(size))
    assert not merkle.verify_inclusion(index, size, LARGE_LEAVES[index - 1], path, root(size)) or size == 1
    grown = merkle.hashes(merkle.consistency_path(first, size), large)
    assert merkle.verify_consistency(first, size, root(first), root(size), grown)


@given(st.lists(st.integers(0, 60), max_size=8))
def test_growing_in_batches_is_growing_at_once(counts: list[int]) -> None:
    frontier, grown, total = merkle.EMPTY, list[merkle.Run](), min(sum(counts), 300)
    for count in counts:
        frontier, runs = frontier.grow(LEAVES[frontier.size : min(frontier.size + count, 300)])
        grown += runs
    assert frontier.root() == definition(ENTRIES[:total])
    single = list(merkle.single(grown))
    inner = dict(single)
    assert len(inner) == len(single) == total - total.bit_count()
    assert inner == {node: value for node, value in merkle.tree_nodes(ENTRIES[:total]).items() if node[0]}


@settings(max_examples=150)
@given(st.data())
def test_proofs_of_larger_trees_agree_with_pymerkle(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size))
    peer = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in ENTRIES[:size]:
        peer.append_entry(entry)
    root = merkle.root_hash(ENTRIES[:size])
    assert root == peer.get_root()
    # pymerkle puts the leaf itself, or the first tree's own root, in front.
    theirs = peer.prove_inclusion(index + 1, size).path
    proof = merkle.inclusion_proof(index, ENTRIES[:size])
    assert [LEAVES[index], *proof] == list(theirs)
    assert merkle.verify_inclusion(index, size, LEAVES[index], proof, root)
    consistency = merkle.consistency_proof(first, ENTRIES[:size])
    assert merkle.verify_consistency(first, size, peer.get_root(first), root, consistency)


@settings(max_examples=300)
@given(st.data())
def test_no_altered_proof_holds(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 300))
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size - 1))
    root, old = merkle.root_hash(ENTRIES[:size]), merkle.root_hash(ENTRIES[:first])
    inclusion = merkle.inclusion_proof(index, ENTRIES[:size])
    assert not merkle.verify_inclusion(index, size, LEAVES[index], altered(data, inclusion), root)
    consistency = merkle.consistency_proof(first, ENTRIES[:size])
    assert not merkle.verify_consistency(first, size, old, root, altered(data, consistency))


def altered(data: st.DataObject, proof: Sequence[bytes]) -> list[bytes]:
    """The proof with one bit flipped, one hash dropped, doubled, shortened, or garbage added at an end."""
    changed, at = list(proof), data.draw(st.integers(0, len(proof) - 1))
    match data.draw(st.sampled_from(["flip", "drop", "double", "short", "before", "after"])):
        case "flip":
            bit = data.draw(st.integers(0, 255))
            value = int.from_bytes(changed[at], "big") ^ (1 << bit)
            changed[at] = value.to_bytes(32, "big")
        case "drop":
            del changed[at]
        case "double":
            changed.insert(at, changed[at])
        case "short":
            changed[at] = changed[at][:-1]
        case "before":
            changed.insert(0, bytes(32))
        case _:
            changed.append(bytes(32))
    return changed


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (5, 4), (-1, 3)])
def test_nothing_is_shown_of_an_empty_tree_or_of_sizes_out_of_order(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="sizes"):
        merkle.consistency_path(first, second)
    root = merkle.EMPTY_ROOT
    assert not merkle.verify_consistency(first, second, root, root, [])
    assert not merkle.verify_consistency(first, second, root, root, [root])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
def test_no_leaf_is_in_a_tree_that_ends_before_it(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="index"):
        merkle.inclusion_path(index, size)
    assert not merkle.verify_inclusion(index, size, LEAVES[0], [], LEAVES[0])


def test_two_trees_of_one_size_are_consistent_only_if_equal() -> None:
    assert merkle.verify_consistency(3, 3, ROOTS[3], ROOTS[3], [])
    assert not merkle.verify_consistency(3, 3, ROOTS[3], ROOTS[4], [])
    assert not merkle.verify_consistency(3, 3, ROOTS[3], ROOTS[3], [ROOTS[3]])
