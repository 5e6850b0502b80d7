"""Check within this process: batches of items decided under the state at the store's head."""

import asyncio
from collections.abc import Sequence

from planier.access.v1.access_pb2 import CheckItem, CheckResponse

from services.access.snapshot import Snapshot, StateCache
from services.kernel.batching import Batcher
from services.kernel.guard.ports import Decision

# Decided on the event loop: a thread's turn costs more than so many decisions, a new one 120 µs, one asked before 5.
DECIDED_HERE = 32
MOST_ITEMS = 1000


class Checks:
    """Decides batches: the head is read after a batch is received, so that a revocation acknowledged before counts."""

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache

    async def decide(self, items: Sequence[CheckItem]) -> CheckResponse:
        """One verdict an item, in order, with the state and the policy they rest on."""
        if len(items) <= DECIDED_HERE and (known := self._cache.at_head()) is not None:
            return _decided(known, items)
        return await asyncio.to_thread(lambda: _decided(self._cache.current(), items))


def recognise(items: Sequence[CheckItem]) -> bool:
    """Whether a batch surely keeps its contract's rules; protos/planier/access/v1/access.proto declares them."""
    for item in items:
        if not (item.check_id and item.HasField("subject") and item.HasField("decision_time")):
            return False
    return 1 <= len(items) <= MOST_ITEMS


def _decided(snapshot: Snapshot, items: Sequence[CheckItem]) -> CheckResponse:
    response = CheckResponse()
    response.CopyFrom(snapshot.resting_on)
    for item in items:
        verdict = response.verdicts.add()
        verdict.CopyFrom(snapshot.decider.settled(item))
        verdict.check_id = item.check_id
    return response


class LocalChecker:
    """The guard's Checker for access itself: concurrent items share one reading of the head."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._batcher: Batcher[CheckItem, Decision] = Batcher(self._send)

    async def check(self, item: CheckItem) -> Decision:
        """The decision on the item."""
        return await self._batcher.submit(item)

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._batcher.close()

    async def _send(self, items: Sequence[CheckItem]) -> Sequence[Decision | Exception]:
        response = await self._checks.decide(items)
        rests_on = (response.state, response.policy_hash, response.engine, response.time_zone_data)
        return [Decision(verdict, *rests_on) for verdict in response.verdicts]
