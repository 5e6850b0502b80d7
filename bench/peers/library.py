"""The PyPI `eventsourcing` library saving 100 events a commit. Usage: python -m bench.peers.library KIND WHERE."""

import sys
import time
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from sqlalchemy import make_url

SECONDS = 3.0
EVENTS = 100
NOTE = "x" * 150


class Spot(Aggregate):
    """An aggregate with one small event, as in the library's own documentation."""

    @event("Opened")
    def __init__(self, name: str) -> None:
        self.name = name
        self.seen = 0

    @event("Seen")
    def see(self, kind: str, longitude: float, latitude: float, note: str) -> None:  # noqa: ARG002 -- the event's fields
        """One more sighting."""
        self.seen += 1


def environment(kind: str, where: str) -> dict[str, str]:
    """The library's settings."""
    if kind == "sqlite":
        return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": f"{where}/library.db"}
    url = make_url(where)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(url.database),
        "POSTGRES_HOST": str(url.query.get("host") or url.host),
        "POSTGRES_PORT": str(url.port or 5432),
        "POSTGRES_USER": str(url.username),
        "POSTGRES_PASSWORD": url.password or "",
    }


def main() -> None:
    """Prints events a second."""
    application: Application[UUID] = Application(env=environment(sys.argv[1], sys.argv[2]))
    saved, spent = 0, 0.0
    while spent < SECONDS:
        spot = Spot("a")
        application.save(spot)
        for _ in range(10):
            began = time.perf_counter()
            for _ in range(EVENTS):
                spot.see("kind", 5.37, 43.29, NOTE)
            application.save(spot)
            spent += time.perf_counter() - began
            saved += EVENTS
    print(saved / spent)
    application.close()


if __name__ == "__main__":
    main()
