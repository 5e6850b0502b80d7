"""The list and the recheck as officials drive them, on a running installation whose bus is held still meanwhile."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from services.stack.layout import ROOT
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e

ENTRY = yaml.safe_load((ROOT / "deploy" / "local" / "list.yaml").read_text())[0]["entry_id"]
LOOK = ("map", "--as", "prefecture-officer", "--motive", "prise de service", "--json")


@contextmanager
def bus_held_still(stack: Stack) -> Iterator[None]:
    """The broker of this installation answers nobody, as behind a partition."""
    supervisor = int((stack.home / "supervisor").read_text())
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    (broker,) = [int(pid) for pid in children if b"nats-server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(broker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker, signal.SIGCONT)


def done(stack: Stack, *arguments: str) -> None:
    outcome = stack.planier(*arguments)
    assert outcome.status == 0, outcome.errors + outcome.output


def test_a_suspension_counts_at_once_though_no_message_travels(stack: Stack) -> None:
    done(stack, *LOOK)
    with stack.watching("--as", "prefecture-officer") as child, bus_held_still(stack):
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["release"]["receipt"]["record_id"]
        done(stack, "list", "suspend", ENTRY, "--reason", "en attente", "--as", "dga")
        refused = stack.planier(*LOOK)
        assert (refused.status, refused.content["error"]["clause"]) == (1, "art7.validation")
        # An open stream is closed by its re-check, which asks access and waits for no message either.
        rest = child.stdout.read()
        assert child.wait() == 1
        assert json.loads(rest[rest.index("{\n") :])["error"]["clause"] == "art7.validation"
        done(stack, "list", "resume", ENTRY, "--as", "dga")
    done(stack, *LOOK)


def test_the_list_changes_by_two_validators_and_city_staff_is_refused(stack: Stack) -> None:
    submitted = stack.planier("list", "propose", "--expires", "2027-06-01", "--as", "validator", "--json")
    assert submitted.status == 0, submitted.errors + submitted.output
    validate = ("list", "validate", submitted.content["proposal_id"], "--letter", "deploy/local/list-letter.txt")
    for who, clause in (("validator", "art7.validation"), ("dga", "art7.list")):
        refused = stack.planier(*validate, "--as", who, "--json")
        assert (refused.status, refused.content["error"]["clause"]) == (1, clause)
    done(stack, *validate, "--as", "second-validator")
    done(stack, *LOOK)


def test_every_decision_of_the_running_installation_comes_out_again(stack: Stack) -> None:
    done(stack, "login", "--as", "auditor")
    online = stack.planier("access", "recheck", "--as", "auditor", "--json")
    assert (online.status, online.content["shown"]) == (0, [])
    assert online.content["outcomes"]["SAME"] > 0
    databases = [
        f"--{name}=sqlite:///{stack.home / part / part}.db" for name, part in (("log", "audit"), ("store", "access"))
    ]
    offline = stack.planier("access", "recheck", *databases, "--json")
    assert (offline.status, offline.content["shown"]) == (0, [])
    assert offline.content["outcomes"]["SAME"] >= online.content["outcomes"]["SAME"]
    older = stack.planier("access", "recheck", *databases, "--under", "0.1.0", "--json")
    assert older.status == 0
    assert older.content["shown"], "0.1.0 knew no list: its policy would have refused its RPCs"
