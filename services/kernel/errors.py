"""The one error that crosses the wire: typed, naming field or clause, holding nothing internal and no value."""

from dataclasses import dataclass, field

import grpc

DOMAIN = "planier"


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field: its path, the rule broken, a description that never echoes the value."""

    field: str
    rule: str
    description: str


# Not frozen: the interpreter writes tracebacks and notes into an exception on its way.
@dataclass(eq=False, slots=True)
class Problem(Exception):  # noqa: N818 -- it is a problem in the sense of a typed answer, most are refusals
    """A refusal or failure that a caller may see.

    `reason` is UPPER_SNAKE and stable (clients branch on it); `clause` is a clause id of the convention or empty.
    Anything raised that is not a Problem reaches the client as INTERNAL with no detail.
    """

    code: grpc.StatusCode
    reason: str
    message: str
    clause: str = ""
    violations: tuple[Violation, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def invalid(reason: str, message: str, *violations: Violation, clause: str = "") -> Problem:
    """The request is wrong whatever the state of the system."""
    return Problem(grpc.StatusCode.INVALID_ARGUMENT, reason, message, clause, violations)


def unauthenticated(reason: str, message: str) -> Problem:
    """The caller did not prove who it is."""
    return Problem(grpc.StatusCode.UNAUTHENTICATED, reason, message, "art6.secure_access")


def denied(reason: str, message: str, clause: str) -> Problem:
    """The caller is known and may not; `clause` says why."""
    return Problem(grpc.StatusCode.PERMISSION_DENIED, reason, message, clause)


def unavailable(reason: str, message: str, clause: str = "") -> Problem:
    """A part that the answer needs cannot be reached; the same call may succeed later."""
    return Problem(grpc.StatusCode.UNAVAILABLE, reason, message, clause)


def precondition(reason: str, message: str, clause: str = "") -> Problem:
    """The state of the system forbids it; the same call will fail until the state changes."""
    return Problem(grpc.StatusCode.FAILED_PRECONDITION, reason, message, clause)


def not_found(reason: str, message: str) -> Problem:
    """Nothing of that name that the caller may see."""
    return Problem(grpc.StatusCode.NOT_FOUND, reason, message)


def conflict(reason: str, message: str) -> Problem:
    """It exists already with other content."""
    return Problem(grpc.StatusCode.ALREADY_EXISTS, reason, message)
