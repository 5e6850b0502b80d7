"""The second opinion: what local Moran and the space-time scan say of the same facts, and where they disagree; pure."""

from dataclasses import dataclass

import numpy as np

from services.analytics.tension import disclosure
from services.analytics.tension.analysis import ALPHA, comparable
from services.analytics.tension.local import Moran, local_moran
from services.analytics.tension.rates import poisson_gamma
from services.analytics.tension.scan import Cluster, nearest, scan
from services.analytics.tension.weights import Floats
from services.analytics.tension.zones import SEED, Study, Zone, steps_of

REPLICATES = 99
# Cylinders tried: enough for a city in one second, 99 times over.
_MOST_CYLINDERS = 150_000
_MOST_NEIGHBOURS = 25
_MOST_STEPS = 6
# Quadrants of a hot and of a cold zone.
_QUADRANT = {1: 1, -1: 3}


@dataclass(frozen=True, slots=True)
class Opinion:
    """Local Moran and Poisson-gamma risk of every unit; the significant clusters, and whether they may be shown."""

    moran: Moran
    risks: Floats
    expected: Floats
    clusters: tuple[Cluster, ...]
    shown: tuple[bool, ...]

    def same_quadrant(self, zone: Zone) -> bool:
        """Whether local Moran has the zone's peak in the quadrant that its side means."""
        return int(self.moran.quadrant[zone.peak]) == _QUADRANT[zone.side]

    def relative_risk(self, zone: Zone) -> float:
        """The zone's smoothed relative risk, its units weighed by what was expected of them."""
        share = self.expected[zone.units]
        return float(self.risks[zone.units] @ share / share.sum())

    def in_cluster(self, zone: Zone) -> bool:
        """Whether a cluster shares a unit with the zone."""
        return any(not set(cluster.units).isdisjoint(zone.units.tolist()) for cluster in self.clusters)

    def agrees(self, zone: Zone) -> bool:
        """Whether both say the same as Gi*; the scan looks for excess only."""
        return self.same_quadrant(zone) and (zone.side < 0 or self.in_cluster(zone))


def second_opinion(study: Study) -> Opinion:
    """What the other methods find over the study's own units."""
    table = steps_of(study.facts, study.units, study.question, study.support)
    counts = table.sum(axis=1)
    moran = local_moran(comparable(counts, study.support), study.support.weights)
    expected = study.support.surfaces * (counts.sum() / study.support.surfaces.sum())
    risks = poisson_gamma(counts, expected) if counts.sum() and study.support.size > 1 else np.ones(study.support.size)
    lengths = min(_MOST_STEPS, max(1, study.question.steps // 2))
    most = int(np.clip(_MOST_CYLINDERS // max(1, study.support.size * lengths), 2, _MOST_NEIGHBOURS))
    clusters: tuple[Cluster, ...] = ()
    if study.support.size > 1:
        even = np.tile(study.support.surfaces[:, None], (1, study.question.steps))
        order = nearest(study.support.middles, most)
        found = scan(table, even, order, most_steps=lengths, alive=True, replicates=REPLICATES, seed=SEED)
        clusters = tuple(cluster for cluster in found if cluster.p <= ALPHA)
    return Opinion(moran, risks, expected, clusters, tuple(_may_show(study, cluster) for cluster in clusters))


def _may_show(study: Study, cluster: Cluster) -> bool:
    step = (study.facts.starts_us - study.question.first_us) // study.question.step_us
    mine = np.isin(study.units, cluster.units) & (step >= cluster.first_step) & (step < cluster.end_step)
    numbers = np.bincount(study.facts.feed[mine], minlength=len(study.facts.feeds)).tolist()
    return disclosure.may_show(dict(zip(study.facts.feeds, numbers, strict=True)))
