"""A month of Marseille around a day: what is planned, under way and just over."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

from planier.common.v1 import fact_pb2
from planier.common.v1.fact_pb2 import Fact, FactStatus

from services.demo.past import past_facts
from services.demo.streets import MARCHES, MARKETS, STREETS, VELODROME, Line

DAYS_BEFORE = 10
DAYS_AFTER = 30
WORKS = {
    "ROADWORKS": ("Réfection de chaussée", "Réfection de trottoir", "Travaux de voirie"),
    "UTILITY_WORKS": ("Renouvellement de conduite", "Raccordement électrique", "Travaux sur réseau d'eau"),
}
# A gathering of more people does not stay on a sidewalk, nor in a place without a procession.
LARGEST_GATHERING = 500

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """What the generators share: the seed's random source, the day, the city's time zone."""

    random: Random
    seed: int
    day: date
    zone: ZoneInfo

    def days(self) -> Iterator[date]:
        """Each day of the month around the day."""
        for offset in range(-DAYS_BEFORE, DAYS_AFTER):
            yield self.day + timedelta(days=offset)

    def at(self, day: date, hour: float) -> datetime:
        """A local wall-clock time, hours may exceed 24."""
        whole = timedelta(hours=int(hour) % 24, minutes=int(hour % 1 * 60))
        return datetime.combine(day + timedelta(days=int(hour) // 24), time(), self.zone) + whole

    def status(self, day: date) -> FactStatus.ValueType:
        """What a planned thing of that day is by now."""
        if day < self.day:
            return fact_pb2.FACT_STATUS_ENDED
        choices = [fact_pb2.FACT_STATUS_DECLARED, fact_pb2.FACT_STATUS_CONFIRMED, fact_pb2.FACT_STATUS_ANNOUNCED]
        return self.random.choices(choices, (3, 5, 1))[0]

    def near(self, point: Point, spread: float = 0.004) -> Point:
        """A point around another; mostly inland."""
        return point[0] + self.random.uniform(-0.3, 1.0) * spread, point[1] + self.random.uniform(-1.0, 1.0) * spread


def month(seed: int, day: date, zone: ZoneInfo) -> Iterator[Fact]:
    """A month's facts, the same for the same seed and day; a few hundred, the Préfecture's first."""
    scene = Scene(Random(f"month-{seed}-{day}"), seed, day, zone)
    for number, fact in enumerate(fact for make in MAKERS for fact in make(scene)):
        fact.source_id = f"D{seed}-{day:%y%m%d}-{number:05d}"
        yield fact


def planned(
    source: str, kind: str, status: FactStatus.ValueType, periods: Iterable[tuple[datetime, datetime]], title: str = ""
) -> Fact:
    """A fact without a place yet."""
    fact = Fact(source=source, revision=1, kind=kind, status=status, title=title)
    for start, end in periods:
        period = fact.periods.add()
        period.start.FromDatetime(start)
        period.end.FromDatetime(end)
    return fact


def at_point(fact: Fact, point: Point) -> Fact:
    """The fact at a point."""
    fact.geometry.point.longitude, fact.geometry.point.latitude = point
    return fact


def along(fact: Fact, line: Line) -> Fact:
    """The fact along a line."""
    for longitude, latitude in line:
        fact.geometry.line.points.add(longitude=longitude, latitude=latitude)
    return fact


def around(fact: Fact, centre: Point, degrees: float) -> Fact:
    """The fact over a square around a point."""
    ring = fact.geometry.polygon.rings.add()
    for east, north in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)):
        ring.points.add(longitude=centre[0] + east * degrees * 1.37, latitude=centre[1] + north * degrees)
    return fact


def _choice(fact: Fact, name: str, choice: str) -> Fact:
    fact.attributes.add(name=name, choice=choice)
    return fact


def _demonstrations(scene: Scene) -> Iterator[Fact]:
    for day in scene.days():
        for _ in range(scene.random.choices((0, 1, 2, 3), (3, 4, 2, 1))[0] + (day.weekday() == 5)):
            hour = scene.random.choice((10.0, 10.5, 14.0, 14.5, 17.5, 18.0))
            low = scene.random.choice((50, 200, 500, 1500, 4000))
            period = [(scene.at(day, hour), scene.at(day, hour + scene.random.choice((1.5, 2.0, 3.0))))]
            if low > LARGEST_GATHERING or scene.random.random() < 0.4:
                fact = planned("demonstrations", "PROTEST_MARCH", scene.status(day), period)
                along(fact, scene.random.choice(MARCHES))
                _choice(fact, "roadway", "FULL" if low > 500 else "PARTIAL")
            else:
                fact = planned("demonstrations", "STATIC_GATHERING", scene.status(day), period)
                at_point(fact, scene.random.choice([line[0] for line in STREETS.values()]))
                _choice(fact, "roadway", "SIDEWALK" if low < LARGEST_GATHERING else "PARTIAL")
            fact.attendance.minimum, fact.attendance.maximum = low, low * 2
            yield fact


def _visits(scene: Scene) -> Iterator[Fact]:
    for day in scene.days():
        if scene.random.random() < 0.15:
            period = [(scene.at(day, 9.5), scene.at(day, 12.0))]
            fact = planned("official-visits", "OFFICIAL_VISIT", scene.status(day), period)
            _choice(fact, "perimeter", scene.random.choice(("FILTERED", "CLOSED")))
            yield around(fact, scene.random.choice([(5.3695, 43.2963), (5.3802, 43.2900), VELODROME]), 0.0012)


def _operations(scene: Scene) -> Iterator[Fact]:
    for day in scene.days():
        if scene.random.random() < 0.4:
            start = scene.random.choice((6.0, 15.0, 21.0))
            period = [(scene.at(day, start), scene.at(day, start + 4.0))]
            fact = planned("scheduled-operations", "SECURITY_OPERATION", scene.status(day), period)
            _choice(fact, "perimeter", "FILTERED")
            yield around(fact, scene.near((5.3780, 43.3040), 0.02), 0.003)


def _markets(scene: Scene) -> Iterator[Fact]:
    for name, place, weekdays in MARKETS:
        held = [day for day in scene.days() if day.weekday() in weekdays]
        periods = [(scene.at(day, 7.0), scene.at(day, 13.5)) for day in held]
        fact = planned("markets", "REGULAR_MARKET", fact_pb2.FACT_STATUS_CONFIRMED, periods, name)
        yield at_point(_choice(fact, "goods", "MIXED"), place)


def _stretch(scene: Scene) -> tuple[str, Sequence[Point]]:
    name = scene.random.choice(sorted(STREETS))
    line = STREETS[name]
    first = scene.random.randrange(len(line) - 1)
    return name, line[first : first + 2]


def _works(scene: Scene) -> Iterator[Fact]:
    for _ in range(60):
        first = scene.day + timedelta(days=scene.random.randrange(-DAYS_BEFORE, DAYS_AFTER))
        last = first + timedelta(days=scene.random.choice((2, 5, 12, 40, 90)))
        name, line = _stretch(scene)
        status = fact_pb2.FACT_STATUS_UNDER_WAY if first <= scene.day < last else scene.status(first)
        kind = scene.random.choice(sorted(WORKS))
        title = f"{scene.random.choice(WORKS[kind])} · {name}"
        period = [(scene.at(first, 7.0), scene.at(last, 18.0))]
        fact = planned("works", kind, status, period, title)
        along(_choice(fact, "roadway", scene.random.choice(("SIDEWALK", "PARTIAL", "FULL"))), line)
        if scene.random.random() < 0.7:
            reference = f"ARR-{first.year}-{scene.random.randrange(10000):04d}"
            fact.measures.add(kind=fact_pb2.MEASURE_KIND_TRAFFIC_BYLAW, reference=reference)
        yield fact


def _culture(scene: Scene) -> Iterator[Fact]:
    places = {
        "Cours Julien": (5.3829, 43.2935),
        "Mucem": (5.3610, 43.2968),
        "Friche de la Belle de Mai": (5.3905, 43.3103),
    }
    for day in scene.days():
        if scene.random.random() < 0.35:
            name = scene.random.choice(sorted(places))
            period = [(scene.at(day, 18.0), scene.at(day, 23.5))]
            fact = planned("cultural-events", "CONCERT", scene.status(day), period, f"Concert · {name}")
            fact.attendance.minimum, fact.attendance.maximum = 300, scene.random.choice((800, 2000, 5000))
            yield at_point(_choice(fact, "venue", "OUTDOOR"), places[name])


def _sport(scene: Scene) -> Iterator[Fact]:
    for day in scene.days():
        if day.weekday() == 6 and day.isocalendar().week % 2 == 0:
            period = [(scene.at(day, 20.75), scene.at(day, 22.75))]
            fact = planned("sports-events", "MATCH", scene.status(day), period, "Match au stade Vélodrome")
            fact.attendance.minimum, fact.attendance.maximum = 50_000, 67_000
            yield around(
                _choice(fact, "risk_level", scene.random.choice(("STANDARD", "REINFORCED"))), VELODROME, 0.0013
            )


def _bylaws(scene: Scene) -> Iterator[Fact]:
    for _ in range(40):
        day = scene.day + timedelta(days=scene.random.randrange(-DAYS_BEFORE, DAYS_AFTER))
        name, line = _stretch(scene)
        period = [(scene.at(day, 6.0), scene.at(day, 20.0))]
        fact = planned(
            "traffic-bylaws", "ROAD_CLOSURE", fact_pb2.FACT_STATUS_CONFIRMED, period, f"Circulation interdite · {name}"
        )
        yield along(_choice(fact, "access", scene.random.choice(("RESIDENTS", "EMERGENCY"))), line)


def _shoots(scene: Scene) -> Iterator[Fact]:
    for day in scene.days():
        if scene.random.random() < 0.3:
            name, line = _stretch(scene)
            period = [(scene.at(day, 7.0), scene.at(day, scene.random.choice((12.0, 19.0, 27.0))))]
            fact = planned("film-shoots", "FILM_SHOOT", scene.status(day), period, f"Tournage · {name}")
            yield along(_choice(fact, "roadway", "PARTIAL"), line)


def _reports(scene: Scene) -> Iterator[Fact]:
    yield from past_facts(scene.seed, scene.day, 400, since=scene.day - timedelta(days=DAYS_BEFORE))


# The Préfecture's first.
MAKERS = (_demonstrations, _visits, _operations, _markets, _works, _culture, _sport, _bylaws, _shoots, _reports)
