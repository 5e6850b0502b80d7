"""The README's tour, run as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e
README = Path(__file__).resolve().parents[2] / "README.md"
COMMAND = re.compile(r"^\$ (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_command_of_the_readme_does_what_it_says(stack: Stack) -> None:
    commands = [line for block in BLOCK.findall(README.read_text()) for line in COMMAND.findall(block)]
    assert len(commands) >= 8
    for command in commands:
        program, *arguments = shlex.split(command.removeprefix("! "))
        assert program == "planier", command
        outcome = stack.planier(*arguments)
        assert (outcome.status != 0) == command.startswith("! "), f"{command}\n{outcome.output}{outcome.errors}"
        assert outcome.output or outcome.errors
