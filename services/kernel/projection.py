"""Read models: tables that follow a store exactly once, and are rebuilt beside the ones being read.

How a service uses it. A projection owns tables of one `MetaData` and reads one store. Its class takes a suffix, gives
it to the name of every table, and writes to these names only:

    class FactProjection:
        name, version = "facts", 1
        def __init__(self, suffix: str = "") -> None:
            self.metadata = MetaData()
            self._facts = Table(f"facts{suffix}", self.metadata, Column("fact_id", String, primary_key=True), …,
                                Index(f"facts_by_cell{suffix}", …))
            self._insert = f"INSERT INTO facts{suffix} VALUES (?, …)"
        def beside(self, suffix: str) -> "FactProjection":
            return FactProjection(suffix)
        def apply(self, connection: Connection, events: Sequence[StoredEvent]) -> None: …

    runner = ProjectionRunner(open_engine(url), FactProjection())     # makes the tables at the first start
    if runner.must_rebuild:                                           # first start, or `version` changed
        runner.rebuild(read, store_id=…)                              # pull: read(after) gives verified events
    runner.advance(run.store_id, run.previous_digest, run.events, run.digest)
                                                                      # on Diverged: rebuild(…, diverged=True)

A service whose feed pushes drives the same steps itself: `rebuild = runner.begin_rebuild()`, `rebuild.advance(…)` for
each run from the beginning until caught up, then `rebuild.swap()`, which raises `Gap` if the live tables got further
meanwhile (advance, and swap again). Readers use the names without suffix throughout; before the swap they see the old
tables, after it the new ones, never a mixture. Tables of projections have no foreign keys or triggers. Primary keys
and unique constraints exist during the load, indexes (`Index`) are made after it. Blocking: call from a worker thread.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from services.kernel.store.base import GENESIS, Position, StoredEvent
from services.kernel.store.chain import verify_run
from services.kernel.store.engine import begin_write, lock_schema, run_sqlite

_METADATA = MetaData()
_PROJECTIONS = Table(
    "projections",
    _METADATA,
    Column("name", String, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("store_id", String, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("tables", String, nullable=False),
)
# Made once: to build them for each run cost a millisecond, as much as what fifty facts do.
_TAKE = f"SELECT {', '.join(column.name for column in _PROJECTIONS.columns)} FROM projections WHERE name = "  # noqa: S608
_TAKE_SQLITE, _TAKE_LOCKED = f"{_TAKE}?", text(f"{_TAKE}:name FOR UPDATE")
_REACH = "UPDATE projections SET store_id = ?, position = ?, digest = ? WHERE name = ?"
Row = RowMapping | Mapping[str, Any]
_CATCH_UP_ROUNDS = 100
_MARK = "__g"  # follows the name of a table being rebuilt, before the generation
_OLD = "__o"


class Gap(Exception):  # noqa: N818 -- names what the feed must repair
    """Events between the projection's position and the ones given are missing: read them from the owner first."""


class Diverged(Exception):  # noqa: N818 -- names the finding
    """The projection applied events that the store does not have (it was restored, or is another): rebuild."""


class RebuildNeeded(Exception):  # noqa: N818 -- names the state
    """The tables were made by another version of the projection."""


class Projection(Protocol):
    """Tables and the one function that writes them; deterministic, so that a rebuild gives the same bytes."""

    @property
    def name(self) -> str:
        """Stable; names the projection's position in the database."""
        ...

    @property
    def version(self) -> int:
        """Changes whenever tables or `apply` do."""
        ...

    @property
    def metadata(self) -> MetaData:
        """The tables of this object, and no others."""
        ...

    def beside(self, suffix: str) -> "Projection":
        """The same projection over tables and indexes whose names end in `suffix`."""
        ...

    def apply(self, connection: Connection, events: Sequence[StoredEvent]) -> None:
        """Writes the effect of consecutive events, within the transaction of `connection`; reads nothing else."""
        ...


