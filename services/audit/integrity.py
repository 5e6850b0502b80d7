"""Which parts of the log are known to be altered: nothing of them is read until they are sound again."""

import logging
import threading
from dataclasses import dataclass

import grpc

from services.kernel.errors import Problem
from services.kernel.telemetry import Telemetry

# Leaves that are checked, and withheld, together: a complete subtree of the tree.
PART = 4_096

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A part [first, end) and the first fault found in it (as services/audit/verify.py names them)."""

    first: int
    end: int
    fault: str


class Integrity:
    """The altered parts that this process knows of; threads may share it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._parts: dict[int, Corrupt] = {}
        self._lock = threading.Lock()

    @property
    def corrupt(self) -> tuple[Corrupt, ...]:
        """The altered parts, in order."""
        with self._lock:
            return tuple(self._parts[place] for place in sorted(self._parts))

    def found(self, index: int, fault: str) -> None:
        """A fault at a log index: the alarm is raised once for each part."""
        place = index // PART
        with self._lock:
            if place in self._parts:
                return
            self._parts[place] = Corrupt(place * PART, (place + 1) * PART, fault)
        self._telemetry.state("planier.audit.corrupt", len(self._parts))
        _log.critical("a part of the access log is altered: reads of it are refused", extra=_extra(place, fault))

    def sound(self, index: int) -> None:
        """The part of a log index was checked and holds: restored, if it was altered."""
        place = index // PART
        with self._lock:
            known = self._parts.pop(place, None)
        if known is not None:
            self._telemetry.state("planier.audit.corrupt", len(self._parts))
            _log.warning("a part of the access log is sound again", extra=_extra(place, known.fault))

    def require(self, first: int, end: int) -> None:
        """Refuses a part [first, end) of which something is altered.

        Raises:
            Problem: DATA_LOSS LOG_PART_ALTERED, with the part's bounds and the fault.
        """
        for part in self.corrupt:
            if part.first < end and first < part.end:
                metadata = {"first_index": str(part.first), "end_index": str(part.end), "fault": part.fault}
                raise Problem(
                    grpc.StatusCode.DATA_LOSS,
                    "LOG_PART_ALTERED",
                    "a part of the access log is altered and is not read",
                    metadata=metadata,
                )

    def altered(self, index: int) -> None:
        """A record read is not the one that its leaf commits to: alarm, and refusal (as `require`)."""
        self.found(index, "RECORD_ALTERED")
        self.require(index, index + 1)


def _extra(place: int, fault: str) -> dict[str, object]:
    return {"first_index": place * PART, "end_index": (place + 1) * PART, "fault": fault}
