"""A store behaves as a list of events would, whatever is appended, refused and erased, in whatever order."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.kernel.store import open_store, sqlite
from services.kernel.store.base import Committed, Conflict
from tests.fixtures.store import HandClock, append_one, erase

streams = st.sampled_from(["a", "b", "c"])
appends = st.tuples(streams, st.one_of(st.none(), st.integers(0, 3)), st.integers(1, 3))


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="planier-store-")
        self.url = f"sqlite:///{self.folder}/store.db"
        self.clock = HandClock()
        self.store = open_store(self.url, clock=self.clock)
        self.model: list[tuple[str, int, bytes | None]] = []
        self.marks = 0

    def version(self, stream: str) -> int:
        return sum(1 for name, _, _ in self.model if name == stream)

    def mark(self) -> bytes:
        self.marks += 1
        return b"payload-%06d-" % self.marks * (1 + self.marks % 7 * 200)

    @rule(batch=st.lists(appends, min_size=1, max_size=4))
    def append(self, batch: list[tuple[str, int | None, int]]) -> None:
        given = [append_one(name, *(self.mark() for _ in range(n)), expected_version=v) for name, v, n in batch]
        expected: list[Committed | Conflict] = []
        for item in given:
            version, first = self.version(item.stream), len(self.model) + 1
            if item.expected_version is not None and item.expected_version != version:
                expected.append(Conflict(item.stream, item.expected_version, version))
                continue
            self.model += [(item.stream, version + n, event.payload) for n, event in enumerate(item.events, 1)]
            expected.append(Committed(item.stream, version + len(item.events), first, len(self.model)))
        assert self.store.append(given) == tuple(expected)

    @rule(stream=streams)
    def erase(self, stream: str) -> None:
        expected = tuple(
            position
            for position, (name, _, payload) in enumerate(self.model, 1)
            if name == stream and payload is not None
        )
        assert erase(self.store, stream) == expected
        for position in expected:
            self.model[position - 1] = (*self.model[position - 1][:2], None)
        self.model.append((stream, self.version(stream) + 1, b"erased"))
        files = b"".join(path.read_bytes() for path in Path(self.folder).iterdir())
        assert not [n for n in range(1, self.marks + 1) if self.is_erased(n) and b"payload-%06d-" % n in files]

    def is_erased(self, mark: int) -> bool:
        return not any((payload or b"").startswith(b"payload-%06d-" % mark) for _, _, payload in self.model)

    @rule(seconds=st.integers(-100, 100))
    def turn_the_clock(self, seconds: int) -> None:
        self.clock.turn(seconds)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = open_store(self.url, clock=self.clock)

    @invariant()
    def holds_the_model(self) -> None:
        events = self.store.read_all(0, 1_000)
        assert [(event.stream, event.stream_version, event.payload) for event in events] == self.model
        assert [event.position for event in events] == list(range(1, len(self.model) + 1))
        times = [event.recorded_at_us for event in events]
        assert times == sorted(times)
        assert self.store.head().position == len(self.model)
        assert self.store.verify() == ()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


class CollidingMachine(StoreMachine):
    """All streams have one key in the index."""

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sqlite, "key_of", lambda _stream: 7)
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        self.patch.undo()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestCollisions = CollidingMachine.TestCase
TestCollisions.settings = settings(max_examples=10, stateful_step_count=15, deadline=None)
