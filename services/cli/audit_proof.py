"""`planier audit prove-served` and `holes`: what a receiver can prove, and what the log says it never got."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from planier.audit.v1.audit_pb2 import GetInclusionProofRequest
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from planier.audit.v1.oversight_pb2 import GetIntegrityRequest
from planier.audit.v1.oversight_pb2_grpc import OversightServiceStub
from planier.common.v1.release_pb2 import Receipt
from rich.markup import escape

from services.audit import merkle
from services.cli.app import JsonOption, perform
from services.cli.audit import audit
from services.cli.audit_calls import Head, newest_head
from services.cli.connection import DEADLINE, channel
from services.cli.output import console, print_json
from services.cli.profile import Profile
from services.kernel.errors import Problem
from services.kernel.guard.receipts import ReceiptError, key_id_of, verify_receipt

AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one receipt; `fault` is empty where the log holds the access at the index that it stated."""

    record_id: str
    index: int
    fault: str = ""


@audit.command("prove-served")
def prove_served(
    receipts: Annotated[Path | None, typer.Option(help="A file of receipts; those that this client kept.")] = None,
    newest: Annotated[int, typer.Option(min=0, help="Only so many of the newest; 0 is all.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Check each receipt that was kept against the log: that every answer served here is in it. Needs no session."""
    perform(_prove_served(receipts, newest, as_json=as_json), as_json=as_json)


@audit.command()
def holes(as_json: JsonOption = False) -> None:
    """Show numbers that a service used and no record bears, and parts of the log that are altered."""
    perform(_holes(as_json=as_json), as_json=as_json)


async def _prove_served(path: Path | None, newest: int, *, as_json: bool) -> None:
    profile = Profile.load()
    lines = list(_lines(path or profile.client_folder / "receipts.jsonl"))[-newest:]
    newest_of_log = await newest_head(profile)
    head = newest_of_log.checkpoint
    findings: list[Finding] = []
    async with channel(profile, "audit") as opened:
        stub = AuditServiceStub(opened)
        for first in range(0, len(lines), AT_ONCE):
            proved = (_proved(stub, line, newest_of_log) for line in lines[first : first + AT_ONCE])
            findings += await asyncio.gather(*proved)
    wrong = [finding for finding in findings if finding.fault]
    if as_json:
        faults = [{"record_id": one.record_id, "index": one.index, "fault": one.fault} for one in wrong]
        print_json({"tree_size": head.size, "proved": len(findings) - len(wrong), "faults": faults})
    else:
        word = "[green]proved[/green]" if not wrong else "[red]NOT PROVED[/red]"
        console.print(f"{word}: {len(findings) - len(wrong)} of {len(findings)} receipts are in the log of {head.size}")
        for one in wrong:
            console.print(f"  {escape(one.record_id)} at index {one.index}: [red]{one.fault}[/red]")
    if wrong:
        raise SystemExit(1)


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text()
    except OSError as error:
        raise typer.BadParameter(str(error.strerror), param_hint="--receipts") from None
    # The same access may have been kept twice; each receipt is proved once.
    yield from dict.fromkeys(line for line in text.splitlines() if line.strip())


async def _proved(stub: AuditServiceStub, line: str, newest: Head) -> Finding:
    """RECEIPT_MALFORMED, RECEIPT_INVALID, NOT_IN_LOG, PROOF_INVALID, or the log's own reason why it has no proof."""
    try:
        receipt = ParseDict(json.loads(line), Receipt())
    except (ValueError, ParseError):
        return Finding("", 0, "RECEIPT_MALFORMED")
    fault = ""
    try:
        head = newest.checkpoint
        verify_receipt(receipt, _key_of(receipt, newest))
        if receipt.index >= head.size:
            fault = "NOT_IN_LOG"
        else:
            request = GetInclusionProofRequest(index=receipt.index, tree_size=head.size)
            proof = (await stub.GetInclusionProof(request, timeout=DEADLINE)).hashes
            held = merkle.verify_inclusion(receipt.index, head.size, receipt.leaf_hash, proof, head.root)
            fault = "" if held else "PROOF_INVALID"
    except ReceiptError:
        fault = "RECEIPT_INVALID"
    except Problem as problem:
        if problem.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
        fault = problem.reason
    return Finding(receipt.record_id, receipt.index, fault)


def _key_of(receipt: Receipt, newest: Head) -> Ed25519PublicKey:
    """The key of the log that the receipt names, one that is no longer in use too; else the newest, which it is not."""
    keys = [verifier.key for verifier in newest.keys.verifiers]
    return next((key for key in keys if key_id_of(key) == receipt.key_id), keys[-1])


async def _holes(*, as_json: bool) -> None:
    async with channel(Profile.load(), "audit") as opened:
        answer = await OversightServiceStub(opened).GetIntegrity(GetIntegrityRequest(), timeout=DEADLINE)
    if as_json:
        print_json(MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    else:
        _show(answer)
    if answer.holes or answer.corrupt:
        raise SystemExit(1)


def _show(answer: Any) -> None:
    console.print(f"self-check: {answer.rounds} rounds, now at index {answer.checked_until}")
    for part in answer.corrupt:
        console.print(f"  [red]{part.fault}[/red] in [{part.first_index}, {part.end_index}): this part is not read")
    for hole, first in zip(answer.holes, answer.first_missing, strict=True):
        console.print(
            f"  [yellow]{escape(hole.instance)}[/yellow]: {hole.missing} numbers in no record, from {first} on"
        )
    if not answer.holes and not answer.corrupt:
        console.print("  [green]nothing altered, no number missing[/green]")
