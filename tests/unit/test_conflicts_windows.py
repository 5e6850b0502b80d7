"""Windows are sets of instants: every operation against the instants themselves."""

from hypothesis import given
from hypothesis import strategies as st

from services.analytics.conflicts.windows import Windows, common, meets, merged, widened, without

sets = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)).map(lambda w: (w[0], w[0] + w[1])), max_size=6).map(
    merged
)


def instants(windows: Windows) -> set[int]:
    return {instant for start, end in windows for instant in range(start, end)}


def canonical(windows: Windows) -> bool:
    edges = [edge for window in windows for edge in window]
    return edges == sorted(set(edges))


@given(sets, sets, st.integers(0, 3))
def test_operations_on_windows_are_those_on_their_instants(one: Windows, other: Windows, margin: int) -> None:
    assert instants(common(one, other)) == instants(one) & instants(other)
    assert instants(without(one, other)) == instants(one) - instants(other)
    assert meets(one, (3, 4 + margin)) == bool(instants(one) & set(range(3, 4 + margin)))
    grown = {near for instant in instants(one) for near in range(instant - margin, instant + margin + 1)}
    assert instants(widened(one, margin)) == grown
    assert all(canonical(windows) for windows in (common(one, other), without(one, other), widened(one, margin)))
