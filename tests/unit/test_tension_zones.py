"""What a study says: zones where there are any, none where chance alone is at work, flags where patrols looked."""

import re
from dataclasses import replace
from itertools import pairwise

import h3.api.basic_int as h3
import numpy as np
import pytest
import shapely

from services.analytics.tension import reasons
from services.analytics.tension.facts import NEVER_KINDS, NEVER_SOURCES, feeds
from services.analytics.tension.opinion import second_opinion
from services.analytics.tension.supports import parents
from services.analytics.tension.trend import Pattern
from services.analytics.tension.zones import Study, study
from services.kernel.registry import CONVENTION
from tests.fixtures.tension import CENTRE, FEEDS, PARIS, REGISTRY, disk, facts, feed, project, question

CITY = disk(9)
CORE = disk(1)


def quiet(seed: int, rate: float = 3.0, months: int = 12, cells: int = len(CITY)) -> np.ndarray:
    return np.random.default_rng(seed).poisson(rate, (cells, months))


def with_core(table: np.ndarray, more: int, months: slice = slice(None)) -> np.ndarray:
    raised = table.copy()
    raised[: len(CORE), months] += more
    return raised


def found(tables: dict[str, np.ndarray], **more: object) -> Study:
    steps = next(iter(tables.values())).shape[1]
    return study(facts(tables, CITY), question(steps, **more), project)


@pytest.mark.parametrize("seed", range(8))
def test_equal_rates_and_unequal_patrols_yield_no_unflagged_zone(seed: int) -> None:
    """Everywhere the same things happen; patrols spend ten times as long in some places, and find ten times as much."""
    rng = np.random.default_rng(seed)
    effort = np.where(np.isin(CITY, h3.grid_disk(CITY[rng.integers(len(CITY))], 2)), 10.0, 1.0)
    reported, discovered = rng.poisson(3.0, (len(CITY), 12)), rng.poisson(0.4 * effort[:, None], (len(CITY), 12))
    answer = found({"NOISE": reported, "PUBLIC_PEACE": discovered})
    assert answer.zones, "patrols that differ tenfold are seen"
    assert all(zone.only_discovered for zone in answer.zones)
    assert all("patrouilles" in reasons.reason(zone, answer, PARIS) for zone in answer.zones)


def test_a_zone_that_residents_report_too_is_not_flagged() -> None:
    answer = found({"NOISE": with_core(quiet(1), 5), "PUBLIC_PEACE": with_core(quiet(2, 0.4), 5)})
    assert [(zone.side, zone.only_discovered) for zone in answer.zones if zone.side > 0] == [(1, False)]
    zone = answer.zones[0]
    assert set(answer.support.cells[zone.units].tolist()) >= {CENTRE}
    assert zone.total == sum(zone.counts.values())
    assert zone.raw_rate == pytest.approx(zone.total / (zone.surface * 12))
    assert abs(zone.smoothed_rate - zone.raw_rate) < 0.2 * zone.raw_rate
    assert not zone.fragile
    assert [name for name, _ in zone.stability] == ["h3-8", "h3-10", "h3-9-ring-2"]


def test_chance_alone_gives_zones_in_one_city_in_twenty_at_most() -> None:
    answers = [found({"NOISE": quiet(seed)}) for seed in range(20)]
    assert sum(bool(answer.zones) for answer in answers) <= 2
    calm = answers[0]
    assert (calm.zones, calm.analysis.family) == ((), len(CITY))
    assert reasons.summary(calm) == f"{reasons.NO_ZONE} parmi {len(CITY)} mailles jugées."


def test_small_numbers_are_judged_nowhere_and_get_no_category() -> None:
    few = np.zeros((len(CITY), 12), int)
    few[::10, 0] = 2
    sparse = found({"NOISE": few})
    assert (sparse.analysis.family, sparse.zones) == (0, ())
    assert "trop faibles" in reasons.summary(sparse)
    # Enough for the year's total, not for each of 60 steps.
    thin = study(facts({"NOISE": with_core(quiet(3, 0.1, 60), 1)}, CITY), question(60), project)
    assert thin.zones
    assert not any(zone.has_trend for zone in thin.zones)
    short = found({"NOISE": with_core(quiet(3, months=9), 5)})
    assert short.zones
    assert not any(zone.has_trend for zone in short.zones)
    assert "moins de dix pas de temps" in reasons.reason(short.zones[0], short, PARIS)
    empty = study(facts({"NOISE": few}, CITY).where(np.zeros(few.sum(), bool)), question(), project)
    assert "aucun fait" in reasons.summary(empty)


