"""What is killed, in which order: all of it from the seed."""

from dataclasses import dataclass
from random import Random

from services.stack.layout import SERVICES

PROCESSES = ("broker", *SERVICES)
WIPED = "broker and its storage"
ALL = "all at once"
# The share of victims that are killed once more, about when they begin to serve; a start takes a second or two.
AGAIN = 0.3
START_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Blow:
    """A victim, the share of its turn's declarations at which it is killed, and how long it stays down, in seconds.

    `again_after`: seconds into its start when it is killed once more; 0 is never.
    """

    victim: str
    share: float
    down: float
    again_after: float

    @property
    def processes(self) -> tuple[str, ...]:
        """The processes killed together."""
        if self.victim == ALL:
            return PROCESSES
        return ("broker",) if self.victim == WIPED else (self.victim,)

    @property
    def wipes(self) -> bool:
        """Whether JetStream's storage is deleted while the broker is down."""
        return self.victim in (WIPED, ALL)


def blows(seed: int, rounds: int, longest: float) -> list[Blow]:
    """Each process once a round, JetStream's storage with it the first time; of several rounds, then all at once."""
    random = Random(f"blows-{seed}")  # noqa: S311 -- a repeatable order
    order: list[str] = []
    for number in range(rounds):
        victims = ["broker" if number else WIPED, *SERVICES]
        random.shuffle(victims)
        order += victims
    return [_blow(random, victim, longest) for victim in (*order, *([ALL] if rounds > 1 else []))]


def _blow(random: Random, victim: str, longest: float) -> Blow:
    again_after = random.uniform(0.1, START_SECONDS) if random.random() < AGAIN else 0.0
    return Blow(victim, random.uniform(0.1, 0.6), random.uniform(0.0, longest), again_after)
