"""The engine over real databases: durable, idempotent for ever, erased for ever."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from planier.ingest.v1.ingest_pb2 import (
    DECLARATION_STATE_CANCELLED,
    DECLARATION_STATE_ERASED,
    REFUSAL_REASON_CANCELLED,
    REFUSAL_REASON_ERASED,
    REFUSAL_REASON_REVISION_CONFLICT,
    REFUSAL_REASON_REVISION_GAP,
    REFUSAL_REASON_UNKNOWN_FACT,
)

from services.ingest import engine as engine_module
from services.ingest.domain import FactState, Refusal, fact_id_of, stream_of
from services.ingest.engine import Answer, Kept
from services.kernel.errors import Problem
from tests.fixtures.ingest import Bench, works


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    sqlite = f"sqlite:///{tmp_path}/ingest.db"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = Bench(url, tmp_path)
    yield made
    await made.close()


async def state(bench: Bench, source_id: str) -> FactState:
    found = await bench.engine.find(fact_id_of("works", source_id))
    assert found is not None
    return found


def reason(answer: Answer) -> int:
    assert isinstance(answer, Refusal)
    return answer.reason


def kept(answer: Answer) -> tuple[int, bool]:
    assert isinstance(answer, Kept)
    return answer.revision.position, answer.duplicate


async def test_each_item_of_a_batch_has_its_own_answer(bench: Bench) -> None:
    await bench.declare(works("W-1"))
    answers = await bench.declare(works("W-2"), works("W-1"), works("W-1", title="Autre"), works("W-3"), works("W-2"))
    assert [kept(answers[index]) for index in (0, 1, 3, 4)] == [(2, False), (1, True), (3, False), (2, True)]
    assert reason(answers[2]) == REFUSAL_REASON_REVISION_CONFLICT
    assert bench.store.head().position == 3
    assert bench.store.verify() == ()


async def test_revisions_follow_each_other(bench: Bench) -> None:
    assert reason(await bench.amend(works(revision=2))) == REFUSAL_REASON_UNKNOWN_FACT
    assert reason((await bench.declare(works(revision=2)))[0]) == REFUSAL_REASON_REVISION_GAP
    await bench.declare(works())
    assert reason(await bench.amend(works(revision=3))) == REFUSAL_REASON_REVISION_GAP
    assert kept(await bench.amend(works(revision=2, title="Deux"))) == (2, False)
    assert kept(await bench.amend(works(revision=2, title="Deux"))) == (2, True)
    assert reason(await bench.amend(works(revision=2, title="Trois"))) == REFUSAL_REASON_REVISION_CONFLICT
    assert kept((await bench.declare(works()))[0]) == (1, True)
    assert kept(await bench.cancel("W-1", 3)) == (3, False)
    assert kept(await bench.cancel("W-1", 3)) == (3, True)
    assert reason(await bench.cancel("W-1", 3, reason=1)) == REFUSAL_REASON_REVISION_CONFLICT
    assert reason(await bench.amend(works(revision=4))) == REFUSAL_REASON_CANCELLED
    newest = (await state(bench, "W-1")).newest
    assert (newest.state, newest.number) == (DECLARATION_STATE_CANCELLED, 3)


async def test_an_erased_fact_leaves_no_byte_of_itself_and_never_comes_back(bench: Bench) -> None:
    await bench.declare(works("W-1"), works("W-2"))
    await bench.amend(works("W-1", revision=2))
    assert kept(await bench.erase("W-1")) == (4, False)
    assert kept(await bench.erase("W-1")) == (4, True)
    stream = bench.store.read_stream(stream_of(fact_id_of("works", "W-1")))
    assert [event.payload is None for event in stream] == [True, True, False]
    left = await state(bench, "W-1")
    assert [each[:4] for each in left.revisions.values()] == [(3, DECLARATION_STATE_ERASED, b"", b"")]
    assert [reason(answer) for answer in await bench.declare(works("W-1"))] == [REFUSAL_REASON_ERASED]
    assert reason(await bench.amend(works("W-1", revision=4))) == REFUSAL_REASON_ERASED
    assert bench.store.verify() == ()


async def test_declared_and_erased_in_one_transaction(bench: Bench) -> None:
    answers = await asyncio.gather(bench.declare(works()), bench.erase("W-1"), bench.declare(works()))
    assert [kept(answers[0][0]), kept(answers[1])] == [(1, False), (2, False)]
    assert reason(answers[2][0]) == REFUSAL_REASON_ERASED
    assert (await state(bench, "W-1")).newest.state == DECLARATION_STATE_ERASED


async def test_concurrent_calls_share_transactions_and_keep_their_own_answers(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.declare(works(f"W-{index % 30}")) for index in range(120)))
    accepted = [kept(answer[0])[0] for answer in answers if not kept(answer[0])[1]]
    assert sorted(accepted) == list(range(1, 31))
    for index, answer in enumerate(answers):
        assert kept(answer[0])[0] == kept(answers[index % 30][0])[0]


async def test_a_unary_call_is_refused_where_too_many_wait_and_a_stream_is_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MOST_WAITING", 4)
    monkeypatch.setattr(engine_module, "MOST_WAITING_UNARY", 4)
    orders = [bench.declare_orders(works(f"W-{index}"), works(f"V-{index}")) for index in range(6)]
    streams = [asyncio.create_task(bench.engine.apply(each, patient=True)) for each in orders]
    await asyncio.sleep(0)  # the first one leaves, the others wait for room
    with pytest.raises(Problem, match="OVERLOADED"):
        await bench.engine.apply(bench.declare_orders(works("W-X")), patient=False)
    assert [len(answers) for answers in await asyncio.gather(*streams)] == [2] * 6
    assert bench.store.head().position == 12


async def test_a_restored_older_copy_forgets_again_before_it_serves(tmp_path: Path) -> None:
    bench = Bench(f"sqlite:///{tmp_path}/ingest.db", tmp_path)
    await bench.declare(works("W-1"), works("W-2"))
    await bench.close()
    shutil.copy(tmp_path / "ingest.db", tmp_path / "copy.db")
    bench = Bench(f"sqlite:///{tmp_path}/ingest.db", tmp_path)
    await bench.declare(works("W-9"))  # after the copy was made
    await bench.erase("W-1")
    await bench.erase("W-9")
    await bench.close()

    restored = Bench(f"sqlite:///{tmp_path}/copy.db", tmp_path)
    stream = restored.store.read_stream(stream_of(fact_id_of("works", "W-1")))
    assert [event.payload is None for event in stream] == [True, False]
    answers = await restored.declare(works("W-1"), works("W-9"), works("W-2"))
    assert [reason(answer) for answer in answers[:2]] == [REFUSAL_REASON_ERASED] * 2
    assert kept(answers[2]) == (2, True)
    assert restored.store.verify() == ()
    head = restored.store.head()
    restored.engine.open()
    assert restored.store.head() == head
    await restored.close()


async def test_an_erasure_is_in_the_ledger_before_anything_of_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(f"sqlite:///{tmp_path}/ingest.db", tmp_path)
    await bench.declare(works())

    def fail(_: object) -> None:
        raise OSError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(engine_module.Writing, "write", fail)
        with pytest.raises(OSError, match="killed here"):
            await bench.erase("W-1")
    assert bench.store.head().position == 1
    await bench.close()
    again = Bench(f"sqlite:///{tmp_path}/ingest.db", tmp_path)
    assert reason((await again.declare(works()))[0]) == REFUSAL_REASON_ERASED
    await again.close()


async def test_streams_wait_while_the_relay_is_behind_and_others_do_not(bench: Bench) -> None:
    heads: list[int] = []
    asked, published = asyncio.Event(), asyncio.Event()

    def keeps_up(head: int, _most: int) -> bool:
        heads.append(head)
        asked.set()
        return published.is_set()

    await bench.declare(works("W-1"))
    bench.engine.pace_by(keeps_up)
    waiting = asyncio.create_task(bench.declare(works("W-2")))
    await asked.wait()
    await bench.engine.apply(bench.declare_orders(works("W-3")), patient=False)
    assert not waiting.done()
    published.set()
    (answer,) = await waiting
    assert kept(answer) == (3, False)
    assert heads[0] == 1


async def test_a_relay_that_stands_still_does_not_close_the_door(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_MOST_PAUSES", 2)
    bench.engine.pace_by(lambda _head, _most: False)
    assert kept((await bench.declare(works("W-1")))[0]) == (1, False)
