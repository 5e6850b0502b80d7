"""What a witness must never forget: its newest cosigned head of each log, in one database, one transaction a change."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Table, Text, delete, func, insert, select

from services.audit.database import exclusive, snapshot
from services.audit.hand_over import Keys
from services.audit.note import NoteVerifier
from services.audit.witness.domain import NOTHING, Head
from services.kernel.store.engine import open_engine

# Evidence is kept up to this many; the oldest stay, as the first contradiction is the one that matters.
MOST_EVIDENCE = 1_000

METADATA = MetaData()
HEADS = Table(
    "heads",
    METADATA,
    Column("origin", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", Text, nullable=False),
    # With the log's signatures and this witness's.
    Column("note", Text, nullable=False),
)
HAND_OVERS = Table(
    "hand_overs",
    METADATA,
    Column("origin", Text, primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
)
EVIDENCE = Table(
    "evidence",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("seconds", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),
    # What was refused, and the newest cosigned then.
    Column("note", Text, nullable=False),
    Column("against", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Log:
    """One log as the witness knows it within a transaction."""

    keys: Keys | None
    latest: Head
    hand_overs: tuple[str, ...]
    note: str


class WitnessState:
    """The state of one witness. Blocking; processes may share a database: changes wait for each other."""

    def __init__(self, url: str, logs: dict[str, NoteVerifier]) -> None:
        self._engine = open_engine(url)
        self._logs = logs

    def open(self) -> None:
        """Creates what is missing."""
        with exclusive(self._engine) as connection:
            METADATA.create_all(connection)

    def close(self) -> None:
        """Lets the database go."""
        self._engine.dispose()

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction that no other change runs beside; durable when it ends."""
        with exclusive(self._engine) as connection:
            yield connection

    def checkpoint(self, origin: str) -> str | None:
        """The newest cosigned checkpoint of a log, as it was signed and cosigned."""
        with snapshot(self._engine) as connection:
            return connection.execute(select(HEADS.c.note).where(HEADS.c.origin == origin)).scalar()

    def read(self, connection: Connection, origin: str) -> Log:
        """What is known of a log now; keys None where it is not one of this witness's."""
        trusted = self._logs.get(origin)
        if trusted is None:
            return Log(None, NOTHING, (), "")
        query = select(HAND_OVERS.c.note).where(HAND_OVERS.c.origin == origin).order_by(HAND_OVERS.c.place)
        hand_overs = tuple(connection.execute(query).scalars())
        row = connection.execute(select(HEADS).where(HEADS.c.origin == origin)).first()
        latest = NOTHING if row is None else Head(row.size, bytes.fromhex(row.root))
        return Log(Keys.across(trusted, hand_overs), latest, hand_overs, "" if row is None else row.note)

    def keep(self, connection: Connection, origin: str, head: Head, note: str) -> None:
        """The log's newest head from now on."""
        connection.execute(delete(HEADS).where(HEADS.c.origin == origin))
        row = {"origin": origin, "size": head.size, "root": head.root.hex(), "note": note}
        connection.execute(insert(HEADS).values(**row))

    def keep_hand_over(self, connection: Connection, origin: str, place: int, note: str) -> None:
        """The log's next key from now on."""
        connection.execute(insert(HAND_OVERS).values(origin=origin, place=place, note=note))

    def keep_evidence(self, connection: Connection, seconds: int, status: int, notes: tuple[str, str]) -> None:
        """What the log signed and this witness refused, beside what it had cosigned."""
        if int(connection.execute(select(func.count()).select_from(EVIDENCE)).scalar_one()) < MOST_EVIDENCE:
            note, against = notes
            connection.execute(insert(EVIDENCE).values(seconds=seconds, status=status, note=note, against=against))

    def evidence(self) -> list[tuple[int, str, str]]:
        """Everything kept: status, the refused note, the cosigned one."""
        with snapshot(self._engine) as connection:
            query = select(EVIDENCE.c.status, EVIDENCE.c.note, EVIDENCE.c.against).order_by(EVIDENCE.c.number)
            return [(status, note, against) for status, note, against in connection.execute(query)]
