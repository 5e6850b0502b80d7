"""What a command of the command line imports before it does anything."""

import subprocess
import sys
from collections.abc import Iterator

import typer

from services.cli.app import COMMANDS, app, load

# Each takes 60 ms to 350 ms, and only some commands need it.
HEAVY = {"sqlalchemy", "numpy", "shapely", "pyproj", "pydantic", "opentelemetry.sdk", "reportlab", "httpx", "uvicorn"}


def functions(group: typer.Typer) -> Iterator[str]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield command.callback.__module__.rpartition(".")[2]
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from functions(inner.typer_instance)


def test_each_command_is_found_where_the_table_says() -> None:
    load([])
    found: dict[str, set[str]] = {}
    for command in app.registered_commands:
        assert command.callback is not None
        found[command.name or command.callback.__name__] = {command.callback.__module__.rpartition(".")[2]}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found[str(group.name)] = set(functions(group.typer_instance))
    assert found == {name: set(modules) for name, modules in COMMANDS.items()}


def test_no_command_waits_for_the_libraries_of_another() -> None:
    words = "import sys; from services.cli.app import load; load([]); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True, timeout=60)
    assert HEAVY.isdisjoint(loaded.stdout.split())
    only = words.replace("load([])", "load(['--', 'map'])")
    loaded = subprocess.run([sys.executable, "-c", only], capture_output=True, text=True, check=True, timeout=60)
    assert "services.cli.audit" not in loaded.stdout.split()
