"""A watch over the running system: changes as they are declared, resumed after a cursor."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_path import march, write
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e


def message(child: "subprocess.Popen[str]") -> Any:
    assert child.stdout is not None
    return json.loads(child.stdout.readline())


def told(child: "subprocess.Popen[str]") -> Any:
    """The next message that holds a change."""
    while not (found := message(child)).get("changes"):
        assert "error" not in found, found
    return found


def test_a_watch_tells_each_change_once_and_goes_on_after_its_cursor(stack: Stack, folder: Path) -> None:
    stack.planier("login", "--as", "duty-officer")
    with stack.watching("--source", "demonstrations", "--as", "duty-officer") as child:
        begun = message(child)
        assert begun["release"]["receipt"]["record_id"]
        stack.planier("cortege", "send", write(folder / "one.jsonl", march("WATCH-1")), "--json")
        first = told(child)
    assert [change["version"]["fact"]["source_id"] for change in first["changes"]] == ["WATCH-1"]
    stack.planier("cortege", "send", write(folder / "two.jsonl", march("WATCH-2"), march("WATCH-3")), "--json")
    for after, seen in ((first["cursor"], {"WATCH-2", "WATCH-3"}), (begun["cursor"], {"WATCH-1", "WATCH-2"})):
        arguments = ("--source", "demonstrations", "--as", "duty-officer", "--after", after, "--most", "2")
        outcome = stack.planier("watch", *arguments, "--seconds", "60", "--json")
        lines = [json.loads(line) for line in outcome.output.splitlines()]
        changes = [change["version"]["fact"]["source_id"] for line in lines for change in line["changes"]]
        assert seen <= set(changes), outcome.output + outcome.errors
        assert len(changes) == len(set(changes))
    # Far behind the head, only ingest can tell that this digest was never its own.
    store, position, digest = first["cursor"].split(":")
    forged = f"{store}:{position}:{'0' * len(digest)}"
    refused = stack.planier("watch", "--as", "duty-officer", "--after", forged, "--seconds", "20", "--json")
    assert (refused.status, refused.content["error"]["reason"]) == (1, "CURSOR_DIVERGED")
