"""A service that cannot start says why in one readable line, and ends with a status that a supervisor understands."""

import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from services.audit.log import AccessLog
from services.kernel.config import EXIT_CONFIGURATION
from services.kernel.keys import read_private_key
from services.stack import plan
from services.stack.certificates import issue
from services.stack.keys import create_keys
from services.stack.layout import ROOT, SERVICES, Layout
from tests.fixtures.audit import batch
from tests.fixtures.stack import free_ports

pytestmark = pytest.mark.e2e


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "var", free_ports(6), ROOT / "deploy" / "territory" / "marseille.json")
    found.home.mkdir()
    issue(found.pki, SERVICES)
    create_keys(found.keys)
    found.write_profile()
    return found


def start(layout: Layout, service: str, changed: Mapping[str, str]) -> tuple[int, list[str]]:
    """The exit status, and the lines that are not of the log."""
    process = plan.service(layout, service, changed)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PLANIER_")}
    done = subprocess.run(
        process.command,
        env={**clean, **process.environment},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("{")]


def foreign_key(layout: Layout) -> str:
    """A PEM file that holds a key of another kind."""
    return str(layout.pki / "audit.key")


def rubbish(layout: Layout) -> str:
    path = layout.home / "rubbish.pem"
    path.write_text("nothing")
    return str(path)


def half_a_pair(layout: Layout) -> str:
    return str(layout.pki / "ingest.key")


WRONG: dict[str, tuple[str, str, Callable[[Layout], str], str]] = {
    "another kind of key": ("audit", "LOG_KEY_FILE", foreign_key, "audit.key holds no Ed25519"),
    "no key at all": ("access", "TOKEN_KEY_FILE", rubbish, "rubbish.pem"),
    "no such setting's file": ("access", "ANNEX_FILE", lambda _: "/nowhere/annex.json", "PLANIER_ANNEX_FILE"),
    "a key of another certificate": ("analytics", "KEY_FILE", half_a_pair, "private key does not belong"),
    "no annex": ("ingest", "ANNEX_FILE", rubbish, "annex 1 is not JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_named_and_final(layout: Layout, case: str) -> None:
    service, setting, value, words = WRONG[case]
    status, lines = start(layout, service, {setting: value(layout)})
    assert status == EXIT_CONFIGURATION, lines
    assert words in " ".join(lines)
    assert lines[0].startswith("cannot")
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("service", SERVICES)
def test_a_database_that_is_none_is_named_and_not_quoted(layout: Layout, service: str) -> None:
    path = layout.home / "secret-name.db"
    path.write_bytes(b"no database" * 1000)
    status, lines = start(layout, service, {"DATABASE_URL": f"sqlite:///{path}"})
    assert status == 1
    assert len(lines) == 1
    assert "DatabaseError" in lines[0]


def test_an_address_that_is_taken_is_named(layout: Layout) -> None:
    with socket.create_server(("127.0.0.1", layout.port("audit"))):
        status, lines = start(layout, "audit", {})
    assert status == 1
    assert layout.address("audit") in lines[-1]


def test_a_log_that_was_tampered_with_is_not_served(layout: Layout) -> None:
    database = layout.database("audit")
    database.parent.mkdir()
    log = AccessLog(
        f"sqlite:///{database}",
        origin="planier.local/access-log",
        key=read_private_key(layout.keys / "log.pem"),
    )
    log.open()
    log.append(batch(4))
    log.close()
    with sqlite3.connect(database) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("UPDATE tree_runs SET hashes = ? WHERE level = 2", (bytes(32),))
    connection.close()
    status, lines = start(layout, "audit", {})
    assert status == 1
    assert "the stored tree is not the one that was signed" in lines[-1]
