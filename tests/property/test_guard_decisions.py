"""What the guard remembers of a verdict is that verdict's, whatever the ids and whatever came before."""

from hypothesis import given, settings
from hypothesis import strategies as st
from planier.access.v1.access_pb2 import CheckItem, CheckVerdict, InstrumentDecision
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, ROLE_CITY_USER, ROLE_PREFECTURE_USER
from planier.common.v1.release_pb2 import InstrumentReference, StorePosition

from services.kernel.guard.decisions import _apart, stated_decision
from services.kernel.guard.ports import Decision

# Few different words, so that verdicts of other contents come close to one another.
WORDS = st.sampled_from(["", "a", "b", "art6.purpose"])
IDS = st.text(max_size=200) | st.uuids().map(str)
INSTRUMENTS = st.builds(
    InstrumentDecision,
    instrument=st.builds(InstrumentReference, instrument_id=WORDS, version=WORDS),
    permit=st.booleans(),
    clauses=st.lists(WORDS, max_size=2),
    sources=st.lists(WORDS, max_size=2),
    reason_user=WORDS,
)
VERDICTS = st.builds(
    CheckVerdict,
    check_id=IDS,
    permit=st.booleans(),
    instruments=st.lists(INSTRUMENTS, max_size=2),
    clauses=st.lists(WORDS, max_size=2),
    clearance_id=WORDS,
    party=st.sampled_from([PARTY_CITY, PARTY_PREFECTURE]),
    role=st.sampled_from([ROLE_CITY_USER, ROLE_PREFECTURE_USER]),
    organisation=WORDS,
    digest=st.binary(max_size=4),
)


@settings(deadline=None)
@given(VERDICTS)
def test_a_verdict_apart_from_its_id_is_the_same_verdict(verdict: CheckVerdict) -> None:
    read = CheckVerdict.FromString(_apart(verdict))
    read.check_id = read.check_id or verdict.check_id
    assert read == verdict


@settings(deadline=None)
@given(st.lists(st.tuples(VERDICTS, WORDS, st.lists(WORDS, max_size=2)), min_size=1, max_size=6))
def test_a_record_states_its_own_decision(asked: list[tuple[CheckVerdict, str, list[str]]]) -> None:
    for verdict, policy, sources in asked:
        state = StorePosition(store_id="a", position=9)
        item = CheckItem(check_id=verdict.check_id, sources=sources)
        stated = stated_decision(item, Decision(verdict, state, policy, "engine", "zones"))
        assert stated.permit == verdict.permit
        assert list(stated.clauses) == (list(verdict.clauses) or ([] if verdict.permit else ["default.deny"]))
        assert list(stated.permitted_by) == [one.instrument for one in verdict.instruments if one.permit]
        assert [one.reason_user for one in stated.withheld] == [
            one.reason_user for one in verdict.instruments if not one.permit
        ]
        assert (stated.verdict_digest, stated.policy_hash) == (verdict.digest, policy)
        assert (stated.access_state, list(stated.sources_asked)) == (state, sources)
