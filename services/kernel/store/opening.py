"""Opens a store by URL."""

from sqlalchemy import Engine

from services.kernel.clock import Clock
from services.kernel.codec import Codec, IdentityCodec
from services.kernel.store.backend import Backend
from services.kernel.store.engine import open_engine
from services.kernel.store.postgres import PostgresBackend
from services.kernel.store.sql import SqlEventStore
from services.kernel.store.sqlite import SqliteBackend


def open_store(url: str, *, clock: Clock, codec: Codec | None = None) -> SqlEventStore:
    """The store at the URL, made if it is not there; several processes may open it at once, and write to it.

    `sqlite:///path` or `postgresql+psycopg://…`. `codec` None stores payloads as they are. Blocking.
    Raises StoreOutdated for one of an earlier format.
    """
    engine = open_engine(url)
    try:
        return SqlEventStore(engine, backend_of(engine), codec or IdentityCodec(), clock)
    except BaseException:
        engine.dispose()
        raise


def create_schema(engine: Engine) -> None:
    """Makes a store's tables and triggers where they are not there."""
    backend_of(engine).create_schema(engine)


def backend_of(engine: Engine) -> Backend:
    """What knows the engine's database."""
    return PostgresBackend() if engine.dialect.name == "postgresql" else SqliteBackend()
