"""What an auditor waits for: a replay with each record compared with its leaf, of one's own people and the others'.

Peers are measured in the same turn: the sha256 fold of the same rows, and the rows read and not looked at.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from planier.audit.v1.audit_pb2 import ReplayFilter
from planier.audit.v1.record_pb2 import AccessRecord
from sqlalchemy import select

from bench.harness import Row, medians, row
from services.audit.domain import Governance
from services.audit.integrity import PART, Integrity
from services.audit.log import AccessLog
from services.audit.masking import Mask, Viewer
from services.audit.replay import Reading, Span
from services.audit.schema import BODIES, RECORDS
from services.audit.watch import part_fault
from services.kernel.pseudonyms import Pseudonyms
from services.kernel.telemetry import Telemetry
from tests.fixtures.audit import access_record, items, opened, sqlite_url

RECORDS_IN_LOG = 16_384
BATCH = 500


def rows() -> Sequence[Row]:
    """Records a second, of each kind of reading."""
    with tempfile.TemporaryDirectory() as folder, opened(sqlite_url(Path(folder))) as log:
        for first in range(0, RECORDS_IN_LOG, BATCH):
            count = min(BATCH, RECORDS_IN_LOG - first)
            log.append(items([_record(first + offset) for offset in range(count)]))
        fold, own, masked, fact, watched = medians(
            lambda: _rate(lambda: _fold(log)),
            lambda: _rate(lambda: _replay(log, "CITY", ReplayFilter())),
            lambda: _rate(lambda: _replay(log, "PREFECTURE", ReplayFilter())),
            lambda: _rate(lambda: _replay(log, "CITY", ReplayFilter(organisation="nobody's"))),
            lambda: _rate(lambda: _watch(log)),
        )
    peer = "sha256 fold of the same rows"
    return (
        row("replay, own people, each record against its leaf", own, "records/s", peer, fold, ""),
        row("replay, the other party's, under pseudonyms", masked, "records/s", peer, fold, ""),
        row("replay, filter on what no column holds", fact, "records/s", peer, fold, ""),
        row("self-check, rows to signed root", watched, "records/s", peer, fold, ""),
    )


def _record(number: int) -> AccessRecord:
    return access_record(number + 1)


def _rate(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return RECORDS_IN_LOG / (time.process_time() - began)


def _fold(log: AccessLog) -> None:
    digest = bytes(32)
    with log.reading() as connection:
        query = select(BODIES.c.salt, BODIES.c.record).join(RECORDS, RECORDS.c.idx == BODIES.c.idx)
        for salt, record in connection.execute(query.order_by(RECORDS.c.idx)):
            digest = sha256(digest + salt + record).digest()


def _replay(log: AccessLog, party: str, wanted: ReplayFilter) -> None:
    viewer = Viewer(party, "https://idp.example", "auditor", datetime.now(UTC))
    mask = Mask(Pseudonyms(bytes(32)), Governance(), viewer)
    reading, first = Reading(wanted, mask, Integrity(Telemetry.off())), 0
    while first < RECORDS_IN_LOG:
        with log.reading() as connection:
            page = reading.page(connection, Span(first, RECORDS_IN_LOG, 0))
        for entry in page.entries:
            entry.SerializeToString()
        first = page.next


def _watch(log: AccessLog) -> None:
    for first in range(0, RECORDS_IN_LOG, PART):
        with log.reading() as connection:
            assert part_fault(connection, first, first + PART, RECORDS_IN_LOG) is None
