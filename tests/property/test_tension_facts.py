"""What feeds tension against its words, applied one by one to the events; as of an instant, against a replay to it."""

from pathlib import Path
from tempfile import TemporaryDirectory

import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planier.analytics.v1.analytics_pb2 import BoundingBox
from planier.common.v1 import fact_pb2

from services.analytics.area import Area, area_of_box, area_of_polygon
from services.analytics.placement import E7, place
from services.analytics.snapshot import Snapshot
from services.analytics.tension.facts import Facts
from services.analytics.tension.queries import TensionQuery, read_facts
from services.kernel.store.base import StoredEvent
from services.kernel.store.engine import open_engine
from tests.fixtures import analytics as built
from tests.fixtures.analytics import HOUR_US, NEW_YEAR_US, IngestLog
from tests.fixtures.tension import REGISTRY
from tests.property.test_analytics_map import load, replay

KINDS = (
    ("residents-reports", "NOISE"),
    ("residents-reports", "OBSTRUCTION"),
    ("municipal-police-reports", "PUBLIC_PEACE"),
    ("works", "ROADWORKS"),
    ("demonstrations", "PROTEST_MARCH"),
    # A name of one source's kind under another source.
    ("works", "NOISE"),
)
STATUSES = (fact_pb2.FACT_STATUS_ENDED, fact_pb2.FACT_STATUS_PROHIBITED)
STEP = 0.002

places = st.tuples(st.integers(-8, 8), st.integers(-8, 8)).map(lambda at: (5.37 + at[0] * STEP, 43.3 + at[1] * STEP))
bodies = st.tuples(st.sampled_from(KINDS), st.sampled_from(STATUSES[:1] * 3 + STATUSES), places, st.integers(-3, 30))
steps = st.lists(
    st.tuples(st.sampled_from(["declare", "declare", "amend", "cancel", "erase"]), bodies, st.integers(0, 2)),
    min_size=5,
    max_size=25,
)


@st.composite
def logs(draw: st.DrawFn) -> IngestLog:
    log, alive = IngestLog(), dict[str, fact_pb2.Fact]()
    for number, (step, ((source, kind), status, where, hour), wait_us) in enumerate(draw(steps)):
        starts = NEW_YEAR_US + hour * HOUR_US
        periods = [(starts, starts + HOUR_US)]
        if hour % 5 == 0:
            # One that comes back: the columns do not hold it.
            periods.append((starts + 2 * HOUR_US, starts + 3 * HOUR_US))
        new = {"geometry": built.point(*where), "periods": periods, "status": status}
        if step == "declare" or not alive:
            fact = built.fact(f"n{number}", source=source, kind=kind, **new)
            alive[log.declare(fact, wait_us)] = fact
            continue
        key, before = next(iter(alive.items()))
        if step == "amend":
            alive[key] = built.fact(
                before.source_id,
                source=before.source,
                kind=before.kind,
                revision=before.revision + 1,
                **new,
            )
            log.amend(alive[key], wait_us)
        elif step == "cancel":
            log.cancel(key, before.revision + 1, wait_us)
            del alive[key]
        else:
            log.erase(key, wait_us)
            del alive[key]
    return log


areas = st.one_of(
    st.just(area_of_box(BoundingBox(west=5, south=43, east=6, north=44))),
    st.tuples(places, st.integers(0, 12), st.integers(0, 12)).map(
        lambda box: area_of_box(
            BoundingBox(
                west=box[0][0], south=box[0][1], east=box[0][0] + box[1] * STEP, north=box[0][1] + box[2] * STEP
            )
        )
    ),
    places.map(
        lambda at: area_of_polygon(built.polygon(at, (at[0] + 0.02, at[1] + 0.001), (at[0] + 0.001, at[1] + 0.02)))
    ),
)
queries = st.builds(
    lambda area, start, hours, kinds, as_of: TensionQuery(
        area,
        NEW_YEAR_US + start * HOUR_US,
        NEW_YEAR_US + (start + hours) * HOUR_US,
        (),
        tuple(kinds),
        None if as_of is None else NEW_YEAR_US + as_of,
    ),
    areas,
    st.integers(-5, 20),
    st.integers(1, 30),
    st.lists(st.sampled_from(("NOISE", "PUBLIC_PEACE")), max_size=1),
    st.none() | st.integers(0, 25),
)


def shown(facts: Facts) -> list[tuple[object, ...]]:
    named = [(facts.feeds[feed].source, facts.feeds[feed].kind) for feed in facts.feed.tolist()]
    columns = (facts.cells[facts.cell], facts.longitude, facts.latitude, facts.starts_us, facts.recorded_us)
    return sorted(zip(named, *(column.tolist() for column in columns), strict=True))


def expected(events: list[StoredEvent], granted: set[str], query: TensionQuery) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for known in replay(events, query.as_of_us).values():
        fact, where = known.fact, place(known.fact)
        if (
            fact.source in granted & {"residents-reports", "municipal-police-reports"}
            and (not query.kinds or fact.kind in query.kinds)
            and fact.status not in (fact_pb2.FACT_STATUS_CANCELLED, fact_pb2.FACT_STATUS_PROHIBITED)
            and query.starts_us <= where.starts_us < query.ends_us
            and is_in(query.area, where.longitude, where.latitude)
        ):
            named = (fact.source, fact.kind)
            found.append((named, where.cell, where.longitude, where.latitude, where.starts_us, known.recorded_us))
    return sorted(found)


def is_in(area: Area, longitude: int, latitude: int) -> bool:
    if area.is_box:
        return area.west <= longitude <= area.east and area.south <= latitude <= area.north
    return bool(area.shape.intersects(shapely.Point(longitude / E7, latitude / E7)))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(logs(), st.sets(st.sampled_from([source for source, _ in KINDS]), min_size=1), st.lists(queries, min_size=6))
def test_what_is_read_is_what_the_words_say(log: IngestLog, granted: set[str], asked: list[TensionQuery]) -> None:
    with TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{Path(folder)}/analytics.db")
        load(engine, log, 7)
        snapshot = Snapshot(engine, in_background=False)
        snapshot.load()
        with engine.begin() as connection:
            for query in asked:
                wanted = expected(log.events, granted, query)
                grant = built.granted(*granted)
                assert shown(read_facts(connection, grant, REGISTRY, query)) == wanted
                assert shown(read_facts(connection, grant, REGISTRY, query, snapshot)) == wanted
        engine.dispose()
