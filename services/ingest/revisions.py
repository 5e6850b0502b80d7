"""What a fact's stream says of its revisions; the events are the only copy (docs/adr/0015-ingest-cost.md)."""

from collections.abc import Iterable, Mapping
from typing import Final

from planier.ingest.v1.events_pb2 import FactAmended, FactCancelled, FactDeclared, FactErased
from planier.ingest.v1.ingest_pb2 import (
    DECLARATION_STATE_AMENDED,
    DECLARATION_STATE_CANCELLED,
    DECLARATION_STATE_DECLARED,
    DECLARATION_STATE_ERASED,
    DeclarationState,
)

from services.ingest.domain import FactState, Revision, evolve
from services.kernel.codec import Codec
from services.kernel.store.base import StoredEvent

_STATES: Final[Mapping[str, "DeclarationState.ValueType"]] = {
    FactDeclared.DESCRIPTOR.full_name: DECLARATION_STATE_DECLARED,
    FactAmended.DESCRIPTOR.full_name: DECLARATION_STATE_AMENDED,
    FactCancelled.DESCRIPTOR.full_name: DECLARATION_STATE_CANCELLED,
}
_MESSAGES: Final[Mapping[str, type[FactDeclared | FactAmended | FactCancelled]]] = {
    message.DESCRIPTOR.full_name: message for message in (FactDeclared, FactAmended, FactCancelled)
}
_ERASED: Final = FactErased.DESCRIPTOR.full_name


def state_of(events: Iterable[StoredEvent], codec: Codec) -> FactState | None:
    """The state that a fact's events leave, None for no events; of an erased fact only the erasure is known."""
    state: FactState | None = None
    for event in events:
        revision = revision_of(event, codec)
        if revision is not None:
            state = evolve(state, revision)
    return state


def revision_of(event: StoredEvent, codec: Codec) -> Revision | None:
    """The revision that an event made; None for one whose payload is erased."""
    if event.payload is None:
        return None
    payload = codec.decode(event.key_id, event.payload)
    if event.type == _ERASED:
        party = FactErased.FromString(payload).party
        state, salt, digest = DECLARATION_STATE_ERASED, b"", b""
    else:
        said = _MESSAGES[event.type].FromString(payload)
        party, state, salt, digest = said.party, _STATES[event.type], said.body_salt, said.body_digest
    return Revision(event.stream_version, state, salt, digest, event.position, event.recorded_at_us, party)
