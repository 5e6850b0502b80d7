"""A cursor behind the head is held against ingest's own chain: only ingest knows the digest of every place."""

from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from planier.common.v1.event_pb2 import ReadEventsRequest, ReadEventsResponse

from services.analytics.watching import ingest_has
from services.kernel.errors import Problem, precondition, unavailable
from services.kernel.store.base import Position

PLACE = Position("s" * 32, 7, b"d" * 32)


class Reading:
    """A call of ReadEvents that gives one answer, or fails; it remembers that it was let go."""

    def __init__(self, failure: Problem | None) -> None:
        self._failure = failure
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[ReadEventsResponse]:
        return self._answers()

    async def _answers(self) -> AsyncIterator[ReadEventsResponse]:
        if self._failure is not None:
            raise self._failure
        yield ReadEventsResponse(caught_up=True)

    def cancel(self) -> None:
        self.cancelled = True


class Ingest:
    def __init__(self, failure: Problem | None = None) -> None:
        self.call = Reading(failure)
        self.asked: list[ReadEventsRequest] = []

    def ReadEvents(self, request: ReadEventsRequest, timeout: float) -> Reading:  # noqa: ARG002 -- the shape of a stub
        self.asked.append(request)
        return self.call


@pytest.mark.parametrize(("failure", "has"), [(None, True), (precondition("CHAIN_DIVERGED", "never had that"), False)])
async def test_ingest_says_whether_it_has_the_place(failure: Problem | None, has: bool) -> None:
    ingest = Ingest(failure)
    assert await ingest_has(cast("Any", ingest), PLACE) is has
    [asked] = ingest.asked
    assert (asked.store_id, asked.after_position, asked.after_digest) == (PLACE.store_id, 7, PLACE.digest)
    assert ingest.call.cancelled


async def test_an_ingest_that_cannot_be_asked_is_no_yes() -> None:
    ingest = Ingest(unavailable("UNREACHABLE", "gone"))
    with pytest.raises(Problem) as gone:
        await ingest_has(cast("Any", ingest), PLACE)
    assert gone.value.code is grpc.StatusCode.UNAVAILABLE
    assert ingest.call.cancelled
