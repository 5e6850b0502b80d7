"""A study as it travels: protobuf messages, with what small numbers would tell left out."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from zoneinfo import ZoneInfo

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1 import tension_pb2 as pb

from services.analytics.placement import E7
from services.analytics.tension import disclosure, reasons
from services.analytics.tension.analysis import ALPHA
from services.analytics.tension.facts import Facts, Feed
from services.analytics.tension.opinion import Opinion
from services.analytics.tension.scan import Cluster
from services.analytics.tension.supports import Unproject
from services.analytics.tension.trend import Pattern
from services.analytics.tension.zones import DAY_US, SEED, Study, Zone

# Raised when the same facts would give another answer.
METHOD_VERSION = 1
STATISTIC = "Getis-Ord Gi*"
RATE_UNIT = "faits par km² et par 30 jours"

_NATURES = {
    "planned": pb.SOURCE_NATURE_PLANNED,
    "reported": pb.SOURCE_NATURE_REPORTED,
    "discovered": pb.SOURCE_NATURE_DISCOVERED,
}
_SIDES = {1: pb.TENSION_SIDE_HOT, -1: pb.TENSION_SIDE_COLD, 0: pb.TENSION_SIDE_UNSPECIFIED}
_QUADRANTS = {
    1: pb.MORAN_QUADRANT_HIGH_HIGH,
    2: pb.MORAN_QUADRANT_LOW_HIGH,
    3: pb.MORAN_QUADRANT_LOW_LOW,
    4: pb.MORAN_QUADRANT_HIGH_LOW,
}
_PATTERNS = {pattern: pb.TrendPattern.Value(f"TREND_PATTERN_{pattern.name}") for pattern in Pattern}


def pack(
    study: Study, opinion: Opinion | None, asked: Sequence[Feed], annex_hash: str, zone_time: ZoneInfo, back: Unproject
) -> pb.QueryTensionResponse:
    """The answer, without its release mark."""
    everything = _counted(study.facts)
    response = pb.QueryTensionResponse(
        summary=reasons.summary(study),
        method=_method(study, annex_hash),
        zones=[_zone(zone, study, opinion, zone_time, back) for zone in study.zones],
        counts=_counts(everything, study.facts),
        total=len(study.facts) if disclosure.may_show(everything) else 0,
        zones_withheld=study.withheld,
        kinds_too_coarse=[feed.kind for feed in study.too_coarse],
        outside_units=study.outside if study.outside >= disclosure.strictest(study.facts.feeds) else 0,
        cautions=reasons.cautions(study, asked),
    )
    if opinion is not None:
        pairs = zip(opinion.clusters, opinion.shown, strict=True)
        response.clusters.extend(_cluster(cluster, shown, study) for cluster, shown in pairs)
    return response


def _zone(zone: Zone, study: Study, opinion: Opinion | None, zone_time: ZoneInfo, back: Unproject) -> pb.TensionZone:
    longitude, latitude = back(*study.support.middles[zone.peak].tolist())
    members = np.isin(study.units, zone.units)
    packed = pb.TensionZone(
        side=_SIDES[zone.side],
        longitude_e7=round(longitude * E7),
        latitude_e7=round(latitude * E7),
        z=zone.z,
        p=zone.p,
        q=zone.q,
        p_permutation=zone.p_permutation,
        count=zone.total,
        counts=_counts(zone.counts, study.facts.where(members)),
        exposure=zone.exposure,
        surface_km2=zone.surface,
        raw_rate=zone.raw_rate,
        smoothed_rate=zone.smoothed_rate,
        only_discovered=zone.only_discovered,
        checks=[pb.TensionCheck(support=name, found=found) for name, found in zone.stability],
        fragile=zone.fragile,
        reason=reasons.reason(zone, study, zone_time),
    )
    _name_units(packed, study, zone.units.tolist())
    if zone.has_trend:
        packed.pattern, packed.trend_side = _PATTERNS[zone.pattern], _SIDES[zone.pattern_side]
        packed.trend_s, packed.trend_p = zone.trend_s, zone.trend_p
    if opinion is not None:
        packed.opinion.moran = _QUADRANTS[int(opinion.moran.quadrant[zone.peak])]
        packed.opinion.moran_statistic = float(opinion.moran.statistic[zone.peak])
        packed.opinion.relative_risk = opinion.relative_risk(zone)
        packed.opinion.in_scan_cluster = opinion.in_cluster(zone)
        packed.opinion.agrees = opinion.agrees(zone)
        packed.opinion.disagreement = reasons.disagreement(zone, opinion)
    return packed


def _name_units(packed: pb.TensionZone | pb.ScanCluster, study: Study, units: Sequence[int]) -> None:
    if study.support.names:
        packed.names.extend(study.support.names[unit] for unit in units)
    else:
        packed.cells.extend(study.support.cells[list(units)].tolist())


def _counted(facts: Facts) -> dict[Feed, int]:
    numbers = np.bincount(facts.feed, minlength=len(facts.feeds)).tolist()
    return {feed: number for feed, number in zip(facts.feeds, numbers, strict=True) if number}


def _counts(counts: Mapping[Feed, int], facts: Facts) -> list[pb.TensionCount]:
    shown, _ = disclosure.by_kind(counts)
    whole = disclosure.may_show(counts)
    packed = []
    for feed in counts:
        one = pb.TensionCount(source=feed.source, kind=feed.kind, nature=_NATURES[feed.nature])
        if feed in shown and whole:
            mine = facts.feed == facts.feeds.index(feed)
            one.count = shown[feed]
            one.newest_recorded_at.CopyFrom(_timestamp(int(facts.recorded_us[mine].max())))
            one.newest_start.CopyFrom(_timestamp(int(facts.starts_us[mine].max())))
        else:
            one.withheld = True
        packed.append(one)
    return packed


def _cluster(cluster: Cluster, shown: bool, study: Study) -> pb.ScanCluster:
    start = study.question.first_us + cluster.first_step * study.question.step_us
    inside = any(not set(cluster.units).isdisjoint(zone.units.tolist()) for zone in study.zones)
    packed = pb.ScanCluster(in_zone=inside, start=_timestamp(start), p=cluster.p)
    _name_units(packed, study, cluster.units)
    if not shown:
        packed.withheld = True
        return packed
    packed.count, packed.expected = cluster.observed, cluster.expected
    packed.relative_risk, packed.log_likelihood_ratio = cluster.relative_risk, cluster.log_ratio
    return packed


def _method(study: Study, annex_hash: str) -> pb.TensionMethod:
    question = study.question
    return pb.TensionMethod(
        support=study.support.name,
        units=study.support.size,
        family=study.analysis.family,
        weights=study.support.weights_label,
        alpha=ALPHA,
        permutations=question.permutations,
        seed=SEED,
        start=_timestamp(question.first_us),
        end=_timestamp(question.end_us),
        steps=question.steps,
        step_days=round(question.step_us / DAY_US),
        code_version=f"planier {version('planier')}, tension {METHOD_VERSION}",
        annex_hash=annex_hash,
        statistic=STATISTIC,
        rate_unit=RATE_UNIT,
    )


def _timestamp(at_us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(at_us)
    return stamp
