"""Brings a log of an earlier version to the tables of this one, in the transaction that opens it."""

from itertools import count

from sqlalchemy import Connection, inspect, text

from services.audit import nodes
from services.audit.schema import COLUMNS, DERIVED, METADATA, NODES

_OLD_NODES = "tree_nodes"
# Nodes of an earlier version that are made into runs together.
_CHUNK = 100_000


def upgrade(connection: Connection) -> None:
    """0.1.0 kept a record's columns beside its leaf and each node in a row of its own; the lock is the caller's."""
    inspector = inspect(connection)
    if not inspector.has_table(_OLD_NODES):
        return
    METADATA.create_all(connection, tables=[DERIVED, NODES])
    _move_columns(connection)
    _move_nodes(connection)


def _move_columns(connection: Connection) -> None:
    listed = ", ".join(["idx", *COLUMNS])
    connection.execute(text(f"INSERT INTO access_columns ({listed}) SELECT {listed} FROM access_records"))  # noqa: S608 -- our own names
    on = " ON access_records" if connection.dialect.name == "postgresql" else ""
    connection.execute(text(f"DROP TRIGGER IF EXISTS access_records_update{on}"))
    for name in COLUMNS:
        connection.execute(text(f"ALTER TABLE access_records DROP COLUMN {name}"))


def _move_nodes(connection: Connection) -> None:
    query = text("SELECT idx, hash FROM tree_nodes WHERE level = :level AND idx >= :first ORDER BY idx LIMIT :most")
    for level in count(1):
        first = 0
        while found := connection.execute(query, {"level": level, "first": first, "most": _CHUNK}).all():
            start = 0
            for place in range(1, len(found) + 1):
                # A run has no gap; what is missing stays missing, and is named by verification.
                if place == len(found) or found[place].idx != found[place - 1].idx + 1:
                    hashes = [bytes(row.hash) for row in found[start:place]]
                    nodes.store(connection, [(level, found[start].idx, hashes)])
                    start = place
            first = found[-1].idx + 1
        if not first:
            break
    connection.execute(text("DROP TABLE tree_nodes"))
