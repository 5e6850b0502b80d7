"""A writer killed with -9 at any moment loses nothing that it acknowledged and leaves no half of a batch."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from services.kernel.store import open_store
from services.kernel.store.base import StoredEvent
from tests.fixtures.store import HandClock, commit

ROUNDS, SIZE, BATCHES = 8, 20, 5_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/s.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def run_and_kill(url: str, writer: str, after_lines: int, pause: float) -> list[tuple[int, int]]:
    """The (last position, batch number) of every batch acknowledged before the kill."""
    arguments = [sys.executable, "-m", "tests.fixtures.store", url, writer, str(BATCHES), str(SIZE)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(after_lines)]
        try:
            # Let it get somewhere inside its next transactions: that is where the kill must be harmless.
            process.wait(timeout=pause)
        except subprocess.TimeoutExpired:
            process.kill()
        lines += process.stdout.readlines()
    assert process.returncode == -9
    # A line cut short by the kill was not an acknowledgement.
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines if line.endswith("\n")]


def batches_of(events: Iterable[StoredEvent]) -> Counter[str]:
    return Counter(event.stream for event in events)


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_a_killed_writer_loses_nothing_acknowledged(url: str) -> None:
    chance = random.Random(7)  # noqa: S311 -- a repeatable choice of moments
    acknowledged: dict[int, str] = {}
    for number in range(ROUNDS):
        lines = run_and_kill(url, f"w{number}", chance.randrange(1, 10), chance.random() * 0.03)
        assert lines
        acknowledged |= {position: f"w{number}-{batch}" for position, batch in lines}
        store = open_store(url, clock=HandClock())
        events = store.read_all(0, 10_000_000)
        assert [event.position for event in events] == list(range(1, len(events) + 1))
        assert store.verify() == ()
        assert acknowledged.items() <= {event.position: event.stream for event in events}.items()
        assert set(batches_of(event for event in events if event.stream != "between").values()) == {SIZE}
        assert commit(store, "between", b"still writable").first_position == len(events) + 1
        store.close()
