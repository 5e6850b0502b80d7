"""W3C trace context: which call caused what, across processes, whether or not anything records it."""

import os
import re
from collections.abc import Iterable
from contextvars import ContextVar

# https://www.w3.org/TR/trace-context/: version, trace id, span id, flags; version ff and zero ids are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
HEADER = "traceparent"
# Traces that one message works for.
MOST_TOGETHER = 64
_ODD = frozenset("13579bdf")

# Of the call that this task works for; "" outside any call.
current: ContextVar[str] = ContextVar("planier_traceparent", default="")
# Where it works for several calls at once: the other recorded traces.
together: ContextVar[tuple[str, ...]] = ContextVar("planier_traces", default=())


def is_valid(traceparent: str) -> bool:
    """Whether the text is a traceparent of version 00, or one that reads like it."""
    return _TRACEPARENT.fullmatch(traceparent) is not None


def fresh(*, sampled: bool) -> str:
    """The traceparent of a new trace."""
    ids = os.urandom(24).hex()
    return f"00-{ids[:32]}-{ids[32:]}-{'01' if sampled else '00'}"


def trace_id(traceparent: str) -> str:
    """The 32 hexadecimal digits of the trace, or "" of ""."""
    return traceparent[3:35]


def is_sampled(traceparent: str) -> bool:
    """Whether the trace's head decided that it is recorded."""
    return traceparent[-1:] in _ODD


def recorded_among(traceparents: Iterable[str]) -> tuple[str, ...]:
    """The first traceparent of each recorded trace, in order, at most MOST_TOGETHER; what is none is left out."""
    found: dict[str, str] = {}
    # One call causes hundreds of events in a row: each text is looked at once.
    for traceparent in dict.fromkeys(traceparents):
        if is_sampled(traceparent) and is_valid(traceparent):
            found.setdefault(trace_id(traceparent), traceparent)
            if len(found) == MOST_TOGETHER:
                break
    return tuple(found.values())


def work_for(traceparents: Iterable[str]) -> None:
    """Makes this task work for all these calls: for the first recorded one, the others beside it."""
    given = list(traceparents)
    recorded = recorded_among(given)
    current.set(recorded[0] if recorded else next(iter(given), ""))
    together.set(recorded[1:])
