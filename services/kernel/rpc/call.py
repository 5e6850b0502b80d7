"""What travels with one call: how it came in, and what its handler receives beside the request."""

from dataclasses import dataclass, field

from google.protobuf.message import Message
from planier.audit.v1.record_pb2 import DataReference, Disclosure
from planier.common.v1.guard_pb2 import Guard as GuardOption

from services.kernel.guard.grant import Grant
from services.kernel.store.base import Position


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC as its contract declares it, its guard option included."""

    # "/planier.ingest.v1.IngestService/DeclareFacts"
    path: str
    name: str
    option: GuardOption
    request_type: type[Message]
    response_type: type[Message]
    client_streaming: bool
    server_streaming: bool


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call as it came in; nothing in it is verified but `caller`, which the TLS handshake proved."""

    method: Method
    peer: str
    # URI in the caller's certificate.
    caller: str
    # The bearer token, or "".
    token: str
    # W3C traceparent of the server's span, and its trace id in hex; "" where telemetry is off.
    traceparent: str
    trace_id: str


@dataclass(slots=True)
class Call:
    """What a handler receives beside its request.

    `grant` is set on RELEASE methods once the check has permitted, None elsewhere. A handler describes what it read or
    writes in `data` (references, never facts); the guard completes it with the answer's digest and records it.
    `data_position` is where the answer's data stood; it goes into the record and the answer's mark. A handler whose
    data leave the platform says in `disclosure` who receives them, and by what right.
    """

    invocation: Invocation
    grant: Grant | None = None
    data: DataReference = field(default_factory=DataReference)
    data_position: Position | None = None
    disclosure: Disclosure | None = None

    @property
    def granted(self) -> Grant:
        """The grant, where the method's guard class promises one."""
        if self.grant is None:
            raise PermissionError("this method runs without a grant")
        return self.grant
