"""One running installation for the tests that only read or add to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The local stack with a month of demonstration data."""
    running = Stack(tmp_path_factory.mktemp("stack") / "var", ("--past", "500"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for one test's files."""
    return tmp_path
