"""Any order of declarations, amendments, cancellations, erasures and retries, against a model that is a plain list."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from planier.common.v1.fact_pb2 import Fact
from planier.ingest.v1.events_pb2 import ERASURE_REASON_RETENTION, ErasureReason, FactDeclared
from planier.ingest.v1.ingest_pb2 import (
    REFUSAL_REASON_CANCELLED,
    REFUSAL_REASON_ERASED,
    REFUSAL_REASON_REVISION_CONFLICT,
    REFUSAL_REASON_REVISION_GAP,
    REFUSAL_REASON_UNKNOWN_FACT,
    RefusalReason,
)

from services.ingest.domain import Refusal, fact_id_of, stream_of
from services.ingest.engine import Answer, Batch
from services.ingest.ledger import Erasure
from services.ingest.orders import Order, amending, cancelling, erasing
from tests.fixtures.ingest import RECORD, Bench, works

KEYS = st.sampled_from(["W-1", "W-2", "W-3"])
TITLES = st.sampled_from(["Un", "Deux"])
REVISIONS = st.integers(1, 5)
ACTIONS = st.sampled_from(["declare", "amend", "cancel", "erase"])
STEPS = st.tuples(ACTIONS, KEYS, REVISIONS, TITLES)
Step = tuple[str, str, int, str]
Expected = tuple[str, int]  # outcome, and the position or the reason


@dataclass
class Stream:
    """What a declarer is entitled to expect of one fact: what it said, in order, and where it was kept."""

    said: list[tuple[str, int]] = field(default_factory=list)
    cancelled: bool = False
    erased_at: int = 0


class Model:
    """The rules, read from the contract and written as plainly as can be."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.position = 0

    def expect(self, step: Step) -> Expected:  # noqa: PLR0911 -- one line a rule
        action, key, revision, title = step
        stream = self.streams.get(key)
        if stream is None:
            if action != "declare":
                return "refused", REFUSAL_REASON_UNKNOWN_FACT
            if revision != 1:
                return "refused", REFUSAL_REASON_REVISION_GAP
            stream = self.streams[key] = Stream()
        if stream.erased_at:
            return ("duplicate", stream.erased_at) if action == "erase" else ("refused", REFUSAL_REASON_ERASED)
        if action == "erase":
            stream.erased_at = self._next()
            return "accepted", stream.erased_at
        body = "cancelled" if action == "cancel" else title
        if revision <= len(stream.said):
            said, position = stream.said[revision - 1]
            return ("duplicate", position) if said == body else ("refused", REFUSAL_REASON_REVISION_CONFLICT)
        if action == "declare" and revision != 1:
            return "refused", REFUSAL_REASON_REVISION_GAP
        if stream.cancelled:
            return "refused", REFUSAL_REASON_CANCELLED
        if revision != len(stream.said) + 1:
            return "refused", REFUSAL_REASON_REVISION_GAP
        stream.said.append((body, self._next()))
        stream.cancelled = action == "cancel"
        return "accepted", self.position

    def _next(self) -> int:
        self.position += 1
        return self.position


class Declarations(RuleBasedStateMachine):
    """The engine over SQLite, in batches of any size."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name)
        self.bench = Bench(f"sqlite:///{path}/ingest.db", path)
        self.model = Model()

    @rule(batch=st.lists(STEPS, min_size=1, max_size=8))
    def apply(self, batch: list[Step]) -> None:
        orders = [self.order(step) for step in batch]
        expected = [self.model.expect(step) for step in batch]
        answers = self.bench.engine.commit([Batch(orders, "")])[0]
        assert [outcome(answer) for answer in answers] == expected

    @rule()
    def restart(self) -> None:
        self.bench.engine.open()

    @invariant()
    def what_was_accepted_is_what_is_stored(self) -> None:
        if not hasattr(self, "bench"):
            return
        assert self.bench.store.head().position == self.model.position
        for key, stream in self.model.streams.items():
            events = self.bench.store.read_stream(stream_of(fact_id_of("works", key)))
            assert len(events) == len(stream.said) + bool(stream.erased_at)
            if stream.erased_at:
                assert all(event.payload is None for event in events[:-1])
            else:
                assert events[0].payload is not None
                assert FactDeclared.FromString(events[0].payload).fact.title == stream.said[0][0]

    def order(self, step: Step) -> Order:
        action, key, revision, title = step
        ids = self.bench.ids
        if action == "cancel":
            return cancelling(fact_id_of("works", key), revision, 1, "CITY", RECORD, ids)  # type: ignore[arg-type]
        if action == "erase":
            reason = ErasureReason.Name(ERASURE_REASON_RETENTION)
            return erasing(Erasure(fact_id_of("works", key), reason, "CITY", RECORD), ids)
        fact: Fact = works(key, revision=revision, title=title)
        if action == "amend":
            return amending(self.bench.admitted(fact), "CITY", RECORD, ids)
        return self.bench.declare_orders(fact)[0]

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            assert self.bench.store.verify() == ()
            self.bench.store.close()
            self.folder.cleanup()


def outcome(answer: Answer) -> Expected:
    if isinstance(answer, Refusal):
        assert RefusalReason.Name(answer.reason)
        return "refused", answer.reason
    return "duplicate" if answer.duplicate else "accepted", answer.revision.position


TestDeclarations = Declarations.TestCase
TestDeclarations.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
