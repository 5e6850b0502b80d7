"""Runs of rows in sorted columns, and large values as small numbers: what the columns in memory stand on; pure."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from services.analytics.area import Area
from services.analytics.placement import bucket_of

Ints = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class Dictionary:
    """Large values as small numbers, in the order in which they came."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self._codes: dict[int, int] = {}

    def encode(self, values: Ints) -> Ints:
        """The numbers of the values, new ones added."""
        distinct, inverse = np.unique(values, return_inverse=True)
        codes = np.fromiter((self._code(value) for value in distinct.tolist()), np.int64, len(distinct))
        return codes[inverse]

    def find(self, value: int) -> int:
        """The number of a value, -1 where there is none."""
        return self._codes.get(value, -1)

    def _code(self, value: int) -> int:
        code = self._codes.get(value)
        if code is None:
            code = self._codes[value] = len(self.values)
            self.values.append(value)
        return code


class Segments:
    """Where each (bucket, source) begins, and what its bucket promises."""

    def __init__(self, keys: Sequence[tuple[int, int]], lengths: Sequence[int]) -> None:
        self.keys = list(keys)
        self.place = {key: index for index, key in enumerate(self.keys)}
        self.lengths = np.array(lengths, dtype=np.int64)
        ends = np.cumsum(self.lengths, dtype=np.int64)
        self.firsts = ends - self.lengths
        self.lasts = ends
        self.source = np.array([key[1] for key in self.keys], dtype=np.int64)
        promises = [bucket_of(key[0]) for key in self.keys]
        self.span_us = np.array([promise.span_us for promise in promises], dtype=np.int64)
        self.west, self.south, self.east, self.north = (
            np.array([getattr(promise, edge) for promise in promises], dtype=np.int64)
            for edge in ("west", "south", "east", "north")
        )

    def meeting(self, area: Area, sources: Sequence[int]) -> Ints:
        """The segments of these sources whose bucket meets the area's box."""
        near = (self.west <= area.east) & (self.east >= area.west)
        near &= (self.south <= area.north) & (self.north >= area.south)
        near &= np.isin(self.source, sources)
        found: Ints = np.flatnonzero(near)
        return found


def ranges(firsts: Ints, lengths: Ints) -> Ints:
    """The numbers of every range [first, first + length), one range after the other."""
    before = np.cumsum(lengths) - lengths
    numbers: Ints = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(firsts - before, lengths)
    return numbers


def bisect(column: Ints, firsts: Ints, lasts: Ints, values: Ints) -> Ints:
    """In each sorted range of the column, the first place whose value is not below the range's own."""
    low, high = firsts.copy(), lasts.copy()
    while (open_ := low < high).any():
        middle = (low + high) >> 1
        # A closed range may end beyond the column: it looks anywhere.
        below = column[np.where(open_, middle, 0)] < values
        low = np.where(open_ & below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    return low


def slices(column: Ints, firsts: Ints, lengths: Ints) -> Ints:
    """The values of every range, one after the other."""
    pairs = zip(firsts.tolist(), lengths.tolist(), strict=True)
    taken: Ints = np.concatenate([column[first : first + length] for first, length in pairs])
    return taken


def extend_runs(keys: list[tuple[int, int]], lengths: list[int], bucket: Ints, source: Ints) -> None:
    """Adds a chunk's runs of (bucket, source) to those before it."""
    if not len(bucket):
        return
    changes = np.flatnonzero((bucket[1:] != bucket[:-1]) | (source[1:] != source[:-1])) + 1
    bounds = [0, *changes.tolist(), len(bucket)]
    for first, last in pairwise(bounds):
        key = (int(bucket[first]), int(source[first]))
        if keys and keys[-1] == key:
            lengths[-1] += last - first
        else:
            keys.append(key)
            lengths.append(last - first)


def place_of_key(keys: Sequence[tuple[int, int]], key: tuple[int, int]) -> int:
    """Where a key goes among sorted ones."""
    return bisect_left(keys, key)
