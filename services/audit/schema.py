"""The log's tables, and the triggers that make them append-only on SQLite and PostgreSQL.

access_records is what must last (index, id, leaf hash); access_bodies holds what the leaf commits to. The one update
allowed is an erasure: body and salt to NULL, citing the log index of the record that states it and leaving the
commitment, SHA-256(salt ‖ record), which the log's entry still holds. access_columns is derived from the bodies.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    inspect,
    text,
)

METADATA = MetaData()

RECORDS = Table(
    "access_records",
    METADATA,
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("record_id", Text, nullable=False, unique=True),
    Column("leaf_hash", LargeBinary, nullable=False),
)
# No index on leaf_hash: hashes fall anywhere, so each of a batch's 500 would dirty a page of its own (a quarter of the
# appends a second, measured at 50,000 records, and worse with size).

# What replay filters on (services/audit/derived.py); all NULL of an erased record.
DERIVED = Table(
    "access_columns",
    METADATA,
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("occurred_at", BigInteger),
    Column("kind", SmallInteger),
    Column("issuer", Text),
    Column("subject", Text),
    Column("party", Text),
    Column("rpc", Text),
    Column("purpose", SmallInteger),
    Column("permitted", Boolean),
    Column("consultation_id", Text),
    Column("instance", Text),
    Column("sequence", BigInteger),
    Column("clauses", Text),
    Column("sources", Text),
)
COLUMNS = tuple(column.name for column in DERIVED.columns)[1:]

BODIES = Table(
    "access_bodies",
    METADATA,
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("salt", LargeBinary),
    Column("record", LargeBinary),
    Column("erased_by", BigInteger),
    Column("commitment", LargeBinary),
)

# Inner nodes of complete subtrees, level 1 and up, as runs of what one append completed: `first` is the index of the
# first of `hashes` in its level (services/audit/nodes.py). Level 0 is access_records.leaf_hash.
NODES = Table(
    "tree_runs",
    METADATA,
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

CHECKPOINTS = Table(
    "checkpoints",
    METADATA,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
)

# Each opening for writing takes the next epoch; only the newest may append (fencing).
SEQUENCERS = Table(
    "sequencers",
    METADATA,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("instance", Text, nullable=False),
)

# The log's keys in order; `hand_over` is the note by which the previous key names this one, "" for the first.
KEYS = Table(
    "log_keys",
    METADATA,
    Column("place", SmallInteger, primary_key=True, autoincrement=False),
    Column("from_size", BigInteger, nullable=False),
    Column("verifier_key", Text, nullable=False),
    Column("hand_over", Text, nullable=False),
)

# A witness's signature line on the checkpoint of a size; a size and a time a round, not an append.
COSIGNATURES = Table(
    "cosignatures",
    METADATA,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("verifier_key", Text, primary_key=True),
    Column("line", Text, nullable=False),
    Index("cosignatures_of", "verifier_key", "size"),
    sqlite_with_rowid=False,
)

_FROZEN = {
    "access_records": "",
    "access_bodies": "NEW.idx = OLD.idx AND OLD.erased_by IS NULL AND NEW.erased_by IS NOT NULL"
    " AND NEW.salt IS NULL AND NEW.record IS NULL AND length(NEW.commitment) = 32",
    "tree_runs": "",
    "checkpoints": "",
    "sequencers": "",
    "log_keys": "",
    "cosignatures": "",
}


def create_schema(connection: Connection) -> None:
    """Creates what is missing, and what a log of an earlier version lacks; the caller holds the write lock."""
    METADATA.create_all(connection)
    for table in METADATA.sorted_tables:
        present = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                kind = column.type.compile(connection.dialect)
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))
    statements = _sqlite_triggers() if connection.dialect.name == "sqlite" else _postgresql_triggers()
    for statement in statements:
        connection.execute(text(statement))


def _sqlite_triggers() -> list[str]:
    refuse = "BEGIN SELECT RAISE(ABORT, 'the access log is append-only'); END"
    statements = []
    for table, allowed in _FROZEN.items():
        unless = f"WHEN NOT ({allowed}) " if allowed else ""
        # The one that an earlier version made would allow what this one does not.
        statements += [
            f"DROP TRIGGER IF EXISTS {table}_update",
            f"CREATE TRIGGER {table}_update BEFORE UPDATE ON {table} {unless}{refuse}",
            f"CREATE TRIGGER IF NOT EXISTS {table}_delete BEFORE DELETE ON {table} {refuse}",
        ]
    return statements


def _postgresql_triggers() -> list[str]:
    body = "BEGIN RAISE EXCEPTION 'the access log is append-only'; END"
    statements = [f"CREATE OR REPLACE FUNCTION refuse_log_change() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$"]
    for table, allowed in _FROZEN.items():
        unless = f"WHEN (({allowed}) IS NOT TRUE) " if allowed else ""
        run = "EXECUTE FUNCTION refuse_log_change()"
        statements += [
            f"CREATE OR REPLACE TRIGGER {table}_update BEFORE UPDATE ON {table} FOR EACH ROW {unless}{run}",
            f"CREATE OR REPLACE TRIGGER {table}_delete BEFORE DELETE ON {table} FOR EACH ROW {run}",
            f"CREATE OR REPLACE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {run}",
        ]
    return statements
