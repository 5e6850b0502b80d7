"""A contract that leaves a door without a guard does not start: each case breaks one rule of a real contract."""

from collections.abc import Callable
from itertools import count

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto
from planier.analytics.v1 import analytics_pb2
from planier.common.v1 import guard_pb2
from planier.common.v1.guard_pb2 import Guard

from services.kernel.guard.options import GuardOptionError, methods_of
from tests.fixtures.guard import METHODS

_numbers = count()
_NAMES = [method.name for method in analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"].methods]
QUERY_MAP, GET_POSITION = _NAMES.index("QueryMap"), _NAMES.index("GetPosition")


def broken(
    index: int, change: Callable[[Guard, MethodDescriptorProto, FileDescriptorProto], None]
) -> ServiceDescriptor:
    """The analytics service under another name, one method changed."""
    # Of the length of the real name, so that it can take its place in serialised bytes.
    package = f"planier.analytic{next(_numbers):04}"
    text = analytics_pb2.DESCRIPTOR.serialized_pb.replace(b"planier.analytics.v1", package.encode())
    file = FileDescriptorProto.FromString(text)
    file.name = f"{package}.proto"
    _refer_to_what_others_define(file, package)
    method = file.service[0].method[index]
    change(method.options.Extensions[guard_pb2.guard], method, file)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName(f"{package}.AnalyticsService")


def _refer_to_what_others_define(file: FileDescriptorProto, package: str) -> None:
    """Types of the same package in other files kept their name."""
    names = [*(one.name for one in file.message_type), *(one.name for one in file.enum_type)]
    own = {f".{package}.{name}" for name in names}

    def found(name: str) -> str:
        foreign = name.startswith(f".{package}.") and name not in own
        return name.replace(package, "planier.analytics.v1") if foreign else name

    for message in file.message_type:
        for one in message.field:
            if one.type_name:
                one.type_name = found(one.type_name)
    for method in file.service[0].method:
        method.input_type, method.output_type = found(method.input_type), found(method.output_type)


def field_of(file: FileDescriptorProto, message: str, name: str) -> descriptor_pb2.FieldDescriptorProto:
    return next(f for m in file.message_type if m.name == message for f in m.field if f.name == name)


def unguarded(option: Guard, method: MethodDescriptorProto, file: FileDescriptorProto) -> None:
    method.options.ClearExtension(guard_pb2.guard)


def renamed_mark(option: Guard, method: MethodDescriptorProto, file: FileDescriptorProto) -> None:
    field_of(file, "QueryMapResponse", "release").name = "mark"


def moved_mark(option: Guard, method: MethodDescriptorProto, file: FileDescriptorProto) -> None:
    field_of(file, "QueryMapResponse", "release").number = 14


def other_mark(option: Guard, method: MethodDescriptorProto, file: FileDescriptorProto) -> None:
    field_of(file, "QueryMapResponse", "release").type_name = ".planier.common.v1.Receipt"


def no_purpose(option: Guard, method: MethodDescriptorProto, file: FileDescriptorProto) -> None:
    field_of(file, "QueryMapRequest", "consultation").name = "context"


def stream_of_requests(option: Guard, method: MethodDescriptorProto, file: FileDescriptorProto) -> None:
    method.client_streaming = True


def written_stream(option: Guard, method: MethodDescriptorProto, file: FileDescriptorProto) -> None:
    method.server_streaming = True
    option.operation = guard_pb2.OPERATION_ERASE


def option_of(index: int, **values: object) -> tuple[int, Callable[..., None]]:
    def change(option: Guard, method: MethodDescriptorProto, file: FileDescriptorProto) -> None:
        for name, value in values.items():
            if isinstance(value, list):
                getattr(option, name)[:] = value
            else:
                setattr(option, name, value)

    return index, change


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (QUERY_MAP, unguarded),
        (QUERY_MAP, renamed_mark),
        (QUERY_MAP, moved_mark),
        (QUERY_MAP, other_mark),
        (QUERY_MAP, no_purpose),
        (QUERY_MAP, stream_of_requests),
        (GET_POSITION, stream_of_requests),
        (QUERY_MAP, written_stream),
        option_of(QUERY_MAP, guard_class=0),
        option_of(QUERY_MAP, guard_class=9),
        option_of(QUERY_MAP, resource=""),
        option_of(QUERY_MAP, operation=0),
        option_of(QUERY_MAP, operation=99),
        option_of(QUERY_MAP, authentication=0),
        option_of(QUERY_MAP, authentication=99),
        option_of(QUERY_MAP, authentication=guard_pb2.AUTHENTICATION_CREDENTIAL),
        option_of(QUERY_MAP, callers=["ingest"]),
        option_of(GET_POSITION, operation=guard_pb2.OPERATION_CONSULT),
        option_of(GET_POSITION, authentication=guard_pb2.AUTHENTICATION_TOKEN),
        option_of(GET_POSITION, callers=["ingest"]),
        option_of(GET_POSITION, guard_class=guard_pb2.GUARD_CLASS_INTERNAL),
        option_of(GET_POSITION, guard_class=guard_pb2.GUARD_CLASS_INTERNAL, callers=[""]),
    ],
)
def test_a_method_without_a_valid_guard_does_not_start(index: int, change: Callable[..., None]) -> None:
    service = broken(index, change)
    with pytest.raises(GuardOptionError, match=service.methods[index].name):
        methods_of(service)


def test_the_copy_itself_is_sound() -> None:
    assert len(methods_of(broken(QUERY_MAP, lambda *_: None))) == len(
        analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"].methods
    )


def test_every_contract_is_guarded() -> None:
    method = METHODS["QueryMap"]
    assert method.path == "/planier.analytics.v1.AnalyticsService/QueryMap"
    assert method.request_type is analytics_pb2.QueryMapRequest
    assert method.response_type is analytics_pb2.QueryMapResponse
    assert {"DeclareFacts", "StreamFacts", "Login", "Check", "Replay", "Record", "GetHead"} <= METHODS.keys()