class ProjectionRunner:
    """Applies runs of events to a projection exactly once, whatever is delivered twice or killed half-way."""

    def __init__(self, engine: Engine, projection: Projection, *, row: str = "") -> None:
        self._engine = engine
        self._projection = projection
        self._row = row or projection.name
        with begin_write(engine) as connection:
            lock_schema(connection)
            _METADATA.create_all(connection)
            if _find(connection, self._row) is None:
                _create_tables(connection, projection.metadata)
                _create_indexes(connection, projection.metadata)
                _register(connection, self._row, projection)

    @property
    def must_rebuild(self) -> bool:
        """Whether nothing was applied yet (a rebuild is the faster first load) or another version made the tables."""
        row = self._state()
        return row["version"] != self._projection.version or not row["store_id"]

    def position(self) -> Position | None:
        """What is applied; None before the first event, and for tables of another version."""
        row = self._state()
        if row["version"] != self._projection.version or not row["store_id"]:
            return None
        return Position(row["store_id"], row["position"], row["digest"])

    def advance(self, store_id: str, previous_digest: bytes, events: Sequence[StoredEvent], digest: bytes) -> Position:
        """Applies what is new among consecutive, verified events (their `digest` recomputed) and moves the position.

        `previous_digest` is the digest before the first event, `digest` the one at the last. One transaction: effect
        and position. Events applied already are skipped. Raises Gap, Diverged, RebuildNeeded; nothing is written then.

        Not flushed: what a power cut takes back, effect and position together, the owner's events say again.
        """
        with begin_write(self._engine, flushed=False) as connection:
            row = _take(connection, self._row)
            if row["version"] != self._projection.version:
                raise RebuildNeeded("the tables were made by another version")
            fresh = _select_fresh(row, store_id, previous_digest, events)
            if not fresh:
                return Position(store_id, row["position"], row["digest"])
            self._projection.apply(connection, fresh)
            reached = Position(store_id, fresh[-1].position, digest)
            _reach(connection, self._row, reached)
        return reached

    def rebuild(
        self, read: Callable[[int], Sequence[StoredEvent]], *, store_id: str, diverged: bool = False
    ) -> Position:
        """Builds the tables again from the first event and swaps them in; the old ones are read meanwhile.

        `read(after)` gives the next consecutive events and none at the head; they are verified here. Some 10,000 at a
        time make a transaction worth its cost. Raises ChainBroken; the old tables then stay.
        """
        rebuild = self.begin_rebuild(diverged=diverged)
        rebuild.load(read, store_id)
        rebuild.create_indexes()
        for _ in range(_CATCH_UP_ROUNDS):
            rebuild.load(read, store_id)
            try:
                return rebuild.swap()
            except Gap:  # the live tables moved on between the last read and the swap
                continue
        raise Gap("the rebuilt tables never caught up with the live ones")

    def begin_rebuild(self, *, diverged: bool = False) -> "Rebuild":
        """Makes empty tables beside the live ones; what an unfinished rebuild left is dropped.

        `diverged`: the live tables hold events that the store does not have, so their position counts for nothing.
        """
        with begin_write(self._engine) as connection:
            lock_schema(connection)
            generation = _take(connection, self._row)["generation"] + 1
            _drop_leftovers(connection, self._row)
            shadow = self._projection.beside(f"{_MARK}{generation}")
            if not all(name.endswith(f"{_MARK}{generation}") for name in shadow.metadata.tables):
                raise ValueError("a projection gives the suffix to the name of every table")
            _change(connection, self._row, generation=generation)
            _create_tables(connection, shadow.metadata)
            _register(connection, f"{self._row}{_MARK}{generation}", shadow)
        return Rebuild(self._engine, shadow, self._row, generation, diverged=diverged)

    def _state(self) -> RowMapping:
        with self._engine.connect() as connection:
            return _require(connection, self._row)


class Rebuild:
    """Tables being filled beside the live ones; `ProjectionRunner.begin_rebuild` makes it."""

    def __init__(self, engine: Engine, shadow: Projection, row: str, generation: int, *, diverged: bool) -> None:
        self._engine = engine
        self._shadow = shadow
        self._row = row
        self._generation = generation
        self._shadow_row = f"{row}{_MARK}{generation}"
        self._runner = ProjectionRunner(engine, shadow, row=self._shadow_row)
        self._diverged = diverged
        self._indexed = False

    def position(self) -> Position | None:
        """What is applied to the new tables."""
        return self._runner.position()

    def advance(self, store_id: str, previous_digest: bytes, events: Sequence[StoredEvent], digest: bytes) -> Position:
        """As `ProjectionRunner.advance`, to the new tables."""
        return self._runner.advance(store_id, previous_digest, events, digest)

    def load(self, read: Callable[[int], Sequence[StoredEvent]], store_id: str) -> Position:
        """Reads, verifies and applies until `read` gives nothing; one transaction a read."""
        position = self.position() or Position(store_id, 0, GENESIS)
        while events := read(position.position):
            digest = verify_run(position.digest, events)
            position = self.advance(store_id, position.digest, events, digest)
        return position

    def create_indexes(self) -> None:
        """Makes the indexes once the bulk is loaded; `swap` does it otherwise."""
        if not self._indexed:
            with begin_write(self._engine) as connection:
                _create_indexes(connection, self._shadow.metadata)
            self._indexed = True

    def swap(self) -> Position:
        """Puts the new tables in the place of the live ones in one transaction, then drops the old ones.

        Raises Gap, changing nothing, when the live tables are further: readers never go back in time.
        """
        self.create_indexes()
        with begin_write(self._engine) as connection:
            live, new = _take(connection, self._row), _require(connection, self._shadow_row)
            if not self._diverged and _is_ahead(live, new):
                raise Gap("the live tables are further than the rebuilt ones")
            for name in live["tables"].split():
                _rename(connection, name, f"{name}{_OLD}{self._generation}")
            names = [name.removesuffix(f"{_MARK}{self._generation}") for name in new["tables"].split()]
            for name in names:
                _rename(connection, f"{name}{_MARK}{self._generation}", name)
            old = [f"{name}{_OLD}{self._generation}" for name in live["tables"].split()]
            _change(connection, self._shadow_row, tables=" ".join(old))
            _change(
                connection,
                self._row,
                version=new["version"],
                store_id=new["store_id"],
                position=new["position"],
                digest=new["digest"],
                tables=" ".join(names),
            )
        # Apart: freeing millions of rows takes time, readers need not wait.
        with begin_write(self._engine) as connection:
            _drop_leftovers(connection, self._row)
        return Position(new["store_id"], new["position"], new["digest"])


