"""Time and identifiers, injected so that decisions replay and tests hold them still."""

import os
import time
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID


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

    def new(self) -> str:
        """A fresh UUIDv7: 48 bits of milliseconds, then random bits (RFC 9562, 5.7)."""
        milliseconds = time.time_ns() // 1_000_000
        value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
        value = (value & ~(0xF << 76)) | (0x7 << 76)
        value = (value & ~(0x3 << 62)) | (0x2 << 62)
        return str(UUID(int=value))


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z of an aware datetime, exact."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_microseconds(value: int) -> datetime:
    """The aware UTC datetime of microseconds since 1970-01-01T00:00:00Z, exact."""
    seconds, rest = divmod(value, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
