"""How every servicer of access writes and reads: a command to its end, the state at the head, who acts."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from services.access.domain import Command
from services.access.people import Identity
from services.access.register import Register
from services.access.snapshot import Snapshot, StateCache
from services.kernel.errors import Violation, invalid
from services.kernel.rpc.call import Call
from services.kernel.screening import detector_of

Result = TypeVar("Result")


class Writing:
    """Executes commands and reads the state, off the event loop."""

    def __init__(self, register: Register, cache: StateCache) -> None:
        self._register = register
        self._cache = cache

    async def execute(self, command: Command, call: Call) -> Snapshot:
        """The state after the command, whose effect is known even where the caller goes away."""
        return await _to_the_end(lambda: self._register.execute(command, call.invocation.traceparent))

    async def current(self, call: Call) -> Snapshot:
        """The state at the head; the call's record names its position."""
        snapshot = await asyncio.to_thread(self._cache.current)
        call.data_position = snapshot.position
        return snapshot


def actor_of(call: Call) -> Identity:
    """Who calls."""
    subject = call.granted.subject
    return Identity(subject.issuer, subject.subject)


def require_screened(field: str, text: str) -> None:
    """Raises Problem where a text that people typed holds personal data; the value is not told (art3.anonymised)."""
    detector = detector_of(text)
    if detector is not None:
        found = Violation(field, "personal_data", f"holds personal data ({detector})")
        raise invalid("TEXT_PERSONAL_DATA", "the text holds personal data", found, clause="art3.anonymised")


async def _to_the_end(work: Callable[[], Result]) -> Result:
    return await asyncio.shield(asyncio.to_thread(work))
