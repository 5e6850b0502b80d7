"""What the command line says to a person and to a program."""

import json
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from planier.audit.v1.audit_pb2 import ReplayEntry
from planier.audit.v1.record_pb2 import AccessRecord, RecordKind

from services.cli import app, output
from services.cli.records import cells, csv_line, rows


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["planier", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code


@pytest.mark.parametrize("arguments", [("map", "--bogus"), ("no-such-command",), ("audit", "replay", "--limit", "x")])
def test_misuse_is_one_json_document_where_one_is_asked_for(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments, "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "USAGE"


def test_without_an_installation_every_command_says_so_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLANIER_HOME", str(tmp_path))
    for command in (("status",), ("map",), ("fact", "0" * 32), ("audit", "replay", "--from", "2026-06-01")):
        assert run(monkeypatch, *command, "--json") == 1
        assert json.loads(capsys.readouterr().out)["error"]["reason"] == "NO_INSTALLATION"


def test_an_erased_record_has_its_line_in_a_replay() -> None:
    assert cells({"index": 7, "erased": True}, ZoneInfo("Europe/Paris")) == (7, "", "", "erased", "", "")


def test_a_recorded_attempt_is_not_shown_as_refused() -> None:
    """A login is decided by its handler, after its attempt is recorded: the record holds no decision."""
    attempt = AccessRecord(kind=RecordKind.RECORD_KIND_ATTEMPT, rpc="/planier.access.v1.AccessService/Login")
    refusal = AccessRecord(kind=RecordKind.RECORD_KIND_REFUSAL, rpc=attempt.rpc)
    entries = [
        ReplayEntry(index=place, record=item.SerializeToString()) for place, item in enumerate((attempt, refusal))
    ]
    found = list(rows(entries))
    assert [row["permitted"] for row in found] == [True, False]
    assert [cells(row, ZoneInfo("Europe/Paris"))[-1] for row in found] == ["", "refused"]


def test_what_a_table_shows_is_never_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table("[b]", ("title",), [("[red]Marché[/blue]",)])
    shown = capsys.readouterr().out
    assert "[b]" in shown
    assert "[red]Marché[/blue]" in shown


def test_no_cell_of_a_csv_is_a_formula() -> None:
    assert csv_line(["=1+1", "-2", 3, "a,b", "@x"]) == "'=1+1,'-2,3,\"a,b\",'@x\r\n"


def test_an_error_that_nobody_foresaw_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr(app, "app", broken)
    assert run(monkeypatch, "map", "--json") == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["reason"] == "UNFORESEEN"
    assert "the secret" not in shown.out + shown.err
    monkeypatch.setenv(app.TRACEBACK_VARIABLE, "1")
    with pytest.raises(RuntimeError):
        app.main()
