"""What an append writes, on SQLite as one statement that is its own transaction.

The driver gives the interpreter's lock away at each statement, and beside a loop that answers 64 callers a thread waits
long to have it back; so fence, rows, nodes, head and commit are one step of SQLite's. Rows come as one value a table,
which json_each takes apart: each costs half of what its values bound one by one do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from services.audit import merkle, nodes
from services.audit.batch import Batch
from services.audit.database import Row, insert, run
from services.audit.schema import BODIES, RECORDS

# Another process may have signed the same head, to the same bytes.
STORE_HEAD = "INSERT INTO checkpoints (size, root, note) VALUES (?, ?, ?) ON CONFLICT (size) DO NOTHING"
_VIEW = (
    "CREATE TEMP VIEW appending AS SELECT 0 AS epoch, 0 AS first, 0 AS ids, 0 AS leaves, 0 AS places, 0 AS contents,"
    " 0 AS runs, 0 AS hashes, 0 AS size, 0 AS root, 0 AS note"
)
_TRIGGER = (
    "CREATE TEMP TRIGGER append INSTEAD OF INSERT ON appending BEGIN"  # noqa: S608 -- our own statements
    " SELECT RAISE(ABORT, 'not the newest epoch and size') WHERE NEW.epoch IS NOT (SELECT max(epoch) FROM sequencers)"
    " OR NEW.first IS NOT (SELECT coalesce(max(idx), -1) + 1 FROM access_records);"
    " INSERT INTO access_records (idx, record_id, leaf_hash)"
    " SELECT NEW.first + key, value, substr(NEW.leaves, 32 * key + 1, 32) FROM json_each(NEW.ids);"
    " INSERT INTO access_bodies (idx, salt, record) SELECT NEW.first + key,"
    " substr(NEW.contents, (value >> 32) + 1, 32), substr(NEW.contents, (value >> 32) + 33, value & 4294967295)"
    f" FROM json_each(NEW.places); {nodes.insertion('NEW.runs', 'NEW.hashes')};"
    " INSERT INTO checkpoints (size, root, note) SELECT NEW.size, NEW.root, NEW.note WHERE NEW.size IS NOT NULL"
    " ON CONFLICT (size) DO NOTHING; END"
)
# Of the connection that appends: the database file has its tables alone.
SETUP = (_VIEW, _TRIGGER)
APPEND = "INSERT INTO appending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Append:
    """New records, the nodes that they complete, and the head signed before: size, root, note, or three times None."""

    epoch: int
    batch: Batch
    runs: Sequence[merkle.Run]
    grown: merkle.Frontier
    head: tuple[int, bytes, str] | tuple[None, None, None]

    def row(self) -> Row:
        """The values of APPEND, an IntegrityError of the driver where the log is not as they were laid out for."""
        return (self.epoch, self.batch.first, *self.batch.packed(), *nodes.packed(self.runs), *self.head)

    def write(self, connection: Connection) -> None:
        """Writes it within a transaction of the caller's; on SQLite over a connection that was given SETUP."""
        if connection.dialect.name == "sqlite":
            run(connection, APPEND, self.row())
            return
        records, bodies = self.batch.rows()
        insert(connection, RECORDS, records)
        insert(connection, BODIES, bodies)
        nodes.store(connection, self.runs)
        if self.head[0] is not None:
            run(connection, STORE_HEAD, self.head)
