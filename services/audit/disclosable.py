"""Which of access's events a viewer may read whole: those that name nobody of the other party.

An event that is withheld keeps its commitment, so that the chain still verifies; payload and salt go together, for a
salt would let names be tried.
"""

from collections.abc import Callable, MutableMapping

from google.protobuf.message import DecodeError
from planier.access.v1.events_pb2 import ClearanceGranted, ClearanceRequested, Party
from planier.common.v1.event_pb2 import EventRun, StoredEvent

# What both parties signed, and what their officers were told: office holders' names are in it, nobody else's.
_SIGNED = frozenset({"convention", "notices"})
# Whose people the other streams are about; of a clearance's stream its first event says it.
_PREFIXES = {"nominative-list": "PREFECTURE", "engagement-": "CITY"}
_NAMING = {kind.DESCRIPTOR.full_name: kind for kind in (ClearanceRequested, ClearanceGranted)}


def disclosable(run: EventRun, parties: MutableMapping[str, str], hides: Callable[[str], bool]) -> tuple[EventRun, int]:
    """The run as a viewer may read it, and how many of its events are withheld.

    `parties` remembers, from run to run, whose people a stream is about; a stream of unknown people is withheld.
    """
    shown, withheld = EventRun(), 0
    shown.CopyFrom(run)
    for event in shown.events:
        if event.type in _NAMING and event.HasField("payload"):
            parties.setdefault(event.stream, _party_of(event))
        if event.stream in _SIGNED or not hides(parties.get(event.stream, "") or _party_of_prefix(event.stream)):
            continue
        event.ClearField("payload")
        event.ClearField("salt")
        withheld += 1
    return shown, withheld


def _party_of(event: StoredEvent) -> str:
    try:
        return Party.Name(_NAMING[event.type].FromString(event.payload).party).removeprefix("PARTY_")
    except (DecodeError, ValueError):
        return ""


def _party_of_prefix(stream: str) -> str:
    return next((party for prefix, party in _PREFIXES.items() if stream.startswith(prefix)), "")