def test_a_zone_below_the_minimum_is_withheld_and_said_to_be() -> None:
    """A cold hole in a busy city is significant, but its own facts are fewer than may be shown."""
    table = with_core(quiet(4, 6.0), 0)
    table[:19] = 0
    table[0, 0], table[1, 3] = 1, 1
    answer = found({"NOISE": table})
    assert (answer.zones, answer.withheld) == ((), 1)
    assert "1 zone masquée : effectif inférieur au minimum publiable." in reasons.summary(answer)
    table[:19, 0] = 1
    shown = found({"NOISE": table})
    assert [(zone.side, zone.total) for zone in shown.zones] == [(-1, 20)]
    assert "anormalement rares" in reasons.reason(shown.zones[0], shown, PARIS)


def test_the_trend_of_a_zone() -> None:
    growing = quiet(5, 6.0)
    growing[: len(CORE)] += np.arange(12) * 2 + 8
    assert found({"NOISE": growing}).zones[0].pattern == Pattern.INTENSIFYING
    assert found({"NOISE": growing[:, ::-1]}).zones[0].pattern == Pattern.DIMINISHING
    late = found({"NOISE": with_core(quiet(5, 6.0), 25, slice(11, 12))})
    assert (late.zones[0].pattern, late.zones[0].pattern_side) == (Pattern.NEW, 1)
    assert "apparue au dernier pas de temps" in reasons.reason(late.zones[0], late, PARIS)


def test_the_same_facts_give_the_same_answer() -> None:
    table = {"NOISE": with_core(quiet(6), 5)}
    first, second = found(table), found(table)
    assert [replace(zone, units=None) for zone in first.zones] == [  # type: ignore[arg-type]
        replace(zone, units=None)  # type: ignore[arg-type]
        for zone in second.zones
    ]


def test_what_is_only_in_one_child_cell_is_fragile() -> None:
    """One spot, not its neighbourhood: coarser cells and the wider ring do not find what ring 1 does."""
    table = quiet(7, 6.0)
    table[:3] += 4
    zones = [zone for zone in found({"NOISE": table}).zones if zone.side > 0]
    assert zones
    assert zones[0].fragile == (sum(ok for _, ok in zones[0].stability) < 2)
    solid = replace(zones[0], stability=(("a", True), ("b", True), ("c", False)))
    assert not solid.fragile
    assert replace(zones[0], stability=(("a", True), ("b", False), ("c", False))).fragile
    assert replace(zones[0], stability=(("a", True), ("b", True), ("c", False), ("d", False))).fragile


def test_the_reason_says_what_an_officer_needs() -> None:
    answer = found({"NOISE": with_core(quiet(1), 5)})
    said = reasons.reason(answer.zones[0], answer, PARIS)
    assert re.fullmatch(
        r"Faits anormalement nombreux sur \d+ mailles \(\d,\d+ km²\) : \d+ faits signalés, du 1er janvier 2026 au "
        r"27 décembre 2026, soit \d,\d fois la densité moyenne du secteur \(\d+,\d par km² et par mois, \d+,\d après "
        r"lissage\)\. Le hasard seul expliquerait mal cet écart : Gi\* z = \d+,\d\d, q = moins de 0,001 parmi 271 "
        r"mailles jugées, permutations p = 0,002\. Évolution : durable et stable \(Mann-Kendall p = \d,\d{3}\)\. "
        r"Zone solide : retrouvée par 3 autres découpages sur 3\.",
        said,
    ), said


