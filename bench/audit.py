"""The access log beside its ceilings: bulk append, replay with verification, proofs as it grows, a witnessed receipt.

`BENCH_AUDIT_LONG=1` measures, instead of all this, a log of 10,000,000 records (8 GB under BENCH_WORK, deleted after).
"""

import asyncio
import gc
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pymerkle
from planier.audit.v1.audit_pb2 import ProveAccessRequest, RecordItem, RecordRequest
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from planier.audit.v1.record_pb2 import RECORD_KIND_RELEASE, AccessRecord, Actor

from bench.harness import Row, medians, quantile, row
from bench.system import WORK, System, running
from services.audit.folding import fold_database
from services.audit.log import AccessLog
from services.cli import session
from services.cli.connection import channel
from services.kernel.clock import RandomIds
from services.kernel.process import COLLECT_AFTER
from tests.fixtures.audit import KEY, ORIGIN, access_record, batch

BATCH = 500
BULK = 30_000
GROWN = 200_000
LONG = 10_000_000
PROOFS = 2_000
ACCESSES_PER_SECOND = 200
SECONDS = 10
# One access in so many is proved, which is an access itself.
PROVED = 10

Batches = Sequence[Sequence[tuple[str, bytes]]]


def rows() -> list[Row]:
    """Every figure of this file."""
    # As in every process of ours (services/kernel/process.py).
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    if os.environ.get("BENCH_AUDIT_LONG"):
        with _folder() as folder:
            return _growing(_url(folder), LONG)
    return [*bulk_rows(), *grown_rows(), *receipt_rows()]


def bulk_rows() -> list[Row]:
    """Bulk append beside the least that keeps the same rows, and beside pymerkle."""
    batches = [batch(BATCH, first) for first in range(1, BULK, BATCH)]
    ours, bare, peer = medians(
        lambda: _appended(batches),
        lambda: _inserted(batches),
        lambda: _grown_by_peer(batches),
    )
    name = f"bulk append: tree, signature, fsync, batches of {BATCH}"
    (derived,) = medians(lambda: _derived(batches))
    return [
        row(name, ours, "records/s", "SQLite insert + hashlib tree, same batches", bare, ">= 0.5"),
        row(f"{name} (2)", ours, "records/s", "pymerkle bulk append, neither signed nor salted", peer, ">= 0.3"),
        # What the append leaves to be done behind it, and a look before it answers.
        row("columns derived for replay, behind the append", derived, "records/s", "bulk append", ours, ""),
    ]


def grown_rows() -> list[Row]:
    """A log as it grows: replay with verification, time of a proof, memory."""
    with _folder() as folder:
        url = _url(folder)
        grown = _growing(url, GROWN)
        replayed, folded = medians(
            lambda: _timed(GROWN, lambda: _replay(url)), lambda: _timed(GROWN, lambda: _fold(folder))
        )
    return [
        row("replay with verification", replayed, "records/s", "sha256 fold of the same rows", folded, ">= 0.3"),
        *grown,
    ]


def _growing(url: str, large: int) -> list[Row]:
    """A proof's time and the memory of the process that appends and proves, at one size beside a smaller one.

    Memory is looked at when both of its connections have proved and appended: each keeps 64 MiB of pages at most.
    """
    log = AccessLog(url, origin=ORIGIN, key=KEY)
    log.open()
    small, half = large // 16, large // 2
    _grow(log, 0, small)
    few = _proofs(log, small)
    _grow(log, small, half)
    _proofs(log, half)
    before = _resident()
    _grow(log, half, large)
    many, after = _proofs(log, large), _resident()
    log.close()
    name, against = f"inclusion proof, {large:,} records", f"the same, {small:,} records"
    return [
        row(name, many.milliseconds, "ms", against, few.milliseconds, "<= 2"),
        # On a busy machine a proof's time is mostly waiting; these two are not.
        row(f"{name}: processor", many.processor, "ms", against, few.processor, ""),
        Row(f"{name}: reads of its file", many.reads, "reads"),
        row(f"memory, {large:,} records", after, "MiB", f"the same, {half:,} records", before, "<= 1.1"),
    ]


def receipt_rows() -> list[Row]:
    """From an access to its proof under both cosignatures, while 200 accesses a second are recorded."""
    with running() as system:
        seconds = asyncio.run(_receipts(system))
    name = f"witnessed receipt after its access, {ACCESSES_PER_SECOND} accesses/s: p99"
    return [row(name, quantile(seconds, 0.99), "s", "the bound", 1.0, "<= 1")]


async def _receipts(system: System) -> list[float]:
    signed_in = await session.sign_in(system.profile, "auditor")
    async with channel(system.profile, "audit", "analytics") as inside, channel(system.profile, "audit") as outside:
        record, prove = AuditServiceStub(inside).Record, AuditServiceStub(outside).ProveAccess
        found: list[float] = []

        async def access(number: int) -> None:
            began = time.perf_counter()
            item = _item()
            answer = await record(RecordRequest(items=[item]), timeout=10)
            assert answer.results[0].receipt.signature
            if number % PROVED:
                return
            request = ProveAccessRequest(
                consultation=session.consultation("OVERSIGHT", "mesure"), record_id=item.record_id
            )
            proof = await prove(request, timeout=10, metadata=signed_in.metadata)
            assert not proof.not_cosigned_by
            found.append(time.perf_counter() - began)

        tasks, start = list[asyncio.Task[None]](), time.perf_counter()
        for number in range(ACCESSES_PER_SECOND * SECONDS):
            await asyncio.sleep(max(0.0, start + number / ACCESSES_PER_SECOND - time.perf_counter()))
            tasks.append(asyncio.create_task(access(number)))
        await asyncio.gather(*tasks)
    return found


