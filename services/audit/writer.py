"""The one way into the log within this process: every record, from wherever, in the next durable write."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue

import grpc
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.release_pb2 import Receipt

from services.audit.batch import Appended, Outcome
from services.audit.log import AccessLog
from services.audit.receipt import ReceiptSigner
from services.audit.sequencer import LogFenced
from services.kernel.errors import Problem, unavailable

Items = Sequence[tuple[str, bytes]]
Request = tuple[Items, asyncio.Future[list[Appended]]]
# Requests, each of up to 1,000 records, that share one write.
MAX_REQUESTS = 64

_log = logging.getLogger(__name__)


class LogWriter:
    """Group commit: requests share the next write, in one thread, which takes what waits when its turn comes.

    While the event loop is busy the thread waits for the interpreter's lock, and whatever arrives meanwhile still
    joins: the busier the loop, the more records a write has. `fenced` is called once another process has taken the log
    over: this one will never write again. Belongs to one event loop.
    """

    def __init__(self, log: AccessLog, fenced: Callable[[], None] = lambda: None) -> None:
        self._log = log
        self._fenced = fenced
        self._waiting: deque[Request] = deque()
        # A loop to answer to is work to do; None ends the thread.
        self._turns: SimpleQueue[asyncio.AbstractEventLoop | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def write(self, items: Items) -> list[Appended]:
        """The result of each item, in order, once durable and in the tree; a caller that gives up takes none back.

        Raises:
            Problem: UNAVAILABLE RECORD_UNAVAILABLE; then nothing may be released on these records.
        """
        if self._closed:
            raise RuntimeError("the writer is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Appended]] = loop.create_future()
        self._waiting.append((items, future))
        if self._idle.is_set():
            self._idle.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
                self._thread.start()
            self._turns.put(loop)
        return await future

    async def close(self) -> None:
        """Waits for what was submitted; the log itself stays open."""
        self._closed = True
        await self._idle.wait()
        self._turns.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (loop := self._turns.get()) is not None:
            requests = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_REQUESTS))]
            outcome = self._append([item for items, _ in requests for item in items])
            # Where the loop is gone, so is whoever waited.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._settle, loop, requests, outcome)

    def _append(self, items: Items) -> list[Appended] | Exception:
        try:
            return self._log.append(items)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is the answer of every request
            return error

    def _settle(
        self, loop: asyncio.AbstractEventLoop, requests: Sequence[Request], outcome: list[Appended] | Exception
    ) -> None:
        if isinstance(outcome, Exception):
            outcome = self._told(outcome)
        start = 0
        for items, future in requests:
            end = start + len(items)
            if not future.done():
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome[start:end])
            start = end
        if self._waiting:
            self._turns.put(loop)
        else:
            self._idle.set()

    def _told(self, error: Exception) -> Exception:
        """What callers are told of a failure; the log of this process says what it was."""
        if isinstance(error, LogFenced):
            _log.critical("another process has taken the access log over: this one records nothing any more")
            self._fenced()
            return unavailable("RECORD_UNAVAILABLE", "another process keeps the access log now")
        if isinstance(error, self._log.failures):
            # The driver's words may hold a record's values: only the kind of failure is logged.
            _log.error("the access log could not be written", extra={"error": type(error).__name__})
            return unavailable("RECORD_UNAVAILABLE", "the access log could not be written")
        return error


class LocalRecorder:
    """The guard's recorder of this service: its own accesses go into its own log."""

    def __init__(self, writer: LogWriter, signer: ReceiptSigner) -> None:
        self._writer = writer
        self._signer = signer

    async def record(self, record: AccessRecord) -> Receipt:
        """The receipt of one record, once durable.

        Raises:
            Problem: RECORD_UNAVAILABLE, or INTERNAL RECORD_REFUSED where the log holds other bytes under this id.
        """
        content = record.SerializeToString(deterministic=True)
        (result,) = await self._writer.write([(record.record_id, content)])
        if result.outcome is not Outcome.RECORDED:
            raise Problem(grpc.StatusCode.INTERNAL, "RECORD_REFUSED", "the access log refused the record")
        return self._signer.sign(result.record_id, result.log_index, result.leaf_hash)
