"""The command line's entry: groups of commands, one module each."""

import asyncio
import os
from collections.abc import Coroutine
from importlib import import_module
from typing import Annotated, Any

import grpc
import typer

from services.cli.output import errors, fail
from services.cli.profile import NoInstallation
from services.kernel import traces
from services.kernel.errors import Problem

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Planier: shared public space, provable looks.")

# The modules that add commands, in the order that --help shows them.
COMMANDS = ("status", "login", "queries", "cortege", "convention", "clearance", "audit", "demo")

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
PurposeOption = Annotated[str, typer.Option(help="Why, in the words of art6.purpose: SITUATION, CROSSING, TENSION.")]
MotiveOption = Annotated[str, typer.Option(help="Why, in your own words; no personal data.")]


def perform(work: Coroutine[Any, Any, None], *, as_json: bool) -> None:
    """Runs a command's work; a refusal is said and exits with 1."""
    traces.current.set(_traceparent())
    try:
        asyncio.run(work)
    except Problem as problem:
        fail(problem, as_json=as_json)
    except NoInstallation as missing:
        errors.print(f"[red]{missing}[/red]")
        raise SystemExit(1) from None
    except grpc.aio.AioRpcError as lost:
        fail(Problem(lost.code(), "UNREACHABLE", "the service cannot be reached"), as_json=as_json)


def _traceparent() -> str:
    """The trace that this command is part of (TRACEPARENT, as in a script's environment), else one of its own.

    Its own is recorded wherever the services record any: a person's command is rare and worth following.
    """
    given = os.environ.get("TRACEPARENT", "")
    return given if traces.is_valid(given) else traces.fresh(sampled=True)


def main() -> None:
    """The console script."""
    for command in COMMANDS:
        import_module(f"services.cli.{command}")
    app()
