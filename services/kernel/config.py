"""Settings from the environment, whole or not at all."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

from pydantic import Field, FilePath, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from services.kernel.rpc.tls import TlsFiles

PREFIX = "PLANIER_"
# sysexits.h, EX_CONFIG: a supervisor must not restart what cannot start.
EXIT_CONFIGURATION = 78

Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:\[\]-]+:[0-9]{1,5}$")]
OptionalAddress = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_.:\[\]-]+:[0-9]{1,5})?$")]
OptionalUrl = Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$")]


class CannotStart(RuntimeError):  # noqa: N818 -- what the operator reads
    """This deployment was given what it must not run with; says what in words that hold no secret."""


class ServiceSettings(BaseSettings):
    """What every service needs; a service adds its own fields, or narrows these, in a subclass.

    Field `x` is the variable PLANIER_X. Only the environment is read. A secret is the path of a file that holds it.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    # "ingest", "analytics", "access", "audit".
    service: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    # This process among the replicas of its service; names it in records, logs and traces.
    instance: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,63}$")] = Field(
        default_factory=lambda: uuid4().hex[:12]
    )
    # Port 0 takes a free one.
    listen: Address = "127.0.0.1:0"
    certificate_file: FilePath
    key_file: FilePath
    ca_file: FilePath
    # As SQLAlchemy names it.
    database_url: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(\+[a-z0-9]+)?://")]
    nats_url: Annotated[str, StringConstraints(pattern=r"^((nats|tls)://\S+)?$")] = ""
    access_address: OptionalAddress = ""
    audit_address: OptionalAddress = ""
    ingest_address: OptionalAddress = ""
    # OTLP over HTTP, such as http://127.0.0.1:4318; empty: telemetry is off.
    otlp_endpoint: OptionalUrl = ""
    # The share of calls without a traced caller that are traced.
    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def tls(self) -> TlsFiles:
        """The three TLS files together."""
        return TlsFiles(Path(self.certificate_file), Path(self.key_file), Path(self.ca_file))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, for tests and tools, then the environment; no files."""
        return init_settings, env_settings


Settings = TypeVar("Settings", bound=ServiceSettings)


def load(settings: type[Settings]) -> Settings:
    """The settings of this process; exits with 78 after printing every error at once, never a value."""
    errors = [f"{name}: no such setting" for name in _unknown(settings)]
    from_environment: dict[str, Any] = {}
    try:
        loaded = settings(**from_environment)
    except ValidationError as invalid:
        found = invalid.errors(include_input=False, include_context=False, include_url=False)
        errors += [f"{_variable(error['loc'])}: {error['msg']}" for error in found]
    if not errors:
        return loaded
    print("\n  ".join(["cannot start, the settings are wrong:", *sorted(errors)]), file=sys.stderr)  # noqa: T201
    raise SystemExit(EXIT_CONFIGURATION)


def _unknown(settings: type[ServiceSettings]) -> list[str]:
    known = {f"{PREFIX}{name}".upper() for name in settings.model_fields}
    return [name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known]


def _variable(location: tuple[int | str, ...]) -> str:
    head, *rest = (str(part) for part in location) if location else ("",)
    return ".".join([f"{PREFIX}{head}".upper(), *rest])
