"""The hash chain of a store, for the store itself and for every reader that checks what it was given.

commitment = SHA-256(salt ‖ payload), salt 32 random bytes: an erased payload cannot be guessed back from it.
digest = SHA-256(previous digest ‖ header ‖ commitment), the first one following 32 zero bytes. The header is
position, stream version and recorded-at (signed 64 bit), the lengths of stream, type, event id and key id (unsigned
32 bit), all big-endian, then these four in UTF-8: no two headers share their bytes. Outside the chain: salt and
payload (they can be erased), erased_by, traceparent.
"""

from collections.abc import Iterable
from hashlib import sha256
from struct import Struct

from services.kernel.store.base import StoredEvent

_HEADER = Struct(">qqqIIII")
SALT_SIZE = 32


class ChainBroken(Exception):  # noqa: N818 -- names the finding
    """An event does not follow from what precedes it; `position` says which, `fault` as in base.Fault."""

    def __init__(self, position: int, fault: str) -> None:
        super().__init__(f"{fault} at position {position}")
        self.position = position
        self.fault = fault


def commitment(salt: bytes, payload: bytes) -> bytes:
    """SHA-256(salt ‖ payload)."""
    return sha256(salt + payload).digest()


def link(
    previous_digest: bytes,
    position: int,
    stream: str,
    stream_version: int,
    type_: str,
    event_id: str,
    recorded_at_us: int,
    key_id: str,
    committed: bytes,
) -> bytes:
    """The digest at `position`, given the one before it."""
    on, name, event, key = stream.encode(), type_.encode(), event_id.encode(), key_id.encode()
    header = _HEADER.pack(position, stream_version, recorded_at_us, len(on), len(name), len(event), len(key))
    return sha256(b"".join((previous_digest, header, on, name, event, key, committed))).digest()


def link_event(previous_digest: bytes, event: StoredEvent) -> bytes:
    """The digest at the event, given the one before it; the event's own `digest` is not looked at."""
    return link(previous_digest, *event[:8])


def payload_holds(event: StoredEvent) -> bool:
    """Whether the payload is the committed one, or was erased by a later event."""
    if event.erased_by:
        return event.payload is None and event.salt is None and event.erased_by > event.position
    if event.payload is None or event.salt is None or len(event.salt) != SALT_SIZE:
        return False
    return commitment(event.salt, event.payload) == event.commitment


def verify_run(previous_digest: bytes, events: Iterable[StoredEvent]) -> bytes:
    """Recomputes consecutive events; returns the digest at the last one (`previous_digest` for none).

    An event's own `digest` is compared unless it is empty (it does not travel). Raises ChainBroken at the first event
    whose payload, header, digest or position does not follow; the caller compares the result with what it was told.
    """
    digest, expected = previous_digest, 0
    for event in events:
        if expected and event.position != expected:
            raise ChainBroken(expected, "POSITION_MISSING")
        if not payload_holds(event):
            raise ChainBroken(event.position, "PAYLOAD_ALTERED")
        digest = link_event(digest, event)
        if event.digest and event.digest != digest:
            raise ChainBroken(event.position, "CHAIN_BROKEN")
        expected = event.position + 1
    return digest
