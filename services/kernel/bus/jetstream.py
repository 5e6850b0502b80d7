"""The bus on NATS JetStream: publishes acknowledged runs, and deletes the messages that hold erased events."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from planier.common.v1.event_pb2 import EventRun

from services.kernel import traces
from services.kernel.bus.base import BusUnavailable, Topic
from services.kernel.bus.columns import traceparents
from services.kernel.bus.connection import Connection
from services.kernel.bus.ledger import PublishedRun, RunLedger
from services.kernel.clock import Clock, microseconds

# nats-server: JSStreamNameExistErr, the stream exists with another configuration.
STREAM_EXISTS_OTHERWISE = 10058
# nats-server: JSStreamMsgDeleteFailedF and JSSequenceNotFoundErrF, what deleting a message that is not there gives: the
# second where it was deleted before, by a relay that was killed before it could remember that it had.
MESSAGE_ABSENT = (10057, 10043)
HEADER_ALLOWANCE = 4096
PURGE_ABOVE = 1000
PRUNE_EVERY = 256
# Acknowledged runs are remembered together: so many, or as many as come within so many seconds of the first. A
# transaction for each stood in the way of the declarations that the next run is made of.
REMEMBERED_TOGETHER = 4
REMEMBERED_WITHIN = 0.02


@dataclass(frozen=True, slots=True)
class Retention:
    """How much the bus keeps: seconds and bytes. A reader further behind asks the owner."""

    max_age: int = 86_400
    max_bytes: int = 1024 * 1024 * 1024
    replicas: int = 1


def message_id(run: EventRun) -> str:
    """Deduplicates within JetStream's window; the digest keeps a restored store's other events apart."""
    return f"{run.first_position}-{run.digest.hex()}"


def headers(run: EventRun) -> dict[str, str]:
    """The deduplication id, and the trace of the publication, else of the call that caused the first event."""
    content = {"Nats-Msg-Id": message_id(run)}
    traceparent = traces.current.get() or next(filter(None, traceparents(run)), "")
    if traceparent:
        content["traceparent"] = traceparent
    return content


class _Lot(NamedTuple):
    """Acknowledged runs, each with what `_send` gave, to be remembered together; `full` when no more may join."""

    runs: list[tuple[EventRun, tuple[str, int] | None]]
    full: asyncio.Event


class JetStreamPublisher:
    """Implements RunPublisher on one stream (file storage, bounded age and size, oldest discarded first)."""

    def __init__(
        self, connection: Connection, topic: Topic, ledger: RunLedger, clock: Clock, retention: Retention | None = None
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._ledger = ledger
        self._clock = clock
        self._retention = retention or Retention()
        self._prepared: tuple[int, str] | None = None
        self._published = 0
        # Of the run sent last: whether it was acknowledged, as all before it.
        self._turn: asyncio.Future[bool] | None = None
        # What is acknowledged and joins the next transaction, and the one that remembers it or what came before.
        self._lot: _Lot | None = None
        self._remembering: asyncio.Task[None] | None = None

    def _configuration(self) -> StreamConfig:
        return StreamConfig(
            name=self._topic.stream,
            subjects=[self._topic.subject],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_age=self._retention.max_age,
            max_bytes=self._retention.max_bytes,
            num_replicas=self._retention.replicas,
            duplicate_window=min(120, self._retention.max_age),
            deny_delete=False,
        )

    async def _context(self) -> JetStreamContext:
        client = await self._connection.client()
        return client.jetstream(timeout=self._connection.settings.request_timeout)

    async def prepare(self) -> None:
        """Creates or updates the stream, then removes messages that a relay published and died before remembering.

        A reader that misses such a message reads its events from the owner. Raises BusUnavailable.
        """
        if self._remembering is not None:
            # What it remembers would be taken for unknown.
            await asyncio.wait({self._remembering})
        info = await self._ensure_stream()
        await self._delete(await self._unknown(info))
        await asyncio.to_thread(self._prune)

    async def _ensure_stream(self) -> StreamInfo:
        lives = self._connection.disconnections
        context = await self._context()
        try:
            info = await self._create(context)
        except (nats.errors.Error, TimeoutError) as error:
            raise BusUnavailable("the stream cannot be made ready") from error
        self._prepared = (lives, str(info.created))
        return info

    async def _create(self, context: JetStreamContext) -> StreamInfo:
        try:
            return await context.add_stream(self._configuration())
        except nats.js.errors.APIError as error:
            if error.err_code != STREAM_EXISTS_OTHERWISE:
                raise
            return await context.update_stream(self._configuration())

    async def _incarnation(self) -> str:
        # Storage can only vanish with the server: a lost connection is when to look again.
        if self._prepared is None or self._prepared[0] != self._connection.disconnections:
            await self.prepare()
        if self._prepared is None:
            raise BusUnavailable("the stream is not ready")
        return self._prepared[1]

    async def publish(self, run: EventRun) -> None:
        """Publishes, awaits JetStream's acknowledgement, then remembers the message and moves the cursor.

        A run too large for the server is skipped: readers see the gap and ask the owner. Raises BusUnavailable.
        """
        before, turn = self._turn, asyncio.get_running_loop().create_future()
        self._turn = turn
        behind = before if before is not None and not before.done() else None
        try:
            sent = await self._send(run)
            if behind is not None and not await behind:
                raise BusUnavailable("the run before it was not acknowledged")
            turn.set_result(True)
        finally:
            if not turn.done():
                turn.set_result(False)
        # Nothing is awaited since its turn ended: runs are remembered in their order.
        await asyncio.shield(self._remembered(run, sent))

    async def _send(self, run: EventRun) -> tuple[str, int] | None:
        """Incarnation and sequence of the acknowledged message; None for a run too large for the bus."""
        body = run.SerializeToString()
        client = await self._connection.client()
        if len(body) + HEADER_ALLOWANCE > client.max_payload:
            return None
        incarnation = await self._incarnation()
        context = await self._context()
        try:
            ack = await context.publish(self._topic.subject, body, stream=self._topic.stream, headers=headers(run))
        except nats.js.errors.NoStreamResponseError as error:
            self._prepared = None
            raise BusUnavailable("the stream is gone") from error
        except (nats.errors.Error, TimeoutError) as error:
            raise BusUnavailable("the run was not acknowledged") from error
        return incarnation, ack.seq

    def _remembered(self, run: EventRun, sent: tuple[str, int] | None) -> "asyncio.Task[None]":
        """The task that remembers the run, with others."""
        lot, task = self._lot, self._remembering
        if lot is None or task is None:
            lot = self._lot = _Lot([], asyncio.Event())
            task = self._remembering = asyncio.create_task(self._remember(lot, task))
        lot.runs.append((run, sent))
        if len(lot.runs) == REMEMBERED_TOGETHER:
            lot.full.set()
            self._lot = None
        return task

    async def _remember(self, lot: "_Lot", before: "asyncio.Task[None] | None") -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REMEMBERED_WITHIN):
                await lot.full.wait()
        if before is not None:
            await asyncio.wait({before})
        if self._lot is lot:
            self._lot = None
        await asyncio.to_thread(self._record, lot.runs)

    def _record(self, runs: Sequence[tuple[EventRun, tuple[str, int] | None]]) -> None:
        published = [PublishedRun(*sent, run.first_position, run.last_position) for run, sent in runs if sent]
        if published:
            self._ledger.record(published, microseconds(self._clock.now()))
        if runs[-1][1] is None:
            self._ledger.advance(runs[-1][0].last_position)
        before = self._published
        self._published += len(published)
        if self._published // PRUNE_EVERY > before // PRUNE_EVERY:
            self._prune()

    def _prune(self) -> None:
        # An hour more than the bus keeps them, in case the two clocks differ.
        self._ledger.prune(microseconds(self._clock.now()) - (self._retention.max_age + 3600) * 1_000_000)

    async def erase(self, positions: Sequence[int]) -> None:
        """Deletes the messages that hold one of the positions, overwriting their bytes. Raises BusUnavailable."""
        info = await self._ensure_stream()
        holding = await asyncio.to_thread(self._ledger.holding, str(info.created), tuple(positions))
        await self._delete(sorted({*holding, *await self._unknown(info)}))

    async def _unknown(self, info: StreamInfo) -> tuple[int, ...]:
        if info.state.messages == 0:
            return ()
        span = (str(info.created), info.state.first_seq, info.state.last_seq)
        return await asyncio.to_thread(self._ledger.unknown, *span)

    async def _delete(self, sequences: Sequence[int]) -> None:
        if not sequences or self._prepared is None:
            return
        incarnation = self._prepared[1]
        context = await self._context()
        try:
            if len(sequences) > PURGE_ABOVE:
                # One by one would take minutes; readers fill the gap from the owner.
                await context.purge_stream(self._topic.stream, seq=sequences[-1] + 1)
            for sequence in sequences if len(sequences) <= PURGE_ABOVE else ():
                await self._delete_one(context, sequence)
        except (nats.errors.Error, TimeoutError) as error:
            raise BusUnavailable("a message could not be deleted") from error
        await asyncio.to_thread(self._ledger.erased, incarnation, sequences, microseconds(self._clock.now()))

    async def _delete_one(self, context: JetStreamContext, sequence: int) -> None:
        try:
            # Without `no_erase`, the server overwrites the message with random bytes before it drops it.
            await context.delete_msg(self._topic.stream, sequence)
        except nats.js.errors.APIError as error:
            if error.err_code not in MESSAGE_ABSENT:
                raise
