"""Events of the nominative list as released: these bytes must be read the same for ever, whatever the code becomes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from services.access import list_state
from services.access.convention import State
from services.access.domain import evolve
from services.access.list_state import ProposalStanding, listing_of
from tests.fixtures import access

EVENTS = json.loads((Path(__file__).parent / "access_list_events.json").read_bytes())["events"]


def read(entry: dict[str, Any]) -> Any:
    return list_state.EVENTS[entry["type"]].FromString(bytes.fromhex(entry["payload"]))


def test_every_event_type_of_the_list_is_here() -> None:
    assert {entry["type"] for entry in EVENTS} == set(list_state.EVENTS)


@pytest.mark.parametrize("entry", EVENTS, ids=lambda entry: entry["type"])
def test_released_bytes_say_what_they_said(entry: dict[str, Any]) -> None:
    message: Message = read(entry)
    assert MessageToDict(message, preserving_proto_field_name=True) == entry["says"]
    assert ParseDict(entry["says"], list_state.EVENTS[entry["type"]]()) == message


def test_released_events_evolve_to_the_released_state() -> None:
    state: State = access.founded()
    for entry in EVENTS:
        state = evolve(state, read(entry), datetime(2026, 3, 1, 12, tzinfo=UTC))
    listing = listing_of(state)
    assert (listing.highest, listing.fault, listing.keys.threshold) == (2, "", 1)
    assert listing.current is not None
    assert [entry.person.usual_name for entry in listing.current.entries.values()] == ["Second", "Œillet"]
    (mark,) = listing.marks.values()
    assert (mark.refused, dict(mark.suspensions)) == ("hors périmètre", {})
    standings = [proposal.standing for proposal in listing.proposals.values()]
    assert standings == [
        ProposalStanding.VALIDATED,
        ProposalStanding.VALIDATED,
        ProposalStanding.REFUSED,
        ProposalStanding.WITHDRAWN,
    ]
