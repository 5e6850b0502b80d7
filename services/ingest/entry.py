"""How early an authority records what it will hold (art4.asap): measured fact by fact, reported per authority."""

from collections.abc import Sequence

from services.ingest.admission import Admitted
from services.ingest.domain import Refusal
from services.ingest.engine import Answer
from services.kernel.telemetry import Telemetry


def measure_entry(
    telemetry: Telemetry, authority: str, declared: Sequence[Admitted], answers: Sequence[Answer]
) -> None:
    """Measures each fact that these answers made durable for the first time; a retry counts once."""
    for admitted, answer in zip(declared, answers, strict=True):
        if isinstance(answer, Refusal) or answer.duplicate:
            continue
        start = min(period.start.seconds for period in admitted.fact.periods)
        ahead = start - answer.revision.recorded_at_us / 1_000_000
        if ahead >= 0:
            telemetry.measure("planier.declaration.lead_time", ahead, authority=authority)
        else:
            telemetry.measure("planier.declaration.entry_lag", -ahead, authority=authority)
