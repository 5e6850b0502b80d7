"""What a record holds, field by field: the table of docs/records.md is true, and the guard fills every field of it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1.analytics_pb2 import BoundingBox, QueryMapRequest, QueryMapResponse
from planier.audit.v1.oversight_pb2 import RecordRequisitionRequest, RecordRequisitionResponse
from planier.audit.v1.record_pb2 import (
    LEGAL_BASIS_LEGAL_OBLIGATION,
    AccessRecord,
    Area,
    Disclosure,
    Recipient,
)
from planier.common.v1.guard_pb2 import OPERATION_DISCLOSE, OPERATION_ERASE
from planier.common.v1.release_pb2 import PURPOSE_ADMINISTRATION, PURPOSE_REFUSED_ENFORCEMENT
from planier.ingest.v1.ingest_pb2 import DeclareFactsRequest, DeclareFactsResponse, Declarer

from services.kernel.errors import Problem, precondition
from services.kernel.rpc.call import Call
from services.kernel.store.base import Position
from tests.fixtures.guard import CORTEGE, Bench, consultation, no_log

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "records.md"
_ROW = re.compile(r"^\| (?P<source>[^|]+) \| (?P<asks>[^|]+) \| (?P<fields>[^|]+) \| (?P<tests>[^|]+) \|$")


def rows() -> list[re.Match[str]]:
    found = [match for line in TABLE.read_text().splitlines() if (match := _ROW.match(line))]
    return [row for row in found if not row["source"].startswith(("from", "---"))]


def paths(descriptor: Descriptor, prefix: str = "") -> Iterator[str]:
    """Every field of the record, nested ones by their path; what other contracts define counts whole."""
    for field in descriptor.fields:
        yield f"{prefix}{field.name}"
        kind = field.message_type
        if kind is not None and kind.file is AccessRecord.DESCRIPTOR.file and not kind.GetOptions().map_entry:
            yield from paths(kind, f"{prefix}{field.name}.")


def is_filled(message: Message, path: str) -> bool:
    name, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if field.is_repeated:
        return len(value) > 0 and (not rest or is_filled(value[0], rest))
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return message.HasField(name) and (not rest or is_filled(value, rest))
    return bool(value)


def test_the_table_covers_the_three_texts() -> None:
    assert {row["source"].split()[0] for row in rows()} >= {"LED", "CSI", "CNIL", "GDPR"}


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['source']}: {row['asks'][:40]}")
def test_each_requirement_has_fields_that_exist_and_tests_that_exist(row: re.Match[str]) -> None:
    fields, tests = re.findall(r"`([a-z_.]+)`", row["fields"]), re.findall(r"`([\w/]+\.py)::(\w+)`", row["tests"])
    assert fields
    assert tests
    assert set(fields) <= set(paths(AccessRecord.DESCRIPTOR))
    for file, name in tests:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file} has no {name}"


async def everything() -> list[AccessRecord]:
    """Records of a look, a refusal, a declaration, a disclosure, a stream's closing and strangers at the door."""
    bench = Bench(service="audit")

    async def look(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        call.data.kinds.append("MARCH")
        call.data.area.CopyFrom(Area(west=5.3, south=43.2, east=5.4, north=43.3))
        for stamp in (call.data.period_start, call.data.period_end, call.data.as_of):
            stamp.CopyFrom(Timestamp(seconds=1_800_000_000))
        call.data.filters["limit"] = "10"
        call.data.count = 3
        call.data.references.append("f" * 32)
        call.data_position = Position("ingest", 42, bytes(32))
        return QueryMapResponse(total=3)

    async def disclose(_: RecordRequisitionRequest, call: Call) -> RecordRequisitionResponse:
        call.disclosure = Disclosure(
            legal_basis=LEGAL_BASIS_LEGAL_OBLIGATION,
            reference="2026/1234",
            recipients=[Recipient(organisation="Tribunal judiciaire", capacity="JUDICIAL_AUTHORITY")],
        )
        return RecordRequisitionResponse()

    async def declare(_: DeclareFactsRequest, call: Call) -> DeclareFactsResponse:
        raise precondition("ANNEX_MISSING", "no annex")

    box = BoundingBox(west=5.3, south=43.2, east=5.4, north=43.3)
    asked = QueryMapRequest(consultation=consultation(), sources=["markets"], box=box)
    await bench.guard.unary(bench.call("QueryMap"), asked, look)
    request = RecordRequisitionRequest(consultation=consultation(PURPOSE_ADMINISTRATION))
    await bench.guard.unary(bench.call("RecordRequisition"), request, disclose)
    batch = DeclareFactsRequest(declarer=Declarer(agent_reference="agent:12"))
    with pytest.raises(Problem):
        await bench.guard.unary(bench.call("DeclareFacts", token="", caller=CORTEGE), batch, declare)
    with pytest.raises(Problem):
        await bench.guard.unary(bench.call("QueryMap", token="forged"), QueryMapRequest(), look)
    await bench.guard.close()
    return bench.log.records


async def test_the_guard_fills_every_field() -> None:
    records = await everything()
    unfilled = [path for path in paths(AccessRecord.DESCRIPTOR) if not any(is_filled(one, path) for one in records)]
    assert not unfilled, unfilled


async def test_a_disclosure_states_recipients_and_legal_basis_and_no_purpose_of_its_own() -> None:
    disclosed = next(record for record in await everything() if record.HasField("disclosure"))
    assert disclosed.operation == OPERATION_DISCLOSE
    assert disclosed.disclosure.legal_basis == LEGAL_BASIS_LEGAL_OBLIGATION
    assert [one.organisation for one in disclosed.disclosure.recipients] == ["Tribunal judiciaire"]
    # No word of the vocabulary means "requisition": its act is recorded under the officer's own purpose.
    assert disclosed.purpose == PURPOSE_ADMINISTRATION


async def test_what_a_service_does_by_itself_is_recorded_first_or_not_done() -> None:
    bench = Bench(service="audit")
    own = AccessRecord(record_id="r", operation=OPERATION_ERASE, resource="access-log")
    receipt = await bench.guard.record_own(own)
    (record,) = bench.log.records
    assert (receipt.record_id, record.instance, record.sequence) == ("r", "instance-1", 1)
    bench.log.answer = no_log
    with pytest.raises(Problem, match="RECORD_UNAVAILABLE"):
        await bench.guard.record_own(AccessRecord(record_id="s"))


async def test_a_system_acts_on_behalf_of_its_authority_a_person_for_nobody_else() -> None:
    records = await everything()
    system = next(record for record in records if record.actor.certificate_identity and record.actor.party)
    assert (system.actor.on_behalf_of, system.actor.agent_reference) == (system.actor.party, "agent:12")
    assert {record.actor.on_behalf_of for record in records if record.actor.subject} == {""}


async def test_a_purpose_that_is_refused_by_name_is_recorded_as_such() -> None:
    bench = Bench()

    async def never(_: QueryMapRequest, call: Call) -> QueryMapResponse:
        raise AssertionError

    request = QueryMapRequest(consultation=consultation(PURPOSE_REFUSED_ENFORCEMENT))
    with pytest.raises(Problem):
        await bench.guard.unary(bench.call("QueryMap"), request, never)
    (record,) = bench.log.records
    assert (record.purpose, list(record.decision.clauses)) == (PURPOSE_REFUSED_ENFORCEMENT, ["art6.purpose"])
