"""The one way to call another service: mTLS, a deadline on every call, trace context, typed errors, safe retries.

The calls wrap gRPC's own instead of going through its interceptors, which cost a task and two objects more per call.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.trace import SpanKind

from services.kernel import traces
from services.kernel.errors import Problem, invalid, unavailable
from services.kernel.rpc import status
from services.kernel.rpc.retries import service_config
from services.kernel.rpc.tls import TlsFiles, channel_credentials
from services.kernel.telemetry import Span, Telemetry

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
Metadata = Sequence[tuple[str, str | bytes]]
# gRPC's Python API passes these through unseen; the generated stubs give them their types.
Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None


def open_channel(address: str, tls: TlsFiles, telemetry: Telemetry, *, server_name: str) -> grpc.aio.Channel:
    """A channel to the service `server_name` (its certificate must bear that DNS name), for the generated stubs.

    Every call needs a `timeout` in seconds: without one it is refused here, Problem DEADLINE_MISSING. Any failure is
    raised as a Problem: the service's own, or one whose reason is the name of the gRPC code. Unary calls return a
    coroutine; streams an async iterator that also has write, done_writing and cancel. Connects when first used and
    reconnects by itself. Never goes through a proxy.
    """
    options = [
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config", service_config()),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    return Channel(grpc.aio.secure_channel(address, channel_credentials(tls), options), telemetry)


class Channel(grpc.aio.Channel):
    """A gRPC channel whose calls keep the rules above."""

    def __init__(self, inner: grpc.aio.Channel, telemetry: Telemetry) -> None:
        self._inner = inner
        self._telemetry = telemetry

    def unary_unary(
        self, method: str, request_serializer: Serializer = None, response_deserializer: Deserializer = None, **_: Any
    ) -> Any:
        """One request, one answer."""
        call = self._inner.unary_unary(method, request_serializer, response_deserializer)
        return _Unary(method, call, self._telemetry)

    def stream_unary(
        self, method: str, request_serializer: Serializer = None, response_deserializer: Deserializer = None, **_: Any
    ) -> Any:
        """A stream of requests, one answer."""
        call = self._inner.stream_unary(method, request_serializer, response_deserializer)
        return _Unary(method, call, self._telemetry)

    def unary_stream(
        self, method: str, request_serializer: Serializer = None, response_deserializer: Deserializer = None, **_: Any
    ) -> Any:
        """One request, a stream of answers."""
        call = self._inner.unary_stream(method, request_serializer, response_deserializer)
        return _Streaming(method, call, self._telemetry)

    def stream_stream(
        self, method: str, request_serializer: Serializer = None, response_deserializer: Deserializer = None, **_: Any
    ) -> Any:
        """A stream of requests, a stream of answers."""
        call = self._inner.stream_stream(method, request_serializer, response_deserializer)
        return _Streaming(method, call, self._telemetry)

    async def close(self, grace: float | None = None) -> None:
        """Ends the channel; calls under way have `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The state of the connection."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the state is another."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns when connected."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Started:
    """One call under way: its span and its clock."""

    __slots__ = ("_began", "_method", "_span", "_telemetry", "metadata")

    def __init__(self, method: str, telemetry: Telemetry, timeout: float | None, metadata: Metadata | None) -> None:
        if timeout is None:
            raise invalid("DEADLINE_MISSING", "every call states a timeout")
        self._method = method
        self._telemetry = telemetry
        self._span: Span = telemetry.begin(method, SpanKind.CLIENT)
        self.metadata = [*(metadata or ()), (traces.HEADER, self._span.traceparent)]
        self._began = time.perf_counter()

    def ended(self, outcome: str) -> None:
        self._span.end(outcome, fault=outcome != "OK")
        if self._telemetry.is_on:
            elapsed = time.perf_counter() - self._began
            self._telemetry.measure("planier.rpc.client.duration", elapsed, method=self._method, outcome=outcome)


class _Unary:
    def __init__(self, method: str, call: Callable[..., Awaitable[Any]], telemetry: Telemetry) -> None:
        self._method = method
        self._call = call
        self._telemetry = telemetry

    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 -- the name is gRPC's
        metadata: Metadata | None = None,
        **options: Any,
    ) -> Any:
        started = _Started(self._method, self._telemetry, timeout, metadata)
        outcome = "CANCELLED"
        try:
            answer = await self._call(request, timeout=timeout, metadata=started.metadata, **options)
            outcome = "OK"
        except grpc.aio.AioRpcError as error:
            problem = status.decode(error)
            outcome = problem.reason
            raise problem from error
        finally:
            started.ended(outcome)
        return answer


class _Streaming:
    def __init__(self, method: str, call: Callable[..., Any], telemetry: Telemetry) -> None:
        self._method = method
        self._call = call
        self._telemetry = telemetry

    def __call__(
        self, request: Any = None, *, timeout: float | None = None, metadata: Metadata | None = None, **options: Any
    ) -> "Stream":
        started = _Started(self._method, self._telemetry, timeout, metadata)
        arguments = () if request is None else (request,)
        return Stream(self._call(*arguments, timeout=timeout, metadata=started.metadata, **options), started)


class Stream:
    """A streaming call under way; iterate it, or write and read."""

    def __init__(self, call: Any, started: _Started) -> None:
        self._call = call
        self._started = started
        self._over = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def read(self) -> Any:
        """The next answer, or grpc.aio.EOF after the last; Problem where the call failed."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error
        if message is grpc.aio.EOF:
            await self._require_ok()
            self._ended("OK")
        return message

    async def write(self, request: Any) -> None:
        """Sends one request; waits while the other side does not read. Problem where the call has ended."""
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from error
        except asyncio.InvalidStateError:
            # gRPC's word for a call that ended between two writes, of whatever; of a writer's own mistake too.
            if not self._call.done():
                raise
            await self._require_ok()
            raise unavailable("STREAM_ENDED", "the other side ended the stream before this request") from None

    async def done_writing(self) -> None:
        """Says that no request follows."""
        await self._call.done_writing()

    def cancel(self) -> None:
        """Gives the call up."""
        self._call.cancel()
        self._ended("CANCELLED")

    async def _require_ok(self) -> None:
        """Raises the Problem that an ended call ended with."""
        code = await self._call.code()
        if code is not grpc.StatusCode.OK:
            details, trailing = await self._call.details(), await self._call.trailing_metadata()
            raise self._failed(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details))

    def _failed(self, error: grpc.aio.AioRpcError) -> Problem:
        problem = status.decode(error)
        self._ended(problem.reason)
        return problem

    def _ended(self, outcome: str) -> None:
        if not self._over:
            self._over = True
            self._started.ended(outcome)
