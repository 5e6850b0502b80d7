"""The new enemy: who is excluded on one replica stays out, whatever another one, by another clock, writes next.

After spicedb's test of that name: allowed is cleared and not suspended, the two written on two replicas of one
PostgreSQL whose clocks are hours apart. No bus runs here, which is the widest partition of one: what decides reads from
none, so none can revive a right, nor keep a stream open.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from planier.access.v1.access_pb2 import CheckItem
from planier.access.v1.events_pb2 import PARTY_PREFECTURE, ROLE_PREFECTURE_USER
from planier.analytics.v1.analytics_pb2 import BoundingBox, WatchMapRequest
from planier.common.v1.release_pb2 import PURPOSE_SITUATION

from services.access.checker import LocalChecker
from services.access.domain import SignUndertaking
from services.access.nominative_list import SuspendListedPerson
from services.access.people import Identity, Person
from services.access.undertaking import HASH
from services.analytics.projections import FactProjection
from services.analytics.reading import ReadModel, open_for_reading
from services.analytics.service import AnalyticsServicer
from services.analytics.signal import Signal
from services.analytics.wiring import open_for_writing
from services.kernel.clock import SystemClock
from services.kernel.errors import Problem
from services.kernel.guard.ports import Decision
from services.kernel.guard.streams import Pace
from services.kernel.projection import ProjectionRunner
from services.kernel.store.base import GENESIS
from services.kernel.store.opening import open_store
from tests.fixtures import access
from tests.fixtures import analytics as built
from tests.fixtures.access import Replica
from tests.fixtures.guard import PERSON, Bench, consultation
from tests.fixtures.store import HandClock

pytestmark = pytest.mark.postgres

PEOPLE = [Person(f"Prénom{number}", f"Nom{number}", "État-major") for number in range(8)]
ENTRIES = [access.listed_person(person, str(UUID(int=700 + number))) for number, person in enumerate(PEOPLE)]
Ask = Callable[[Replica, int], bool]


def identity(number: int) -> Identity:
    return Identity(access.ISSUER, f"person-{number}")


@pytest.fixture(params=[-5, 5], ids=["behind", "ahead"])
def replicas(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas of one store, the second one's clock hours off; everybody bound, nobody's undertaking signed."""
    skewed = HandClock(access.NOW + timedelta(hours=request.param))
    pair = Replica(postgres_url, HandClock(access.NOW)), Replica(postgres_url, skewed)
    pair[0].run(access.sign_command(), *access.first_list_commands(*ENTRIES))
    for number, person in enumerate(PEOPLE):
        grant = access.grant_command(person=person, party=PARTY_PREFECTURE, role=ROLE_PREFECTURE_USER)
        pair[number % 2].run(*access.binding(grant, identity(number), access.VALIDATOR)[:-1])
    yield pair
    for replica in pair:
        replica.close()


def allowed(replica: Replica, number: int) -> bool:
    """By the replica's own clock."""
    item = access.check_item(identity(number), purpose=PURPOSE_SITUATION, at=replica.clock.now())
    return replica.check(item).permit


def exclude(replica: Replica, number: int) -> None:
    replica.run(SuspendListedPerson(access.DGA, ENTRIES[number].entry_id, "en attente", "record"))


def clear(replica: Replica, number: int) -> None:
    replica.run(SignUndertaking(identity(number), HASH, "record"))


def enemies(replicas: tuple[Replica, Replica], ask: Ask) -> list[int]:
    """Whom some replica allows after both writes were acknowledged, the exclusion first."""
    found = []
    for number in range(len(PEOPLE)):
        first, second = replicas if number % 2 else replicas[::-1]
        exclude(first, number)
        clear(second, number)
        found += [number for replica in replicas if ask(replica, number)]
    return found


def test_the_excluded_stay_out_when_another_replica_clears_them_next(replicas: tuple[Replica, Replica]) -> None:
    clear(replicas[0], 0)
    assert all(allowed(replica, 0) for replica in replicas), "without the exclusion both allow"
    assert not enemies(replicas, allowed)


def test_a_replica_that_trusted_what_it_knew_would_be_found_out(replicas: tuple[Replica, Replica]) -> None:
    for number in range(len(PEOPLE)):
        clear(replicas[0], number)
    known = {id(replica): replica.core.cache.current() for replica in replicas}

    def stale(replica: Replica, number: int) -> bool:
        item = access.check_item(identity(number), purpose=PURPOSE_SITUATION, at=replica.clock.now())
        return known[id(replica)].decider.decide(item).permit

    assert enemies(replicas, stale)


