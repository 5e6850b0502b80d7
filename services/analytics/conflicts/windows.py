"""Sets of instants as ascending, disjoint, half-open windows (microseconds since 1970); pure."""

from collections.abc import Iterable

Window = tuple[int, int]
Windows = tuple[Window, ...]


def merged(windows: Iterable[Window]) -> Windows:
    """The same instants, ascending; windows that touch become one."""
    found: list[Window] = []
    for start, end in sorted(windows):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif start < end:
            found.append((start, end))
    return tuple(found)


def widened(windows: Windows, margin: int) -> Windows:
    """Every window begins that much earlier and ends that much later."""
    return merged((start - margin, end + margin) for start, end in windows) if margin else windows


def common(one: Windows, other: Windows) -> Windows:
    """The instants of both."""
    found, left, right = [], 0, 0
    while left < len(one) and right < len(other):
        start, end = max(one[left][0], other[right][0]), min(one[left][1], other[right][1])
        if start < end:
            found.append((start, end))
        if one[left][1] <= other[right][1]:
            left += 1
        else:
            right += 1
    return tuple(found)


def meets(windows: Windows, span: Window) -> bool:
    """Whether some instant is in a window and in the span."""
    return any(start < span[1] and end > span[0] for start, end in windows)


def without(windows: Windows, taken: Windows) -> Windows:
    """The instants of the first that are not in the second."""
    found = []
    for begin, end in windows:
        start = begin
        for cut_start, cut_end in taken:
            if cut_end <= start or cut_start >= end:
                continue
            if cut_start > start:
                found.append((start, cut_start))
            start = cut_end
        if start < end:
            found.append((start, end))
    return tuple(found)
