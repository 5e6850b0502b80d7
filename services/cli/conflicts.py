"""`planier conflicts`: what collides, in the system or in a file; `planier conflict`: what a person does about one."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from google.protobuf.json_format import MessageToDict
from planier.analytics.v1 import conflicts_pb2 as pb
from planier.analytics.v1.analytics_pb2 import QueryConflictsRequest
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.common.v1.fact_pb2 import Fact, Measure, MeasureKind

from services.analytics.conflicts.rules import Rules, RulesError
from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.coverage import coverage_rows, print_unknown
from services.cli.facts_file import read_facts
from services.cli.map import AREA, box_of
from services.cli.output import console, print_json, print_mark, print_receipt, print_record, print_table
from services.cli.profile import Profile
from services.cli.words import instant, local, name_of, value_of
from services.kernel.territory import Territory
from services.stack.layout import ROOT

SHOWN = 200
SHOWN_WINDOWS = 3
DEFAULT_TERRITORY = ROOT / "deploy" / "territory" / "marseille.json"
_UNITS = {"DURATION": " h", "DISTANCE": " m", "SURFACE": " m²", "ATTENDANCE": " personnes", "WINDOWS": " créneaux"}

conflict = typer.Typer(no_args_is_help=True, help="Act on a conflict: acknowledge it, or say what resolves it.")
app.add_typer(conflict, name="conflict")

SeenOption = Annotated[str, typer.Option("--seen", help="The conflict's fingerprint, as `planier conflicts` shows it.")]


@app.command()
def conflicts(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="Facts, instead of a system.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="How to read a GeoJSON file.")] = None,
    rules_file: Annotated[Path | None, typer.Option("--rules", help="With FILE: other rules than ours.")] = None,
    territory: Annotated[Path | None, typer.Option(help="With FILE: whose projection and time zone to use.")] = None,
    area: Annotated[str, typer.Option(help=f"{AREA}; everywhere by default.")] = "",
    start: Annotated[str, typer.Option("--from", help="ISO 8601; now by default, with FILE the beginning.")] = "",
    end: Annotated[str, typer.Option("--to", help="ISO 8601; 30 days after the start by default.")] = "",
    rule: Annotated[list[str] | None, typer.Option(help="Only these rules, such as route-works.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only these states, such as REOPENED.")] = None,
    as_of: Annotated[str, typer.Option(help="What was known at that instant.")] = "",
    motive: MotiveOption = "croisement",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show which facts do not go together, where, when and what answers it; under the purpose of crossing."""
    if file is not None:
        perform(_among(file, mapping, _rules_of(rules_file), territory, rule or (), as_json=as_json), as_json=as_json)
        return
    profile = Profile.load()
    zone = profile.zone
    request = QueryConflictsRequest(
        consultation=session.consultation("CROSSING", motive),
        rules=rule or (),
        states=[value_of(pb.ConflictState, name, "--state") for name in state or ()],
    )
    if area:
        request.box.CopyFrom(box_of(area))
    begin = instant(start, zone, "--from") if start else datetime.now(UTC)
    request.period.start.FromDatetime(begin)
    request.period.end.FromDatetime(instant(end, zone, "--to") if end else begin + timedelta(days=30))
    if as_of:
        request.as_of.FromDatetime(instant(as_of, zone, "--as-of"))
    perform(_query(profile, request, person, as_json=as_json), as_json=as_json)


