"""The command line's entry: groups of commands, one module each."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import grpc
import typer
from typer.exceptions import TyperException

from services.cli.output import fail
from services.kernel import traces
from services.kernel.errors import Problem, invalid, precondition

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

_AUDIT = ("replay", "proof", "governance", "report", "export")
# The modules that add each command or group. Only those of the one that is asked for are imported: all of them, with
# the libraries behind them, take a second.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("status", "login", "map", "watch", "search", "agenda", "conflicts", "tension")},
    **{name: (name,) for name in ("fact", "layer", "cortege", "demo")},
    "conflict": ("conflicts",),
    "convention": ("convention", "acts"),
    "clearance": ("clearance", "review", "decision"),
    "notice": ("notice",),
    "list": ("nominative_list",),
    "engagement": ("engagement",),
    "access": ("access",),
    "audit": ("audit", "proofs", *(f"audit_{part}" for part in _AUDIT)),
}

# Set, an error that nobody foresaw is shown with its trace: for whoever mends it.
TRACEBACK_VARIABLE = "PLANIER_TRACEBACK"

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
PurposeOption = Annotated[str, typer.Option(help="Why, in the words of art6.purpose: SITUATION, CROSSING, TENSION.")]
AsOption = Annotated[str, typer.Option("--as", help="A local person who has signed in; the last one by default.")]
MotiveOption = Annotated[str, typer.Option(help="Why, in your own words; no personal data.")]


@app.callback()
def planier() -> None:
    """Planier: shared public space, provable looks."""


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


def load(arguments: Sequence[str]) -> None:
    """Imports what adds the command that the arguments begin with; everything for help, or for a word unknown."""
    asked = next((word for word in arguments if not word.startswith("-")), "")
    every = (module for modules in COMMANDS.values() for module in modules)
    for module in COMMANDS.get(asked, every):
        import_module(f"services.cli.{module}")


def main() -> None:
    """The console script: exits with 1 where the system refuses, with 2 where the command is not understood."""
    load(sys.argv[1:])
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
    except OSError as error:
        fail(precondition("FILE_UNUSABLE", _said(error)), as_json=as_json)
    except Exception as fault:
        if TRACEBACK_VARIABLE in os.environ:
            raise
        kind = type(fault).__name__
        message = f"something that was not foreseen ({kind}); {TRACEBACK_VARIABLE}=1 shows where"
        fail(Problem(grpc.StatusCode.INTERNAL, "UNFORESEEN", message), as_json=as_json)


def _said(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or type(error).__name__)
