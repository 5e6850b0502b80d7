"""Zones of tension: neighbouring units that stand out together, with all that tells how far to trust them; pure.

A zone says what is recorded where. It says nothing of persons and predicts nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import connected_components
from shapely.geometry.base import BaseGeometry

from services.analytics.tension import disclosure
from services.analytics.tension.analysis import (
    LEAST_EXPECTED,
    Analysis,
    analyse,
    analyse_steps,
    expected_around,
)
from services.analytics.tension.facts import FINEST, Facts, Feed
from services.analytics.tension.rates import marshall
from services.analytics.tension.supports import Project, Support, Units, on_cells, on_polygons
from services.analytics.tension.trend import Pattern
from services.analytics.tension.weights import Floats

DAY_US = 86_400_000_000
# Exposure is counted in km2 x 30 days.
EXPOSURE_DAYS = 30
# A zone counts as found by another analysis where half of its facts lie in units that stand out there, the same way.
HALF = 0.5
# Below this share of the other analyses a zone is fragile.
STABLE = 2 / 3
# Fewer steps make no trend: the categories, and the normal law of S, ask for ten.
LEAST_STEPS = 10
COARSEST = 5
SEED = 20_140_301


@dataclass(frozen=True, slots=True)
class Question:
    """The window in steps counted back from its end, the units, and how many permutations."""

    first_us: int
    step_us: int
    steps: int
    resolution: int = 9
    names: tuple[str, ...] = ()
    polygons: tuple[BaseGeometry, ...] = ()
    # Whether the polygons are the units; else they are one more analysis that a zone can be found by.
    by_polygon: bool = False
    permutations: int = 999

    @property
    def end_us(self) -> int:
        """Where the window ends."""
        return self.first_us + self.steps * self.step_us

    @property
    def exposure(self) -> float:
        """What a km2 is exposed for, in steps of 30 days."""
        return self.steps * self.step_us / (EXPOSURE_DAYS * DAY_US)


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone; statistics are those of its `peak`, the unit that stands out most."""

    units: npt.NDArray[np.int64]
    peak: int
    # 1 above, -1 below what an even city would show.
    side: int
    z: float
    p: float
    q: float
    p_permutation: float
    total: int
    counts: Mapping[Feed, int]
    withheld: tuple[Feed, ...]
    surface: float
    exposure: float
    smoothed_rate: float
    # Where only facts found by patrols carry it: without them it does not stand out.
    only_discovered: bool
    # Name of each other analysis, and whether the zone is found there.
    stability: tuple[tuple[str, bool], ...]
    pattern: Pattern
    # 1 hot, -1 cold: of the pattern, which may be of the other side than the zone's whole window.
    pattern_side: int
    trend_s: int
    trend_p: float
    # Whether there was enough to give a category.
    has_trend: bool

    @property
    def raw_rate(self) -> float:
        """Facts by km2 and 30 days."""
        return self.total / self.exposure

    @property
    def fragile(self) -> bool:
        """Whether fewer than two thirds of the other analyses find it."""
        return sum(found for _, found in self.stability) < STABLE * len(self.stability) - 1e-9


@dataclass(frozen=True, slots=True)
class Study:
    """What was found, and over what."""

    question: Question
    support: Support
    analysis: Analysis
    facts: Facts
    units: Units
    zones: tuple[Zone, ...]
    # Zones whose counts are too small to be shown, above and below.
    withheld: int
    # Kinds whose places are too coarse for the units.
    too_coarse: tuple[Feed, ...]
    # Facts in the area but outside every polygon.
    outside: int


def study(facts: Facts, question: Question, project: Project) -> Study:
    """The zones of the facts that start within the window; the rest of the facts is not looked at."""
    window = (facts.starts_us >= question.first_us) & (facts.starts_us < question.end_us)
    fine = _fine_enough(facts.feeds, question.resolution)
    too_coarse = tuple(feed for feed, enough in zip(facts.feeds, fine, strict=True) if not enough)
    kept = facts.where(window & facts.flags(fine)) if len(facts) else facts
    support, units = _support(kept, question, project)
    outside = int((units < 0).sum())
    kept, units = kept.where(units >= 0), units[units >= 0]
    counts = np.bincount(units, minlength=support.size)
    analysis = analyse(counts, support, permutations=question.permutations, seed=SEED)
    found = _Finder(kept, units, question, support, analysis, project).zones()
    zones = tuple(zone for zone in found if disclosure.may_show(zone.counts))
    return Study(question, support, analysis, kept, units, zones, len(found) - len(zones), too_coarse, outside)


def steps_of(facts: Facts, units: Units, question: Question, support: Support) -> npt.NDArray[np.int64]:
    """The facts counted by unit and step."""
    step = (facts.starts_us - question.first_us) // question.step_us
    table = np.bincount(units * question.steps + step, minlength=support.size * question.steps)
    return table.reshape(support.size, question.steps)


def _fine_enough(feeds: Sequence[Feed], resolution: int) -> list[bool]:
    return [feed.resolution >= resolution for feed in feeds]


def _support(facts: Facts, question: Question, project: Project, ring: int = 1) -> tuple[Support, Units]:
    if question.by_polygon:
        return on_polygons(facts, question.names, question.polygons, project)
    return on_cells(facts, question.resolution, ring, project)