@conflict.command()
def acknowledge(
    conflict_id: str,
    seen: SeenOption,
    motive: MotiveOption = "croisement",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say that you have seen a conflict and take it on."""
    request = pb.AcknowledgeConflictRequest(
        consultation=session.consultation("CROSSING", motive), conflict_id=conflict_id, fingerprint=seen
    )
    perform(_act("AcknowledgeConflict", request, person, as_json=as_json), as_json=as_json)


@conflict.command()
def resolve(
    conflict_id: str,
    seen: SeenOption,
    measure: Annotated[str, typer.Option(help="The kind of measure, such as ROUTE_CHANGE.")],
    reference: Annotated[str, typer.Option(help="The act's number.")],
    motive: MotiveOption = "croisement",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say which measure resolves a conflict, by reference to the act that took it."""
    request = pb.ResolveConflictRequest(
        consultation=session.consultation("CROSSING", motive),
        conflict_id=conflict_id,
        fingerprint=seen,
        measure=Measure(kind=value_of(MeasureKind, measure, "--measure"), reference=reference),
    )
    perform(_act("ResolveConflict", request, person, as_json=as_json), as_json=as_json)


async def _query(profile: Profile, request: QueryConflictsRequest, person: str, *, as_json: bool) -> None:
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = AnalyticsServiceStub(opened).QueryConflicts(request, timeout=DEADLINE, metadata=signed_in.metadata)
        answer = await call
    mark = Receipts(profile).keep(answer)
    if as_json:
        found = [as_dict(one) for one in answer.conflicts]
        content = {"total": answer.total, "rules_version": answer.rules_version, "conflicts": found}
        print_json({**content, "coverage": coverage_rows(answer.coverage), "release": mark})
        return
    _show(answer.conflicts, answer.total, profile.zone)
    print_unknown(answer.coverage, None, profile.zone)
    print_mark(mark)


async def _act(
    method: str,
    request: pb.AcknowledgeConflictRequest | pb.ResolveConflictRequest,
    person: str,
    *,
    as_json: bool,
) -> None:
    profile = Profile.load()
    signed_in = await session.current(profile, person)
    async with channel(profile, "analytics") as opened:
        call = getattr(AnalyticsServiceStub(opened), method)
        answer = await call(request, timeout=DEADLINE, metadata=signed_in.metadata)
    mark = Receipts(profile).keep(answer)
    state = name_of(pb.ConflictState, answer.state)
    if as_json:
        print_json({"conflict": request.conflict_id, "state": state, "release": mark})
        return
    print_record(request.conflict_id, (("state", state),))
    print_receipt(mark)


async def _among(
    file: Path,
    mapping: Path | None,
    rules: Rules,
    territory_file: Path | None,
    asked: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """The conflicts among the facts of a file; nothing leaves this machine, nothing is recorded."""
    from services.analytics.conflicts.among import conflicts_among
    from services.analytics.conflicts.subjects import Metres

    territory = Territory.load(territory_file or DEFAULT_TERRITORY)
    facts, left_out = [], 0
    for fact in read_facts(file, mapping):
        if fact.HasField("geometry") and fact.geometry.WhichOneof("shape") and fact.periods:
            facts.append((_key(fact), fact))
        else:
            left_out += 1
    found = [one for one in conflicts_among(facts, rules, Metres(territory.epsg)) if not asked or one.rule_id in asked]
    if as_json:
        content = {"facts": len(facts), "left_out": left_out, "total": len(found), "rules_version": rules.version}
        print_json({**content, "conflicts": [as_dict(one) for one in found]})
        return
    _show(found, len(found), ZoneInfo(territory.time_zone))
    console.print(f"[dim]{len(facts)} facts; {left_out} without place or time left out[/dim]")


def _rules_of(file: Path | None) -> Rules:
    try:
        return Rules.parse(file.read_bytes()) if file else Rules.load()
    except RulesError as error:
        raise typer.BadParameter(str(error), param_hint="--rules") from None


def as_dict(one: pb.Conflict) -> dict[str, Any]:
    """A conflict as JSON, in the contract's own words."""
    return MessageToDict(one, preserving_proto_field_name=True)


def _key(fact: Fact) -> bytes:
    return hashlib.sha256(f"{fact.source}\n{fact.source_id}".encode()).digest()[:16]


def _show(found: Sequence[pb.Conflict], total: int, zone: ZoneInfo) -> None:
    rows = (
        ("\n".join(_when(one, zone)), "\n".join(_what(one)), f"{one.conflict_id}\n{one.fingerprint}")
        for one in found[:SHOWN]
    )
    print_table(f"{total} conflicts", ("when", "what", "conflict, as seen"), rows, whole=("when", "conflict, as seen"))
    if total > len(found[:SHOWN]):
        console.print(f"  and {total - len(found[:SHOWN])} more (--json lists them)")


def _when(one: pb.Conflict, zone: ZoneInfo) -> Iterator[str]:
    for window in one.windows[:SHOWN_WINDOWS]:
        yield local(window.start.ToDatetime(UTC), zone)
        yield f"  → {local(window.end.ToDatetime(UTC), zone)}"
    if len(one.windows) > SHOWN_WINDOWS:
        yield f"  and {len(one.windows) - SHOWN_WINDOWS} more"


def _what(one: pb.Conflict) -> Iterator[str]:
    yield f"{one.label} ({name_of(pb.ConflictState, one.state)})"
    for fact in one.facts:
        yield f"  {fact.title or fact.kind} [{fact.source}]"
    yield "  " + ", ".join(_factor(factor) for factor in one.factors if not _plain(factor))
    if one.measures_present:
        present = (f"{name_of(MeasureKind, measure.kind)} {measure.reference}" for measure in one.measures_present)
        yield f"  measures: {', '.join(present)}"
    elif one.measures_missing:
        missing = ", ".join(name_of(MeasureKind, kind) for kind in one.measures_missing)
        yield f"  no measure; any of {missing} answers it"


def _plain(factor: pb.SeverityFactor) -> bool:
    """Whether a factor says nothing that the line does not say already: one window."""
    return factor.kind == pb.SEVERITY_FACTOR_KIND_WINDOWS and factor.value == 1


def _factor(factor: pb.SeverityFactor) -> str:
    if factor.kind == pb.SEVERITY_FACTOR_KIND_ATTRIBUTE:
        return f"{factor.attribute} {factor.choice}"
    return f"{factor.value:g}{_UNITS[name_of(pb.SeverityFactorKind, factor.kind)]}"
