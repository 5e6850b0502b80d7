"""Decisions of the access log made again: a pure function of the events up to a position and of the request stated."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from planier.access.v1 import recheck_pb2 as pb
from planier.access.v1.access_pb2 import CheckItem, CheckVerdict
from planier.access.v1.events_pb2 import Area
from planier.audit.v1.record_pb2 import AccessRecord, DecisionRecord
from planier.common.v1.release_pb2 import StorePosition

from services.access.convention import State
from services.access.decisions import Decider
from services.access.engine import ENGINE, time_zone_data
from services.access.policy import Policy
from services.access.policy.released import find
from services.access.snapshot import StateUnreadableError, folded
from services.kernel.errors import Violation, invalid
from services.kernel.guard.decisions import stated_decision
from services.kernel.guard.ports import Decision
from services.kernel.store.base import GENESIS, EventStore, Position

# States kept while a log is gone through; it cites positions nearly in order, and one state serves many records.
_KEPT = 64


@dataclass(frozen=True, slots=True)
class _Past:
    """The state at a position, and what decides under it by policy hash."""

    position: Position
    state: State
    deciders: dict[tuple[str, bool], Decider]

    @property
    def zone_data(self) -> str:
        """The rules that the state's legal terms were counted with."""
        return time_zone_data(self.state.convention.zone.key if self.state.convention else "")


class History:
    """The states that a store went through, folded when asked for. Blocking; for one thread."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._kept: OrderedDict[int, _Past] = OrderedDict()
        self._origin = _Past(Position(store.store_id, 0, GENESIS), State(), {})

    def at(self, cited: StorePosition) -> _Past | None:
        """The state at a position; None where this store never had it with that digest."""
        past = self._kept.get(cited.position)
        if past is None:
            past = self._folded(cited.position)
            if past is None:
                return None
            self._kept[cited.position] = past
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        if (past.position.store_id, past.position.digest) != (cited.store_id, cited.digest):
            return None
        return past

    def _folded(self, position: int) -> _Past | None:
        before = [past for known, past in self._kept.items() if known <= position]
        start = max(before, key=lambda past: past.position.position, default=self._origin)
        try:
            state, reached = folded(self._store, start.state, start.position, until=position)
        except StateUnreadableError:
            return None
        return _Past(reached, state, {}) if reached.position == position else None


class Recheck:
    """Makes decisions again. Blocking; for one thread."""

    def __init__(self, history: History, policies: Mapping[str, Policy]) -> None:
        self._history = history
        self._policies = policies
        self._by_hash = {policy.hash: policy for policy in policies.values()}

    def run(self, content: bytes, under: str = "") -> pb.RecheckResult:
        """What one record's decision comes to again."""
        return self.run_all([content], under)[0]

    def run_all(self, contents: Sequence[bytes], under: str = "") -> list[pb.RecheckResult]:
        """What the decisions of records come to again, in order; `under`: under another version of the policy.

        Raises:
            Problem: INVALID_ARGUMENT POLICY_VERSION_UNKNOWN.
        """
        other = self._version(under) if under else None
        asked = [self._asked(content, other) for content in contents]
        together: dict[int, tuple[Decider, list[_Asked]]] = {}
        for one in asked:
            if isinstance(one, _Asked):
                together.setdefault(id(one.decider), (one.decider, []))[1].append(one)
        for decider, group in together.values():
            for one, verdict in zip(group, decider.decide_together([one.item for one in group]), strict=True):
                one.compare(verdict)
        return [one.result if isinstance(one, _Asked) else one for one in asked]

    def _asked(self, content: bytes, other: Policy | None) -> "_Asked | pb.RecheckResult":
        try:
            record = AccessRecord.FromString(content)
        except DecodeError:
            return pb.RecheckResult(outcome=pb.RECHECK_OUTCOME_UNREADABLE)
        result = pb.RecheckResult(record_id=record.record_id, permit=record.decision.permit)
        if not record.decision.HasField("access_state"):
            result.outcome = pb.RECHECK_OUTCOME_NO_DECISION
            return result
        past = self._history.at(record.decision.access_state)
        policy = other or self._by_hash.get(record.decision.policy_hash)
        if past is None or policy is None:
            unknown = pb.RECHECK_OUTCOME_STATE_UNKNOWN if past is None else pb.RECHECK_OUTCOME_POLICY_UNKNOWN
            result.outcome = unknown
            return result
        return _Asked(record, result, item_of(record), past, policy, _decider(past, policy, whatever=other is not None))

    def _version(self, under: str) -> Policy:
        policy = find(self._policies, under)
        if policy is None:
            words = f"must be one of {', '.join(self._policies)}, or the beginning of one's hash"
            raise invalid("POLICY_VERSION_UNKNOWN", "no such policy", Violation("under", "policy", words))
        return policy


@dataclass(frozen=True, slots=True)
class _Asked:
    """A record whose decision can be made again."""

    record: AccessRecord
    result: pb.RecheckResult
    item: CheckItem
    past: _Past
    policy: Policy
    decider: Decider

    def compare(self, verdict: CheckVerdict) -> None:
        """Completes the result, once decided again."""
        stated, result = self.record.decision, self.result
        zone_data = self.past.zone_data
        again = stated_decision(self.item, Decision(verdict, stated.access_state, self.policy.hash, ENGINE, zone_data))
        result.permit_again = again.permit
        result.clauses_again.extend(again.clauses)
        result.agrees = stated.permit == again.permit and stated.clauses == again.clauses
        if stated.engine != ENGINE or stated.time_zone_data != zone_data:
            result.outcome = pb.RECHECK_OUTCOME_OTHER_ENGINE
        elif _bytes(stated) == _bytes(again):
            result.outcome = pb.RECHECK_OUTCOME_SAME
        else:
            result.outcome = pb.RECHECK_OUTCOME_DIFFERENT


def item_of(record: AccessRecord) -> CheckItem:
    """The request that a record's decision answered; before 0.2 the sources are those that the record names."""
    stated, actor = record.decision, record.actor
    by_person = bool(actor.subject)
    item = CheckItem(
        check_id=record.record_id,
        operation=record.operation,
        resource=record.resource,
        rpc=record.rpc,
        purpose=record.purpose,
        sources=stated.sources_asked if stated.engine else record.data.sources,
        decision_time=stated.decision_time,
    )
    # Set in place: messages made to be copied into others cost a third more.
    subject = item.subject
    subject.SetInParent()
    if by_person:
        subject.identity.issuer, subject.identity.subject = actor.issuer, actor.subject
    else:
        subject.certificate_identity = actor.certificate_identity
    subject.session_id = actor.session_id
    subject.multi_factor = stated.multi_factor or (by_person and not stated.engine)
    if stated.HasField("area_asked"):
        box = stated.area_asked
        item.area.CopyFrom(Area(west=box.west, south=box.south, east=box.east, north=box.north))
    return item


def _decider(past: _Past, policy: Policy, *, whatever: bool) -> Decider:
    key = (policy.hash, whatever)
    known = past.deciders.get(key)
    if known is None:
        known = past.deciders[key] = Decider(policy, past.state, whatever_policy=whatever)
    return known


def _bytes(decision: DecisionRecord) -> bytes:
    return decision.SerializeToString(deterministic=True)
