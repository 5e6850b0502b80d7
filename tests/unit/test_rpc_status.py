"""What a failed call is to our own clients: the service's own word, or what became of the connection."""

import grpc
import pytest

from services.kernel.errors import Problem
from services.kernel.rpc.status import METADATA_KEY, decode, encode

NONE = grpc.aio.Metadata()


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", grpc.StatusCode.UNAVAILABLE),
        # A message that could not be sent: grpcio blames itself, and a client would not ask again.
        (grpc.StatusCode.INTERNAL, "Internal error from Core", grpc.StatusCode.UNAVAILABLE),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", grpc.StatusCode.INTERNAL),
    ],
)
def test_a_lost_connection_is_unavailable(code: grpc.StatusCode, details: str, expected: grpc.StatusCode) -> None:
    problem = decode(grpc.aio.AioRpcError(code, NONE, NONE, details))
    assert (problem.code, problem.reason) == (expected, expected.name)
    assert details not in str(problem)


def test_the_word_of_a_service_stands() -> None:
    stated = Problem(grpc.StatusCode.INTERNAL, "RECORD_REFUSED", "the access log refused the record", "default.deny")
    trailing = grpc.aio.Metadata((METADATA_KEY, encode(stated, "")))
    problem = decode(grpc.aio.AioRpcError(stated.code, NONE, trailing, "Internal error from Core"))
    assert (problem.code, problem.reason, problem.clause) == (stated.code, stated.reason, stated.clause)
