"""Events of access as released: these bytes must be read the same for ever, whatever the code becomes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from planier.access.v1.events_pb2 import Deed

from services.access import engagements, list_state
from services.access.convention import Identity, Standing, State
from services.access.domain import EVENTS as KINDS
from services.access.domain import evolve

EVENTS = json.loads((Path(__file__).parent / "access_events.json").read_bytes())["events"]
# Of 0.1.0: one clearance's life.
FIRST, LATER = EVENTS[:5], EVENTS[5:]
RECORDED_AT = datetime(2026, 9, 1, tzinfo=UTC)


def read(entry: dict[str, Any]) -> Any:
    return KINDS[entry["type"]].FromString(bytes.fromhex(entry["payload"]))


def test_every_event_type_of_the_contract_is_here() -> None:
    elsewhere = {*list_state.EVENTS, *engagements.EVENTS}  # in files of their own
    assert {entry["type"] for entry in EVENTS} == set(KINDS) - elsewhere


@pytest.mark.parametrize("entry", EVENTS, ids=lambda entry: entry["type"])
def test_released_bytes_say_what_they_said(entry: dict[str, Any]) -> None:
    message: Message = read(entry)
    assert MessageToDict(message, preserving_proto_field_name=True) == entry["says"]
    assert ParseDict(entry["says"], KINDS[entry["type"]]()) == message


def test_released_events_evolve_to_the_released_states() -> None:
    state, standings = State(), []
    for entry in FIRST:
        state = evolve(state, read(entry), RECORDED_AT)
        standings += [clearance.standing(RECORDED_AT) for clearance in state.clearances.values()]
    assert standings == [Standing.GRANTED, Standing.BINDING_PROPOSED, Standing.ACTIVE, Standing.REVOKED]
    [clearance] = state.clearances.values()
    assert clearance.identity == Identity("https://idp.example", "duty")
    assert state.convention is not None
    assert [office.identity.subject for office in state.convention.offices] == ["dga"]


def test_the_released_deed_keeps_its_bytes() -> None:
    deed = read(EVENTS[0]).deed
    assert Deed.FromString(deed).SerializeToString(deterministic=True) == deed


def test_later_events_evolve_to_the_released_states() -> None:
    state, standings = evolve(State(), read(FIRST[0]), RECORDED_AT), []
    for entry in LATER:
        state = evolve(state, read(entry), RECORDED_AT)
        standings += [clearance.standing(RECORDED_AT) for clearance in state.clearances.values()]
    assert [standing for number, standing in enumerate(standings) if standing not in standings[:number]] == [
        Standing.REQUESTED,
        Standing.GRANTED,
        Standing.BINDING_PROPOSED,
        Standing.SUSPENDED,
        Standing.REFUSED,
    ]
    [clearance] = state.clearances.values()
    assert (clearance.revoked, clearance.urgent, clearance.affiliation.siret) == (True, True, "21130055300016")
    assert clearance.content.valid_until == datetime(2027, 9, 1, tzinfo=UTC)
    assert [decided.number for decided in clearance.decisions] == [(2026, 7)] * 7
    convention = state.convention
    assert convention is not None
    assert convention.versions[-1].awaits == ("notice PREFECTURE",)
    assert convention.versions[-1].house_rules == {"house.delegate", "house.yearly_review", "house.urgent_clearance"}
    assert convention.denunciation is not None
    assert convention.denunciation.until == datetime(2027, 1, 1, 23, tzinfo=UTC)
    assert convention.termination is not None
    assert convention.destroyed_at == datetime(2026, 12, 10, 9, tzinfo=UTC)
    assert len(convention.acts) == 7
