"""The path of a call between the wire and the guard: trace, deadline, parsing, validation, typed failure."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, NoReturn, Protocol, Self

import grpc
from google.protobuf.message import Message
from opentelemetry.trace import SpanKind
from planier.common.v1.guard_pb2 import GUARD_CLASS_INTERNAL
from protovalidate import Validator

from services.kernel import traces
from services.kernel.errors import Problem, invalid
from services.kernel.rpc import status
from services.kernel.rpc.call import Call, Invocation, Method
from services.kernel.rpc.validation import parse, validate
from services.kernel.telemetry import Span, Telemetry

# Messages of one bidirectional stream that are worked on at once; the next is not read before one is answered.
MOST_IN_FLIGHT = 8

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, bytes]
# What a servicer's methods are: one request, one answer; or one request, a stream of answers.
UnaryHandler = Callable[[Any, Call], Awaitable[Message]]
StreamHandler = Callable[[Any, Call], AsyncGenerator[Message, None]]
# An optional method of the servicer, `recognise_<Rpc>`: true only of a request that keeps every rule of its contract.
Recognise = Callable[[Any], bool]
Read = Callable[[bytes], Any]
# An optional method of the servicer, `describe_<Rpc>`, which fills call.data before a write is recorded.
Describe = Callable[[Any, Call], Awaitable[None] | None]


class Guarding(Protocol):
    """What stands between a request and its handler (services/kernel/guard/guard.py)."""

    async def unary(
        self, invocation: Invocation, request: Any, handler: UnaryHandler, describe: Describe | None = None
    ) -> bytes:
        """The serialised answer, released; Problem where it is refused."""
        ...

    def stream(self, invocation: Invocation, request: Any, handler: StreamHandler) -> AsyncIterator[bytes]:
        """The serialised answers, released one by one; Problem where the stream is refused or closed."""
        ...


class MethodHandlers:
    """Makes gRPC handlers, raw bytes in and out, from methods of a servicer."""

    def __init__(self, guard: Guarding, telemetry: Telemetry) -> None:
        self._guard = guard
        self._telemetry = telemetry
        self._validator = Validator()
        self._exchanges: set[asyncio.Task[None]] = set()

    def end_exchanges(self) -> None:
        """Lets go of our own services' long-lived streams once what they have asked is answered."""
        for reading in self._exchanges:
            reading.cancel()

    def bind(self, method: Method, servicer: object) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """The handler of one RPC; TypeError where the servicer has no such method."""
        implementation = getattr(servicer, method.name, None)
        if not callable(implementation):
            raise TypeError(f"{type(servicer).__name__} does not implement {method.path}")
        describe = getattr(servicer, f"describe_{method.name}", None)
        read = self._reading(method.request_type, getattr(servicer, f"recognise_{method.name}", None))
        answer: Any
        if method.client_streaming and method.server_streaming:
            answer = self._bidirectional(method, read, implementation, describe)
            return grpc.stream_stream_rpc_method_handler(self._guarded(method, answer))
        if method.client_streaming:
            raise TypeError(f"{method.path}: a stream of requests with one answer has no guard")
        if method.server_streaming:
            answer = self._server_streaming(read, implementation)
            return grpc.unary_stream_rpc_method_handler(self._guarded(method, answer))
        answer = self._unary(read, implementation, describe)
        return grpc.unary_unary_rpc_method_handler(self._guarded(method, answer))

    def _reading(self, request_type: type[Message], recognise: Recognise | None) -> Read:
        """Makes the request of its bytes; Problem where they hold none, or one that breaks a rule of its contract."""
        validator = self._validator

        def read(data: bytes) -> Any:
            request = parse(request_type, data)
            if recognise is None or not recognise(request):
                validate(validator, request)
            return request

        return read

    def _guarded(self, method: Method, answer: Callable[[Any, Context, Invocation], Awaitable[Any]]) -> Any:
        """Around every call: its span, its deadline, and one exit for whatever goes wrong."""
        telemetry, path = self._telemetry, method.path

        async def handle(request: Any, context: Context) -> Any:
            token, parent = _headers(context)
            span = telemetry.begin(path, SpanKind.SERVER, parent=parent)
            traces.current.set(span.traceparent)
            began = time.perf_counter() if telemetry.is_on else 0.0
            outcome, fault = "CANCELLED", False
            try:
                _require_deadline(context)
                invocation = Invocation(
                    method, context.peer(), _caller(context), token, span.traceparent, span.trace_id
                )
                result = await answer(request, context, invocation)
                outcome = "OK"
            except Problem as problem:
                outcome = problem.reason
                await _refuse(context, problem, path, span)
            except Exception as error:  # noqa: BLE001 -- nothing internal may reach a client
                outcome, fault = "INTERNAL", True
                await _fail(context, error, path, span)
            finally:
                span.end(outcome, fault=fault)
                if telemetry.is_on:
                    elapsed = time.perf_counter() - began
                    telemetry.measure("planier.rpc.server.duration", elapsed, method=path, outcome=outcome)
            return result

        return handle

    def _unary(
        self, read: Read, implementation: UnaryHandler, describe: Describe | None
    ) -> Callable[[bytes, Context, Invocation], Coroutine[Any, Any, bytes]]:
        guard = self._guard

        async def answer(data: bytes, _: Context, invocation: Invocation) -> bytes:
            return await guard.unary(invocation, read(data), implementation, describe)

        return answer

    def _server_streaming(
        self, read: Read, implementation: StreamHandler
    ) -> Callable[[bytes, Context, Invocation], Awaitable[None]]:
        guard = self._guard

        async def answer(data: bytes, context: Context, invocation: Invocation) -> None:
            answers = guard.stream(invocation, read(data), implementation)
            try:
                async for message in answers:
                    await context.write(message)
            finally:
                if isinstance(answers, AsyncGenerator):
                    # The guard records the end of a stream when it ends, not when memory is tidied.
                    await answers.aclose()

        return answer

    def _bidirectional(
        self, method: Method, read: Read, implementation: UnaryHandler, describe: Describe | None
    ) -> Callable[[Any, Context, Invocation], Awaitable[None]]:
        internal = method.option.guard_class == GUARD_CLASS_INTERNAL
        unit = (
            self._exchanged(method, read, implementation) if internal else self._unary(read, implementation, describe)
        )

        async def answer(_: Any, context: Context, invocation: Invocation) -> None:
            under_way: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
            free = asyncio.Semaphore(MOST_IN_FLIGHT)
            async with _Units() as units:

                async def read_all() -> None:
                    try:
                        while True:
                            await free.acquire()
                            message: Any = await context.read()
                            if message is grpc.aio.EOF:
                                return
                            under_way.put_nowait(units.start(unit(message, context, invocation)))
                    finally:
                        under_way.put_nowait(None)

                reading = units.start(read_all())
                if internal:
                    self._exchanges.add(reading)
                    reading.add_done_callback(self._exchanges.discard)
                while (task := await under_way.get()) is not None:
                    await context.write(await task)
                    units.forget(task)
                    free.release()
                if not reading.cancelled():
                    await reading

        return answer

    def _exchanged(
        self, method: Method, read: Read, implementation: UnaryHandler
    ) -> Callable[[bytes, Context, Invocation], Coroutine[Any, Any, bytes]]:
        """One message of a stream between our own services, which names the traces that it works for itself."""
        guard, telemetry = self._guard, self._telemetry

        async def answer(data: bytes, _: Context, invocation: Invocation) -> bytes:
            request = read(data)
            # Each caller of a batch finds this work in its own trace.
            spans = telemetry.begin_serving(method.path, request.traceparents)
            if spans:
                traces.current.set(spans[0].traceparent)
            outcome = "CANCELLED"
            try:
                result = await guard.unary(invocation, request, implementation)
                outcome = "OK"
            except Problem as problem:
                outcome = problem.reason
                raise
            finally:
                for span in spans:
                    span.end(outcome)
            return result

        return answer


