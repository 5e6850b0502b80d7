"""Any number of past recorded facts, in the order of time, in constant memory."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random

from planier.common.v1.fact_pb2 import FACT_STATUS_ENDED, Fact

from services.demo.streets import CENTRES, Centre

FIRST_DAY = date(1998, 1, 1)


@dataclass(frozen=True, slots=True)
class Strand:
    """One kind of past fact: its weight among all, how long it lasts, and the weight of each of six 4-hour spans."""

    source: str
    kind: str
    weight: float
    minutes: int
    day: tuple[float, ...]
    attribute: str = ""
    choices: tuple[str, ...] = ()


EVENING = (4.0, 1.0, 1.0, 2.0, 4.0, 6.0)
DAYTIME = (0.2, 0.6, 5.0, 5.0, 4.0, 1.0)
FLAT = (1.0, 1.0, 2.0, 2.0, 2.5, 2.0)

STRANDS: Sequence[Strand] = (
    Strand("residents-reports", "NOISE", 12, 60, EVENING, "moment", ("DAY", "EVENING", "NIGHT")),
    Strand("residents-reports", "ILLEGAL_DUMPING", 12, 30, DAYTIME),
    Strand("residents-reports", "DAMAGED_EQUIPMENT", 8, 30, DAYTIME, "equipment", ("LIGHTING", "FURNITURE", "SIGN")),
    Strand("residents-reports", "OBSTRUCTION", 4, 30, DAYTIME),
    Strand("municipal-police-missions", "PATROL", 8, 180, FLAT),
    Strand("municipal-police-missions", "TRAFFIC_DUTY", 3, 120, DAYTIME),
    Strand("municipal-police-reports", "PUBLIC_PEACE", 8, 30, EVENING, "moment", ("DAY", "EVENING", "NIGHT")),
    Strand("municipal-police-reports", "ROAD_HAZARD", 4, 45, FLAT),
    Strand("offences", "PROPERTY_OFFENCE", 9, 15, EVENING, "place_type", ("STREET", "TRANSPORT", "SHOP")),
    Strand("offences", "PUBLIC_ORDER_OFFENCE", 4, 15, EVENING),
    Strand("infractions", "PARKING_INFRACTION", 18, 10, DAYTIME),
    Strand("infractions", "TRAFFIC_INFRACTION", 10, 10, FLAT),
)


def past_facts(seed: int, day: date, count: int, *, since: date = FIRST_DAY) -> Iterator[Fact]:
    """`count` facts from `since` to the day before `day`, the same for the same seed; about 100,000 a second."""
    random = Random(f"past-{seed}")
    span = (day - since).days
    strands = list(itertools.accumulate(strand.weight for strand in STRANDS))
    centres = list(itertools.accumulate(weight for _, _, weight in CENTRES))
    for number in range(count):
        strand = STRANDS[bisect.bisect(strands, random.random() * strands[-1])]
        centre = CENTRES[bisect.bisect(centres, random.random() * centres[-1])]
        start = _moment(random, since + timedelta(days=span * number // count), strand)
        yield _fact(random, strand, f"D{seed}-P{number:09d}", centre, start)


def _moment(random: Random, day: date, strand: Strand) -> datetime:
    slot = random.choices(range(6), strand.day)[0]
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=4 * slot, minutes=random.randrange(240))


def _fact(random: Random, strand: Strand, number: str, centre: Centre, start: datetime) -> Fact:
    (longitude, latitude), spread, _ = centre
    fact = Fact(source=strand.source, source_id=number, revision=1, kind=strand.kind, status=FACT_STATUS_ENDED)
    # Clipped at two spreads: the tail of a bell would put reports into the sea.
    fact.geometry.point.longitude = longitude + spread * max(-2.0, min(2.0, random.gauss(0.0, 0.8)))
    fact.geometry.point.latitude = latitude + spread * 0.73 * max(-2.0, min(2.0, random.gauss(0.0, 0.8)))
    period = fact.periods.add()
    period.start.seconds = int(start.timestamp())
    period.end.seconds = period.start.seconds + strand.minutes * 60
    if strand.attribute:
        fact.attributes.add(name=strand.attribute, choice=random.choice(strand.choices))
    return fact
