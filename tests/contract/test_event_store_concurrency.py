"""What every event store does where several write, start and read at once."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

from services.kernel.store import open_store
from services.kernel.store.base import Committed, Conflict, EventStore
from services.kernel.store.sql import SqlEventStore
from tests.fixtures.store import HandClock, append_one, commit

WRITERS, BATCHES, SIZE = 4, 12, 3


def read_until(store: EventStore, total: int, seen: list[int], failed: threading.Event) -> None:
    for _ in range(100_000):
        if failed.is_set() or len(seen) >= total:
            return
        seen.extend(event.position for event in store.read_all(seen[-1] if seen else 0, 7))


def test_a_reader_by_position_never_skips_what_threads_append(store: EventStore) -> None:
    total = WRITERS * BATCHES * SIZE
    seen: list[int] = []
    failed = threading.Event()

    def write(writer: int) -> None:
        try:
            for number in range(BATCHES):
                store.append([append_one(f"{writer}-{number % 3}", *[b"x"] * SIZE)])
        except BaseException:
            failed.set()
            raise

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    threads.append(threading.Thread(target=read_until, args=(store, total, seen, failed)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == list(range(1, total + 1))
    assert store.verify() == ()


def test_a_reader_by_position_never_skips_what_processes_append(url: str, store: EventStore) -> None:
    batches = 60
    total = WRITERS * batches * SIZE
    command = [sys.executable, "-m", "tests.fixtures.store", url]
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen([*command, f"w{writer}", str(batches), str(SIZE)], stdin=pipe, stdout=pipe, text=True)
        for writer in range(WRITERS)
    ]
    assert [writer.stdout.readline() for writer in writers if writer.stdout] == ["ready\n"] * WRITERS
    seen: list[int] = []
    reader = threading.Thread(target=read_until, args=(store, total, seen, stopped := threading.Event()))
    reader.start()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    try:
        outputs = [writer.communicate(timeout=60)[0] for writer in writers]
    finally:
        stopped.set()
        reader.join()
    read_until(store, total, seen, threading.Event())
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    assert seen == list(range(1, total + 1))
    acknowledged = sorted(int(line.split()[0]) for output in outputs for line in output.splitlines())
    assert len(acknowledged) == WRITERS * batches
    assert acknowledged[-1] == total
    assert store.verify() == ()


def test_processes_that_start_at_once_share_one_store(url: str) -> None:
    code = (
        "import sys; from services.kernel.store import open_store; from services.kernel.clock import SystemClock;"
        "store = open_store(sys.argv[1], clock=SystemClock()); print(store.store_id); store.close()"
    )
    starts = [subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE) for _ in range(4)]
    outputs = [start.communicate(timeout=60)[0] for start in starts]
    assert [start.returncode for start in starts] == [0] * 4
    assert len(set(outputs)) == 1


def test_stores_opened_in_one_moment_share_one_database(url: str, clock: HandClock) -> None:
    opened: list[SqlEventStore] = []
    together = threading.Barrier(6)

    def start() -> None:
        together.wait()
        opened.append(open_store(url, clock=clock))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    assert len({store.store_id for store in opened}) == 1
    for store in opened:
        store.close()


def test_of_two_writers_that_expect_the_same_version_one_wins(store: EventStore) -> None:
    results: list[Committed | Conflict] = []

    def write() -> None:
        results.extend(store.append([append_one("a", b"1", expected_version=0)]))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(result).__name__ for result in results) == ["Committed", "Conflict", "Conflict", "Conflict"]


def test_a_reader_finds_out_that_an_older_copy_was_restored(tmp_path: Path, clock: HandClock) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    store = open_store(f"sqlite:///{path}", clock=clock)
    commit(store, "a", b"1", b"2")
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    commit(store, "a", b"3")
    cursor = store.head()
    store.close()
    path.unlink()
    copy.rename(path)
    restored = open_store(f"sqlite:///{path}", clock=clock)
    assert restored.store_id == cursor.store_id
    assert restored.position_at(cursor.position) is None
    commit(restored, "a", b"3")
    assert restored.position_at(cursor.position) not in {cursor, None}
    assert restored.verify() == ()
    restored.close()
