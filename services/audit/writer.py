"""The one way into the log within this process: every record, from wherever, in the next durable write."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.release_pb2 import Receipt

from services.audit.batch import Appended, Outcome
from services.audit.log import AccessLog
from services.audit.receipt import ReceiptSigner
from services.audit.sequencer import LogFenced
from services.kernel.batching import Batcher
from services.kernel.errors import Problem, unavailable

Items = Sequence[tuple[str, bytes]]
# Requests, each of up to 1,000 records, that share one write.
MAX_REQUESTS = 64

_log = logging.getLogger(__name__)


class LogWriter:
    """Group commit: requests that arrive while a write is under way share the next one, in one thread.

    `fenced` is called once another process has taken the log over: this one will never write again.
    """

    def __init__(self, log: AccessLog, fenced: Callable[[], None] = lambda: None) -> None:
        self._log = log
        self._fenced = fenced
        self._thread = ThreadPoolExecutor(1, "access-log")
        self._batcher: Batcher[Items, list[Appended]] = Batcher(self._send, max_items=MAX_REQUESTS)

    async def write(self, items: Items) -> list[Appended]:
        """The result of each item, in order, once durable and in the tree.

        Raises:
            Problem: UNAVAILABLE RECORD_UNAVAILABLE; then nothing may be released on these records.
        """
        return await self._batcher.submit(items)

    async def close(self) -> None:
        """Waits for what was submitted; the log itself stays open."""
        await self._batcher.close()
        self._thread.shutdown()

    async def _send(self, requests: Sequence[Items]) -> list[list[Appended] | Exception]:
        together = [item for items in requests for item in items]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._log.append, together)
        except LogFenced:
            _log.critical("another process has taken the access log over: this one records nothing any more")
            self._fenced()
            raise unavailable("RECORD_UNAVAILABLE", "another process keeps the access log now") from None
        except self._log.failures as error:
            # The driver's words may hold a record's values: only the kind of failure is logged.
            _log.error("the access log could not be written", extra={"error": type(error).__name__})
            raise unavailable("RECORD_UNAVAILABLE", "the access log could not be written") from None
        shares, start = list[list[Appended] | Exception](), 0
        for items in requests:
            shares.append(results[start : start + len(items)])
            start += len(items)
        return shares


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
