"""Which of access's events a viewer may read whole: those that name nobody of the other party.

An event that is withheld keeps its commitment, so that the chain still verifies; payload and salt go together, for a
salt would let names be tried.
"""

from collections.abc import Callable, MutableMapping

from google.protobuf.message import DecodeError
from planier.access.v1.events_pb2 import ClearanceGranted, Party
from planier.common.v1.event_pb2 import EventRun, StoredEvent

# Both parties signed it, with their office holders' names in it.
_SIGNED = "convention"
_GRANTED = ClearanceGranted.DESCRIPTOR.full_name


def disclosable(run: EventRun, parties: MutableMapping[str, str], hides: Callable[[str], bool]) -> tuple[EventRun, int]:
    """The run as a viewer may read it, and how many of its events are withheld.

    `parties` remembers, from run to run, whose people a stream is about; a stream of unknown people is withheld.
    """
    shown, withheld = EventRun(), 0
    shown.CopyFrom(run)
    for event in shown.events:
        if event.type == _GRANTED and event.HasField("payload"):
            parties[event.stream] = _party_of(event)
        if event.stream == _SIGNED or not hides(parties.get(event.stream, "")):
            continue
        event.ClearField("payload")
        event.ClearField("salt")
        withheld += 1
    return shown, withheld


def _party_of(event: StoredEvent) -> str:
    try:
        party = ClearanceGranted.FromString(event.payload).party
        return Party.Name(party).removeprefix("PARTY_")
    except (DecodeError, ValueError):
        return ""
