"""The index of revisions: table `declarations`, changed in the transaction of the events that it indexes.

Holds no fact: ids, salted digests, positions. Everything in it comes from the store, so `rebuild` gives the same rows.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from planier.ingest.v1.events_pb2 import FactAmended, FactCancelled, FactDeclared, FactErased
from planier.ingest.v1.ingest_pb2 import (
    DECLARATION_STATE_AMENDED,
    DECLARATION_STATE_CANCELLED,
    DECLARATION_STATE_DECLARED,
    DECLARATION_STATE_ERASED,
    DeclarationState,
)
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    delete,
    func,
    select,
)

from services.ingest.domain import FactState, Revision, evolve
from services.kernel.codec import Codec
from services.kernel.store.base import StoredEvent, Transaction
from services.kernel.store.engine import insert_rows
from services.kernel.store.sql import SqlEventStore

METADATA: Final = MetaData()
DECLARATIONS: Final = Table(
    "declarations",
    METADATA,
    Column("fact_id", String(32), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("state", SmallInteger, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("party", String(20), nullable=False),
    sqlite_with_rowid=False,
)
_COLUMNS: Final = ", ".join(column.name for column in DECLARATIONS.columns)
_SELECT: Final = f"SELECT {_COLUMNS} FROM declarations WHERE fact_id"  # noqa: S608 -- constants
_INSERT: Final = f"INSERT INTO declarations ({_COLUMNS})"
# One statement and one round trip a batch; a list of values each would be parsed anew for every size.
_SQLITE_SELECT: Final = f"{_SELECT} IN (SELECT value FROM json_each(?))"  # noqa: S608 -- constants
_POSTGRES_SELECT: Final = f"{_SELECT} = ANY(%s::text[])"
_ARRAYS: Final = ["text", "int", "smallint", "bytea", "bytea", "bigint", "bigint", "text"]
_UNNEST: Final = ", ".join(f"%s::{name}[]" for name in _ARRAYS)
_POSTGRES_INSERT: Final = f"{_INSERT} SELECT * FROM unnest({_UNNEST})"  # noqa: S608 -- constants
_PAGE: Final = 5_000

_STATES: Final[Mapping[str, "DeclarationState.ValueType"]] = {
    FactDeclared.DESCRIPTOR.full_name: DECLARATION_STATE_DECLARED,
    FactAmended.DESCRIPTOR.full_name: DECLARATION_STATE_AMENDED,
    FactCancelled.DESCRIPTOR.full_name: DECLARATION_STATE_CANCELLED,
}
_MESSAGES: Final[Mapping[str, type[FactDeclared | FactAmended | FactCancelled]]] = {
    message.DESCRIPTOR.full_name: message for message in (FactDeclared, FactAmended, FactCancelled)
}
_ERASED: Final = FactErased.DESCRIPTOR.full_name


def find(connection: Connection, fact_ids: Iterable[str]) -> dict[str, FactState]:
    """The state of each fact that has one, in one query."""
    wanted = list(fact_ids)
    if connection.dialect.name == "postgresql":
        rows = connection.exec_driver_sql(_POSTGRES_SELECT, (wanted,))
    else:
        rows = connection.exec_driver_sql(_SQLITE_SELECT, (json.dumps(wanted),))
    states: dict[str, FactState] = {}
    for fact_id, number, state, salt, digest, position, recorded_at_us, party in sorted(rows, key=_by_revision):
        revision = Revision(number, state, bytes(salt), bytes(digest), position, recorded_at_us, party)
        states[fact_id] = evolve(states.get(fact_id), revision)
    return states


def insert(connection: Connection, revisions: Sequence[tuple[str, Revision]]) -> None:
    """Adds revisions, as (fact id, revision); an erasure first removes what the fact had."""
    erased = [fact_id for fact_id, revision in revisions if revision.state == DECLARATION_STATE_ERASED]
    rows = [(fact_id, *revision) for fact_id, revision in revisions]
    if erased:
        # Rows of the same batch that came before the erasure go too.
        gone = set(erased)
        rows = [row for row in rows if row[0] not in gone or row[2] == DECLARATION_STATE_ERASED]
        connection.execute(delete(DECLARATIONS).where(DECLARATIONS.c.fact_id.in_(erased)))
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
        connection.exec_driver_sql(_POSTGRES_INSERT, tuple(columns))
    else:
        # In the order of their keys: neighbours share pages.
        insert_rows(connection, DECLARATIONS.name, len(DECLARATIONS.columns), sorted(rows))


def revision_of(event: StoredEvent, codec: Codec) -> tuple[str, Revision] | None:
    """What an event adds to the index; None for one whose payload is erased."""
    if event.payload is None:
        return None
    payload = codec.decode(event.key_id, event.payload)
    if event.type == _ERASED:
        erasure = FactErased.FromString(payload)
        gone = Revision(
            event.stream_version,
            DECLARATION_STATE_ERASED,
            b"",
            b"",
            event.position,
            event.recorded_at_us,
            erasure.party,
        )
        return erasure.fact_id, gone
    said = _MESSAGES[event.type].FromString(payload)
    revision = Revision(
        event.stream_version,
        _STATES[event.type],
        said.body_salt,
        said.body_digest,
        event.position,
        event.recorded_at_us,
        said.party,
    )
    return said.fact_id, revision


def apply(connection: Connection, events: Iterable[StoredEvent], codec: Codec) -> None:
    """Adds what consecutive events say."""
    found = (revision_of(event, codec) for event in events)
    insert(connection, [item for item in found if item is not None])


def prepare(store: SqlEventStore) -> None:
    """Makes the table where it is not there, and rebuilds it where it does not hold the store's newest event."""
    METADATA.create_all(store.engine)
    head = store.head().position
    with store.engine.connect() as connection:
        known = (
            connection.execute(select(func.count()).where(DECLARATIONS.c.position == head)).scalar_one() if head else 1
        )
    if not known:
        rebuild(store)


def rebuild(store: SqlEventStore) -> None:
    """Makes the index anew from the store, writers waiting; the rows are the same."""
    with store.write() as transaction:
        _refill(store, transaction)


def _refill(store: SqlEventStore, transaction: Transaction) -> None:
    connection = transaction.connection
    connection.execute(delete(DECLARATIONS))
    position = 0
    while events := store.read_all(position, _PAGE):
        apply(connection, events, store.codec)
        position = events[-1].position


def _by_revision(row: Any) -> Any:
    return row[0], row[1]
