"""Makes declarations durable: whatever arrives while one transaction commits shares the next one.

A transaction costs one flush to the disk whatever it holds; validation and serialisation happen before, off its lock.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from planier.ingest.v1.ingest_pb2 import DECLARATION_STATE_DECLARED, DECLARATION_STATE_ERASED
from sqlalchemy.exc import DBAPIError

from services.ingest.domain import (
    STATES,
    Accepted,
    Action,
    Duplicate,
    FactState,
    Refusal,
    Revision,
    decide,
    evolve,
    fact_of,
    stream_of,
)
from services.ingest.ledger import Erasure, Ledger
from services.ingest.orders import Order, erasing
from services.ingest.revisions import state_of
from services.kernel.batching import Batcher
from services.kernel.clock import Ids, microseconds
from services.kernel.errors import unavailable
from services.kernel.store.base import Append, Conflict, Transaction
from services.kernel.store.sql import SqlEventStore
from services.kernel.traces import recorded_among

# Facts in one transaction: about 0.2 s under the lock.
MOST_IN_TRANSACTION: Final = 8_000
# Facts that wait: beyond the first bound a stream is not read further, beyond the second a unary call is refused.
MOST_WAITING: Final = 16_000
MOST_WAITING_UNARY: Final = 64_000
# Facts that wait here or are committed and not yet published, above which streams wait: what the store still holds in
# memory, so that the relay does not fall further behind the faster it is fed. Waited for in pauses, and not for ever: a
# relay that stands still must not close the door (art4.automatic), the store is its spool.
MOST_UNPUBLISHED: Final = 6_000
_PAUSE_SECONDS: Final = 0.005
_MOST_PAUSES: Final = 400


KeepsUp = Callable[[int, int], bool]


class Kept(NamedTuple):
    """Durable: by this call, or (`duplicate`) before it; `position` is where in the store."""

    revision: Revision
    duplicate: bool


Answer = Kept | Refusal


@dataclass(frozen=True, slots=True)
class Batch:
    """The orders of one call, answered together."""

    orders: Sequence[Order]
    traceparent: str


class OutOfStepError(RuntimeError):
    """The store gave an event another place than it was decided for; nothing of the transaction is kept."""


class Engine:
    """The one writer of this process. `open` first; `apply` from the event loop; `close` last."""

    def __init__(self, store: SqlEventStore, ledger: Ledger, ids: Ids) -> None:
        self._store = store
        self._ledger = ledger
        self._ids = ids
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ingest-writer")
        self._batcher: Batcher[Batch, Sequence[Answer]] = Batcher(self._send)
        self._room = asyncio.Condition()
        self._waiting = 0
        self._committed = 0
        self._keeps_up: KeepsUp = _always

    def pace_by(self, keeps_up: KeepsUp) -> None:
        """Makes patient callers wait while `keeps_up(head, MOST_UNPUBLISHED)` is false, 2 s at most each."""
        self._keeps_up = keeps_up

    def open(self) -> None:
        """Erases again whatever a restored copy still holds. Blocking; idempotent."""
        erasures = {erasure.fact_id: erasure for erasure in self._ledger.read()}
        if not erasures:
            return
        with self._store.write() as transaction:
            states = self._states(transaction, erasures)
            held = {fact_id for fact_id, state in states.items() if state.newest.state != STATES[Action.ERASE]}
            left = [erasure for fact_id, erasure in erasures.items() if fact_id not in states or fact_id in held]
            Writing(transaction).erase_again([erasing(erasure, self._ids) for erasure in left], states)

    async def apply(self, orders: Sequence[Order], *, patient: bool, traceparent: str = "") -> Sequence[Answer]:
        """The answer to each order, in order, durable. `patient` callers wait for room, the others are refused.

        Raises:
            Problem: UNAVAILABLE OVERLOADED or STORE_UNAVAILABLE; nothing or all of it was written: ask again.
        """
        if not orders:
            return ()
        count = len(orders)
        if not patient and self._waiting + count > MOST_WAITING_UNARY:
            raise unavailable("OVERLOADED", "too many declarations are waiting")
        if patient:
            await self._until_published()
        async with self._room:
            if patient:
                await self._room.wait_for(lambda: not self._waiting or self._waiting + count <= MOST_WAITING)
            self._waiting += count
        try:
            return await self._batcher.submit(Batch(orders, traceparent))
        finally:
            self._waiting -= count
            async with self._room:
                self._room.notify_all()

    async def _until_published(self) -> None:
        for _ in range(_MOST_PAUSES):
            # What waits will be committed whatever the relay does meanwhile.
            if self._keeps_up(self._committed + self._waiting, MOST_UNPUBLISHED):
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def find(self, fact_id: str) -> FactState | None:
        """The state of one fact, or None."""
        return await asyncio.to_thread(self._find, fact_id)

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._batcher.close()
        self._writer.shutdown()

    def _find(self, fact_id: str) -> FactState | None:
        return state_of(self._store.read_stream(stream_of(fact_id)), self._store.codec)

    def _states(self, transaction: Transaction, fact_ids: Iterable[str]) -> dict[str, FactState]:
        """The state of each fact that has one, in one query."""
        found = transaction.read_streams([stream_of(fact_id) for fact_id in fact_ids])
        states = {fact_of(stream): state_of(events, self._store.codec) for stream, events in found.items()}
        return {fact_id: state for fact_id, state in states.items() if state is not None}

    async def _send(self, batches: Sequence[Batch]) -> Sequence[Sequence[Answer] | Exception]:
        loop = asyncio.get_running_loop()
        answers: list[Sequence[Answer] | Exception] = []
        for group in _groups(batches):
            try:
                answers += await loop.run_in_executor(self._writer, self.commit, group)
            except DBAPIError:
                answers += [unavailable("STORE_UNAVAILABLE", "the declarations could not be stored")] * len(group)
        return answers

    def commit(self, batches: Sequence[Batch]) -> list[Sequence[Answer]]:
        """One transaction: look up, decide, append. Blocking."""
        orders = [order for batch in batches for order in batch.orders]
        with self._store.write(traceparent=_cause(batches)) as transaction:
            writing = Writing(transaction)
            answers = writing.decide(orders, self._states(transaction, {order.command.fact_id for order in orders}))
            for erasure in writing.erasures:
                # Before anything is written: whatever happens then, the file knows what must not come back.
                self._ledger.append(erasure)
            writing.write()
        self._committed = transaction.position
        found = iter(answers)
        return [list(islice(found, len(batch.orders))) for batch in batches]


class Writing:
    """What one transaction is about to write; the positions that its events will have are known beforehand."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._recorded_at_us = microseconds(transaction.recorded_at)
        self._position = transaction.position
        self._appends: list[Append] = []
        self._revisions: list[Revision] = []
        self.erasures: list[Erasure] = []

    def decide(self, orders: Sequence[Order], states: dict[str, FactState]) -> list[Answer]:
        """Decides each order on the state that those before it leave."""
        answers: list[Answer] = []
        for order in orders:
            outcome = decide(states.get(order.command.fact_id), order.command)
            if isinstance(outcome, Accepted):
                answers.append(Kept(self._accept(order, outcome.version, states), False))
            elif isinstance(outcome, Duplicate):
                answers.append(Kept(outcome.revision, duplicate=True))
            else:
                answers.append(outcome)
        return answers

    def write(self) -> None:
        """Appends the events, erases what they erase."""
        if not self._appends:
            return
        results = self._transaction.append(self._appends)
        for result, revision in zip(results, self._revisions, strict=True):
            if isinstance(result, Conflict) or result.last_position != revision.position:
                raise OutOfStepError("an event was given another place than it was decided for")
            if revision.state == DECLARATION_STATE_ERASED:
                self._transaction.erase(result.stream, result.last_position)

    def erase_again(self, orders: Sequence[Order], states: dict[str, FactState]) -> None:
        """Erases what a restored copy still holds; a fact that it never held is erased too, so it cannot come back."""
        for order in orders:
            state = states.get(order.command.fact_id)
            self._accept(order, state.newest.number + 1 if state else 1, states)
        self.write()

    def _accept(self, order: Order, version: int, states: dict[str, FactState]) -> Revision:
        action, fact_id, _, party, _, salt = order.command
        # Nearly all of them; looking an action up costs as much as making the revision.
        state = DECLARATION_STATE_DECLARED if action is Action.DECLARE else STATES[action]
        self._position += 1
        revision = Revision(version, state, salt, order.digest, self._position, self._recorded_at_us, party)
        states[fact_id] = evolve(states.get(fact_id), revision)
        self._appends.append(Append(stream_of(fact_id), version - 1, (order.event,)))
        self._revisions.append(revision)
        if order.erasure is not None:
            self.erasures.append(order.erasure)
        return revision


def _always(_head: int, _most: int) -> bool:
    return True


def _cause(batches: Sequence[Batch]) -> str:
    """The one traceparent that a transaction's events bear: of its first recorded call, if there is one."""
    recorded = recorded_among(batch.traceparent for batch in batches)
    return recorded[0] if recorded else batches[0].traceparent


def _groups(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Consecutive batches of at most MOST_IN_TRANSACTION orders together, one batch at least."""
    group: list[Batch] = []
    size = 0
    for batch in batches:
        if group and size + len(batch.orders) > MOST_IN_TRANSACTION:
            yield group
            group, size = [], 0
        group.append(batch)
        size += len(batch.orders)
    if group:
        yield group
