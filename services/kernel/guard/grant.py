"""The proof, in a type, that the guard let a request through."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from planier.common.v1.guard_pb2 import Operation
from planier.common.v1.release_pb2 import Purpose

_SEAL = object()


@dataclass(frozen=True, slots=True)
class Subject:
    """Who calls, as authenticated: a person by (issuer, subject), or a declaring system by its certificate."""

    issuer: str = ""
    subject: str = ""
    session_id: str = ""
    multi_factor: bool = False
    certificate_identity: str = ""
    # Whose person that was at the login, or "": for the record of a refusal that access is not asked about. No right
    # ever follows from it.
    party: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """What one instrument permits: a version, the sources, the clauses the permit rests on."""

    instrument_id: str
    version: str
    sources: frozenset[str]
    clauses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """What one instrument withholds, and why (French, for the person who asked)."""

    instrument_id: str
    clauses: tuple[str, ...]
    reason_user: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A permit for one request. Every query that returns facts takes one; only services/kernel/guard makes one."""

    record_id: str
    subject: Subject
    operation: Operation.ValueType
    resource: str
    purpose: Purpose.ValueType
    party: str
    organisation: str
    clearance_id: str
    role: str
    scopes: tuple[Scope, ...]
    refused: tuple[Refused, ...]
    decided_at: datetime
    seal: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuses any maker but the guard."""
        if self.seal is not _SEAL:
            raise PermissionError("only the guard makes a Grant")

    @property
    def sources(self) -> frozenset[str]:
        """Every source that some instrument permits."""
        return _together(tuple([scope.sources for scope in self.scopes]))


@lru_cache(maxsize=1_000)
def _together(sets: tuple[frozenset[str], ...]) -> frozenset[str]:
    return frozenset[str]().union(*sets)
