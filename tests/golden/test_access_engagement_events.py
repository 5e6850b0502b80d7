"""Events of engagements as released: these bytes must be read the same for ever, whatever the code becomes."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from services.access import engagements
from services.access.convention import State
from services.access.domain import evolve
from services.access.engagements import EngagementStanding
from tests.fixtures import access

EVENTS = json.loads((Path(__file__).parent / "access_engagement_events.json").read_bytes())["events"]


def read(entry: dict[str, Any]) -> Any:
    return engagements.EVENTS[entry["type"]].FromString(bytes.fromhex(entry["payload"]))


def test_every_event_type_of_engagements_is_here() -> None:
    assert {entry["type"] for entry in EVENTS} == set(engagements.EVENTS)


@pytest.mark.parametrize("entry", EVENTS, ids=lambda entry: entry["type"])
def test_released_bytes_say_what_they_said(entry: dict[str, Any]) -> None:
    message: Message = read(entry)
    assert MessageToDict(message, preserving_proto_field_name=True) == entry["says"]
    assert ParseDict(entry["says"], engagements.EVENTS[entry["type"]]()) == message


def test_released_events_evolve_to_the_released_standings() -> None:
    state: State = access.founded()
    standings: list[EngagementStanding] = []
    for entry in EVENTS:
        at = access.NOW + timedelta(days=len(standings))
        state = evolve(state, read(entry), at)
        assert state.convention is not None
        (engagement,) = state.engagements.values()
        standings.append(engagement.standing(state.convention, at))
    under_way, due = EngagementStanding.UNDER_WAY, EngagementStanding.DESTRUCTION_DUE
    assert standings == [under_way, under_way, due, EngagementStanding.CLOSED]
    assert len(engagement.hand_overs) == 1
    # The certificate in the event still verifies.
    event = read(EVENTS[-1])
    assert engagements.verify(event.certificate, event.signature, engagement).sirets