def test_the_second_opinion_agrees_with_a_zone_that_is_under_way_and_not_with_one_that_is_over() -> None:
    lasting = found({"NOISE": with_core(quiet(8), 5)})
    opinion = second_opinion(lasting)
    assert opinion.agrees(lasting.zones[0])
    assert opinion.shown == (True,) * len(opinion.clusters)
    assert reasons.disagreement(lasting.zones[0], opinion) == ""
    over = found({"NOISE": with_core(quiet(8), 12, slice(0, 4))})
    opinion = second_opinion(over)
    assert not opinion.in_cluster(over.zones[0])
    assert "Kulldorff" in reasons.disagreement(over.zones[0], opinion)


def test_polygons_as_units_and_as_a_check() -> None:
    """Sixteen squares over the disk, of two sizes; the north-west ones have more than their surface would have."""
    edges, rows = (5.33, 5.35, 5.37, 5.39, 5.4), (43.265, 43.28, 43.295, 43.31, 43.325)
    squares = tuple(
        shapely.box(west, south, east, north) for west, east in pairwise(edges) for south, north in pairwise(rows)
    )
    names = tuple(f"Carré {number}" for number in range(16))
    table = quiet(9, 4.0)
    latitudes, longitudes = np.array([h3.cell_to_latlng(cell) for cell in CITY]).T
    table[(latitudes > 43.295) & (longitudes < 5.37)] += 12
    by_layer = found({"NOISE": table}, names=names, polygons=squares, by_polygon=True)
    assert by_layer.support.names == names
    assert not by_layer.support.even
    hot = {by_layer.support.names[unit] for zone in by_layer.zones if zone.side > 0 for unit in zone.units}
    assert hot
    assert hot <= {"Carré 2", "Carré 3", "Carré 6", "Carré 7"}
    assert [name for name, _ in by_layer.zones[0].stability] == ["h3-8", "h3-9"]
    assert by_layer.outside > 0
    assert "Carré" in reasons.reason(by_layer.zones[0], by_layer, PARIS)
    checked = found({"NOISE": table}, names=names, polygons=squares)
    assert [name for name, _ in checked.zones[0].stability] == ["h3-8", "h3-10", "h3-9-ring-2", "polygons"]


def test_kinds_known_less_finely_than_the_units_are_left_out() -> None:
    fed = feeds(REGISTRY, REGISTRY.sources)
    assert {one.kind for one in fed if one.resolution < 9} == {"PERSON_OFFENCE"}
    answer = study(replace(facts({"NOISE": quiet(1)}, CITY), feeds=fed[:3]), question(resolution=10), project)
    assert {one.kind for one in answer.too_coarse} == {one.kind for one in fed[:3] if one.resolution < 10}


def test_what_the_convention_shows_never_feeds_tension() -> None:
    fed = feeds(REGISTRY, REGISTRY.sources)
    assert fed
    assert {one.source for one in fed}.isdisjoint(NEVER_SOURCES)
    assert {one.kind for one in fed}.isdisjoint(NEVER_KINDS)
    convention = [source for source in REGISTRY.sources.values() if source.instrument_id == CONVENTION]
    assert {source.name for source in convention} <= NEVER_SOURCES
    assert {kind for source in convention for kind in source.kinds} <= NEVER_KINDS
    # Whatever an edition of the annex says, by name or under another party.
    other = {"feeds_tension": True, "instrument_id": "city-rules"}
    bent = {name: replace(source, **other) for name, source in REGISTRY.sources.items()}  # type: ignore[arg-type]
    assert {one.source for one in feeds(replace(REGISTRY, sources=bent), bent)}.isdisjoint(NEVER_SOURCES)
    renamed = {"works": replace(REGISTRY.sources["demonstrations"], name="works", **other)}  # type: ignore[arg-type]
    assert feeds(replace(REGISTRY, sources=renamed), renamed) == ()


def test_parents_are_those_of_h3() -> None:
    fine = [h3.cell_to_center_child(cell, 10) for cell in CITY]
    for resolution in (5, 8, 9, 10):
        wanted = [h3.cell_to_parent(cell, resolution) for cell in fine]
        assert parents(np.array(fine, np.uint64), resolution).tolist() == wanted


def test_feeds_are_typed() -> None:
    assert [(one.kind, one.nature) for one in FEEDS] == [
        ("PUBLIC_PEACE", "discovered"),
        ("NOISE", "reported"),
        ("OBSTRUCTION", "reported"),
    ]
    assert feed("NOISE").minimum_count == 5
