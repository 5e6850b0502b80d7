"""The log's self-check: each flipped bit is found and its part is read no more; a number that never comes is a hole."""

import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from planier.audit.v1.audit_pb2 import GetInclusionProofRequest, VerifyLogRequest
from planier.audit.v1.oversight_pb2 import GetIntegrityRequest
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT
from sqlalchemy import text

from services.audit.integrity import PART, Integrity
from services.audit.log import AccessLog
from services.audit.sequences import OVERDUE_SECONDS, Sequences
from services.audit.watch import Watch, part_fault
from services.kernel.errors import Problem
from services.kernel.telemetry import Telemetry
from tests.fixtures.audit import access_record, batch, items, opened, sqlite_url
from tests.fixtures.guard import consultation
from tests.fixtures.oversight import TIMEOUT, Oversight, of_person, running

SIZE = PART + 700
TRIGGERS = ("access_records", "access_bodies", "tree_runs", "checkpoints")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    with opened(sqlite_url(folder)) as log:
        for first in range(0, SIZE, 1000):
            log.append(batch(min(1000, SIZE - first), first + 1))
        log.catch_up()
    return folder / "audit.db"


@pytest.fixture
def log(original: Path, tmp_path: Path) -> Iterator[AccessLog]:
    shutil.copy(original, tmp_path / "audit.db")
    with opened(sqlite_url(tmp_path)) as log:
        yield log


def tamper(log: AccessLog, statement: str) -> None:
    """As somebody with the database's file would."""
    with log.engine.begin() as connection:
        for table in TRIGGERS:
            connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_update"))
            connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_delete"))
    driver = log.engine.raw_connection()
    try:
        driver.driver_connection.create_function("flip", 1, lambda value: bytes([value[0] ^ 1]) + value[1:])  # type: ignore[union-attr]
        driver.cursor().execute(statement)
        driver.commit()
    finally:
        driver.close()


def fault(log: AccessLog, first: int) -> tuple[int, str] | None:
    with log.reading() as connection:
        return part_fault(connection, first, min(first + PART, SIZE), SIZE)


def test_a_sound_log_has_no_fault_in_any_part(log: AccessLog) -> None:
    assert [fault(log, first) for first in (0, PART)] == [None, None]


@pytest.mark.parametrize(
    ("statement", "part", "expected"),
    [
        ("UPDATE access_bodies SET record = flip(record) WHERE idx = 17", 0, (17, "RECORD_ALTERED")),
        ("UPDATE access_bodies SET salt = flip(salt) WHERE idx = 4099", PART, (4099, "RECORD_ALTERED")),
        ("UPDATE access_records SET leaf_hash = flip(leaf_hash) WHERE idx = 5", 0, (5, "RECORD_ALTERED")),
        ("UPDATE access_columns SET subject = 'x' WHERE idx = 4500", PART, (4500, "COLUMN_ALTERED")),
        ("UPDATE access_columns SET sequence = 9 WHERE idx = 4500", PART, (4500, "COLUMN_ALTERED")),
        ("UPDATE tree_runs SET hashes = flip(hashes) WHERE level = 3 AND first = 0", 0, (0, "NODE_ALTERED")),
        ("UPDATE tree_runs SET hashes = flip(hashes) WHERE level = 12 AND first = 0", 0, (0, "NODE_ALTERED")),
        ("UPDATE checkpoints SET root = flip(root)", 0, (0, "ROOT_MISMATCH")),
        ("DELETE FROM access_bodies WHERE idx = 3", 0, (3, "ENTRY_MISSING")),
        ("DELETE FROM access_records WHERE idx = 4200", PART, (4200, "ENTRY_MISSING")),
        ("UPDATE access_bodies SET salt = NULL, record = NULL WHERE idx = 8", 0, (8, "ENTRY_MISSING")),
        (
            "UPDATE access_bodies SET salt = NULL, record = NULL, erased_by = 9 WHERE idx = 8",
            0,
            (8, "LEAF_ALTERED"),
        ),
        ("UPDATE access_bodies SET commitment = salt WHERE idx = 8", 0, (8, "COLUMN_ALTERED")),
    ],
)
def test_each_flipped_bit_is_found_where_it_is(
    log: AccessLog, statement: str, part: int, expected: tuple[int, str]
) -> None:
    tamper(log, statement)
    assert fault(log, part) == expected