class _Finder:
    """The zones of one analysis; what several of them need is worked out once."""

    def __init__(
        self, facts: Facts, units: Units, question: Question, support: Support, analysis: Analysis, project: Project
    ) -> None:
        self._facts = facts
        self._units = units
        self._question = question
        self._support = support
        self._analysis = analysis
        self._project = project

    def zones(self) -> list[Zone]:
        """Above before below, then by surety."""
        groups = [group for side in (1, -1) for group in _neighbours(self._support, self._analysis.side == side)]
        if not groups:
            return []
        others = self._others()
        without_patrols = self._without_patrols()
        table = steps_of(self._facts, self._units, self._question, self._support)
        rates = marshall(table.sum(axis=1), self._support.surfaces * self._question.exposure)
        trends = self._trends(table, [self._peak(group) for group in groups])
        zones = [
            self._zone(group, others, without_patrols, rates, trend)
            for group, trend in zip(groups, trends, strict=True)
        ]
        return sorted(zones, key=lambda zone: (-zone.side, zone.q, -abs(zone.z), zone.peak))

    def _peak(self, group: npt.NDArray[np.int64]) -> int:
        return int(group[np.argmax(np.abs(self._analysis.z[group]))])

    def _zone(
        self,
        group: npt.NDArray[np.int64],
        others: Sequence[tuple[str, npt.NDArray[np.int8]]],
        without_patrols: npt.NDArray[np.int8],
        rates: Floats,
        trend: tuple[int, int, float, bool],
    ) -> Zone:
        analysis, peak = self._analysis, self._peak(group)
        side = int(analysis.side[peak])
        mine = np.isin(self._units, group)
        numbers = np.bincount(self._facts.feed[mine], minlength=len(self._facts.feeds)).tolist()
        counts = {feed: number for feed, number in zip(self._facts.feeds, numbers, strict=True) if number}
        surfaces = self._support.surfaces[group]
        pattern, s, p, has_trend = trend
        return Zone(
            units=group,
            peak=peak,
            side=side,
            z=float(analysis.z[peak]),
            p=float(analysis.p[peak]),
            q=float(analysis.q[peak]),
            p_permutation=float(analysis.p_permutation[peak]),
            total=int(mine.sum()),
            counts=counts,
            withheld=disclosure.by_kind(counts)[1],
            surface=float(surfaces.sum()),
            exposure=float(surfaces.sum()) * self._question.exposure,
            smoothed_rate=float((rates[group] * surfaces).sum() / surfaces.sum()),
            only_discovered=bool((without_patrols[group] == side).mean() < HALF),
            stability=tuple((name, bool((sides[mine] == side).sum() >= HALF * mine.sum())) for name, sides in others),
            pattern=Pattern(abs(pattern)),
            pattern_side=int(np.sign(pattern)),
            trend_s=s,
            trend_p=p,
            has_trend=has_trend,
        )

    def _without_patrols(self) -> npt.NDArray[np.int8]:
        """The side of each unit when what patrols found is left out: those who look more find more."""
        left = self._units[~self._facts.flags(feed.discovered for feed in self._facts.feeds)]
        counts = np.bincount(left, minlength=self._support.size)
        return self._analyse(counts, self._support).side

    def _trends(self, table: npt.NDArray[np.int64], peaks: list[int]) -> list[tuple[int, int, float, bool]]:
        """Signed category, S and p of each peak's scores, and whether there was enough for a category."""
        by_step = expected_around(table.sum(axis=1), self._support) / self._question.steps
        test, kinds = analyse_steps(table, self._support).trends(np.array(peaks))
        enough = (self._question.steps >= LEAST_STEPS) & (by_step[peaks] >= LEAST_EXPECTED)
        return [
            (int(kind), int(s), float(p), bool(sure)) if sure else (0, 0, 1.0, False)
            for kind, s, p, sure in zip(kinds, test.s, test.p, enough, strict=True)
        ]

    def _others(self) -> list[tuple[str, npt.NDArray[np.int8]]]:
        """Each other analysis of the same facts: its name, and the side of the unit that each fact is in there."""
        question = self._question
        feeds = [self._facts.feeds[index] for index in np.unique(self._facts.feed).tolist()]
        resolutions = [8, 9] if question.by_polygon else [question.resolution - 1, question.resolution + 1]
        supports = [
            on_cells(self._facts, resolution, 1, self._project)
            for resolution in resolutions
            if COARSEST <= resolution <= FINEST and all(_fine_enough(feeds, resolution))
        ]
        if not question.by_polygon:
            supports.append(on_cells(self._facts, question.resolution, 2, self._project))
            if question.polygons:
                supports.append(on_polygons(self._facts, question.names, question.polygons, self._project))
        found = []
        for support, units in supports:
            inside = units >= 0
            analysis = self._analyse(np.bincount(units[inside], minlength=support.size), support)
            found.append((support.name, np.where(inside, analysis.side[units], 0).astype(np.int8)))
        return found

    def _analyse(self, counts: npt.NDArray[np.int64], support: Support) -> Analysis:
        return analyse(counts, support, permutations=self._question.permutations, seed=SEED)


def _neighbours(support: Support, chosen: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """The chosen units, grouped by contiguity."""
    members = np.flatnonzero(chosen)
    if not len(members):
        return []
    number, labels = connected_components(support.weights[members][:, members], directed=False)
    return [members[labels == label] for label in range(number)]