_IDS = RandomIds()


def _item() -> RecordItem:
    rpc = "/planier.analytics.v1.AnalyticsService/QueryMap"
    actor = Actor(issuer="bench", subject="bench", party="CITY")
    record = AccessRecord(record_id=_IDS.new(), instance="bench", kind=RECORD_KIND_RELEASE, actor=actor, rpc=rpc)
    record.occurred_at.GetCurrentTime()
    return RecordItem(record_id=record.record_id, record=record.SerializeToString())


def _appended(batches: Batches) -> float:
    """Records a second, from an open log to a closed one, as of the two peers."""
    with _folder() as folder:
        log = AccessLog(_url(folder), origin=ORIGIN, key=KEY)
        log.open()

        def append() -> None:
            for records in batches:
                log.append(records)
            log.close()

        return _timed(BULK, append)


def _derived(batches: Batches) -> float:
    with _folder() as folder:
        log = AccessLog(_url(folder), origin=ORIGIN, key=KEY)
        log.open()
        for records in batches:
            log.append(records)
        rate = _timed(BULK, log.catch_up)
        log.close()
    return rate


def _inserted(batches: Batches) -> float:
    with _folder() as folder:
        connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("PRAGMA synchronous=full")
        connection.execute("CREATE TABLE log (idx INTEGER PRIMARY KEY, record_id TEXT UNIQUE, leaf BLOB, record BLOB)")
        return _timed(BULK, lambda: _insert_and_tree(connection, batches))


def _insert_and_tree(connection: sqlite3.Connection, batches: Batches) -> None:
    """What keeps the same records and ids, and their RFC 6962 tree in memory: no salt, signature, proof or filter."""
    peaks, index = list[tuple[int, bytes]](), 0
    for records in batches:
        found = []
        for record_id, record in records:
            leaf = sha256(b"\x00" + record).digest()
            found.append((index, record_id, leaf, record))
            _carry(peaks, leaf)
            index += 1
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", found)
        connection.execute("COMMIT")
    connection.close()


def _carry(peaks: list[tuple[int, bytes]], leaf: bytes) -> None:
    level, value = 0, leaf
    while peaks and peaks[-1][0] == level:
        value = sha256(b"\x01" + peaks.pop()[1] + value).digest()
        level += 1
    peaks.append((level, value))


def _grown_by_peer(batches: Batches) -> float:
    with _folder() as folder:
        tree = pymerkle.SqliteTree(str(folder / "peer.db"), algorithm="sha256")

        def append() -> None:
            for records in batches:
                tree.append_entries([record for _, record in records])
            tree.close()

        return _timed(BULK, append)


def _grow(log: AccessLog, first: int, until: int) -> None:
    """Appends records that differ in their ids alone: making each anew costs as much as appending it."""
    typical = access_record()
    typical.ClearField("record_id")
    rest = typical.SerializeToString()
    for start in range(first, until, BATCH):
        ids = [_IDS.new() for _ in range(min(BATCH, until - start))]
        # Field 1, whose text has 36 bytes.
        log.append([(name, b"\x0a\x24" + name.encode() + rest) for name in ids])


@dataclass(frozen=True, slots=True)
class Proofs:
    """Of one proof: median time and processor time in milliseconds, pages read that SQLite did not hold."""

    milliseconds: float
    processor: float
    reads: float


def _proofs(log: AccessLog, size: int) -> Proofs:
    """Of leaves anywhere, once SQLite holds of the file what it can."""
    chance = random.Random(size)  # noqa: S311 -- which leaves, no secret
    times, processor, before = list[float](), list[float](), 0
    for number in range(2 * PROOFS):
        if number == PROOFS:
            times, processor, before = [], [], _reads()
        index, began, spent = chance.randrange(size), time.perf_counter(), time.thread_time()
        log.inclusion_proof(index, size)
        times.append(1e3 * (time.perf_counter() - began))
        processor.append(1e3 * (time.thread_time() - spent))
    return Proofs(quantile(times, 0.5), quantile(processor, 0.5), (_reads() - before) / PROOFS)


def _reads() -> int:
    """Read calls of this process so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["syscr"])


def _replay(url: str) -> None:
    assert fold_database(url, KEY.public_key()).sound


def _fold(folder: Path) -> None:
    """The rows read and hashed one after the other: neither leaves nor a tree nor a signature."""
    connection = sqlite3.connect(folder / "audit.db")
    total = sha256()
    for salt, record in connection.execute("SELECT salt, record FROM access_bodies ORDER BY idx"):
        total = sha256(total.digest() + salt + record)
    connection.close()


def _timed(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


@contextmanager
def _folder() -> Iterator[Path]:
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="audit-", dir=WORK) as folder:
        yield Path(folder)


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'audit.db'}"


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