def test_an_erasure_that_no_statement_covers_is_a_fault(log: AccessLog) -> None:
    log.erase([8], erased_by=9)
    assert fault(log, 0) == (8, "ERASURE_UNAUTHORISED")


def test_a_round_goes_over_every_part_and_comes_back_to_what_is_altered(
    log: AccessLog, caplog: pytest.LogCaptureFixture
) -> None:
    integrity = Integrity(Telemetry.off())
    watch = Watch(log, integrity, Telemetry.off())
    tamper(log, "UPDATE access_bodies SET record = flip(record) WHERE idx = 4100")
    watch.turn(0)
    assert (watch.checked_until, integrity.corrupt) == (PART, ())
    with caplog.at_level(logging.CRITICAL):
        watch.turn(1)
    assert (watch.rounds, [part.first for part in integrity.corrupt]) == (1, [PART])
    assert "altered" in caplog.text
    integrity.require(0, PART)
    with pytest.raises(Problem, match="LOG_PART_ALTERED"):
        integrity.require(PART - 1, PART + 1)
    tamper(log, "UPDATE access_bodies SET record = flip(record) WHERE idx = 4100")
    watch.turn(2)
    assert integrity.corrupt == ()


def test_a_number_that_never_comes_is_a_hole_once_it_is_due(tmp_path: Path) -> None:
    with opened(sqlite_url(tmp_path)) as log:
        log.append(items([access_record(number) for number in (2, 1, 3, 6, 5, 9)]))
        sequences = Sequences()
        log.catch_up()
        with log.reading() as connection:
            sequences.follow(connection, log.size(), now=0)
            assert sequences.holes(now=1) == ()
            [hole] = sequences.holes(now=OVERDUE_SECONDS)
        assert (hole.instance, hole.missing, hole.first) == ("analytics-1", 3, 4)
        log.append(items([access_record(number) for number in (8, 4)]))
        log.catch_up()
        with log.reading() as connection:
            sequences.follow(connection, log.size(), now=OVERDUE_SECONDS)
        [hole] = sequences.holes(now=OVERDUE_SECONDS)
        assert (hole.missing, hole.first) == (1, 7)


def test_what_was_erased_in_between_is_no_hole(tmp_path: Path) -> None:
    with opened(sqlite_url(tmp_path)) as log:
        log.append(batch(5))
        log.erase([1, 2], erased_by=4)
        sequences = Sequences()
        log.catch_up()
        with log.reading() as connection:
            sequences.follow(connection, log.size(), now=0)
        assert sequences.holes(now=OVERDUE_SECONDS) == ()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Oversight]:
    async with running(tmp_path) as started:
        yield started


async def test_an_altered_record_is_refused_to_its_reader_and_named_to_all(service: Oversight) -> None:
    service.append([of_person(number, "andrea", "CITY") for number in range(1, 6)])
    tamper(service.audit.log, "UPDATE access_bodies SET record = flip(record) WHERE idx = 2")
    with pytest.raises(Problem) as refused:
        await service.replay()
    assert (refused.value.reason, refused.value.metadata["fault"]) == ("LOG_PART_ALTERED", "RECORD_ALTERED")
    answer = await service.oversight.GetIntegrity(GetIntegrityRequest(), timeout=TIMEOUT)
    assert [(part.first_index, part.end_index, part.fault) for part in answer.corrupt] == [(0, PART, "RECORD_ALTERED")]
    with pytest.raises(Problem, match="LOG_PART_ALTERED"):
        await service.logs.GetInclusionProof(GetInclusionProofRequest(index=1), timeout=TIMEOUT)
    # The whole log is still examined, and accesses are still recorded.
    request = VerifyLogRequest(consultation=consultation(PURPOSE_OVERSIGHT))
    found = await service.logs.VerifyLog(request, timeout=TIMEOUT, metadata=service.metadata("auditor"))
    assert [(fault.index, fault.fault) for fault in found.faults] == [(2, "RECORD_ALTERED")]
