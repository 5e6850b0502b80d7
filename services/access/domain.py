"""Who may change what: pure decide and evolve over the events of access, by noun.

Every rule that guards a write is in these modules, not in the policy alone: whatever path a command takes, nobody
grants or confirms for themselves, and only the holder of an office uses it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, cast, get_args

from google.protobuf.message import Message
from planier.access.v1.events_pb2 import (
    BindingConfirmed,
    ClearanceGranted,
    ConventionSigned,
    DpiaRecorded,
    NoticeAcknowledged,
    NoticeIssued,
)

from services.access import (
    agreement,
    binding,
    clearances,
    engagements,
    granting,
    list_state,
    nominative_list,
    notices,
    suspending,
)
from services.access.agreement import ActEvent, RecordAct, SignConvention
from services.access.binding import ConfirmBinding, ProposeBinding, SignUndertaking
from services.access.clearances import ClearanceEvent
from services.access.convention import State, in_force
from services.access.eligibility import require_eligible
from services.access.engagements import EngagementCommand, EngagementEvent
from services.access.granting import (
    DecideClearances,
    Decision,
    GrantClearance,
    RequestClearance,
    RevokeClearance,
)
from services.access.list_state import ListEvent
from services.access.nominative_list import ListCommand
from services.access.notices import AcknowledgeNotice, NoticeEvent, RecordDpia
from services.access.people import identity_of
from services.access.suspending import ResumeClearance, SuspendClearance

__all__ = [
    "EVENTS",
    "AcknowledgeNotice",
    "Command",
    "ConfirmBinding",
    "DecideClearances",
    "Decision",
    "Event",
    "GrantClearance",
    "ProposeBinding",
    "RecordAct",
    "RecordDpia",
    "RequestClearance",
    "ResumeClearance",
    "RevokeClearance",
    "SignConvention",
    "SignUndertaking",
    "SuspendClearance",
    "decide",
    "evolve",
    "stream_of",
]

Command = (
    SignConvention
    | RecordAct
    | GrantClearance
    | RequestClearance
    | DecideClearances
    | RevokeClearance
    | SuspendClearance
    | ResumeClearance
    | ProposeBinding
    | ConfirmBinding
    | SignUndertaking
    | AcknowledgeNotice
    | RecordDpia
    | ListCommand
    | EngagementCommand
)
Event = ConventionSigned | ActEvent | ClearanceEvent | NoticeEvent | ListEvent | EngagementEvent
EVENTS: Mapping[str, type[Message]] = {kind.DESCRIPTOR.full_name: kind for kind in get_args(Event)}
_CLEARANCE_EVENTS: tuple[type[Message], ...] = get_args(ClearanceEvent)


def stream_of(event: Event) -> str:
    """The stream that an event belongs to."""
    if isinstance(event, ListEvent):
        return list_state.STREAM
    if isinstance(event, EngagementEvent):
        return engagements.stream_of(event)
    if isinstance(event, _CLEARANCE_EVENTS):
        return f"clearance-{cast('ClearanceEvent', event).clearance_id}"
    return "notices" if isinstance(event, (NoticeIssued, NoticeAcknowledged, DpiaRecorded)) else "convention"


_DECIDES: Mapping[type, Callable[[State, Any, datetime], tuple[Event, ...]]] = {
    SignConvention: lambda state, command, _: agreement.sign(state, command),
    RecordAct: agreement.record,
    GrantClearance: granting.grant,
    RequestClearance: granting.request,
    DecideClearances: granting.decide_list,
    RevokeClearance: granting.revoke,
    SuspendClearance: suspending.suspend,
    ResumeClearance: suspending.resume,
    ProposeBinding: binding.propose,
    ConfirmBinding: binding.confirm,
    SignUndertaking: binding.sign_undertaking,
    AcknowledgeNotice: notices.acknowledge,
    RecordDpia: notices.record_dpia,
    **dict.fromkeys(get_args(ListCommand), nominative_list.decide),
    **dict.fromkeys(get_args(EngagementCommand), engagements.decide),
}


def decide(state: State, command: Command, at: datetime) -> tuple[Event, ...]:
    """The events that a command causes at an instant: none where nothing changes. Raises Problem where it may not."""
    events = _DECIDES[type(command)](state, command, at)
    for event in events:
        if isinstance(event, ClearanceGranted):  # whatever path grants it
            require_eligible(state, clearances.content_of(event), at)
    return events


def evolve(state: State, event: Event, recorded_at: datetime) -> State:
    """The state after an event. Every event that `decide` gives can be evolved; only the list is judged again."""
    if isinstance(event, ListEvent):
        return replace(state, listing=list_state.evolve(state, event))
    if isinstance(event, EngagementEvent):
        return replace(state, engagements=engagements.evolve(state, event, recorded_at))
    if isinstance(event, ConventionSigned):
        return replace(state, convention=agreement.founded(event, recorded_at))
    if isinstance(event, (NoticeIssued, NoticeAcknowledged, DpiaRecorded)):
        return notices.evolve(state, event, recorded_at)
    if isinstance(event, _CLEARANCE_EVENTS):
        return _with_clearance(state, cast("ClearanceEvent", event), recorded_at)
    act = cast("ActEvent", event)
    return replace(state, convention=agreement.evolve(in_force(state), act, recorded_at))


def _with_clearance(state: State, event: ClearanceEvent, recorded_at: datetime) -> State:
    known, listing = state.clearances.get(event.clearance_id), list_state.listing_of(state)
    changed = clearances.evolve(known, event, recorded_at, listing.version_naming)
    bound = state.bound
    if isinstance(event, BindingConfirmed):
        identity = identity_of(event.identity)
        bound = {**bound, identity: (*bound.get(identity, ()), event.clearance_id)}
    return replace(
        state,
        clearances={**state.clearances, event.clearance_id: changed},
        bound=bound,
        decided=max(state.decided, clearances.number_of(event) or (0, 0)),
    )
