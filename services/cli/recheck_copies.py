"""Decisions made again from copies of two databases, without any service."""

from pathlib import Path

import typer
from planier.access.v1 import recheck_pb2 as pb
from planier.audit.v1.audit_pb2 import ReplayFilter
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from services.access.policy.released import policies
from services.access.recheck import History, Recheck
from services.audit.database import snapshot
from services.audit.replay import PAGE, Span, read_page
from services.kernel.clock import SystemClock
from services.kernel.store.engine import open_engine
from services.kernel.store.opening import open_store


def recheck_copies(log: str, store: str, under: str, limit: int) -> list[pb.RecheckResult]:
    """Every decision of a copy of the log, made again from a copy of access's store; both are SQLAlchemy URLs.

    Nothing that is served is trusted: both databases are read as they are. BadParameter where one is not there.
    """
    _require_there(log, "--log")
    _require_there(store, "--store")
    events = open_store(store, clock=SystemClock())
    engine = open_engine(log)
    try:
        again = Recheck(History(events), policies())
        found: list[pb.RecheckResult] = []
        first = 0
        with snapshot(engine) as connection:
            while not limit or len(found) < limit:
                page = read_page(connection, ReplayFilter(), Span(first, 1 << 62, limit))
                found += again.run_all([entry.record for entry in page if entry.HasField("record")], under)
                if len(page) < PAGE:
                    break
                first = page[-1].index + 1
        return found[: limit or None]
    finally:
        engine.dispose()
        events.close()


def _require_there(url: str, option: str) -> None:
    """Looking must not make a database."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise typer.BadParameter("no database URL, such as sqlite:///copy.db", param_hint=option) from None
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise typer.BadParameter("no such database", param_hint=option)