def _select_fresh(
    row: Row, store_id: str, previous_digest: bytes, events: Sequence[StoredEvent]
) -> Sequence[StoredEvent]:
    if row["store_id"] and row["store_id"] != store_id:
        raise Diverged("the events are another store's")
    if not events:
        return ()
    applied = row["position"] - events[0].position + 1
    if applied < 0:
        raise Gap("events before the first one given are missing")
    if applied > len(events):
        return ()
    before = events[applied - 1].digest if applied else previous_digest
    if before != row["digest"]:
        raise Diverged("the store has other events than the ones applied")
    return events[applied:]


def _is_ahead(live: Row, new: Row) -> bool:
    same = live["version"] == new["version"] and live["store_id"] == new["store_id"]
    return same and int(live["position"]) > int(new["position"])


def _find(connection: Connection, name: str) -> RowMapping | None:
    return connection.execute(select(_PROJECTIONS).where(_PROJECTIONS.c.name == name)).mappings().one_or_none()


def _require(connection: Connection, name: str) -> RowMapping:
    return connection.execute(select(_PROJECTIONS).where(_PROJECTIONS.c.name == name)).mappings().one()


def _take(connection: Connection, name: str) -> Row:
    """The row, locked until commit (SQLite's writer is alone already)."""
    if connection.dialect.name == "postgresql":
        return connection.execute(_TAKE_LOCKED, {"name": name}).mappings().one()
    (row,) = run_sqlite(connection, _TAKE_SQLITE, (name,))
    return dict(zip(_PROJECTIONS.columns.keys(), row, strict=True))


def _reach(connection: Connection, name: str, reached: Position) -> None:
    values = (reached.store_id, reached.position, reached.digest, name)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_REACH.replace("?", "%s"), values)
    else:
        run_sqlite(connection, _REACH, values)


def _change(connection: Connection, name: str, **values: object) -> None:
    connection.execute(update(_PROJECTIONS).where(_PROJECTIONS.c.name == name).values(**values))


def _register(connection: Connection, name: str, projection: Projection) -> None:
    connection.execute(
        insert(_PROJECTIONS).values(
            name=name,
            version=projection.version,
            generation=0,
            store_id="",
            position=0,
            digest=GENESIS,
            tables=" ".join(projection.metadata.tables),
        )
    )


def _create_tables(connection: Connection, metadata: MetaData) -> None:
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table))


def _create_indexes(connection: Connection, metadata: MetaData) -> None:
    for table in metadata.sorted_tables:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index))


def _drop_leftovers(connection: Connection, name: str) -> None:
    """Tables that a swap replaced or an unfinished rebuild left, with their rows."""
    shadows = _PROJECTIONS.c.name.startswith(f"{name}{_MARK}", autoescape=True)
    for row in connection.execute(select(_PROJECTIONS).where(shadows)).mappings().all():
        for table in row["tables"].split():
            connection.execute(DropTable(Table(table, MetaData()), if_exists=True))
    connection.execute(delete(_PROJECTIONS).where(shadows))


def _rename(connection: Connection, name: str, new: str) -> None:
    quote = connection.dialect.identifier_preparer.quote_identifier
    connection.exec_driver_sql(f"ALTER TABLE {quote(name)} RENAME TO {quote(new)}")
