"""What somebody new does wrong: one line that says what, no trace, and nothing else disturbed."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.stack.layout import PORTS, ROOT
from tests.fixtures.stack import Stack, free_ports

pytestmark = pytest.mark.e2e


def started(home: Path, port_base: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "services", "--no-demo", "--home", str(home), "--port-base", str(port_base)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def refused(home: Path, port_base: int) -> str:
    output, _ = (child := started(home, port_base)).communicate(timeout=60)
    assert child.returncode == 1, output
    (line,) = output.splitlines()
    return line


def test_a_second_start_is_refused_and_leaves_the_first_alone(stack: Stack) -> None:
    assert "runs already" in refused(stack.home, free_ports(len(PORTS)))
    status = stack.planier("status", "--json")
    assert (status.status, status.content["ready"]) == (0, True)


def test_a_taken_port_and_a_folder_that_cannot_be_written_are_named(folder: Path) -> None:
    base = free_ports(len(PORTS))
    with socket.create_server(("127.0.0.1", base + PORTS.index("audit"))):
        assert f"port {base + PORTS.index('audit')}, for audit" in refused(folder / "var", base)
    (folder / "file").write_text("")
    assert str(folder / "file") in refused(folder / "file" / "var", base)


def test_ctrl_c_in_the_middle_of_the_start_stops_what_had_started(folder: Path) -> None:
    child = started(folder / "var", free_ports(len(PORTS)))
    assert child.stdout is not None
    assert child.stdout.readline().startswith("broker serves")
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0, output
    assert "ready" not in output
    assert "access serves" not in output
    assert not (folder / "var" / "ready").exists()


def test_what_cannot_be_read_is_said(stack: Stack, folder: Path) -> None:
    (folder / "no-facts.jsonl").write_text("# Planier\n")
    (stack.home / "client" / "session-torn.json").write_text("{")
    for arguments, reason in (
        (("cortege", "send", str(folder / "no-facts.jsonl")), "FILE_UNREADABLE"),
        (("map", "--as", "torn"), "NOT_SIGNED_IN"),
        (("demo", "--out", os.devnull), "FILE_UNUSABLE"),
    ):
        outcome = stack.planier(*arguments, "--json")
        assert (outcome.status, outcome.content["error"]["reason"]) == (1, reason), outcome.errors
        assert "Traceback" not in outcome.errors
    misused: tuple[tuple[tuple[str, ...], str], ...] = (
        (("map", "--limit", "-3"), "--limit"),
        (("map", "--from", "0001-01-01"), "--from"),
        (("audit", "verify", "--database", "no url"), "--database"),
        (("audit", "fold", f"sqlite:///{folder}/none.db"), "database"),
    )
    for words, option in misused:
        outcome = stack.planier(*words)
        assert outcome.status == 2, outcome.errors
        assert option in outcome.errors
        assert "Traceback" not in outcome.errors
