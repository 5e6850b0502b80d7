"""The desks of analytics that have a whole question to themselves, put together once for every way to serve them."""

from dataclasses import dataclass
from typing import Self

from services.analytics.agenda import AgendaDesk
from services.analytics.conflicts.desk import ConflictDesk
from services.analytics.conflicts.register import Register
from services.analytics.conflicts.rules import Rules
from services.analytics.coverage import CoverageReader
from services.analytics.reading import ReadModel
from services.analytics.snapshot import Snapshot
from services.analytics.tension.desk import TensionDesk
from services.kernel.clock import Clock, Ids
from services.kernel.layers import LayerFolder
from services.kernel.registry import Registry
from services.kernel.store.sql import SqlEventStore
from services.kernel.territory import Territory


@dataclass(frozen=True, slots=True)
class Desks:
    """Tension zones, conflicts and the agenda, over one read model."""

    tension: TensionDesk
    conflicts: ConflictDesk
    agenda: AgendaDesk
    # One for all answers of the process: what it remembers of the last second serves every desk.
    coverage: CoverageReader

    @classmethod
    def over(
        cls,
        model: ReadModel,
        steps: SqlEventStore,
        *,
        registry: Registry,
        territory: Territory,
        rules: Rules,
        clock: Clock,
        ids: Ids,
        snapshot: Snapshot | None = None,
        layers: LayerFolder | None = None,
    ) -> Self:
        """The desks; `steps` is the store of what people did about conflicts."""
        register, coverage = Register(steps, ids), CoverageReader()
        return cls(
            TensionDesk(model, registry, territory, snapshot=snapshot, layers=layers, coverage=coverage, clock=clock),
            ConflictDesk(model, register, rules, coverage, clock),
            AgendaDesk(model, register, rules, territory, clock, coverage),
            coverage,
        )
