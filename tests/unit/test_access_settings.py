"""An issuer is asked over https, or on this machine."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.access.settings import AccessSettings


def settings(folder: Path, **changes: Any) -> AccessSettings:
    file = folder / "file"
    file.touch()
    files = ("certificate", "key", "ca", "annex", "token_key", "pseudonym_key", "city_key", "prefecture_key")
    members: dict[str, Any] = {
        "service": "access",
        "database_url": "sqlite://",
        "audit_address": "127.0.0.1:1",
        "issuer_url": "https://login.test",
        "client_id": "planier",
        **{f"{name}_file": file for name in files},
    }
    return AccessSettings(**{**members, **changes})


@pytest.mark.parametrize(
    "url", ["https://login.test", "https://login.test/realm", "http://localhost:4000", "http://127.0.0.1:1/x"]
)
def test_an_issuer_that_cannot_be_listened_to(tmp_path: Path, url: str) -> None:
    assert settings(tmp_path, issuer_url=url).issuer_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://login.test",
        "http://localhost.evil.test",
        "ftp://login.test",
        "",
        "http://127.0.0.1.evil.test/",
        "http://localhost:x@evil.test",
    ],
)
def test_an_issuer_over_an_open_network_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValidationError):
        settings(tmp_path, issuer_url=url)


def test_a_password_is_no_second_factor(tmp_path: Path) -> None:
    assert not {"pwd", "pin", "kba", "sms"} & settings(tmp_path).accepted_amr
    assert not settings(tmp_path).accepted_acr
