"""Settings start whole or not at all, and say everything that is wrong at once."""

from pathlib import Path

import pytest
from pydantic import FilePath

from services.kernel.config import EXIT_CONFIGURATION, ServiceSettings, load


class AnnexSettings(ServiceSettings):
    annex_file: FilePath
    batch_items: int = 500


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("certificate_file", "key_file", "ca_file", "annex_file"):
        (tmp_path / name).write_text("x")
        monkeypatch.setenv(f"PLANIER_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("PLANIER_SERVICE", "ingest")
    monkeypatch.setenv("PLANIER_DATABASE_URL", "sqlite:///ingest.db")
    return monkeypatch


def test_the_environment_fills_the_settings(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PLANIER_BATCH_ITEMS", "7")
    settings = load(AnnexSettings)
    assert (settings.service, settings.batch_items, settings.listen) == ("ingest", 7, "127.0.0.1:0")
    assert settings.tls.key.name == "key_file"
    assert settings.instance != load(AnnexSettings).instance


def test_every_error_is_reported_at_once_and_no_value(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("PLANIER_SERVICE")
    environment.setenv("PLANIER_KEY_FILE", "/nowhere/secret-name")
    environment.setenv("PLANIER_DATABASE_URL", "hunter2")
    environment.setenv("PLANIER_TRACE_RATIO", "2")
    environment.setenv("PLANIER_BATCH_ITEMS", "hunter2")
    environment.setenv("PLANIER_LISTENS", "typo")
    with pytest.raises(SystemExit) as exit_:
        load(AnnexSettings)
    assert exit_.value.code == EXIT_CONFIGURATION == 78
    printed = capsys.readouterr().err
    for name in ("SERVICE", "KEY_FILE", "DATABASE_URL", "TRACE_RATIO", "BATCH_ITEMS", "LISTENS"):
        assert printed.count(f"PLANIER_{name}:") == 1
    assert "hunter2" not in printed
    assert "nowhere" not in printed


def test_an_unknown_variable_alone_refuses_the_start(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PLANIER_TOKEN_KEYFILE", "x")
    with pytest.raises(SystemExit):
        load(AnnexSettings)


def test_settings_cannot_be_changed(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(AnnexSettings).service = "audit"
