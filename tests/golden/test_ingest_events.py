"""Events of ingest as released: these bytes must be read the same for ever, whatever the code becomes."""

import json
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from planier.ingest.v1.events_pb2 import FactAmended, FactCancelled, FactDeclared, FactErased

from services.ingest.domain import FactState, digest_of, evolve, stream_of
from services.ingest.revisions import revision_of
from services.kernel.codec import IdentityCodec
from services.kernel.store.base import StoredEvent

GOLDEN = json.loads((Path(__file__).parent / "ingest_events.json").read_bytes())
TYPES: dict[str, type[Message]] = {
    message.DESCRIPTOR.full_name: message for message in (FactDeclared, FactAmended, FactCancelled, FactErased)
}


def stored(entry: dict[str, str], version: int) -> StoredEvent:
    payload = bytes.fromhex(entry["payload"])
    return StoredEvent(
        position=100 + version,
        stream=stream_of(GOLDEN["fact_id"]),
        stream_version=version,
        type=entry["type"],
        event_id=f"e{version}",
        recorded_at_us=1_788_000_000_000_000 + version,
        key_id="identity",
        commitment=bytes(32),
        salt=bytes(32),
        payload=payload,
        digest=bytes(32),
        erased_by=0,
        traceparent="",
    )


def test_every_event_type_of_the_contract_is_here() -> None:
    assert {entry["type"] for entry in GOLDEN["events"]} == set(TYPES)


@pytest.mark.parametrize("entry", GOLDEN["events"], ids=lambda entry: entry["type"])
def test_released_bytes_say_what_they_said(entry: dict[str, object]) -> None:
    message = TYPES[str(entry["type"])].FromString(bytes.fromhex(str(entry["payload"])))
    assert MessageToDict(message, preserving_proto_field_name=True) == entry["says"]
    assert ParseDict(entry["says"], TYPES[str(entry["type"])]()) == message


def test_released_events_evolve_to_the_released_states() -> None:
    state: FactState | None = None
    states = []
    for version, entry in enumerate(GOLDEN["events"], start=1):
        revision = revision_of(stored(entry, version), IdentityCodec())
        assert revision is not None
        state = evolve(state, revision)
        states.append([revision.number, revision.state, revision.digest.hex(), sorted(state.revisions)])
    assert states == GOLDEN["states"]


def test_the_released_digest_is_of_the_released_body() -> None:
    declared = FactDeclared.FromString(bytes.fromhex(GOLDEN["events"][0]["payload"]))
    assert digest_of(declared.body_salt, bytes.fromhex(GOLDEN["body"])) == declared.body_digest
