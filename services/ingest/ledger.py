"""The ledger of erasures: a file outside the database, so that a restored older copy forgets again what was forgotten.

One JSON object a line, written and flushed to the disk before the erasure is committed; ids and codes only.
"""

import errno
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


class LedgerDamaged(Exception):  # noqa: N818 -- names the finding
    """A line that was once whole cannot be read: what was erased is not known, so nothing may be served."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure, as ordered: the fact, why (the contract's enum name), by whom, under which access record."""

    fact_id: str
    reason: str
    party: str
    record_id: str

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """The erasure of a line; LedgerDamaged where it is none."""
        try:
            entry = cls(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise LedgerDamaged("a line of the ledger of erasures cannot be read") from error
        if not all(isinstance(value, str) for value in asdict(entry).values()):
            raise LedgerDamaged("a line of the ledger of erasures cannot be read")
        return entry


class Ledger:
    """The file; one process writes it. Blocking."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[Erasure, ...]:
        """Every erasure, in order; a last line that a crash cut short was never acknowledged, and is cut off."""
        if not self._path.exists():
            return ()
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self._path.open("r+b") as file:
                file.truncate(whole)
                os.fsync(file.fileno())
        return tuple(Erasure.parse(line) for line in data[:whole].splitlines())

    def append(self, erasure: Erasure) -> None:
        """Returns once the line is on the disk; OSError where it is not, and then no part of it stands in the file."""
        created = not self._path.exists()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(asdict(erasure), separators=(",", ":")).encode() + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            whole = os.lseek(descriptor, 0, os.SEEK_END)
            if os.write(descriptor, line) != len(line):  # a full disk takes a part, and says no word of it
                os.ftruncate(descriptor, whole)
                raise OSError(errno.ENOSPC, "the ledger of erasures could not be written whole")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if created:
            _flush_folder(self._path.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
