"""`planier access`: what access decided, decided again."""

from collections import Counter
from collections.abc import Awaitable
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from planier.access.v1 import recheck_pb2 as pb
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.audit.v1.audit_pb2 import ReplayRequest
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub

from services.cli import session
from services.cli.app import AsOption, JsonOption, MotiveOption, app, perform
from services.cli.connection import Receipts, channel
from services.cli.output import console, errors, print_json, print_table
from services.cli.profile import Profile
from services.cli.words import name_of

access = typer.Typer(no_args_is_help=True, help="Decisions, made again.")
app.add_typer(access, name="access")

BATCH = 500
RECHECK_DEADLINE = 3600.0
# What nobody can explain: the log or the store is not the one that the decisions were made from.
WRONG = (
    pb.RECHECK_OUTCOME_DIFFERENT,
    pb.RECHECK_OUTCOME_STATE_UNKNOWN,
    pb.RECHECK_OUTCOME_POLICY_UNKNOWN,
    pb.RECHECK_OUTCOME_UNREADABLE,
)


@access.command()
def recheck(
    under: Annotated[str, typer.Option(help="current, a release such as 0.1.0, or the beginning of a hash.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="How many records; 0 is all.")] = 0,
    log: Annotated[str, typer.Option(help="Offline: a copy of the log's database, as an SQLAlchemy URL.")] = "",
    store: Annotated[str, typer.Option(help="Offline: a copy of access's database, as an SQLAlchemy URL.")] = "",
    motive: MotiveOption = "contrôle des décisions d'accès",
    person: AsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make every decision of the access log again; exits with 1 where one does not come out as recorded.

    With --under, says which decisions another version of the policy would have made otherwise.
    """
    if bool(log) != bool(store):
        raise typer.BadParameter("both --log and --store are needed offline, or neither")
    work = _offline(log, store, under, limit) if log else _online(under, limit, motive, person)
    perform(_report(work, under=under, as_json=as_json), as_json=as_json)


async def _online(under: str, limit: int, motive: str, person: str) -> list[pb.RecheckResult]:
    profile = Profile.load()
    signed_in = await session.current(profile, person)
    receipts = Receipts(profile)
    found: list[pb.RecheckResult] = []
    async with channel(profile, "audit") as audit, channel(profile, "access") as opened:
        replay = ReplayRequest(consultation=session.consultation("OVERSIGHT", motive), limit=limit)
        stub = AccessServiceStub(opened)
        records: list[bytes] = []
        masked = 0
        answers = AuditServiceStub(audit).Replay(replay, timeout=RECHECK_DEADLINE, metadata=signed_in.metadata)
        async for answer in answers:
            if answer.HasField("release"):
                receipts.keep(answer)
            masked += sum(entry.masked for entry in answer.entries)
            # Who stands behind a pseudonym decides nothing here: each party's auditor makes its own decisions again.
            records += [entry.record for entry in answer.entries if entry.HasField("record") and not entry.masked]
        for first in range(0, len(records), BATCH):
            request = pb.RecheckRequest(
                consultation=session.consultation("OVERSIGHT", motive),
                records=records[first : first + BATCH],
                under=under,
            )
            checked = await stub.Recheck(request, timeout=RECHECK_DEADLINE, metadata=signed_in.metadata)
            receipts.keep(checked)
            found += checked.results
    if (
        masked
    ):  # the other party's people stand there under pseudonyms: only a copy of the log can be rechecked for them
        errors.print(f"{masked} records are masked for this reader and were not rechecked", highlight=False)
    return found


async def _offline(log: str, store: str, under: str, limit: int) -> list[pb.RecheckResult]:
    from services.cli.recheck_copies import recheck_copies

    return recheck_copies(log, store, under, limit)


async def _report(work: Awaitable[list[pb.RecheckResult]], *, under: str, as_json: bool) -> None:
    found = await work
    shown = [one for one in found if (_otherwise(one) if under else one.outcome in WRONG)]
    outcomes = Counter(name_of(pb.RecheckOutcome, one.outcome) for one in found)
    if as_json:
        results = [MessageToDict(one, preserving_proto_field_name=True) for one in shown]
        print_json({"records": len(found), "outcomes": dict(outcomes), "shown": results})
    else:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        console.print(f"{len(found)} records: {counted}", highlight=False, soft_wrap=True)
        columns = ("record", "outcome", "recorded", "again", "clauses again")
        if shown:
            print_table(f"{len(shown)} otherwise", columns, map(_cells, shown), whole=("record",))
    if shown and not under:
        raise SystemExit(1)


def _otherwise(one: pb.RecheckResult) -> bool:
    """Whether another version of the policy decides otherwise."""
    decided = (pb.RECHECK_OUTCOME_SAME, pb.RECHECK_OUTCOME_DIFFERENT, pb.RECHECK_OUTCOME_OTHER_ENGINE)
    return one.outcome in decided and not one.agrees


def _cells(one: pb.RecheckResult) -> tuple[str, ...]:
    words = {True: "permitted", False: "refused"}
    outcome = name_of(pb.RecheckOutcome, one.outcome)
    return one.record_id, outcome, words[one.permit], words[one.permit_again], ", ".join(one.clauses_again)
