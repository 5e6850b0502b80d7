"""Reads the guard option of each RPC, and refuses a contract that leaves a door without a guard."""

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from planier.common.v1 import guard_pb2
from planier.common.v1.guard_pb2 import (
    AUTHENTICATION_CREDENTIAL,
    AUTHENTICATION_TOKEN,
    AUTHENTICATION_UNSPECIFIED,
    GUARD_CLASS_INTERNAL,
    GUARD_CLASS_RELEASE,
    OPERATION_COMBINE,
    OPERATION_CONSULT,
    OPERATION_DISCLOSE,
    OPERATION_GOVERN,
    OPERATION_UNSPECIFIED,
    Authentication,
    GuardClass,
    Operation,
)
from planier.common.v1.release_pb2 import Consultation, ReleaseMark

from services.kernel.rpc.call import Method

READS = frozenset((OPERATION_CONSULT, OPERATION_DISCLOSE, OPERATION_COMBINE))
RELEASE_FIELD = 15


class GuardOptionError(Exception):
    """A method's contract does not say, or says badly, how it is guarded: its service must not start."""

    def __init__(self, method: str, fault: str) -> None:
        super().__init__(f"{method}: {fault}")


def methods_of(descriptor: ServiceDescriptor) -> tuple[Method, ...]:
    """Every method of the service with its verified guard option, in the contract's order.

    Raises:
        GuardOptionError: one method has no valid option; the message names it.
    """
    return tuple(_method(method) for method in descriptor.methods)


def _method(descriptor: MethodDescriptor) -> Method:
    options = descriptor.GetOptions()
    if not options.HasExtension(guard_pb2.guard):
        raise GuardOptionError(descriptor.full_name, "no guard option")
    option = options.Extensions[guard_pb2.guard]
    fault = _fault(descriptor, option)
    if fault:
        raise GuardOptionError(descriptor.full_name, fault)
    return Method(
        path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        name=descriptor.name,
        option=option,
        request_type=message_factory.GetMessageClass(descriptor.input_type),
        response_type=message_factory.GetMessageClass(descriptor.output_type),
        client_streaming=descriptor.client_streaming,
        server_streaming=descriptor.server_streaming,
    )


def _fault(descriptor: MethodDescriptor, option: guard_pb2.Guard) -> str:
    """The first rule that the method breaks, or ""."""
    release = option.guard_class == GUARD_CLASS_RELEASE
    internal = option.guard_class == GUARD_CLASS_INTERNAL
    rules = (
        ("no resource", not option.resource),
        ("unknown class", option.guard_class not in GuardClass.values() or not option.guard_class),
        ("an INTERNAL method names its callers, no other does", internal != bool(option.callers)),
        ("a caller without a name", not all(option.callers)),
        ("only a RELEASE has an operation", not release and option.operation != OPERATION_UNSPECIFIED),
        ("only a RELEASE authenticates", not release and option.authentication != AUTHENTICATION_UNSPECIFIED),
        ("a COMMITMENT takes no stream", not (release or internal) and descriptor.client_streaming),
        *(_release_rules(descriptor, option) if release else ()),
    )
    return next((words for words, broken in rules if broken), "")


def _release_rules(descriptor: MethodDescriptor, option: guard_pb2.Guard) -> tuple[tuple[str, bool], ...]:
    by_token = option.authentication == AUTHENTICATION_TOKEN
    by_handler = option.authentication == AUTHENTICATION_CREDENTIAL
    takes, gives = descriptor.client_streaming, descriptor.server_streaming
    states_purpose = _has(descriptor.input_type, "consultation", Consultation.DESCRIPTOR)
    bears_mark = _has(descriptor.output_type, "release", ReleaseMark.DESCRIPTOR, RELEASE_FIELD)
    return (
        ("unknown operation", option.operation not in Operation.values() or not option.operation),
        ("unknown authentication", option.authentication not in Authentication.values() or not option.authentication),
        ("only GOVERN may leave the decision to its handler", by_handler and option.operation != OPERATION_GOVERN),
        ("a stream of requests needs a stream of answers", takes and not gives),
        ("a stream of answers is a read", gives and not takes and option.operation not in READS),
        ("a person's request states a consultation", by_token and not states_purpose),
        (f"the answer has no field {RELEASE_FIELD} `release`", not bears_mark),
    )


def _has(message: Descriptor, name: str, kind: Descriptor, number: int | None = None) -> bool:
    field = message.fields_by_name.get(name)
    return field is not None and not field.is_repeated and field.message_type is kind and number in (None, field.number)
