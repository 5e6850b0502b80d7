"""Counts the connections that never became a call: plaintext, no certificate, an untrusted one, TLS 1.2.

gRPC tells nobody of a failed handshake but its own log, on file descriptor 2. The door puts a pipe there, reads gRPC's
lines out of it and passes the others on. With the trace "handshaker" on (lines a connection, none a call) gRPC 1.85
names the peer of each failure; where the trace cannot be had, because gRPC was in use before the door opened, the peer
is "unknown" and the failures are counted all the same. What gRPC writes is no contract of its own:
tests/integration/test_rpc_door.py holds it to the version in use.
"""

import asyncio
import atexit
import contextlib
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Self

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # an extension module that the stubs leave out

from services.kernel.clock import Clock
from services.kernel.telemetry import Telemetry

UNKNOWN = "unknown"
OTHERS = "others"
# A minute of a flood fills no memory: the peers beyond are counted together.
MOST_ENTRIES = 10_000
JOIN_SECONDS = 2.0
TAKE_BACK_TRIES = 100
TAKE_BACK_PAUSE = 0.01
TLS_TOO_OLD = "TLS_TOO_OLD"

# What BoringSSL says, in the words of the access log.
_REASONS = {
    "WRONG_VERSION_NUMBER": "PLAINTEXT",
    "HTTP_REQUEST": "PLAINTEXT",
    "HTTPS_PROXY_REQUEST": "PLAINTEXT",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "CERTIFICATE_MISSING",
    "CERTIFICATE_VERIFY_FAILED": "CERTIFICATE_UNTRUSTED",
    "NO_SHARED_CIPHER": TLS_TOO_OLD,
    "UNSUPPORTED_PROTOCOL": TLS_TOO_OLD,
}
OTHER_REASON = "HANDSHAKE_FAILED"

_RECORD = re.compile(rb"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([\w./]+):\d+\] ")
_TRACE_FILES = frozenset((b"handshaker.cc", b"channel_trace.h"))
_WORD = re.compile(rb"OPENSSL_internal:([A-Z0-9_]+)")
_PEER = re.compile(rb"grpc\.internal\.endpoint_peer_address=([^,}]+)")
_CONTINUATIONS = (b"=== Source Location Trace", b"src/core/", b" shutdown=")
# Only a server's handshakes: this process may be a client of others too.
_OF_SERVER = b"grpc.internal.server_credentials="


class DoorCounts:
    """How many connections each peer failed in each minute, and why; safe to use from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, datetime, str]] = Counter()

    def add(self, peer: str, reason: str) -> None:
        """Counts one failure in the present minute; `peer` is an address without port, such as "ipv4:10.0.0.7"."""
        minute = self._clock.now().replace(second=0, microsecond=0)
        with self._lock:
            key = (peer, minute, reason)
            full = len(self._counts) >= MOST_ENTRIES and key not in self._counts
            self._counts[(OTHERS, minute, reason) if full else key] += 1

    def drain(self) -> Mapping[tuple[str, datetime, str], int]:
        """(peer, minute, reason) to count since the last drain; the caller owns them from here on."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def take_back(self, reason: str) -> bool:
        """Forgets one failure of that reason; False where none is counted."""
        with self._lock:
            key = next((key for key in self._counts if key[2] == reason), None)
            if key is not None:
                self._counts[key] -= 1
                self._counts += Counter()  # drops what is zero
        return key is not None


class HandshakeLog:
    """Reads gRPC's log line by line: counts failed handshakes, says which lines are for others."""

    def __init__(self, refused: Callable[[str, str], None]) -> None:
        self._refused = refused
        self._traced = False
        self._inside = False
        self._reason = ""

    def is_ours(self, line: bytes) -> bool:
        """Takes in one line; False where it is nothing of a handshake and should be passed on."""
        record = _RECORD.match(line)
        if record is None:
            return self._continued(line)
        self._inside = record[1] in _TRACE_FILES
        self._reason = ""
        if record[1] == b"trace.cc":
            # gRPC says which traces are on.
            return True
        if self._inside:
            self._traced = True
            if b"CallNextHandshakerLocked: error=" in line and b"error=OK" not in line:
                self._reason = _reason(line)
                self._count_peer(line)
            return True
        if record[1] == b"ssl_transport_security.cc" and b"Handshake failed" in line:
            # Names no peer; under the trace the same failure is told again, with its peer.
            if not self._traced:
                self._refused(UNKNOWN, _reason(line))
            return True
        return False

    def _continued(self, line: bytes) -> bool:
        """An error's text goes over several lines, the last of which has the connection's attributes."""
        if not self._inside or not line.startswith(_CONTINUATIONS):
            # An empty line is of the trace only where it ends it.
            ended, self._inside = self._inside and line == b"", False
            return ended
        self._count_peer(line)
        return True

    def _count_peer(self, line: bytes) -> None:
        peer = _PEER.search(line)
        if self._reason and peer:
            if _OF_SERVER in line:
                self._refused(peer[1].decode("ascii", "replace").rpartition(":")[0], self._reason)
            self._reason = ""


