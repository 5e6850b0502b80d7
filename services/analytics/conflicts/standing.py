"""What is derived of a conflict for its reader: its state from facts and steps, and who may see which name; pure."""

from collections.abc import Iterable, Sequence

from planier.analytics.v1 import conflicts_pb2 as pb
from planier.common.v1.fact_pb2 import Fact, Measure

from services.analytics.conflicts.windows import Windows, merged, without
from services.analytics.domain import History, Step, Taken
from services.analytics.placement import microseconds_of

_KINDS = {"ACKNOWLEDGED": pb.CONFLICT_STEP_KIND_ACKNOWLEDGED, "RESOLVED": pb.CONFLICT_STEP_KIND_RESOLVED}
_STATES = {"ACKNOWLEDGED": pb.CONFLICT_STATE_ACKNOWLEDGED, "RESOLVED": pb.CONFLICT_STATE_RESOLVED}


def state_of(
    fingerprint: str, history: History, withdrawn: frozenset[Taken] = frozenset()
) -> pb.ConflictState.ValueType:
    """Detected until somebody acts.

    Open again when the conflict is no longer what the last of them saw, or when the measure that they said resolves it
    is one that its facts had and no longer have (`withdrawn`).
    """
    if not history:
        return pb.CONFLICT_STATE_DETECTED
    last = history[-1]
    stands = last.fingerprint == fingerprint and last.measure not in withdrawn
    return _STATES[last.kind] if stands else pb.CONFLICT_STATE_REOPENED


def rests_on_absent_measure(conflict: pb.Conflict, history: History) -> bool:
    """Whether the last step resolves it by a measure that its facts do not have: never had, or no longer have."""
    measure = history[-1].measure if history else None
    return measure is not None and measure not in _measures(conflict.measures_present)


def withdrawn_from(conflict: pb.Conflict, versions: Iterable[Fact]) -> frozenset[Taken]:
    """The measures that answer it, that some version of its facts had, and that they now have no more."""
    present = _measures(conflict.measures_present)
    answers = {kind for kind, _ in present}.union(conflict.measures_missing)
    ever = {taken for fact in versions for taken in _measures(fact.measures) if taken[0] in answers}
    return frozenset(ever - present)


def add_standing(
    conflict: pb.Conflict, history: History, reader_party: str, withdrawn: frozenset[Taken] = frozenset()
) -> None:
    """Puts state and steps in; people of the other party keep their name to themselves (their access is theirs)."""
    conflict.state = state_of(conflict.fingerprint, history, withdrawn)
    conflict.steps.extend(_message(step, reader_party) for step in history)


def windows_of(conflict: pb.Conflict) -> Windows:
    """The windows of a message."""
    return tuple((microseconds_of(window.start), microseconds_of(window.end)) for window in conflict.windows)


def lacking(need: pb.Conflict, covers: Iterable[pb.Conflict]) -> Windows:
    """When a fact that needs something has it from none of its covers."""
    return without(windows_of(need), merged(window for cover in covers for window in windows_of(cover)))


def first_lacking(spans: Sequence[tuple[int, int, pb.Conflict, bool]]) -> int | None:
    """The first instant at which it was known that a fact lacks something.

    `spans`: since, until, body, and whether it is the need (else a cover). None where it never lacked anything.
    """
    for at_us in sorted({since for since, _, _, _ in spans} | {until for _, until, _, _ in spans}):
        known = [(body, is_need) for since, until, body, is_need in spans if since <= at_us < until]
        covers = [body for body, is_need in known if not is_need]
        if any(lacking(body, covers) for body, is_need in known if is_need):
            return at_us
    return None


def _measures(measures: Iterable[Measure]) -> set[Taken]:
    return {(measure.kind, measure.reference) for measure in measures}


def _message(step: Step, reader_party: str) -> pb.ConflictStep:
    message = pb.ConflictStep(
        kind=_KINDS[step.kind],
        party=step.party,
        organisation=step.organisation,
        subject=step.subject if step.party == reader_party else "",
        fingerprint=step.fingerprint,
        record_id=step.record_id,
    )
    message.at.FromMicroseconds(step.at_us)
    if step.measure is not None:
        message.measure.CopyFrom(Measure(kind=step.measure[0], reference=step.measure[1]))
    return message
