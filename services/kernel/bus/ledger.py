"""What the owner remembers of the bus, in its own database: how far it published, and which message holds what."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from services.kernel.store.engine import begin_write, lock_schema

METADATA = MetaData()

CURSOR = Table(
    "bus_cursor",
    METADATA,
    Column("stream", String(64), primary_key=True),
    Column("position", BigInteger, nullable=False),
)

RUNS = Table(
    "bus_runs",
    METADATA,
    Column("stream", String(64), primary_key=True),
    # Sequences start again when JetStream's storage is lost: the creation time of the stream tells its lives apart.
    Column("incarnation", String(40), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("first_position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("published_at_us", BigInteger, nullable=False),
    # 1 once deleted from the bus; the row stays so that the sequence is not taken for an unknown message.
    Column("erased", Integer, nullable=False),
)
Index("bus_runs_by_position", RUNS.c.stream, RUNS.c.last_position)
Index("bus_runs_by_time", RUNS.c.stream, RUNS.c.published_at_us)

_ADVANCE = text(
    "UPDATE bus_cursor SET position = CASE WHEN position < :position THEN :position ELSE position END"
    " WHERE stream = :stream"
)
_RECORD = text(
    "INSERT INTO bus_runs (stream, incarnation, sequence, first_position, last_position, published_at_us, erased)"
    " VALUES (:stream, :incarnation, :sequence, :first_position, :last_position, :published_at_us, :erased)"
    " ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """One message on the bus: its sequence in the stream of that incarnation, and the positions that it holds."""

    incarnation: str
    sequence: int
    first_position: int
    last_position: int


class RunLedger:
    """The tables `bus_cursor` and `bus_runs` of one stream, made where missing. Blocking: call from a worker thread."""

    def __init__(self, engine: Engine, stream: str) -> None:
        self._engine = engine
        self._stream = stream
        with begin_write(self._engine) as connection:
            lock_schema(connection)
            METADATA.create_all(connection)
            if self._cursor(connection) is None:
                connection.execute(insert(CURSOR).values(stream=self._stream, position=0))

    @property
    def stream(self) -> str:
        """The name of the JetStream stream."""
        return self._stream

    def cursor(self) -> int:
        """The last position known to be on the bus, or skipped for good."""
        with self._engine.connect() as connection:
            return self._cursor(connection) or 0

    def _cursor(self, connection: Connection) -> int | None:
        query = select(CURSOR.c.position).where(CURSOR.c.stream == self._stream)
        return connection.execute(query).scalar_one_or_none()

    def advance(self, position: int) -> None:
        """Moves the cursor without a message: the run was too large for the bus. Never moves it back."""
        with begin_write(self._engine, flushed=False) as connection:
            connection.execute(_ADVANCE, {"stream": self._stream, "position": position})

    def record(self, runs: Sequence[PublishedRun], published_at_us: int) -> None:
        """Remembers messages and moves the cursor to the end of the last, in one transaction; idempotent.

        Not flushed: a relay that a power cut made forget deletes the messages that it does not know, and sends again.
        """
        with begin_write(self._engine, flushed=False) as connection:
            # First: two relays take turns here, so that what one finds missing the other cannot be adding.
            connection.execute(_ADVANCE, {"stream": self._stream, "position": runs[-1].last_position})
            connection.execute(_RECORD, [self._row(run, published_at_us, erased=0) for run in runs])

    def _is(self, incarnation: str) -> ColumnElement[bool]:
        return and_(RUNS.c.stream == self._stream, RUNS.c.incarnation == incarnation)

    def _row(self, run: PublishedRun, published_at_us: int, *, erased: int) -> dict[str, str | int]:
        return {
            "stream": self._stream,
            "incarnation": run.incarnation,
            "sequence": run.sequence,
            "first_position": run.first_position,
            "last_position": run.last_position,
            "published_at_us": published_at_us,
            "erased": erased,
        }

    def holding(self, incarnation: str, positions: Sequence[int]) -> tuple[int, ...]:
        """The sequences of messages, not yet erased, that hold one of the positions."""
        found: set[int] = set()
        with self._engine.connect() as connection:
            for start in range(0, len(positions), 100):
                some = positions[start : start + 100]
                spans = [and_(RUNS.c.first_position <= p, RUNS.c.last_position >= p) for p in some]
                query = select(RUNS.c.sequence).where(self._is(incarnation), RUNS.c.erased == 0, or_(*spans))
                found.update(connection.execute(query).scalars())
        return tuple(sorted(found))

    def unknown(self, incarnation: str, first_sequence: int, last_sequence: int) -> tuple[int, ...]:
        """The sequences of that span that no row tells of."""
        inside = and_(self._is(incarnation), RUNS.c.sequence.between(first_sequence, last_sequence))
        with self._engine.connect() as connection:
            count = connection.execute(select(func.count()).select_from(RUNS).where(inside)).scalar_one()
            if count >= last_sequence - first_sequence + 1:
                return ()
            known = set(connection.execute(select(RUNS.c.sequence).where(inside)).scalars())
        return tuple(s for s in range(first_sequence, last_sequence + 1) if s not in known)

    def erased(self, incarnation: str, sequences: Sequence[int], at_us: int) -> None:
        """Remembers that the messages are gone from the bus; idempotent."""
        with begin_write(self._engine) as connection:
            for sequence in sequences:
                marked = update(RUNS).where(self._is(incarnation), RUNS.c.sequence == sequence).values(erased=1)
                if connection.execute(marked).rowcount == 0:
                    gone = PublishedRun(incarnation, sequence, 0, 0)
                    connection.execute(insert(RUNS).values(**self._row(gone, at_us, erased=1)))

    def prune(self, before_us: int) -> None:
        """Forgets messages that the bus itself has dropped by age."""
        with begin_write(self._engine) as connection:
            old = and_(RUNS.c.stream == self._stream, RUNS.c.published_at_us < before_us)
            connection.execute(delete(RUNS).where(old))
