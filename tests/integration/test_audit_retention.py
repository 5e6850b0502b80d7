"""What is past its time is erased under a statement in the log itself; every proof stands; a hold keeps."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.guard_pb2 import OPERATION_ERASE
from planier.common.v1.release_pb2 import Receipt
from sqlalchemy import select

from services.audit import merkle
from services.audit.domain import LiftHold, Officer, PlaceHold, months_before
from services.audit.governing import Governing
from services.audit.integrity import Integrity
from services.audit.log import AccessLog
from services.audit.retention import Retention, runs
from services.audit.schema import BODIES, RECORDS
from services.audit.verify import verify_database
from services.audit.watch import Watch, part_fault
from services.audit.wiring import open_governance
from services.kernel.clock import RandomIds
from services.kernel.errors import Problem, unavailable
from services.kernel.telemetry import Telemetry
from tests.fixtures.audit import KEY, access_record, items, opened, sqlite_url
from tests.fixtures.guard import StillClock

NOW = datetime(2027, 6, 1, 12, tzinfo=UTC)
CITY = Officer("CITY", "https://idp.example", "dpo")


class Keeping:
    """A log, its officers' decisions, and its retention, at one instant."""

    def __init__(self, log: AccessLog) -> None:
        self.log = log
        self.clock = StillClock()
        self.clock.moment = NOW
        self.governing = Governing(open_governance(log, self.clock), RandomIds())
        self.integrity = Integrity(Telemetry.off())
        self.is_recording = True
        self.retention = Retention(log, self.governing, self.integrity, self.record, self.clock, RandomIds())

    async def record(self, record: AccessRecord) -> Receipt:
        if not self.is_recording:
            raise unavailable("RECORD_UNAVAILABLE", "away")
        record.occurred_at.FromDatetime(self.clock.moment)
        [result] = self.log.append(items([record]))
        return Receipt(record_id=result.record_id, index=result.log_index, leaf_hash=result.leaf_hash)

    def add(self, *ages: float) -> None:
        """Records of so many days before NOW."""
        records = [access_record(number) for number, _ in enumerate(ages, 1)]
        for record, age in zip(records, ages, strict=True):
            record.occurred_at.FromDatetime(NOW - timedelta(days=age))
            record.motive = f"motive-of-{age:g}-days-ago"
        self.log.append(items(records))

    def erased(self) -> dict[int, int]:
        """Indices without record, and the one that each cites."""
        with self.log.reading() as connection:
            query = select(BODIES.c.idx, BODIES.c.erased_by).where(BODIES.c.record.is_(None))
            return {row.idx: row.erased_by for row in connection.execute(query)}


async def test_what_is_past_its_time_is_erased_and_the_log_still_proves(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    with opened(url) as log:
        keeping = Keeping(log)
        keeping.add(500, 400, 366, 364, 10, 370)
        before = log.frontier().root()
        assert await keeping.retention.run() == 4
        assert keeping.erased() == {0: 6, 1: 6, 2: 6, 5: 6}
        with log.reading() as connection:
            statement = AccessRecord.FromString(
                connection.execute(select(BODIES.c.record).where(BODIES.c.idx == 6)).scalar_one()
            )
            assert part_fault(connection, 0, 7, 7) is None
        assert (statement.operation, statement.data.count) == (OPERATION_ERASE, 4)
        assert dict(statement.data.filters) == {"indices": "0-2,5-5", "retention_months": "12"}
        assert log.root_at(6) == before
        for index in range(7):
            proof = log.inclusion_proof(index, 7)
            leaf = log_leaf(log, index)
            assert merkle.verify_inclusion(index, 7, leaf, proof, log.root_at(7))
        # Nothing is left to do.
        assert await keeping.retention.run() == 0
    report = verify_database(url, KEY.public_key())
    assert (report.sound, report.erased, report.tree_size) == (True, 4, 7)
    stored = everything_in(tmp_path)
    assert b"motive-of-364-days-ago" in stored
    assert b"motive-of-500-days-ago" not in stored


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("audit.db*"))


def log_leaf(log: AccessLog, index: int) -> bytes:
    with log.reading() as connection:
        return bytes(connection.execute(select(RECORDS.c.leaf_hash).where(RECORDS.c.idx == index)).scalar_one())


@pytest.mark.postgres
async def test_the_same_on_postgresql(postgres_url: str) -> None:
    with opened(postgres_url) as log:
        keeping = Keeping(log)
        keeping.add(500, 400, 390, 10)
        start, end = NOW - timedelta(days=405), NOW - timedelta(days=395)
        keeping.governing.execute(PlaceHold(CITY, "h", start, end, "REQ-1", "r"))
        assert await keeping.retention.run() == 2
        assert keeping.erased() == {0: 4, 2: 4}
        watch = Watch(log, keeping.integrity, Telemetry.off())
        watch.turn(0)
        assert (keeping.integrity.corrupt, watch.holes, watch.rounds) == ((), (), 1)
    assert verify_database(postgres_url, KEY.public_key()).sound


async def test_a_hold_keeps_what_it_covers_until_it_is_lifted(tmp_path: Path) -> None:
    with opened(sqlite_url(tmp_path)) as log:
        keeping = Keeping(log)
        keeping.add(500, 400, 390)
        start, end = NOW - timedelta(days=405), NOW - timedelta(days=395)
        keeping.governing.execute(PlaceHold(CITY, "h", start, end, "REQ-1", "r"))
        await keeping.retention.run()
        assert sorted(keeping.erased()) == [0, 2]
        keeping.governing.execute(LiftHold(CITY, "h", "r"))
        await keeping.retention.run()
        assert sorted(keeping.erased()) == [0, 1, 2]


async def test_statements_of_erasure_outlive_what_they_erased(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    with opened(url) as log:
        keeping = Keeping(log)
        keeping.add(400)
        await keeping.retention.run()
        keeping.clock.moment = NOW + timedelta(days=2000)
        assert await keeping.retention.run() == 0
        assert keeping.erased() == {0: 1}


async def test_nothing_is_erased_that_is_not_recorded_first(tmp_path: Path) -> None:
    with opened(sqlite_url(tmp_path)) as log:
        keeping = Keeping(log)
        keeping.add(400)
        keeping.is_recording = False
        with pytest.raises(Problem, match="RECORD_UNAVAILABLE"):
            await keeping.retention.run()
        assert keeping.erased() == {}


async def test_what_is_altered_is_evidence_and_is_not_erased(tmp_path: Path) -> None:
    with opened(sqlite_url(tmp_path)) as log:
        keeping = Keeping(log)
        keeping.add(400)
        keeping.integrity.found(0, "RECORD_ALTERED")
        with pytest.raises(Problem, match="LOG_PART_ALTERED"):
            await keeping.retention.run()
        assert keeping.erased() == {}


async def test_more_than_one_batch_is_erased_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.audit.retention.BATCH", 3)
    with opened(sqlite_url(tmp_path)) as log:
        keeping = Keeping(log)
        keeping.add(*[400] * 8, 1)
        assert await keeping.retention.run() == 8
        assert sorted(keeping.erased()) == list(range(8))


def test_runs_are_of_consecutive_indices() -> None:
    assert list(runs((1, 2, 3, 7, 9, 10))) == [(1, 3), (7, 7), (9, 10)]


def test_a_year_is_the_calendars() -> None:
    assert months_before(NOW, 12) == datetime(2026, 6, 1, 12, tzinfo=UTC)
