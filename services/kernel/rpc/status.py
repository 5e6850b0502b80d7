"""A Problem on the wire: google.rpc.Status with ErrorInfo and BadRequest, in `grpc-status-details-bin`."""

import grpc
from google.rpc import error_details_pb2, status_pb2

from services.kernel.errors import DOMAIN, Problem, Violation

METADATA_KEY = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_CLAUSE = "clause"
TRACE_ID = "trace_id"
# What gRPC itself states, as INTERNAL, where it could not send because the connection had gone (grpcio 1.85,
# set_internal_error): no answer of a service, which would bear METADATA_KEY.
_NOT_SENT = "Internal error from Core"


def encode(problem: Problem, trace_id: str) -> bytes:
    """The serialised google.rpc.Status; `clause` and `trace_id` travel in ErrorInfo.metadata."""
    info = error_details_pb2.ErrorInfo(reason=problem.reason, domain=DOMAIN, metadata=problem.metadata)
    if problem.clause:
        info.metadata[_CLAUSE] = problem.clause
    if trace_id:
        info.metadata[TRACE_ID] = trace_id
    status = status_pb2.Status(code=problem.code.value[0], message=problem.message)
    status.details.add().Pack(info)
    if problem.violations:
        bad = error_details_pb2.BadRequest()
        for violation in problem.violations:
            bad.field_violations.add(field=violation.field, reason=violation.rule, description=violation.description)
        status.details.add().Pack(bad)
    data: bytes = status.SerializeToString()
    return data


def decode(error: grpc.aio.AioRpcError) -> Problem:
    """The Problem that the server stated, or one named after the code where the answer is the transport's own."""
    for key, value in error.trailing_metadata() or ():
        if key == METADATA_KEY and isinstance(value, bytes):
            return _decoded(value, error.code())
    code = error.code()
    if code is grpc.StatusCode.INTERNAL and error.details() == _NOT_SENT:
        code = grpc.StatusCode.UNAVAILABLE
    return Problem(code, code.name, "the call ended without an answer of the service")


def _decoded(data: bytes, code: grpc.StatusCode) -> Problem:
    status = status_pb2.Status.FromString(data)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad)
    metadata = dict(info.metadata)
    return Problem(
        _CODES.get(status.code, code),
        info.reason or code.name,
        status.message,
        metadata.pop(_CLAUSE, ""),
        tuple(Violation(v.field, v.reason, v.description) for v in bad.field_violations),
        metadata,
    )