class _Units:
    """The tasks of one stream; what is left when the stream ends is cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._tasks.add(task)
        return task

    def forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _require_deadline(context: Context) -> None:
    # The stubs promise a number; gRPC gives None where the client set no deadline.
    remaining: float | None = context.time_remaining()
    if remaining is None:
        raise invalid("DEADLINE_MISSING", "every call states a deadline")


def _headers(context: Context) -> tuple[str, str]:
    """The bearer token and the traceparent, each "" where there is none."""
    token = parent = ""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            token = value[7:]
        elif key == traces.HEADER and isinstance(value, str):
            parent = value
    return token, parent


def _caller(context: Context) -> str:
    """The URI in the certificate that the TLS handshake proved."""
    for uri in context.auth_context().get("peer_uri", ()):
        return uri.decode()
    return ""


async def _refuse(context: Context, problem: Problem, path: str, span: Span) -> NoReturn:
    logger.info(
        "call refused",
        extra={
            "method": path,
            "code": problem.code.name,
            "reason": problem.reason,
            "clause": problem.clause,
            "trace_id": span.trace_id,
        },
    )
    await _abort(context, problem, span)


async def _fail(context: Context, error: Exception, path: str, span: Span) -> NoReturn:
    logger.error("call failed", exc_info=error, extra={"method": path, "trace_id": span.trace_id})
    await _abort(
        context, Problem(grpc.StatusCode.INTERNAL, "INTERNAL", "the service failed; the trace id names it"), span
    )


async def _abort(context: Context, problem: Problem, span: Span) -> NoReturn:
    details = ((status.METADATA_KEY, status.encode(problem, span.trace_id)),)
    await context.abort(problem.code, problem.message, details)
