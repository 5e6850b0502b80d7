"""What the guard makes of a decision of access: a grant, the words of a record, a refusal. Any doubt is a deny."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from planier.access.v1.access_pb2 import CheckItem, CheckVerdict, InstrumentDecision
from planier.access.v1.events_pb2 import Party, Role
from planier.audit.v1.record_pb2 import AccessRecord, DecisionRecord
from planier.common.v1.release_pb2 import StorePosition, Withheld

from services.kernel.errors import Problem, denied
from services.kernel.guard.grant import _SEAL, Grant, Refused, Scope, Subject
from services.kernel.guard.ports import Decision

DEFAULT_DENY = "default.deny"
_PARTIES = {number: name.removeprefix("PARTY_") if number else "" for name, number in Party.items()}
_ROLES = {number: name.removeprefix("ROLE_") if number else "" for name, number in Role.items()}
_PROVIDER = _ROLES[Role.ROLE_PROVIDER_RECIPIENT]
# Field 1, length-delimited (protobuf encoding); lengths up to 127 take one byte.
_CHECK_ID = b"\x0a"
_ONE_BYTE = 127


def verified(item: CheckItem, decision: Decision) -> Decision:
    """The decision, if it is about this item and says what it rests on.

    Raises:
        ValueError: it is not a decision that the guard can act on.
    """
    verdict = decision.verdict
    if verdict.check_id != item.check_id:
        raise ValueError("the verdict is about another item")
    if verdict.party not in _PARTIES or verdict.role not in _ROLES:
        raise ValueError("the verdict names an unknown party or role")
    if verdict.permit != any(instrument.permit for instrument in verdict.instruments):
        raise ValueError("the verdict contradicts its instruments")
    if verdict.permit and not (decision.state.store_id and decision.policy_hash):
        raise ValueError("the permit does not say what state and policy it rests on")
    return decision


def granted(subject: Subject, record: AccessRecord, verdict: CheckVerdict, decided_at: datetime) -> Grant:
    """The grant of a verdict that permits."""
    if not verdict.permit:
        raise ValueError("no grant without a permit")
    read = _read(_apart(verdict))
    return Grant(
        record_id=record.record_id,
        subject=subject,
        operation=record.operation,
        resource=record.resource,
        purpose=record.purpose,
        party=read.party,
        organisation=read.organisation,
        clearance_id=read.clearance_id,
        role=read.role,
        scopes=read.scopes,
        refused=read.refused,
        decided_at=decided_at,
        seal=_SEAL,
    )


def undecided(subject: Subject, record: AccessRecord, at: datetime) -> Grant:
    """A grant without any scope, for a handler that verifies the credential in its request and decides itself."""
    return Grant(
        record_id=record.record_id,
        subject=subject,
        operation=record.operation,
        resource=record.resource,
        purpose=record.purpose,
        party="",
        organisation="",
        clearance_id="",
        role="",
        scopes=(),
        refused=(),
        decided_at=at,
        seal=_SEAL,
    )


def state_decision(record: AccessRecord, item: CheckItem, decision: Decision) -> None:
    """Writes the decision into the record, so that it can be recomputed under the state of its time."""
    verdict = _apart(decision.verdict)
    read, actor = _read(verdict), record.actor
    # A later denial may no longer know the clearance; the actor stays who it was.
    actor.party = read.party or actor.party
    actor.organisation = read.organisation or actor.organisation
    actor.role = read.role or actor.role
    actor.clearance_id = read.clearance_id or actor.clearance_id
    if read.role == _PROVIDER or (actor.certificate_identity and not actor.subject):
        # A system declares for its authority (for which of its agents, the declarer's own reference says); a provider's
        # person works for the authority that engaged it (art8.provider).
        actor.on_behalf_of = actor.party
    _state(record.decision, item, decision, verdict)


def stated_decision(item: CheckItem, decision: Decision) -> DecisionRecord:
    """What a record states of a decision: its request, its outcome, and all that is needed to make it again."""
    stated = DecisionRecord()
    _state(stated, item, decision, _apart(decision.verdict))
    return stated


def _state(stated: DecisionRecord, item: CheckItem, decision: Decision, verdict: bytes) -> None:
    stated.CopyFrom(
        _outcome(
            verdict,
            decision.state.SerializeToString(),
            decision.policy_hash,
            decision.engine,
            decision.time_zone_data,
        )
    )
    stated.decision_time.CopyFrom(item.decision_time)
    stated.sources_asked.extend(item.sources)
    stated.multi_factor = item.subject.multi_factor
    if item.HasField("area"):
        box, area = item.area, stated.area_asked
        area.west, area.south, area.east, area.north = box.west, box.south, box.east, box.north


@lru_cache(maxsize=1_000)
def _outcome(verdict: bytes, state: bytes, policy_hash: str, engine: str, time_zone_data: str) -> DecisionRecord:
    """The part of a record's decision that does not depend on its request; for whoever copies it: 2 µs, made 15."""
    decided = CheckVerdict.FromString(verdict)
    return DecisionRecord(
        permit=decided.permit,
        clauses=decided.clauses if decided.clauses or decided.permit else (DEFAULT_DENY,),
        permitted_by=[instrument.instrument for instrument in decided.instruments if instrument.permit],
        withheld=_withheld(decided.instruments),
        policy_hash=policy_hash,
        access_state=StorePosition.FromString(state),
        verdict_digest=decided.digest,
        engine=engine,
        time_zone_data=time_zone_data,
    )


