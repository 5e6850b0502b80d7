"""Access records as people and programs read them: rows, cells, CSV; names where the viewer may see them."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf.json_format import MessageToDict
from planier.audit.v1.audit_pb2 import Relation, ReplayEntry
from planier.audit.v1.record_pb2 import AccessRecord, RecordKind
from planier.common.v1.guard_pb2 import Operation
from planier.common.v1.release_pb2 import Purpose

from services.audit.entry import columns_of
from services.cli.words import local, name_of

COLUMNS = ("index", "when", "who", "what", "facts", "decision")
CSV_COLUMNS = (
    "index", "when", "kind", "who", "party", "organisation", "role", "method", "operation", "purpose", "motive",
    "sources", "count", "permitted", "clauses", "refusal", "record_id", "consultation_id", "masked", "relation",
)  # fmt: skip
# A cell that a spreadsheet would take for a formula (CWE-1236).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

# (issuer, subject) to a name.
Names = Mapping[tuple[str, str], str]


def rows(entries: Iterable[ReplayEntry], names: Names | None = None) -> Iterator[dict[str, Any]]:
    """One row an entry, for --json and for what is printed; an erased record has its index only."""
    for entry in entries:
        if not entry.HasField("record"):
            yield {"index": entry.index, "erased": True}
            continue
        record = AccessRecord.FromString(entry.record)
        columns, actor = columns_of(record), record.actor
        row = {
            "index": entry.index,
            "when": record.occurred_at.ToJsonString(),
            "kind": name_of(RecordKind, record.kind),
            "who": (names or {}).get((actor.issuer, actor.subject)) or columns.subject or record.peer,
            "method": record.rpc.rpartition("/")[2],
            "purpose": name_of(Purpose, record.purpose),
            "permitted": columns.permitted,
            "clauses": ", ".join(record.decision.clauses),
            "count": record.data.count,
            "masked": entry.masked,
            "record": MessageToDict(record, preserving_proto_field_name=True),
        }
        if entry.relation:
            row["relation"] = name_of(Relation, entry.relation)
        yield row


def cells(row: dict[str, Any], zone: ZoneInfo) -> tuple[object, ...]:
    """A record in six cells, for a person; the record itself is in --json."""
    if "erased" in row:
        return row["index"], "", "", "erased", "", ""
    when = local(datetime.fromisoformat(row["when"]), zone)
    # A login or a founding signature is decided by its handler, once the attempt is recorded: no decision to show.
    decided = row["record"].get("decision", {}).get("permit", False)
    verdict = "refused" if not row["permitted"] else "permitted" if decided else ""
    purpose = "" if row["purpose"] == "UNSPECIFIED" else row["purpose"]
    what = "\n".join(part for part in (row["kind"], row["method"], purpose, row.get("relation", "")) if part)
    decision = "\n".join(part for part in (verdict, row["clauses"]) if part)
    return row["index"], when, row["who"], what, row["count"], decision


def csv_line(values: Iterable[object]) -> str:
    """One line of CSV (RFC 4180), safe to open in a spreadsheet."""
    line = io.StringIO()
    csv.writer(line).writerow(_inert(value) for value in values)
    return line.getvalue()


def csv_values(row: dict[str, Any]) -> list[object]:
    """A row in the order of CSV_COLUMNS."""
    if "erased" in row:
        return [row["index"], "", "ERASED", *[""] * (len(CSV_COLUMNS) - 3)]
    record = row["record"]
    actor, data = record.get("actor", {}), record.get("data", {})
    found = {
        **row,
        **{name: actor.get(name, "") for name in ("party", "organisation", "role")},
        "operation": record.get("operation", "").removeprefix(Operation.keys()[0].removesuffix("UNSPECIFIED")),
        "motive": record.get("motive", ""),
        "sources": " ".join(data.get("sources", ())),
        "refusal": record.get("refusal_reason", ""),
        "record_id": record.get("record_id", ""),
        "consultation_id": record.get("consultation_id", ""),
    }
    return [found.get(name, "") for name in CSV_COLUMNS]


def _inert(value: object) -> object:
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else value
