"""W3C trace context: which call caused what, across processes, whether or not anything records it."""

import os
import re
from contextvars import ContextVar

# https://www.w3.org/TR/trace-context/: version, trace id, span id, flags; version ff and zero ids are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
HEADER = "traceparent"

# Of the call that this task works for; "" outside any call.
current: ContextVar[str] = ContextVar("planier_traceparent", default="")


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
    return traceparent != "" and int(traceparent[53:55], 16) & 1 == 1
