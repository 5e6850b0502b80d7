"""The command line's entry: groups of commands, one module each."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from importlib import import_module
from typing import Annotated, Any

import grpc
import typer
from typer.exceptions import TyperException

from services.cli.output import fail
from services.kernel import traces
from services.kernel.errors import Problem, invalid

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Planier: shared public space, provable looks.")

# The modules that add commands, in the order that --help shows them.
COMMANDS = (
    *("status", "login", "map", "watch", "search", "agenda", "conflicts", "tension", "fact", "layer"),
    *("cortege", "convention", "clearance", "notice", "nominative_list", "engagement", "access", "audit", "demo"),
)
# What the groups with many commands take from elsewhere.
PARTS = (
    "acts",
    "review",
    "decision",
    "proofs",
    "audit_replay",
    "audit_proof",
    "audit_governance",
    "audit_report",
    "audit_export",
)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
PurposeOption = Annotated[str, typer.Option(help="Why, in the words of art6.purpose: SITUATION, CROSSING, TENSION.")]
AsOption = Annotated[str, typer.Option("--as", help="A local person who has signed in; the last one by default.")]
MotiveOption = Annotated[str, typer.Option(help="Why, in your own words; no personal data.")]


def perform(work: Coroutine[Any, Any, None], *, as_json: bool) -> None:
    """Runs a command's work; a refusal is said and exits with 1."""
    before = traces.current.set(_traceparent())
    try:
        asyncio.run(work)
    except Problem as problem:
        fail(problem, as_json=as_json)
    except grpc.aio.AioRpcError as lost:
        fail(Problem(lost.code(), "UNREACHABLE", "the service cannot be reached"), as_json=as_json)
    finally:
        traces.current.reset(before)


def _traceparent() -> str:
    """The trace that this command is part of (TRACEPARENT, as in a script's environment), else one of its own.

    Its own is recorded wherever the services record any: a person's command is rare and worth following.
    """
    given = os.environ.get("TRACEPARENT", "")
    return given if traces.is_valid(given) else traces.fresh(sampled=True)


def main() -> None:
    """The console script: exits with 1 where the system refuses, with 2 where the command is not understood."""
    for command in (*COMMANDS, *PARTS):
        import_module(f"services.cli.{command}")
    as_json = "--json" in sys.argv
    try:
        # Otherwise typer itself says what it did not understand, for people.
        sys.exit(app(standalone_mode=not as_json))
    except Problem as problem:
        fail(problem, as_json=as_json)
    except TyperException as misuse:
        fail(invalid("USAGE", misuse.format_message()), as_json=True, status=misuse.exit_code)
    except typer.Abort:
        sys.exit(1)
