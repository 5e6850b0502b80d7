"""The events of a call are the bytes that protobuf itself would write."""

import pytest
from planier.ingest.v1.events_pb2 import FactDeclared

from services.ingest.admission import Admitted
from services.ingest.domain import digest_of, fact_id_of
from services.ingest.orders import declaring
from tests.fixtures.ingest import RECORD, CountingIds, area, march, works


@pytest.mark.parametrize("length", [0, 1, 90, 127, 128, 16_200, 16_384, 70_000, 2_100_000])
def test_a_declared_fact_is_what_protobuf_writes(length: int) -> None:
    """Whatever its length: those above cross the sizes of a length's own bytes."""
    for fact in (works(title="x" * length), march(), area((5.37, 43.29), (5.38, 43.29), (5.38, 43.30))):
        fact_id = fact_id_of(fact.source, fact.source_id)
        (order,) = declaring(
            [Admitted(fact_id, fact, b"body", fact.SerializeToString())], "CITY", RECORD, CountingIds()
        )
        salt = order.command.salt
        expected = FactDeclared(
            fact_id=fact_id,
            fact=fact,
            party="CITY",
            record_id=RECORD,
            body_salt=salt,
            body_digest=digest_of(salt, b"body"),
        )
        assert order.event.payload == expected.SerializeToString()
        assert order.digest == expected.body_digest