def refusal_of(verdict: CheckVerdict) -> Problem:
    """What the caller is told of a verdict that permits nothing: the clauses, and words for a person (French)."""
    clauses = tuple(verdict.clauses) or (DEFAULT_DENY,)
    reason_user = next((one.reason_user for one in verdict.instruments if one.reason_user), "")
    problem = denied("ACCESS_DENIED", "not permitted by any instrument in force", clauses[0])
    problem.metadata.update({"clauses": ",".join(clauses), "reason_user": reason_user})
    return problem


def narrowing_of(verdict: CheckVerdict) -> Problem:
    """What the caller of a stream is told when less is permitted than at its opening."""
    clauses = sorted({clause for one in verdict.instruments if not one.permit for clause in one.clauses})
    return denied(
        "ACCESS_NARROWED", "less is permitted than when the stream was opened", (clauses or [DEFAULT_DENY])[0]
    )


def covers(verdict: CheckVerdict, grant: Grant) -> bool:
    """Whether a later verdict still permits everything that the grant does."""
    permitted = {one.instrument.instrument_id: one for one in verdict.instruments if one.permit}
    return verdict.permit and all(
        scope.instrument_id in permitted
        and permitted[scope.instrument_id].instrument.version == scope.version
        and scope.sources.issubset(permitted[scope.instrument_id].sources)
        for scope in grant.scopes
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """What a verdict says, in the guard's words."""

    scopes: tuple[Scope, ...]
    refused: tuple[Refused, ...]
    party: str
    organisation: str
    clearance_id: str
    role: str


def _apart(verdict: CheckVerdict) -> bytes:
    """The verdict's bytes without the id that they begin with: the same ones come with every like request."""
    whole, own = verdict.SerializeToString(), verdict.check_id.encode()
    beginning = _CHECK_ID + bytes((len(own),)) + own if len(own) <= _ONE_BYTE else b""
    return whole.removeprefix(beginning)


@lru_cache(maxsize=1_000)
def _read(verdict: bytes) -> _Read:
    """What a verdict says, from its bytes."""
    decided = CheckVerdict.FromString(verdict)
    return _Read(
        scopes=tuple(_scope(one) for one in decided.instruments if one.permit),
        refused=tuple(
            Refused(one.instrument.instrument_id, tuple(one.clauses), one.reason_user)
            for one in decided.instruments
            if not one.permit
        ),
        party=_PARTIES[decided.party],
        organisation=decided.organisation,
        clearance_id=decided.clearance_id,
        role=_ROLES[decided.role],
    )


def _scope(decision: InstrumentDecision) -> Scope:
    instrument = decision.instrument
    return Scope(instrument.instrument_id, instrument.version, frozenset(decision.sources), tuple(decision.clauses))


def _withheld(instruments: Iterable[InstrumentDecision]) -> list[Withheld]:
    return [
        Withheld(
            instrument_id=one.instrument.instrument_id,
            clauses=one.clauses or (DEFAULT_DENY,),
            reason_user=one.reason_user,
        )
        for one in instruments
        if not one.permit
    ]