class Asking:
    """Asks one replica about everybody, over and over, beside the writes."""

    def __init__(self, replica: Replica, excluded: set[int]) -> None:
        self.replica = replica
        self.excluded = excluded
        self.stop = threading.Event()
        self.rounds = 0
        self.wrong: list[int] = []

    def run(self) -> None:
        while not self.stop.is_set():
            for number in range(len(PEOPLE)):
                late = number in self.excluded
                if allowed(self.replica, number) and late:
                    self.wrong.append(number)
            self.rounds += 1

    def finish(self) -> None:
        """Stops after one more whole round."""
        seen = self.rounds
        while self.rounds < seen + 2:
            self.stop.wait(0.01)
        self.stop.set()


def test_no_check_begun_after_an_acknowledgement_allows_whatever_is_written_beside(
    replicas: tuple[Replica, Replica],
) -> None:
    excluded: set[int] = set()

    def exclude_all() -> None:
        for number in range(len(PEOPLE)):
            exclude(replicas[number % 2], number)
            excluded.add(number)

    def clear_all() -> None:
        for number in range(len(PEOPLE)):
            clear(replicas[1 - number % 2], number)

    asking = [Asking(replica, excluded) for replica in replicas]
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(one.run) for one in asking]
        for writing in [pool.submit(exclude_all), pool.submit(clear_all)]:
            writing.result()
        for one in asking:
            one.finish()
        for ended in running:
            ended.result()
    assert not [number for one in asking for number in one.wrong]
    assert not any(allowed(replica, number) for replica in replicas for number in range(len(PEOPLE)))


class Watched:
    """The checks of a replica, and which of them began once the revocation was acknowledged."""

    def __init__(self, replica: Replica) -> None:
        self._checker = LocalChecker(replica.core.checks)
        self.acknowledged = False
        self.late: list[bool] = []

    async def check(self, item: CheckItem) -> Decision:
        late = self.acknowledged
        decision = await self._checker.check(item)
        if late:
            self.late.append(decision.verdict.permit)
        return decision


class News:
    """A read model of analytics that learns one more fact each time, beside a servicer that watches it."""

    def __init__(self, folder: Path) -> None:
        url, clock = f"sqlite:///{folder}/analytics.db", SystemClock()
        self._log, self._applied, self._signal = built.IngestLog(), 0, Signal()
        self._writer = open_for_writing(url)
        self._runner = ProjectionRunner(self._writer, FactProjection())
        self._model = ReadModel(open_for_reading(url), lambda: True)
        self._steps = open_store(f"sqlite:///{folder}/steps.db", clock=clock)
        desks = built.desks(self._model, self._steps, clock)
        self.servicer = AnalyticsServicer(self._model, desks, clock=clock, signal=self._signal)

    def learn(self) -> None:
        before = self._log.events[-1].digest if self._applied else GENESIS
        self._log.declare(built.fact(f"works-{self._applied}"))
        self._runner.advance(self._log.store_id, before, self._log.events[self._applied :], self._log.head().digest)
        self._applied = len(self._log.events)
        self._signal.give()

    def close(self) -> None:
        self._model.close()
        self._steps.close()
        self._writer.dispose()


@pytest.fixture
def news(tmp_path: Path) -> Iterator[News]:
    opened = News(tmp_path)
    opened.learn()
    yield opened
    opened.close()


async def test_open_watches_end_at_the_first_recheck_after_a_revocation_on_the_other_replica(
    replicas: tuple[Replica, Replica], news: News
) -> None:
    here, there = replicas
    clearance_id = str(uuid4())
    grant = access.grant_command(clearance_id, person=access.CITY_PERSON)
    here.run(*access.binding(grant, Identity(PERSON.issuer, PERSON.subject), access.DGA))
    checks = Watched(there)
    bench = Bench(service="analytics", pace=Pace())
    bench.clock.moment = access.NOW
    bench.token, _ = bench.issuer.access_token(PERSON, ["analytics"])
    bench.guard._admitter._checker = checks
    released = {False: 0, True: 0}

    async def watch() -> str:
        request = WatchMapRequest(consultation=consultation(), box=MARSEILLE)
        try:
            async for _ in bench.guard.stream(bench.call("WatchMap"), request, news.servicer.WatchMap):
                released[checks.acknowledged] += 1
        except Problem as problem:
            return f"{problem.reason} {problem.clause}"
        return "ended by itself"

    watching = [asyncio.create_task(watch()) for _ in range(5)]
    while released[False] < 20:
        news.learn()
        await asyncio.sleep(0.01)
    await asyncio.to_thread(here.run, access.revoke_command(clearance_id))
    checks.acknowledged = True
    async with asyncio.timeout(20):
        while not all(one.done() for one in watching):  # what happens is still told to whoever may know
            news.learn()
            await asyncio.sleep(0.01)
    assert {one.result() for one in watching} == {"ACCESS_DENIED art6.habilitation"}
    # One turn of re-checks, every 500 ms at the latest, and none of it permits.
    assert checks.late == [False] * len(watching)
    await bench.guard.close()


MARSEILLE = BoundingBox(west=5.2, south=43.1, east=5.6, north=43.4)
