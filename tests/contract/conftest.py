"""A store on each database, for whatever is asked of every store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.kernel.store import open_store
from services.kernel.store.sql import SqlEventStore
from tests.fixtures.store import HandClock


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/store.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(url: str, clock: HandClock) -> Iterator[SqlEventStore]:
    opened = open_store(url, clock=clock)
    yield opened
    opened.close()
