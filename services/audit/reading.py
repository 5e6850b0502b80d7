"""The one way out of the log: pinned to a size, masked for who looks, page by page, never an altered part."""

import asyncio
from collections.abc import AsyncIterator

from planier.audit.v1.audit_pb2 import ReplayEntry, ReplayFilter

from services.audit.domain import Governance
from services.audit.governing import Governing
from services.audit.integrity import Integrity
from services.audit.log import AccessLog
from services.audit.masking import Mask, Viewer
from services.audit.replay import Page, Reading, Span, in_messages
from services.kernel.clock import Clock
from services.kernel.pseudonyms import Pseudonyms
from services.kernel.rpc.call import Call
from services.kernel.store.base import Position

# A message of replay, without its envelope.
MAX_ENTRIES_BYTES = 256 * 1024 - 64


class LogReader:
    """Reads the log for a caller, as the officers' decisions let that caller see it."""

    def __init__(
        self, log: AccessLog, governing: Governing, pseudonyms: Pseudonyms, integrity: Integrity, clock: Clock
    ) -> None:
        self._log = log
        self._governing = governing
        self._pseudonyms = pseudonyms
        self._integrity = integrity
        self._clock = clock

    async def open(
        self, call: Call, wanted: ReplayFilter, first: int = 0, limit: int = 0
    ) -> tuple[int, AsyncIterator[list[ReplayEntry]]]:
        """The pinned size, and the entries that pass in runs of a message each; describes the look for its record.

        The guard takes a stream's first message before it records the opening: this size cannot count that record.
        """
        mask = await self.mask(call)
        size, root = await asyncio.to_thread(self._state)
        # Not before: what is pinned is filtered to its last record.
        await asyncio.to_thread(self._log.catch_up)
        first, limit = min(first, size), min(limit, size)
        call.data_position = Position(self._log.origin, size, root)
        call.data.count = min(size - first, limit or size)
        return size, self._runs(call, Reading(wanted, mask, self._integrity), Span(first, size, limit), wanted)

    async def mask(self, call: Call) -> Mask:
        """What this caller may see."""
        governance, _ = await asyncio.to_thread(self._governing.current)
        return self.mask_under(call, governance)

    def mask_under(self, call: Call, governance: Governance) -> Mask:
        """The same under a state already read."""
        grant = call.granted
        viewer = Viewer(grant.party, grant.subject.issuer, grant.subject.subject, self._clock.now())
        return Mask(self._pseudonyms, governance, viewer)

    def require(self, index: int) -> None:
        """Refuses a part that is known to be altered. Raises Problem DATA_LOSS LOG_PART_ALTERED."""
        self._integrity.require(index, index + 1)

    async def _runs(
        self, call: Call, reading: Reading, span: Span, wanted: ReplayFilter
    ) -> AsyncIterator[list[ReplayEntry]]:
        sent, first = 0, span.first
        while first < span.size and (not span.limit or sent < span.limit):
            rest = Span(first, span.size, span.limit - sent if span.limit else 0)
            page = await asyncio.to_thread(self._page, reading, rest)
            for run in in_messages(page.entries, MAX_ENTRIES_BYTES):
                sent += len(run)
                call.data.count = sent
                yield run
            if page.entries and wanted.record_id:
                break
            first = page.next

    def _page(self, reading: Reading, span: Span) -> Page:
        with self._log.reading() as connection:
            return reading.page(connection, span)

    def _state(self) -> tuple[int, bytes]:
        frontier = self._log.frontier()
        return frontier.size, frontier.root()
