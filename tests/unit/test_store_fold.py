"""Folding events over a decider."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.kernel.decider import Decider, fold


class Balance:
    """Never below zero."""

    initial = 0

    def decide(self, state: int, command: int) -> Sequence[int]:
        return (command,) if state + command >= 0 else ()

    def evolve(self, state: int, event: int) -> int:
        return state + event


DECIDER: Decider[int, int, int] = Balance()


@given(st.lists(st.integers(-5, 5)), st.lists(st.integers(-5, 5)))
def test_a_fold_may_stop_and_go_on(one: list[int], other: list[int]) -> None:
    assert fold(DECIDER, other, fold(DECIDER, one)) == fold(DECIDER, one + other) == sum(one + other)


@given(st.lists(st.integers(-5, 5)))
def test_decided_events_keep_the_rule(commands: list[int]) -> None:
    state = fold(DECIDER, [])
    for command in commands:
        state = fold(DECIDER, DECIDER.decide(state, command), state)
        assert state >= 0
