"""A copy of the log's public face in a folder, laid out as C2SP tlog-tiles; made again, it grows.

Every file is compared with the signed checkpoint before that one is put in place, last: a copy is never a mixture.
"""

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from services.audit import merkle
from services.audit.checkpoint import Checkpoint
from services.audit.hand_over import Keys
from services.audit.note import NoteError, NoteVerifier
from services.audit.tiles import ENTRIES, WIDTH, Tile, TileError, split_entries, split_hashes, tiles_of

# The bytes of a resource below the log's prefix.
Fetch = Callable[[str], Awaitable[bytes]]
CHECKPOINT = "checkpoint"
WITNESSED = "checkpoint.witnessed"
HAND_OVERS = "hand-overs"


class CopyRefused(Exception):  # noqa: N818 -- what the copier decided
    """The log does not hold together, or is not the one that was copied before: the copy stays as it was."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What the folder holds now, and how many files were fetched."""

    checkpoint: Checkpoint
    fetched: int


async def copy_log(fetch: Fetch, folder: Path, trusted: NoteVerifier, source: str = WITNESSED) -> Copied:
    """Brings the folder up to the log's checkpoint, the newest that is witnessed unless `source` says otherwise.

    Raises:
        CopyRefused: a signature, a tile or an entry does not hold, or the tree does not extend the one copied before.
    """
    notes = json.loads(await fetch(HAND_OVERS))
    note = (await fetch(source)).decode()
    try:
        keys = Keys.across(trusted, notes)
        checkpoint = keys.open(note)
        before = keys.open((folder / CHECKPOINT).read_text()) if (folder / CHECKPOINT).exists() else None
        fetched = await _fetch_tiles(fetch, folder, checkpoint.size)
        _compare(folder, checkpoint, before)
    except (NoteError, TileError) as error:
        raise CopyRefused(str(error)) from error
    _write(folder / HAND_OVERS, json.dumps(notes, ensure_ascii=False).encode())
    _write(folder / CHECKPOINT, note.encode())
    _drop_partial(folder, checkpoint.size)
    return Copied(checkpoint, fetched)


async def _fetch_tiles(fetch: Fetch, folder: Path, size: int) -> int:
    fetched = 0
    for tile in tiles_of(size):
        path = folder / tile.path()
        if not path.exists():
            _write(path, await fetch(tile.path()))
            fetched += 1
    return fetched


def _compare(folder: Path, checkpoint: Checkpoint, before: Checkpoint | None) -> None:
    """Entries with their leaf hashes, those with the root, upper tiles with lower ones; the older root on the way."""
    frontier, inner = merkle.EMPTY, dict[merkle.Node, bytes]()
    for tile in tiles_of(checkpoint.size):
        if tile.level != ENTRIES:
            continue
        hashes = split_hashes((folder / Tile(0, tile.index, tile.width).path()).read_bytes(), tile)
        entries = split_entries((folder / tile.path()).read_bytes())
        if [merkle.leaf_hash(entry) for entry in entries] != hashes:
            raise CopyRefused(f"entries and hashes of tile {tile.index} differ")
        if before is not None and frontier.size <= before.size <= frontier.size + tile.width:
            _require_root(
                frontier.grow(hashes[: before.size - frontier.size])[0], before, "it does not extend the copy"
            )
        frontier, runs = frontier.grow(hashes)
        inner.update(merkle.single(run for run in runs if run[0] % 8 == 0))
    if before is not None and before.size > checkpoint.size:
        raise CopyRefused("the log is shorter than the copy")
    _require_root(frontier, checkpoint, "the tiles are not those of the signed tree")
    for tile in tiles_of(checkpoint.size):
        if tile.level > 0:
            hashes = split_hashes((folder / tile.path()).read_bytes(), tile)
            if hashes != [inner.get((tile.node_level, tile.first + place)) for place in range(tile.width)]:
                raise CopyRefused(f"tile {tile.path()} is not that of the tree")


def _require_root(frontier: merkle.Frontier, head: Checkpoint, words: str) -> None:
    if frontier.size != head.size or frontier.root() != head.root:
        raise CopyRefused(words)


def _drop_partial(folder: Path, size: int) -> None:
    """Partial tiles of older sizes, which nothing needs beside those of this one."""
    wanted = {folder / tile.path() for tile in tiles_of(size) if tile.width < WIDTH}
    for path in folder.glob("tile/**/*.p/*"):
        if path not in wanted:
            path.unlink()


def _write(path: Path, content: bytes) -> None:
    """Replaces the file in one step, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
