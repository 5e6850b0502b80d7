"""One message that works for several calls is found in the trace of each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from planier.access.v1 import access_pb2
from planier.access.v1.access_pb2 import (
    CheckItem,
    CheckResponse,
    CheckVerdict,
    StreamChecksRequest,
    StreamChecksResponse,
)

from services.kernel import traces
from services.kernel.guard.options import methods_of
from services.kernel.guard.remote import RemoteChecker
from services.kernel.rpc.call import Call
from tests.fixtures.rpc import CLIENT_NAME, SERVER_NAME, OpenDoor, certificates, channel_to, served
from tests.fixtures.telemetry import Recording, calls, linked_from, trace_of

SERVICE = access_pb2.DESCRIPTOR.services_by_name["AccessService"]


async def nothing(*_: object) -> object:
    raise AssertionError("nobody calls this")


class Access:
    """Permits everything; the first batch waits, so that what comes meanwhile shares the second."""

    def __init__(self) -> None:
        for method in methods_of(SERVICE):
            if method.name != "StreamChecks":
                setattr(self, method.name, nothing)
        self.first_may_go = asyncio.Event()
        self.sizes: list[int] = []

    async def StreamChecks(self, request: StreamChecksRequest, _: Call) -> StreamChecksResponse:
        items = request.batch.items
        self.sizes.append(len(items))
        await self.first_may_go.wait()
        verdicts = [CheckVerdict(check_id=item.check_id) for item in items]
        return StreamChecksResponse(batch=CheckResponse(verdicts=verdicts))


@asynccontextmanager
async def checking(folder: Path, caller: Recording, callee: Recording) -> AsyncIterator[tuple[RemoteChecker, Access]]:
    files, access = certificates(folder, SERVER_NAME, CLIENT_NAME), Access()
    async with (
        served(files(SERVER_NAME), SERVICE, access, OpenDoor(), callee.telemetry) as (_, port),
        channel_to(port, files(CLIENT_NAME), caller.telemetry) as channel,
    ):
        checker = RemoteChecker(channel, caller.telemetry)
        yield checker, access
        await checker.close()


async def ask(checker: RemoteChecker, number: int, traceparent: str) -> None:
    traces.current.set(traceparent)
    item = CheckItem(check_id=str(number), subject=access_pb2.Subject(), decision_time=Timestamp(seconds=1))
    await checker.check(item)


async def ask_all(checker: RemoteChecker, access: Access, callers: list[str]) -> None:
    """The first asks alone, the others together while it waits."""
    first = asyncio.create_task(ask(checker, 0, callers[0]))
    async with asyncio.timeout(5):
        while not access.sizes:  # noqa: ASYNC110 -- the server's state
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(ask(checker, n, one)) for n, one in enumerate(callers[1:], 1)]
        await asyncio.sleep(0)
        access.first_may_go.set()
        await asyncio.gather(first, *others)


async def test_each_recorded_caller_finds_the_batch_in_its_own_trace(tmp_path: Path) -> None:
    caller, callee = Recording("analytics"), Recording("access")
    alone, first, second = calls(3)
    (unrecorded,) = calls(1, sampled=False)
    async with checking(tmp_path, caller, callee) as (checker, access):
        await ask_all(checker, access, [alone, unrecorded, first, second])
    assert access.sizes == [1, 3]
    alone_id, first_id, second_id = (traces.trace_id(one) for one in (alone, first, second))
    assert sorted(trace_of(span) for span in callee.named("StreamChecks")) == sorted([alone_id, first_id, second_id])
    assert [(trace_of(span), linked_from(span)) for span in caller.named("StreamChecks")] == [
        (alone_id, set()),
        (first_id, {second_id}),
    ]
    links = {trace_of(span): linked_from(span) for span in callee.named("StreamChecks")}
    assert links == {alone_id: set(), first_id: {second_id}, second_id: {first_id}}


async def test_callers_that_nobody_records_cost_no_span(tmp_path: Path) -> None:
    caller, callee = Recording("analytics"), Recording("access")
    async with checking(tmp_path, caller, callee) as (checker, access):
        await ask_all(checker, access, calls(4, sampled=False))
    assert (caller.spans, callee.spans) == ((), ())


def test_what_is_named_beside_a_call_is_bounded_and_judged() -> None:
    many = calls(100)
    assert traces.recorded_among(many) == tuple(many[: traces.MOST_TOGETHER])
    sibling = f"{many[0][:36]}{'1' * 16}-01"
    assert traces.recorded_among([many[0], sibling, "", "x1", *calls(1, sampled=False)]) == (many[0],)
