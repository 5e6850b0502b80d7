"""The tree and its entries as files: C2SP tlog-tiles (c2sp.org/tlog-tiles).

A tile is up to 256 consecutive hashes of one level of a tree whose nodes have 256 children; it is named by a path, and
a name always stands for the same bytes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.audit.merkle import HASH_SIZE

WIDTH = 256
HEIGHT = 8
MAX_LEVEL = 63
# The level of a bundle of entries, which lie under the leaf hashes.
ENTRIES = -1
_LENGTH_SIZE = 2
_PATH = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


class TileError(ValueError):
    """Not the path of a tile, or not the bytes of one."""


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """One tile of hashes, or one bundle of entries (level ENTRIES): its `index` in the level, how many it holds."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def first(self) -> int:
        """The index, in the level, of the first that it holds."""
        return self.index * WIDTH

    @property
    def node_level(self) -> int:
        """The level in the binary tree of the hashes that it holds."""
        return max(self.level, 0) * HEIGHT

    def path(self) -> str:
        """Its name below a log's prefix."""
        kind = "entries" if self.level == ENTRIES else str(self.level)
        parts = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            parts.append(f"x{rest % 1000:03d}")
            rest //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{kind}/{'/'.join(reversed(parts))}{partial}"

    def leaves(self) -> int:
        """How many leaves a tree has at least that this tile belongs to."""
        return (self.first + self.width) << self.node_level


def parse_path(path: str) -> Tile:
    """The tile that a path names; TileError where it names none, or names one in another spelling."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise TileError("not the path of a tile")
    kind, number, width = found.groups()
    level = ENTRIES if kind == "entries" else int(kind)
    tile = Tile(level, int(number.replace("x", "").replace("/", "")), WIDTH if width is None else int(width))
    if tile.path() != path or tile.level > MAX_LEVEL or tile.width > WIDTH or tile.leaves() >= 1 << 63:
        raise TileError("not the path of a tile")
    return tile


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile and bundle of the tree of `size`, bundles first; the last of a level may be partial."""
    yield from _level(ENTRIES, size)
    level, count = 0, size
    while count:
        yield from _level(level, count)
        level, count = level + 1, count // WIDTH


def join_entries(entries: Sequence[bytes]) -> bytes:
    """A bundle: each entry after its length, 2 bytes big-endian."""
    return b"".join(len(entry).to_bytes(_LENGTH_SIZE, "big") + entry for entry in entries)


def split_entries(bundle: bytes) -> list[bytes]:
    """The entries of a bundle; TileError where it is cut."""
    entries, at = list[bytes](), 0
    while at < len(bundle):
        start = at + _LENGTH_SIZE
        length = int.from_bytes(bundle[at:start], "big")
        at = start + length
        if at > len(bundle) or start > len(bundle):
            raise TileError("a bundle of entries is cut")
        entries.append(bundle[start:at])
    return entries


def split_hashes(content: bytes, tile: Tile) -> list[bytes]:
    """The hashes of a tile; TileError where there are not as many as its width says."""
    if len(content) != tile.width * HASH_SIZE:
        raise TileError("a tile holds as many hashes as its width says")
    return [content[start : start + HASH_SIZE] for start in range(0, len(content), HASH_SIZE)]


def _level(level: int, count: int) -> Iterator[Tile]:
    for index in range(count // WIDTH):
        yield Tile(level, index)
    if count % WIDTH:
        yield Tile(level, count // WIDTH, count % WIDTH)
