"""Commands with the events that they become, serialised once and before the store is locked."""

import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from planier.ingest.v1.events_pb2 import (
    CancellationReason,
    ErasureReason,
    FactAmended,
    FactCancelled,
    FactDeclared,
    FactErased,
)

from services.ingest.admission import Admitted
from services.ingest.domain import SALT_SIZE, Action, Command, digest_of
from services.ingest.ledger import Erasure
from services.ingest.wire import tag, varint
from services.kernel.clock import Ids
from services.kernel.store.base import NewEvent

_DECLARED: Final = FactDeclared.DESCRIPTOR.full_name
_AMENDED: Final = FactAmended.DESCRIPTOR.full_name
_CANCELLED: Final = FactCancelled.DESCRIPTOR.full_name
_ERASED: Final = FactErased.DESCRIPTOR.full_name
ERASING_TYPES: Final = (_ERASED,)


class Order(NamedTuple):
    """One command with the event that it becomes if it is accepted; `erasure` goes to the ledger first."""

    command: Command
    digest: bytes
    event: NewEvent
    erasure: Erasure | None = None


def declaring(facts: Sequence[Admitted], party: str, record_id: str, ids: Ids) -> list[Order]:
    """Orders to declare facts."""
    salts = os.urandom(SALT_SIZE * len(facts))
    # What is the same in every event of the call is serialised once, and no fact is copied into a message: bytes that
    # follow one another are read as one (https://protobuf.dev/programming-guides/encoding, "Last One Wins").
    shared = FactDeclared(party=party, record_id=record_id).SerializeToString() + _SALT
    orders = []
    for index, (fact_id, fact, body, said) in enumerate(facts):
        salt = salts[index * SALT_SIZE : (index + 1) * SALT_SIZE]
        digest = digest_of(salt, body)
        payload = b"".join((_FACT_ID, fact_id.encode(), _FACT, varint(len(said)), said, shared, salt, _DIGEST, digest))
        event = NewEvent(_DECLARED, payload, ids.new())
        orders.append(Order(Command(Action.DECLARE, fact_id, fact.revision, party, body, salt), digest, event))
    return orders


_FACT_ID: Final = tag(FactDeclared, "fact_id") + varint(32)
_FACT: Final = tag(FactDeclared, "fact")
_SALT: Final = tag(FactDeclared, "body_salt") + varint(SALT_SIZE)
_DIGEST: Final = tag(FactDeclared, "body_digest") + varint(32)


def amending(admitted: Admitted, party: str, record_id: str, ids: Ids) -> Order:
    """The order to replace a fact by its next revision."""
    command = Command(
        Action.AMEND, admitted.fact_id, admitted.fact.revision, party, admitted.body, os.urandom(SALT_SIZE)
    )
    digest = digest_of(command.salt, command.body)
    said = FactAmended(
        fact_id=command.fact_id,
        fact=admitted.fact,
        party=party,
        record_id=record_id,
        body_salt=command.salt,
        body_digest=digest,
    )
    return Order(command, digest, NewEvent(_AMENDED, said.SerializeToString(), ids.new()))


def cancelling(
    fact_id: str, revision: int, reason: "CancellationReason.ValueType", party: str, record_id: str, ids: Ids
) -> Order:
    """The order to cancel a fact."""
    # No fact serialises to these bytes: its first field is a string.
    body = b"\0cancel" + bytes([reason])
    command = Command(Action.CANCEL, fact_id, revision, party, body, os.urandom(SALT_SIZE))
    digest = digest_of(command.salt, body)
    said = FactCancelled(
        fact_id=fact_id,
        revision=revision,
        reason=reason,
        party=party,
        record_id=record_id,
        body_salt=command.salt,
        body_digest=digest,
    )
    return Order(command, digest, NewEvent(_CANCELLED, said.SerializeToString(), ids.new()))


def erasing(erasure: Erasure, ids: Ids) -> Order:
    """The order to erase a fact."""
    said = FactErased(
        fact_id=erasure.fact_id,
        reason=ErasureReason.Value(erasure.reason),
        party=erasure.party,
        record_id=erasure.record_id,
    )
    command = Command(Action.ERASE, erasure.fact_id, 0, erasure.party)
    return Order(command, b"", NewEvent(_ERASED, said.SerializeToString(), ids.new()), erasure)