class Door:
    """Stands on file descriptor 2 of this process from `open` to `close`."""

    def __init__(self, counts: DoorCounts, telemetry: Telemetry) -> None:
        self.counts = counts
        self._telemetry = telemetry
        self._log = HandshakeLog(self._refused)
        self._behind = -1
        self._reader: threading.Thread | None = None
        self._stderr = sys.stderr

    @classmethod
    def open(cls, clock: Clock, telemetry: Telemetry) -> Self:
        """Takes over standard error; call it before gRPC is first used. Python's own sys.stderr goes round the pipe."""
        os.environ["GRPC_TRACE"] = ",".join(filter(None, (os.environ.get("GRPC_TRACE", ""), "handshaker")))
        cygrpc.reset_grpc_config_vars()
        door = cls(DoorCounts(clock), telemetry)
        door._take_over()
        atexit.register(door.close)
        return door

    def close(self) -> None:
        """Gives standard error back after the last line went through; a second call does nothing."""
        if self._reader is None:
            return
        atexit.unregister(self.close)
        sys.stderr.flush()
        # The pipe's only writing end is descriptor 2: replacing it ends the reader.
        os.dup2(self._behind, 2)
        self._reader.join(JOIN_SECONDS)
        self._reader = None
        replaced, sys.stderr = sys.stderr, self._stderr
        replaced.close()

    def _take_over(self) -> None:
        self._stderr.flush()
        self._behind = os.dup(2)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        sys.stderr = os.fdopen(os.dup(self._behind), "w", buffering=1, errors="backslashreplace")
        self._reader = threading.Thread(target=self._read, args=(reading,), name="door", daemon=True)
        self._reader.start()

    def _read(self, reading: int) -> None:
        rest = b""
        while data := os.read(reading, 65536):
            *lines, rest = (rest + data).split(b"\n")
            passed_on = b"".join(line + b"\n" for line in lines if not self._log.is_ours(line))
            self._pass_on(passed_on)
        self._pass_on(rest)
        os.close(reading)

    def _pass_on(self, text: bytes) -> None:
        # Nobody may be left at the other end; whoever stops reading the pipe stops whoever writes into it.
        with contextlib.suppress(OSError):
            while text:
                text = text[os.write(self._behind, text) :]

    def _refused(self, peer: str, reason: str) -> None:
        self.counts.add(peer, reason)

    async def take_back(self, reason: str) -> None:
        """Forgets one failure that this process caused itself; its line may take a moment to come through the pipe."""
        for _ in range(TAKE_BACK_TRIES):
            if self.counts.take_back(reason):
                return
            await asyncio.sleep(TAKE_BACK_PAUSE)

    async def hand_over(self, count: Callable[[str, str, int], None], *, seconds: float = 5.0) -> None:
        """Gives what was counted to `count(peer, reason, times)`, in the event loop, until cancelled, and then too.

        Such as the guard's `attempts.count`, which records them per peer and minute; a count may fall into the next
        minute.
        """
        try:
            while True:
                await asyncio.sleep(seconds)
                self._hand_over(count)
        finally:
            self._hand_over(count)

    def _hand_over(self, count: Callable[[str, str, int], None]) -> None:
        for (peer, _, reason), times in self.counts.drain().items():
            self._telemetry.count("planier.door.refused", times, reason=reason)
            count(peer, reason, times)


def _reason(line: bytes) -> str:
    word = _WORD.search(line)
    return _REASONS.get(word[1].decode(), OTHER_REASON) if word else OTHER_REASON
