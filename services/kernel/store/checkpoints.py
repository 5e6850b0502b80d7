"""Keeps SQLite's log short beside its writer: a writer that copies it into the file itself stands still meanwhile.

A thread copies what the log holds while writers go on. The log begins again after a moment at which all of it is
copied (https://www.sqlite.org/wal.html, "Checkpointing"): the next writer copies what came since, once that is little
or the log is long. Where all this does not keep up, SQLite's own `wal_autocheckpoint` bounds the log.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

# Rows changed before the log is copied. Each can be a page of 4 KiB of its own.
ROWS = 12_000
# What is little, in rows, and what is long, in pages: 128 MiB.
LITTLE = 200
LONG = 32_768
_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"

logger = logging.getLogger(__name__)


class Checkpoints:
    """Of one file, whose writers take turns."""

    def __init__(self, path: Path, rows: int = ROWS) -> None:
        self._file = f"{path.absolute().as_uri()}?mode=rw"
        self._rows = rows
        self._changed = 0
        # Pages that the log held when it was last copied; 0 once it could begin again.
        self._copied = 0
        self._copying: threading.Thread | None = None
        # SQLite refuses a second checkpoint at once, without waiting for the first.
        self._one = threading.Lock()

    def committed(self, connection: sqlite3.Connection, changed: int) -> None:
        """To be told of each commit, in the writer's turn and outside any transaction. Never raises."""
        self._changed += changed
        if self._copied and (self._changed < LITTLE or self._copied > LONG):
            self._copied = 0
            with self._one:
                _checkpoint(connection)
        elif self._changed >= self._rows and (self._copying is None or not self._copying.is_alive()):
            self._changed = 0
            self._copying = threading.Thread(target=self._copy, name="checkpoint", daemon=True)
            self._copying.start()

    @contextmanager
    def none_other(self, seconds: float) -> Iterator[bool]:
        """Within it no checkpoint of ours is under way; False where one lasted longer than that."""
        alone = self._one.acquire(timeout=seconds)
        try:
            yield alone
        finally:
            if alone:
                self._one.release()

    def end(self) -> None:
        """Waits for what is under way."""
        if self._copying is not None:
            self._copying.join()

    def _copy(self) -> None:
        try:
            with self._one, closing(sqlite3.connect(self._file, uri=True)) as connection:
                self._copied = _checkpoint(connection)
        except sqlite3.Error as error:
            # The file has gone, or cannot be opened: whoever writes next says so.
            logger.info("the log was not copied: %s", type(error).__name__)


def _checkpoint(connection: sqlite3.Connection) -> int:
    """The pages that the log holds; 0 where it could not be copied, and the commits before it stand all the same."""
    try:
        ((_, pages, _),) = connection.execute(_CHECKPOINT).fetchall()
    except sqlite3.Error as error:
        logger.info("the log was not copied: %s", type(error).__name__)
        return 0
    return max(0, int(pages))
