"""Natural batching: a batch is whatever arrived while the previous one was under way, never what a timer collected."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, cast

from services.kernel import traces

# Under load one turn of the loop brings few items, and a message costs as much as forty: a batch leaves after so many
# turns in a row that brought none (1.4 us each where nothing else is to be done), or with so many items.
EMPTY_TURNS = 48
ENOUGH = 32

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Sends submitted items in batches and gives each submitter its own verdict.

    `send` takes 1 to `max_items` items in order of submission and returns as many results in the same order, an
    Exception in the place of a result being that item's own failure. An exception raised by `send` is everyone's.
    At most `max_in_flight` batches are under way. An item whose submitter gave up before its batch left is not sent;
    afterwards it runs to its end with the others: cancelling one never cancels the batch. `send` works for
    the traces of all submitters (traces.work_for).
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_items: int = 1000,
        max_in_flight: int = 1,
    ) -> None:
        if max_items < 1 or max_in_flight < 1:
            raise ValueError("max_items and max_in_flight are at least 1")
        self._send = send
        self._max_items = max_items
        self._max_in_flight = max_in_flight
        self._waiting: deque[tuple[Item, asyncio.Future[Result], str]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._closed = False

    async def submit(self, item: Item) -> Result:
        """The item's own result, or its own exception; RuntimeError once closed."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future, traces.current.get()))
        if len(self._workers) < self._max_in_flight:
            # The task starts at the loop's next turn, so what is submitted in this turn leaves together.
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await future

    async def close(self) -> None:
        """Refuses new items and waits for the verdict of every item submitted before."""
        self._closed = True
        while self._workers:
            await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Result], str]] = []
        try:
            while batch := self._next_batch():
                # This task began in the context of one submitter, and serves others too.
                traces.work_for(traceparent for _, _, traceparent in batch)
                _settle(batch, await self._verdicts([item for item, _, _ in batch]))
                await self._let_others_join()
        except asyncio.CancelledError:
            # Only the end of the loop cancels a worker: nobody may wait for ever.
            for _, future, _ in [*batch, *self._waiting]:
                future.cancel()
            self._waiting.clear()
            raise
        finally:
            # Here and not only in the callback, which runs a turn later: an item submitted in between needs a worker.
            self._workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _let_others_join(self) -> None:
        """Turns of the loop in which what is ready to run may submit; when nothing waits, one that nobody waits for."""
        await asyncio.sleep(0)
        waiting, left = len(self._waiting), EMPTY_TURNS
        while left and 0 < waiting < min(ENOUGH, self._max_items):
            await asyncio.sleep(0)
            left = left - 1 if len(self._waiting) == waiting else EMPTY_TURNS
            waiting = len(self._waiting)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result], str]]:
        batch: list[tuple[Item, asyncio.Future[Result], str]] = []
        while self._waiting and len(batch) < self._max_items:
            entry = self._waiting.popleft()
            if not entry[1].done():
                batch.append(entry)
        return batch

    async def _verdicts(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        try:
            verdicts = await self._send(items)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is the answer of every item of this batch
            return [error] * len(items)
        if len(verdicts) != len(items):
            return [RuntimeError("the batch came back with another number of results")] * len(items)
        return verdicts


def _settle(batch: Sequence[tuple[Item, asyncio.Future[Result], str]], verdicts: Sequence[Result | Exception]) -> None:
    for (_, future, _), verdict in zip(batch, verdicts, strict=True):
        if future.done():
            continue
        if isinstance(verdict, Exception):
            future.set_exception(verdict)
        else:
            future.set_result(verdict)
