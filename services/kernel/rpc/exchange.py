"""One long-lived call that carries request after request, each answered before the next: half the cost of a call each.

A unary call costs its two ends 640 us of processor, a message of an open stream and its answer 340 us.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message
from opentelemetry.trace import SpanKind

from services.kernel import traces
from services.kernel.errors import Problem, unavailable
from services.kernel.rpc import status
from services.kernel.telemetry import Telemetry

# Every call states a deadline; a stream is left for a new one well before its own.
STREAM_SECONDS = 300.0
RENEW_SECONDS = 240.0
# Of a request, on streams of their own: a server that restarts is back on the second or third.
ATTEMPTS = 3
PAUSE_SECONDS = 0.05

Answer = TypeVar("Answer", bound=Message)


class Exchange(Generic[Answer]):
    """Asks one service, one request at a time; what is asked may be asked again, so it must be the same done twice.

    `open_stream(timeout=…)` is a bidirectional method of a stub; `path` names it in telemetry.
    """

    def __init__(self, path: str, open_stream: Callable[..., Any], telemetry: Telemetry) -> None:
        self._path = path
        self._open_stream = open_stream
        self._telemetry = telemetry
        self._stream: Any = None
        self._opened_at = 0.0

    async def ask(self, request: Any, timeout: float) -> Answer:  # noqa: ASYNC109 -- a deadline, as every call states
        """The answer to a request that has a field `traceparents`, which is filled here.

        Raises:
            Problem: what the service refused, UNAVAILABLE where it could not be reached, DEADLINE_EXCEEDED.
        """
        others = traces.together.get()
        span = self._telemetry.begin(self._path, SpanKind.CLIENT, links=others)
        if self._telemetry.is_on:
            request.traceparents.extend(traces.recorded_among((span.traceparent, *others)))
        outcome, began = "CANCELLED", time.perf_counter()
        try:
            async with asyncio.timeout(timeout):
                answer: Answer = await self._until_reached(request)
            outcome = "OK"
        except TimeoutError:
            outcome = grpc.StatusCode.DEADLINE_EXCEEDED.name
            raise Problem(grpc.StatusCode.DEADLINE_EXCEEDED, outcome, "no answer within the deadline") from None
        except Problem as problem:
            outcome = problem.reason
            raise
        finally:
            if outcome != "OK":
                # Its next answer would be this request's.
                self.close()
            span.end(outcome, fault=outcome != "OK")
            if self._telemetry.is_on:
                spent = time.perf_counter() - began
                self._telemetry.measure("planier.rpc.client.duration", spent, method=self._path, outcome=outcome)
        return answer

    def close(self) -> None:
        """Gives the stream up; the next request opens another."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    async def _until_reached(self, request: Any) -> Any:
        pause = PAUSE_SECONDS
        for left in reversed(range(ATTEMPTS)):
            try:
                return await self._once(request)
            except Problem as problem:
                self.close()
                if not left or problem.code is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(pause)
            pause *= 3
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, request: Any) -> Any:
        stream = self._current()
        try:
            await stream.write(request)
            answer = await stream.read()
        except grpc.aio.AioRpcError as error:
            raise status.decode(error) from error
        except asyncio.InvalidStateError:
            # gRPC's word for a call that ended between two writes.
            raise unavailable("STREAM_ENDED", "the other side ended the stream") from None
        if answer is grpc.aio.EOF:
            raise unavailable("STREAM_ENDED", "the other side ended the stream")
        return answer

    def _current(self) -> Any:
        now = time.monotonic()
        if self._stream is not None and now - self._opened_at > RENEW_SECONDS:
            self.close()
        if self._stream is None:
            # The stream outlives the trace in which it is opened: its messages name theirs themselves.
            token = traces.current.set(traces.fresh(sampled=False))
            try:
                self._stream = self._open_stream(timeout=STREAM_SECONDS)
            finally:
                traces.current.reset(token)
            self._opened_at = now
        return self._stream
