"""What an answer does not know, in words: silent sources, counts too small to be shown."""

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1.coverage_pb2 import RHYTHM_SILENT, Coverage, Rhythm, Suppression

from services.cli.output import console
from services.cli.words import local, name_of


def coverage_rows(coverage: Coverage) -> list[dict[str, Any]]:
    """One record a source."""
    return [
        {
            "source": source.source,
            "last_recorded": _instant(source.last_recorded),
            "last_recorded_in_area": _instant(source.last_recorded_in_area),
            "rhythm": name_of(Rhythm, source.rhythm),
            "usual_gap_seconds": source.usual_gap_seconds,
        }
        for source in coverage.sources
    ]


def print_unknown(coverage: Coverage, withheld: Suppression | None, zone: ZoneInfo) -> None:
    """Says which sources are silent or never spoke, and what was too little to be counted."""
    for source in coverage.sources:
        if source.rhythm == RHYTHM_SILENT:
            since = local(source.last_recorded.ToDatetime(UTC), zone)
            console.print(f"[yellow]silent[/yellow] {source.source}: rien reçu depuis le {since}")
    never = [source.source for source in coverage.sources if not source.HasField("last_recorded")]
    if never:
        console.print(f"[yellow]never heard of[/yellow] {', '.join(never)} : aucune donnée reçue")
    if withheld is None:
        return
    if withheld.count:
        console.print(f"[yellow]withheld[/yellow] {withheld.count} faits en effectifs trop faibles pour être montrés")
    if withheld.kinds:
        console.print(f"[yellow]withheld[/yellow] trop rares pour être comptés : {', '.join(withheld.kinds)}")


def _instant(moment: Timestamp) -> str | None:
    return moment.ToDatetime(UTC).isoformat().replace("+00:00", "Z") if moment.seconds else None
