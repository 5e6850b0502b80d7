"""The RPC that makes decisions again. The guard stands before it: it is a look at the access log."""

import asyncio
import threading

from planier.access.v1 import recheck_pb2 as pb

from services.access.engine import ENGINE
from services.access.policy.released import policies
from services.access.recheck import History, Recheck
from services.access.writing import Writing
from services.kernel.rpc.call import Call
from services.kernel.store.base import EventStore


class Rechecks:
    """One history of this process's store, gone through by one batch at a time."""

    def __init__(self, store: EventStore) -> None:
        self._recheck = Recheck(History(store), policies())
        self._lock = threading.Lock()

    def run(self, request: pb.RecheckRequest) -> list[pb.RecheckResult]:
        """A result for each record, in order. Blocking."""
        with self._lock:
            return self._recheck.run_all(request.records, request.under)


class RecheckMethods:
    """The part of planier.access.v1.AccessService that makes decisions again."""

    _writing: Writing
    _rechecks: Rechecks

    async def Recheck(self, request: pb.RecheckRequest, call: Call) -> pb.RecheckResponse:
        """Each record's decision from the events up to its position; nothing that is written meanwhile changes it."""
        snapshot = await self._writing.current(call)
        results = await asyncio.to_thread(self._rechecks.run, request)
        call.data.count = len(results)
        return pb.RecheckResponse(results=results, engine=ENGINE, time_zone_data=snapshot.resting_on.time_zone_data)
