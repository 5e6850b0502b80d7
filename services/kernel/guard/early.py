"""A read's handler begun while its check is under way: what it finds is used only under a grant equal to its own."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message
from planier.access.v1.access_pb2 import CheckVerdict
from planier.audit.v1.record_pb2 import AccessRecord

from services.kernel.guard.grant import Grant, Subject
from services.kernel.rpc.call import Call, Invocation

Handler = Callable[[Any, Call], Awaitable[Message]]
# Who asked for what, as far as a check depends on it.
Key = tuple[Subject, int, int, str, tuple[str, ...]]

MAX_PERMITS = 1_000


class LastPermits:
    """The last verdict that permitted a read, for each who and what; a guess at the next one and nothing else."""

    def __init__(self) -> None:
        self._verdicts: OrderedDict[Key, CheckVerdict] = OrderedDict()

    def get(self, key: Key) -> CheckVerdict | None:
        """The last verdict, if it permitted and is not forgotten."""
        return self._verdicts.get(key)

    def learn(self, key: Key, verdict: CheckVerdict) -> None:
        """Remembers a permit, forgets at a denial."""
        if not verdict.permit:
            self._verdicts.pop(key, None)
            return
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > MAX_PERMITS:
            self._verdicts.popitem(last=False)


class EarlyRead:
    """One run of a read's handler, begun early or not; `drop` it when done with the call, however it ended."""

    def __init__(self, invocation: Invocation, request: Message, handler: Handler) -> None:
        self._invocation = invocation
        self._request = request
        self._handler = handler
        self._call: Call | None = None
        self._running: asyncio.Future[Message] | None = None

    def begin(self, grant: Grant) -> None:
        """Starts the handler under a provisional grant; nobody sees what it finds before `answer`."""
        self._call = Call(self._invocation, grant)
        self._running = asyncio.ensure_future(self._behind_the_check(self._call))
        self._running.add_done_callback(_retrieve)

    def call(self, grant: Grant) -> Call:
        """The call that the answer is of: the one begun early where its grant is equal, else one still to be run."""
        if self._call is None or self._call.grant != grant:
            self.drop()
            self._call, self._running = Call(self._invocation, grant), None
        return self._call

    async def answer(self, call: Call) -> Message:
        """What the handler returns or raises for this `call`."""
        if self._running is not None:
            return await self._running
        return await self._handler(self._request, call)

    async def _behind_the_check(self, call: Call) -> Message:
        # The check's message leaves in the loop's next turn: a query that held up that turn would be no gain.
        await asyncio.sleep(0)
        return await self._handler(self._request, call)

    def drop(self) -> None:
        """Ends what still runs; its answer is never seen."""
        if self._running is not None:
            self._running.cancel()


def key_of(subject: Subject, record: AccessRecord) -> Key:
    """What the verdict on this record depends on, beside time and the state of access."""
    return subject, record.purpose, record.operation, record.resource, tuple(record.data.sources)


def _retrieve(running: "asyncio.Future[Message]") -> None:
    # What a dropped run raised is told to nobody.
    if not running.cancelled():
        running.exception()
