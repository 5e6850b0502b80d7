"""Counts attempts of callers who did not prove who they are: one record per peer and minute, never one per attempt."""

import asyncio
import logging
import re
from collections import Counter, deque
from datetime import timedelta

from planier.audit.v1.record_pb2 import RECORD_KIND_UNAUTHENTICATED, AccessRecord

from services.kernel.clock import Clock, Ids, from_microseconds, microseconds
from services.kernel.errors import Problem
from services.kernel.guard.records import Ledger, timestamp

MINUTE_US = 60_000_000
# Whoever floods the door fills neither the memory nor the log: the peers beyond are counted together.
MAX_PEERS = 1000
OTHERS = "(others)"
MAX_PENDING = 5000
# Records of one minute are sent so many at a time.
WRITE_AT_ONCE = 100

# As gRPC names peers; whoever counts may have left the port out already.
_WITH_PORT = re.compile(r"(ipv4:[0-9.]+|ipv6:(?:\[.*\]|%5B.*%5D)):[0-9]+")

_log = logging.getLogger(__name__)


class Attempts:
    """Unauthenticated attempts of the present minute, and the records of past minutes that are not durable yet."""

    def __init__(self, ledger: Ledger, clock: Clock, ids: Ids) -> None:
        self._ledger = ledger
        self._clock = clock
        self._ids = ids
        self._minutes: dict[int, dict[str, Counter[str]]] = {}
        self._pending: deque[AccessRecord] = deque()
        self._flusher: asyncio.Task[None] | None = None

    def count(self, peer: str, reason: str, times: int = 1) -> None:
        """Counts attempts; for the guard, and for the TLS door's failed handshakes. Call it from the event loop."""
        minute = microseconds(self._clock.now()) // MINUTE_US
        peers = self._minutes.setdefault(minute, {})
        address = _address(peer)
        if address not in peers and len(peers) >= MAX_PEERS:
            address = OTHERS
        peers.setdefault(address, Counter())[reason] += times
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_each_minute())

    async def flush(self, *, everything: bool = False) -> None:
        """Records the minutes that are over, or all; what the log does not take stays for the next time."""
        present = microseconds(self._clock.now()) // MINUTE_US
        for minute in [minute for minute in self._minutes if everything or minute < present]:
            for peer, reasons in self._minutes.pop(minute).items():
                self._pending.append(self._ledger.number(self._summary(minute, peer, reasons)))
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), WRITE_AT_ONCE))]
            results = await asyncio.gather(*map(self._ledger.send, batch), return_exceptions=True)
            failed = [record for record, result in zip(batch, results, strict=True) if isinstance(result, Problem)]
            if failed:
                self._keep(failed)
                return

    async def close(self) -> None:
        """Stops the minutely flush and records what remains."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        await self.flush(everything=True)
        if self._pending:
            _log.error(
                "summaries of unauthenticated attempts could not be recorded", extra={"lost": len(self._pending)}
            )

    def _keep(self, failed: list[AccessRecord]) -> None:
        self._pending.extendleft(reversed(failed))
        lost = len(self._pending) - MAX_PENDING
        for _ in range(lost):
            self._pending.popleft()
        if lost > 0:
            _log.error("summaries of unauthenticated attempts could not be recorded", extra={"lost": lost})

    async def _flush_each_minute(self) -> None:
        # Ends when nothing is left; the next attempt starts it again.
        while self._minutes or self._pending:
            rest = MINUTE_US - microseconds(self._clock.now()) % MINUTE_US
            await asyncio.sleep(rest / 1_000_000)
            await self.flush()

    def _summary(self, minute: int, peer: str, reasons: Counter[str]) -> AccessRecord:
        start = from_microseconds(minute * MINUTE_US)
        record = AccessRecord(
            record_id=self._ids.new(),
            kind=RECORD_KIND_UNAUTHENTICATED,
            occurred_at=timestamp(start),
            peer=peer,
            unauthenticated=reasons,
        )
        record.data.period_start.CopyFrom(timestamp(start))
        record.data.period_end.CopyFrom(timestamp(start + timedelta(minutes=1)))
        return record


def _address(peer: str) -> str:
    """The peer without its port, which each connection changes."""
    match = _WITH_PORT.fullmatch(peer)
    return match[1] if match else peer
