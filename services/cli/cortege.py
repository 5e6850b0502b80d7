"""`planier cortege`: what the Cortège application does, declaring and following its declarations."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from planier.common.v1.fact_pb2 import Fact
from planier.ingest.v1.events_pb2 import CancellationReason, ErasureReason
from planier.ingest.v1.ingest_pb2 import (
    OUTCOME_REFUSED,
    CancelFactRequest,
    DeclarationState,
    DeclareFactsRequest,
    Declarer,
    EraseFactRequest,
    FactKey,
    GetDeclarationRequest,
    Outcome,
    RefusalReason,
    StreamFactsRequest,
    StreamFactsResponse,
    Verdict,
)
from planier.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from rich.markup import escape
from rich.progress import Progress

from services.cli.app import JsonOption, app, perform
from services.cli.connection import DEADLINE, Receipts, channel
from services.cli.facts_file import read_facts
from services.cli.output import console, errors, print_json, print_receipt, print_record
from services.cli.profile import Profile
from services.cli.words import local, name_of, value_of
from services.kernel.errors import Problem

BATCH = 500
# A long file is one stream; its deadline is the longest that a person would wait.
STREAM_DEADLINE = 3600.0
# Some items of the file were refused; each has its verdict.
EXIT_REFUSED = 2
SHOWN_REFUSALS = 20

cortege = typer.Typer(no_args_is_help=True, help="Declare facts as a declaring system, and follow them.")
app.add_typer(cortege, name="cortege")

AgentOption = Annotated[str, typer.Option(help="Opaque reference of the agent, for the access record.")]
CertificateOption = Annotated[str, typer.Option(help="The declaring system's certificate: cortege or city-importer.")]


@cortege.command()
def send(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    mapping: Annotated[Path | None, typer.Option(help="How to read a GeoJSON file.")] = None,
    certificate: CertificateOption = "cortege",
    agent: AgentOption = "planier-cli",
    as_json: JsonOption = False,
) -> None:
    """Declare the facts of a file; exits with 2 when some were refused. Sending again is harmless."""
    perform(_send(file, mapping, certificate, agent, as_json=as_json), as_json=as_json)


@cortege.command()
def state(
    source: str,
    source_id: str,
    certificate: CertificateOption = "cortege",
    agent: AgentOption = "planier-cli",
    as_json: JsonOption = False,
) -> None:
    """Ask what became of one of your own declarations."""
    request = GetDeclarationRequest(
        declarer=Declarer(agent_reference=agent), key=FactKey(source=source, source_id=source_id)
    )
    perform(_state(request, certificate, as_json=as_json), as_json=as_json)


@cortege.command()
def cancel(
    source: str,
    source_id: str,
    revision: Annotated[int, typer.Option(min=1, max=2**32 - 1, help="The next revision of the fact.")],
    reason: Annotated[str, typer.Option(help="WITHDRAWN, PROHIBITED, WEATHER or MISTAKE.")] = "WITHDRAWN",
    certificate: CertificateOption = "cortege",
    agent: AgentOption = "planier-cli",
    as_json: JsonOption = False,
) -> None:
    """Cancel a declared fact; exits with 2 when that was refused."""
    request = CancelFactRequest(
        declarer=Declarer(agent_reference=agent),
        key=FactKey(source=source, source_id=source_id),
        revision=revision,
        reason=value_of(CancellationReason, reason, "--reason"),
    )
    perform(_change("CancelFact", request, certificate, as_json=as_json), as_json=as_json)


@cortege.command()
def erase(
    source: str,
    source_id: str,
    reason: Annotated[str, typer.Option(help="PERSONAL_DATA, RETENTION or LEGAL_ORDER.")],
    certificate: CertificateOption = "cortege",
    agent: AgentOption = "planier-cli",
    as_json: JsonOption = False,
) -> None:
    """Erase a fact everywhere, its past included; exits with 2 when that was refused."""
    request = EraseFactRequest(
        declarer=Declarer(agent_reference=agent),
        key=FactKey(source=source, source_id=source_id),
        reason=value_of(ErasureReason, reason, "--reason"),
    )
    perform(_change("EraseFact", request, certificate, as_json=as_json), as_json=as_json)


async def _state(request: GetDeclarationRequest, certificate: str, *, as_json: bool) -> None:
    profile = Profile.load()
    async with channel(profile, "ingest", certificate) as opened:
        answer = await IngestServiceStub(opened).GetDeclaration(request, timeout=DEADLINE)
    mark = Receipts(profile).keep(answer)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    parts = (
        ("fact", answer.fact_id),
        ("state", name_of(DeclarationState, answer.state)),
        ("revision", answer.revision),
        ("recorded", local(answer.recorded_at.ToDatetime(UTC), profile.zone)),
    )
    print_record(f"{request.key.source} {request.key.source_id}", parts)
    print_receipt(mark)


async def _change(
    method: str, request: CancelFactRequest | EraseFactRequest, certificate: str, *, as_json: bool
) -> None:
    profile = Profile.load()
    async with channel(profile, "ingest", certificate) as opened:
        answer = await getattr(IngestServiceStub(opened), method)(request, timeout=DEADLINE)
    mark = Receipts(profile).keep(answer)
    verdict: Verdict = answer.verdict
    refused = verdict.outcome == OUTCOME_REFUSED
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True))
    else:
        parts = (("outcome", name_of(Outcome, verdict.outcome)), ("fact", verdict.fact_id))
        print_record(f"{request.key.source} {request.key.source_id}", parts)
        _show([verdict] if refused else [])
        print_receipt(mark)
    if refused:
        raise SystemExit(EXIT_REFUSED)


async def _send(file: Path, mapping: Path | None, certificate: str, agent: str, *, as_json: bool) -> None:
    profile = Profile.load()
    outcomes: Counter[str] = Counter()
    refused: list[Verdict] = []
    with Progress(console=errors, transient=True, disable=as_json) as progress:
        task = progress.add_task(f"declaring {file.name}", total=None)
        async for verdict in declare(profile, read_facts(file, mapping), certificate, agent):
            outcomes[name_of(Outcome, verdict.outcome).lower()] += 1
            if verdict.outcome == OUTCOME_REFUSED:
                refused.append(verdict)
            progress.advance(task)
    if as_json:
        print_json(
            {**outcomes, "refusals": [MessageToDict(item, preserving_proto_field_name=True) for item in refused]}
        )
    else:
        console.print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()) or "nothing to declare")
        _show(refused)
    if refused:
        raise SystemExit(EXIT_REFUSED)


def _show(refused: list[Verdict]) -> None:
    for item in refused[:SHOWN_REFUSALS]:
        why = name_of(RefusalReason, item.reason)
        fields = "; ".join(f"{violation.field}: {violation.description}" for violation in item.violations)
        clause = f" ({item.clause})" if item.clause else ""
        console.print(f"  {escape(item.source_id)}: [red]{why}[/red]{clause} {escape(fields)}")
    if len(refused) > SHOWN_REFUSALS:
        console.print(f"  and {len(refused) - SHOWN_REFUSALS} more (--json lists all)")


async def declare(
    profile: Profile, facts: Iterable[Fact], certificate: str, agent: str, batch: int = BATCH
) -> AsyncIterator[Verdict]:
    """Declares facts in one stream of batches; every verdict, in order, each durable and with its receipt kept."""
    receipts = Receipts(profile)
    async with channel(profile, "ingest", certificate) as opened:
        unread: list[Exception] = []
        requests = _requests(_until_unreadable(facts, unread), agent, batch)
        call = IngestServiceStub(opened).StreamFacts(requests, timeout=STREAM_DEADLINE)
        answer: StreamFactsResponse
        async for answer in call:
            receipts.keep(answer)
            for verdict in answer.batch.verdicts:
                yield verdict
        if unread:
            raise unread[0]


def _until_unreadable(facts: Iterable[Fact], unread: list[Exception]) -> Iterator[Fact]:
    """The facts before what cannot be read, whose error is left for whoever waits: gRPC would say it was cancelled."""
    try:
        yield from facts
    except (Problem, OSError, ValueError) as error:
        unread.append(error)


async def _requests(facts: Iterable[Fact], agent: str, batch: int) -> AsyncIterator[StreamFactsRequest]:
    iterator: Iterator[Fact] = iter(facts)
    while items := list(itertools.islice(iterator, batch)):
        yield StreamFactsRequest(batch=DeclareFactsRequest(declarer=Declarer(agent_reference=agent), facts=items))
        # Lets answers in between batches that are made without waiting.
        await asyncio.sleep(0)
