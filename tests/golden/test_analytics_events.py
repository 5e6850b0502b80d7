"""Events of analytics as released: these bytes must be read the same for ever, whatever the code becomes."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from services.analytics.domain import EVENTS, Event, History, evolve

GOLDEN = json.loads((Path(__file__).parent / "analytics_events.json").read_bytes())


def test_every_event_type_is_here() -> None:
    assert {entry["type"] for entry in GOLDEN["events"]} == set(EVENTS)


@pytest.mark.parametrize("entry", GOLDEN["events"], ids=lambda entry: entry["type"])
def test_released_bytes_say_what_they_said(entry: dict[str, Any]) -> None:
    message = EVENTS[entry["type"]].FromString(bytes.fromhex(entry["payload"]))
    assert MessageToDict(message, preserving_proto_field_name=True) == entry["says"]
    assert ParseDict(entry["says"], EVENTS[entry["type"]]()) == message
    assert message.SerializeToString(deterministic=True).hex() == entry["payload"]


def test_released_events_evolve_to_the_released_steps() -> None:
    history: History = ()
    for at_us, entry in enumerate(GOLDEN["events"], 1):
        event = cast("Event", EVENTS[entry["type"]].FromString(bytes.fromhex(entry["payload"])))
        history = evolve(history, event, at_us)
    steps = [
        [s.kind, s.at_us, s.fingerprint, s.subject, s.party, list(s.measure) if s.measure else None] for s in history
    ]
    assert steps == GOLDEN["steps"]
