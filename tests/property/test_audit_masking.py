"""Whatever a record of the other party's person holds, what leaves of it leads to nobody, and always the same way."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from planier.audit.v1.audit_pb2 import ReplayEntry
from planier.audit.v1.record_pb2 import AccessRecord

from services.audit.domain import Governance
from services.audit.masking import Mask, Viewer
from services.kernel.pseudonyms import Pseudonyms
from tests.fixtures.audit import access_record

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CITY = Viewer("CITY", "https://idp.example", "auditor", NOW)
MASK = Mask(Pseudonyms(bytes(range(32))), Governance(), CITY)
# What identifies is told from whatever else a record holds by its first letters.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).map("§w§".__add__)


@st.composite
def others(draw: st.DrawFn) -> AccessRecord:
    """A record of a person whom the City does not know by name."""
    record = access_record(draw(st.integers(1, 99)))
    actor = record.actor
    actor.party = draw(st.sampled_from(["PREFECTURE", ""]))
    actor.issuer, actor.subject, actor.session_id = draw(NAMES), draw(NAMES), draw(NAMES)
    actor.clearance_id, actor.agent_reference = draw(NAMES), draw(NAMES)
    record.peer = draw(NAMES)
    record.rpc = draw(st.sampled_from(["/planier.audit.v1.AuditService/Replay", "/planier.access.v1.AccessService/X"]))
    for name in draw(st.sets(st.sampled_from(["issuer", "subject", "clearance_id"]))):
        record.data.filters[name] = draw(NAMES)
    record.data.references.extend(draw(st.lists(NAMES, max_size=3)))
    return record


@given(others())
@settings(max_examples=150, deadline=None)
def test_nothing_that_leaves_leads_to_the_person(record: AccessRecord) -> None:
    entry = ReplayEntry(index=1, salt=bytes(32), record=record.SerializeToString(), leaf_hash=bytes(32))
    shown = MASK.entry(entry)
    assert shown.masked
    assert not shown.salt
    assert "§w§".encode() not in shown.SerializeToString()
    # Who, not what: organisation, purpose, motive and decision stay.
    masked = AccessRecord.FromString(shown.record)
    assert (masked.actor.organisation, masked.purpose, masked.motive, masked.decision) == (
        record.actor.organisation, record.purpose, record.motive, record.decision,
    )  # fmt: skip


@given(NAMES, NAMES, NAMES, NAMES)
@settings(max_examples=150, deadline=None)
def test_a_pseudonym_is_of_one_person_under_one_secret(issuer: str, subject: str, other: str, party: str) -> None:
    pseudonyms = Pseudonyms(bytes(range(32)))
    name = pseudonyms.of(party, issuer, subject)
    assert name == pseudonyms.of(party, issuer, subject)
    assert name != Pseudonyms(bytes(32)).of(party, issuer, subject)
    assert (name == pseudonyms.of(party, issuer, other)) == (subject == other)
    # No two people share one because their parts read alike when put together.
    assert name != pseudonyms.of(party, issuer + subject, "")


def test_without_a_secret_all_people_of_a_party_look_the_same() -> None:
    pseudonyms = Pseudonyms(None)
    assert pseudonyms.of("CITY", "i", "a") == pseudonyms.of("CITY", "i", "b") != pseudonyms.of("PREFECTURE", "i", "a")
