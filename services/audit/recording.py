"""A batch of records as services send it: recognised, the caller's own only, made durable, answered with receipts."""

import asyncio
import logging
import re
from collections.abc import Sequence

from planier.audit.v1.audit_pb2 import RecordItem, RecordOutcome, RecordResponse

from services.audit.batch import Appended, Outcome
from services.audit.entry import is_of_service
from services.audit.receipt import ReceiptSigner
from services.audit.writer import LogWriter

# protos/planier/audit/v1/audit.proto declares these.
MOST_RECORDS = 1000
MOST_BYTES = 65_536
_UUID = re.compile("[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# Above this, receipts are signed off the event loop (33 µs each; a thread's turn costs as much as four).
_SIGN_HERE = 32
_OUTCOMES = {
    Outcome.RECORDED: RecordOutcome.RECORD_OUTCOME_RECORDED,
    Outcome.CONFLICT: RecordOutcome.RECORD_OUTCOME_CONFLICT,
    Outcome.INVALID: RecordOutcome.RECORD_OUTCOME_INVALID,
}

_log = logging.getLogger(__name__)


def recognise(items: Sequence[RecordItem]) -> bool:
    """Whether a batch surely keeps its contract's rules; what is not recognised is judged by them."""
    is_uuid = _UUID.fullmatch
    for item in items:
        if not (is_uuid(item.record_id) and 0 < len(item.record) <= MOST_BYTES):
            return False
    return 0 < len(items) <= MOST_RECORDS


class Recording:
    """Records batches; concurrent ones share one durable write."""

    def __init__(self, writer: LogWriter, signer: ReceiptSigner) -> None:
        self._writer = writer
        self._signer = signer

    async def record(self, items: Sequence[RecordItem], caller: str, answer: RecordResponse) -> None:
        """Adds each item's receipt or refusal to `answer`, in order.

        A service records its own accesses only: a record of another's is INVALID, whoever the log would have believed.
        """
        given = [(item.record_id, item.record) for item in items]
        strange = [place for place, (_, record) in enumerate(given) if not is_of_service(record, caller)]
        results = await (self._writer.write(given) if not strange else self._write_own(given, strange, caller))
        if len(results) <= _SIGN_HERE:
            self._fill(answer, results)
        else:
            await asyncio.to_thread(self._fill, answer, results)

    async def _write_own(
        self, given: Sequence[tuple[str, bytes]], strange: Sequence[int], caller: str
    ) -> list[Appended]:
        _log.error("a service recorded another's access", extra={"caller": caller, "records": len(strange)})
        own = [item for place, item in enumerate(given) if place not in strange]
        written = iter(await self._writer.write(own) if own else ())
        return [
            Appended(Outcome.INVALID, record_id) if place in strange else next(written)
            for place, (record_id, _) in enumerate(given)
        ]

    def _fill(self, answer: RecordResponse, results: Sequence[Appended]) -> None:
        add, sign = answer.results.add, self._signer.sign
        for outcome, record_id, index, leaf in results:
            receipt = sign(record_id, index, leaf) if outcome is Outcome.RECORDED else None
            add(record_id=record_id, outcome=_OUTCOMES[outcome], receipt=receipt)
