"""What a batcher does at its edges."""

import asyncio
from collections.abc import Sequence

import pytest

from services.kernel.batching import ENOUGH, Batcher


async def test_what_arrives_during_a_batch_leaves_together_in_the_next() -> None:
    gate = asyncio.Event()
    batches: list[list[int]] = []

    async def send(items: Sequence[int]) -> list[int | Exception]:
        batches.append(list(items))
        await gate.wait()
        return list(items)

    batcher = Batcher(send)
    first = asyncio.create_task(batcher.submit(1))
    while not batches:  # noqa: ASYNC110 -- what is awaited happens inside the batcher
        await asyncio.sleep(0)
    others = [asyncio.create_task(batcher.submit(item)) for item in (2, 3, 4)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(first, *others) == [1, 2, 3, 4]
    assert batches == [[1], [2, 3, 4]]


async def test_a_batch_leaves_without_waiting_for_more_once_it_is_large_enough() -> None:
    batches: list[list[int]] = []

    async def send(items: Sequence[int]) -> list[int | Exception]:
        batches.append(list(items))
        return list(items)

    batcher = Batcher(send)
    tasks = [asyncio.create_task(batcher.submit(0))]
    # One item a turn: each makes the batch wait for the next one, until there are enough.
    for item in range(1, 3 * ENOUGH):
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(batcher.submit(item)))
    assert await asyncio.gather(*tasks) == list(range(3 * ENOUGH))
    assert max(map(len, batches)) == ENOUGH


async def test_an_item_submitted_in_the_turn_the_worker_ends_is_served() -> None:
    async def send(items: Sequence[int]) -> list[int | Exception]:
        return list(items)

    batcher = Batcher(send)

    async def submit_again(item: int) -> int:
        return await batcher.submit(await batcher.submit(item))

    async with asyncio.timeout(5):
        assert [await submit_again(item) for item in range(50)] == list(range(50))


async def test_a_failing_send_is_the_verdict_of_its_batch_only() -> None:
    async def send(items: Sequence[int]) -> list[int | Exception]:
        if 1 in items:
            raise ConnectionError("gone")
        return list(items)

    batcher = Batcher(send, max_items=1)
    results = await asyncio.gather(*(batcher.submit(item) for item in (1, 2)), return_exceptions=True)
    assert isinstance(results[0], ConnectionError)
    assert results[1] == 2


async def test_a_short_answer_is_nobodys_verdict() -> None:
    async def send(items: Sequence[int]) -> list[int | Exception]:
        return [*items[:-1]]

    batcher = Batcher(send)
    results = await asyncio.gather(*(batcher.submit(item) for item in range(3)), return_exceptions=True)
    assert all(isinstance(result, RuntimeError) for result in results)


async def test_cancelling_one_leaves_the_batch_under_way() -> None:
    gate = asyncio.Event()
    started = asyncio.Event()
    finished: list[list[int]] = []

    async def send(items: Sequence[int]) -> list[int | Exception]:
        started.set()
        await gate.wait()
        finished.append(list(items))
        return list(items)

    batcher = Batcher(send)
    tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2)]
    await started.wait()
    tasks[0].cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await tasks[1] == 2
    assert finished == [[1, 2]]


async def test_close_waits_for_what_was_submitted_and_refuses_the_rest() -> None:
    async def send(items: Sequence[int]) -> list[int | Exception]:
        await asyncio.sleep(0)
        return list(items)

    batcher = Batcher(send, max_items=1)
    tasks = [asyncio.create_task(batcher.submit(item)) for item in range(5)]
    await asyncio.sleep(0)
    await batcher.close()
    assert [task.result() for task in tasks] == list(range(5))
    with pytest.raises(RuntimeError):
        await batcher.submit(9)
