"""Runs of consecutive events: made from the store, carried as protobuf, verified by whoever reads them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planier.common.v1 import event_pb2
from planier.common.v1.event_pb2 import EventRun

from services.kernel.store.base import Position, StoredEvent
from services.kernel.store.chain import ChainBroken, link, payload_holds

# Keeps a message far from nats-server's 1 MiB and gRPC's 4 MiB.
RUN_BYTES = 512 * 1024
# What one event adds to its own size within a run: tag and length.
FRAMING = 6
# Store id, positions and the two digests.
ENVELOPE = 160


@dataclass(frozen=True, slots=True)
class Run:
    """Verified consecutive events; `previous_digest` and `digest` are the chain before the first and at the last."""

    store_id: str
    previous_digest: bytes
    digest: bytes
    events: tuple[StoredEvent, ...]
    # Of the reader's span that took it in; "" where no recorded call caused it.
    traceparent: str = ""

    @property
    def position(self) -> Position:
        """Where a reader stands once it has applied the run."""
        return Position(self.store_id, self.events[-1].position, self.digest)


def to_proto(event: StoredEvent) -> event_pb2.StoredEvent:
    """The event as it travels: without its digest, which readers recompute."""
    return event_pb2.StoredEvent(
        position=event.position,
        stream=event.stream,
        stream_version=event.stream_version,
        type=event.type,
        event_id=event.event_id,
        recorded_at_us=event.recorded_at_us,
        key_id=event.key_id,
        commitment=event.commitment,
        salt=event.salt or b"",
        payload=event.payload,
        erased_by=event.erased_by,
        traceparent=event.traceparent,
    )


def from_proto(event: event_pb2.StoredEvent, previous_digest: bytes) -> StoredEvent:
    """The event with its digest recomputed after the one before it. Raises ChainBroken for a payload not its own."""
    header = (
        event.position,
        event.stream,
        event.stream_version,
        event.type,
        event.event_id,
        event.recorded_at_us,
        event.key_id,
        event.commitment,
    )
    payload = event.payload if event.HasField("payload") else None
    digest = link(previous_digest, *header)
    stored = StoredEvent(*header, event.salt or None, payload, digest, event.erased_by, event.traceparent)
    if not payload_holds(stored):
        raise ChainBroken(event.position, "PAYLOAD_ALTERED")
    return stored


def pack(
    store_id: str, previous_digest: bytes, events: Sequence[StoredEvent], limit: int = RUN_BYTES
) -> Iterator[EventRun]:
    """Splits consecutive events into runs of at most `limit` bytes; an event that is larger goes alone."""
    start, size, carried = 0, ENVELOPE, list[event_pb2.StoredEvent]()
    for index, event in enumerate(events):
        message = to_proto(event)
        weight = message.ByteSize() + FRAMING
        if carried and size + weight > limit:
            yield _run(store_id, previous_digest, events[start:index], carried)
            previous_digest, start, size, carried = events[index - 1].digest, index, ENVELOPE, []
        carried.append(message)
        size += weight
    if carried:
        yield _run(store_id, previous_digest, events[start:], carried)


def _run(
    store_id: str, previous_digest: bytes, events: Sequence[StoredEvent], carried: list[event_pb2.StoredEvent]
) -> EventRun:
    return EventRun(
        store_id=store_id,
        first_position=events[0].position,
        last_position=events[-1].position,
        previous_digest=previous_digest,
        digest=events[-1].digest,
        events=carried,
    )


def unpack(run: EventRun, after: Position) -> Run | None:
    """The part of the run that follows `after`, verified from there; None when all of it is already seen.

    Raises ChainBroken when the run belongs to another store, leaves a hole, holds an altered event, or does not lead
    to the digest that it states.
    """
    if run.store_id != after.store_id:
        raise ChainBroken(run.first_position, "CHAIN_BROKEN")
    if run.last_position <= after.position:
        return None
    digest, expected = after.digest, after.position + 1
    events: list[StoredEvent] = []
    for message in run.events:
        if message.position < expected and not events:
            continue
        if message.position != expected:
            raise ChainBroken(expected, "POSITION_MISSING")
        event = from_proto(message, digest)
        events.append(event)
        digest, expected = event.digest, expected + 1
    if digest != run.digest or expected != run.last_position + 1:
        raise ChainBroken(run.last_position, "CHAIN_BROKEN")
    return Run(run.store_id, after.digest, digest, tuple(events))
