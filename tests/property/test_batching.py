"""Whatever arrives, gives up or fails in whatever order: each item gets its verdict, in order, in bounded batches."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from services.kernel.batching import Batcher

# Per item: turns of the loop before it is submitted, whether it fails, after how many turns its submitter gives up.
SUBMISSIONS = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.none() | st.integers(0, 6)), min_size=1, max_size=60
)


class RefusedError(Exception):
    pass


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@settings(max_examples=200, deadline=None)
@given(SUBMISSIONS, st.integers(1, 7), st.integers(1, 3), st.lists(st.integers(0, 5), max_size=8))
def test_every_item_gets_its_own_verdict(
    submissions: list[tuple[int, bool, int | None]], max_items: int, max_in_flight: int, delays: list[int]
) -> None:
    batches: list[list[int]] = []
    under_way = 0

    async def send(items: Sequence[int]) -> list[str | Exception]:
        nonlocal under_way
        under_way += 1
        assert under_way <= max_in_flight
        batches.append(list(items))
        await _turns(delays[len(batches) % len(delays)] if delays else 0)
        under_way -= 1
        return [RefusedError(str(item)) if submissions[item][1] else f"done {item}" for item in items]

    async def run() -> list[str | BaseException]:
        batcher = Batcher(send, max_items=max_items, max_in_flight=max_in_flight)

        async def submit(item: int) -> str:
            await _turns(submissions[item][0])
            return await batcher.submit(item)

        async def give_up(task: asyncio.Task[str], turns: int) -> None:
            await _turns(turns)
            task.cancel()

        tasks = [asyncio.create_task(submit(item)) for item in range(len(submissions))]
        quitters = [
            asyncio.create_task(give_up(task, turns))
            for task, (_, _, turns) in zip(tasks, submissions, strict=True)
            if turns is not None
        ]
        async with asyncio.timeout(20):
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*quitters)
            await batcher.close()
        return results

    results = asyncio.run(run())
    sent = [item for batch in batches for item in batch]
    assert all(1 <= len(batch) <= max_items for batch in batches)
    assert len(sent) == len(set(sent))
    # Order of submission: by turn, then by creation.
    assert sent == sorted(sent, key=lambda item: (submissions[item][0], item))
    for item, (result, (_, fails, gives_up)) in enumerate(zip(results, submissions, strict=True)):
        if isinstance(result, asyncio.CancelledError):
            assert gives_up is not None
        elif fails:
            assert isinstance(result, RefusedError)
            assert str(result) == str(item)
        else:
            assert result == f"done {item}"
