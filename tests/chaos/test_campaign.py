"""The campaign in short: each process is killed once, JetStream's storage with the broker."""

import subprocess
import sys

import pytest

from services.stack.layout import ROOT
from tests.chaos.blows import PROCESSES, blows

PATIENCE = 170


@pytest.mark.chaos
@pytest.mark.timeout(PATIENCE + 30)
def test_nothing_is_lost_double_or_unrecorded_when_every_process_is_killed() -> None:
    """In a process of its own, so that what it starts is stopped whatever becomes of it."""
    command = [sys.executable, "-m", "tests.chaos.campaign", "--facts", "3000", "--rounds", "1", "--down", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            output, _ = child.communicate(timeout=PATIENCE)
        finally:
            # Ends by itself then, and stops its own processes.
            child.terminate()
    assert child.returncode == 0, output
    assert "FAULT" not in output


def test_the_order_of_the_blows_depends_on_the_seed_alone() -> None:
    assert blows(3, 2, 6.0) == blows(3, 2, 6.0) != blows(4, 2, 6.0)


@pytest.mark.parametrize("seed", range(5))
def test_every_process_is_killed_each_round_and_the_storage_deleted(seed: int) -> None:
    planned = blows(seed, 2, 6.0)
    struck = [name for blow in planned for name in blow.processes]
    assert {name: struck.count(name) for name in PROCESSES} == dict.fromkeys(PROCESSES, 3)
    assert [blow.victim for blow in planned if blow.wipes] == ["broker and its storage", "all at once"]
