"""What the guard makes of a decision of access: a grant, the words of a record, a refusal. Any doubt is a deny."""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from planier.access.v1.access_pb2 import CheckItem, CheckVerdict, InstrumentDecision
from planier.access.v1.events_pb2 import Party, Role
from planier.audit.v1.record_pb2 import AccessRecord, Area, DecisionRecord
from planier.common.v1.release_pb2 import Withheld

from services.kernel.errors import Problem, denied
from services.kernel.guard.grant import _SEAL, Grant, Refused, Scope, Subject
from services.kernel.guard.ports import Decision

DEFAULT_DENY = "default.deny"
_PARTIES = {number: name.removeprefix("PARTY_") if number else "" for name, number in Party.items()}
_ROLES = {number: name.removeprefix("ROLE_") if number else "" for name, number in Role.items()}


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
    scopes, refused = _read(tuple([one.SerializeToString() for one in verdict.instruments]))
    return Grant(
        record_id=record.record_id,
        subject=subject,
        operation=record.operation,
        resource=record.resource,
        purpose=record.purpose,
        party=_PARTIES[verdict.party],
        organisation=verdict.organisation,
        clearance_id=verdict.clearance_id,
        role=_ROLES[verdict.role],
        scopes=scopes,
        refused=refused,
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
    verdict = decision.verdict
    actor = record.actor
    # A later denial may no longer know the clearance; the actor stays who it was.
    actor.party = _PARTIES[verdict.party] or actor.party
    actor.organisation = verdict.organisation or actor.organisation
    actor.role = _ROLES[verdict.role] or actor.role
    actor.clearance_id = verdict.clearance_id or actor.clearance_id
    if (actor.certificate_identity and not actor.subject) or verdict.role == Role.ROLE_PROVIDER_RECIPIENT:
        # A system declares for its authority (for which of its agents, the declarer's own reference says); a provider's
        # person works for the authority that engaged it (art8.provider).
        actor.on_behalf_of = actor.party
    record.decision.CopyFrom(stated_decision(item, decision))


def stated_decision(item: CheckItem, decision: Decision) -> DecisionRecord:
    """What a record states of a decision: its request, its outcome, and all that is needed to make it again."""
    verdict = decision.verdict
    stated = DecisionRecord(
        permit=verdict.permit,
        clauses=verdict.clauses if verdict.clauses or verdict.permit else (DEFAULT_DENY,),
        permitted_by=[instrument.instrument for instrument in verdict.instruments if instrument.permit],
        withheld=_withheld(verdict.instruments),
        policy_hash=decision.policy_hash,
        access_state=decision.state,
        decision_time=item.decision_time,
        sources_asked=item.sources,
        multi_factor=item.subject.multi_factor,
        verdict_digest=verdict.digest,
        engine=decision.engine,
        time_zone_data=decision.time_zone_data,
    )
    if item.HasField("area"):
        box = item.area
        stated.area_asked.CopyFrom(Area(west=box.west, south=box.south, east=box.east, north=box.north))
    return stated


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


@lru_cache(maxsize=1_000)
def _read(instruments: tuple[bytes, ...]) -> tuple[tuple[Scope, ...], tuple[Refused, ...]]:
    """What instruments permit and withhold, from their bytes: the same ones come with every verdict of a person."""
    decisions = [InstrumentDecision.FromString(one) for one in instruments]
    return (
        tuple(_scope(decision) for decision in decisions if decision.permit),
        tuple(
            Refused(decision.instrument.instrument_id, tuple(decision.clauses), decision.reason_user)
            for decision in decisions
            if not decision.permit
        ),
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
