"""Check: permit or deny per instrument. A pure function of a state and a request, its decision time included."""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime

from cedarpy import Entities
from planier.access.v1.access_pb2 import CheckItem, CheckVerdict, InstrumentDecision
from planier.access.v1.events_pb2 import PARTY_PREFECTURE
from planier.common.v1.guard_pb2 import OPERATION_GOVERN, Operation
from planier.common.v1.release_pb2 import PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT, InstrumentReference

from services.access.convention import Convention, Identity, Instrument, State
from services.access.deed import CONVENTION, FACT_PURPOSES
from services.access.holders import STRANGER, Holder, holders_of, purpose_names
from services.access.policy import DEFAULT_DENY, Policy, Ruling, entity
from services.kernel.clock import microseconds
from services.kernel.instants import is_instant

# Resource of the guard's option → entity type of the policy. A resource without a type ("session") is never permitted.
_GOVERNED = {"facts": "Facts", "declarations": "Declarations"}
_SYSTEM = {
    "clearances": ("Clearances", (PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)),
    "bindings": ("Bindings", (PURPOSE_ADMINISTRATION,)),
    "convention": ("Convention", (PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)),
    "access-log": ("AccessLog", (PURPOSE_OVERSIGHT,)),
    "log-governance": ("LogGovernance", (PURPOSE_ADMINISTRATION, PURPOSE_OVERSIGHT)),
    "own-accesses": ("OwnAccesses", (PURPOSE_OVERSIGHT,)),
}
_NO_CONVENTION = "Aucune convention n'est en vigueur."
_NO_INSTANT = "La demande ne dit pas à quel instant elle est faite."
_UNKNOWN_SOURCES = "Aucun texte en vigueur ne régit ces sources."
_PARTLY_COVERED = "Votre habilitation ne couvre pas toutes les sources demandées."
# Distinct requests remembered in one state; beyond, all are forgotten at once.
_MEMORY = 20_000

_Key = tuple[str, str, str, bool, int, str, int, tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class _Question:
    """What is put to the policy for one instrument, or for a resource that no instrument governs."""

    resource: tuple[str, str]
    reference: InstrumentReference
    instrument_id: str
    # The instrument's sources as asked for, and whether some were named.
    sources: frozenset[str]
    named: bool


class Decider:
    """Decides under one state.

    Equal requests are answered from memory; of the time, only the interval between two boundaries counts.
    """

    def __init__(self, policy: Policy, state: State) -> None:
        self._policy = policy
        self._convention = state.convention
        self._holders = holders_of(state)
        self._resources = _resources(state.convention) if state.convention else []
        self._boundaries = _boundaries(state)
        self._entities: dict[str, Entities] = {}
        self._memory: dict[_Key, CheckVerdict] = {}

    def decide(self, item: CheckItem) -> CheckVerdict:
        """The verdict, bearing the item's id; permit when at least one instrument permits."""
        if not is_instant(item.decision_time):  # denied alone: its neighbours in the batch keep their verdicts
            reference = InstrumentReference(instrument_id=CONVENTION)
            verdict = _assemble(STRANGER, [_denial(reference, DEFAULT_DENY, _NO_INSTANT)])
            verdict.check_id = item.check_id
            return verdict
        moment = item.decision_time.ToDatetime(UTC)
        subject = item.subject
        key = (
            subject.certificate_identity,
            subject.identity.issuer,
            subject.identity.subject,
            subject.multi_factor,
            item.operation,
            item.resource,
            item.purpose,
            tuple(item.sources),
            bisect_right(self._boundaries, moment),
        )
        known = self._memory.get(key)
        if known is None:
            if len(self._memory) >= _MEMORY:
                self._memory.clear()
            known = self._memory[key] = self._verdict(item, moment)
        verdict = CheckVerdict()
        verdict.CopyFrom(known)
        verdict.check_id = item.check_id
        return verdict

    def _verdict(self, item: CheckItem, moment: datetime) -> CheckVerdict:
        if self._convention is None:
            unsigned = InstrumentReference(instrument_id=CONVENTION)
            return _assemble(STRANGER, [_denial(unsigned, "art2.documents", _NO_CONVENTION)])
        questions = self._questions(self._convention, item)
        if not questions:
            reference = InstrumentReference(instrument_id=CONVENTION, version=self._convention.version)
            holder = self._titles(item, moment)[0]
            return _assemble(holder, [_denial(reference, DEFAULT_DENY, _UNKNOWN_SOURCES)])
        verdicts = (self._under(holder, item, questions, moment) for holder in self._titles(item, moment))
        first = next(verdicts)
        return first if first.permit else next((verdict for verdict in verdicts if verdict.permit), first)

    def _titles(self, item: CheckItem, moment: datetime) -> tuple[Holder, ...]:
        """The asker's titles, the one that a refusal should speak of first: on facts clearances, elsewhere offices."""
        subject = item.subject
        if subject.certificate_identity and not subject.identity.subject:
            return (self._holders.by_certificate.get(subject.certificate_identity, STRANGER),)
        titles = self._holders.by_identity.get(Identity(subject.identity.issuer, subject.identity.subject), ())
        first = "CLEARANCE" if item.resource in _GOVERNED else "OFFICE"

        def rank(title: Holder) -> tuple[bool, bool, int, str]:
            return (not title.holds(moment), title.basis != first, -microseconds(title.valid_until), title.name)

        return tuple(sorted(titles, key=rank)) or (STRANGER,)

    def _questions(self, convention: Convention, item: CheckItem) -> list[_Question]:
        if item.resource not in _GOVERNED:
            kind = _SYSTEM.get(item.resource, (item.resource, ()))[0]
            reference = InstrumentReference(instrument_id=CONVENTION, version=convention.version)
            return [_Question((kind, "all"), reference, CONVENTION, frozenset(), named=False)]
        asked = frozenset(item.sources)
        return [
            _Question(
                (_GOVERNED[item.resource], instrument.instrument_id),
                InstrumentReference(instrument_id=instrument.instrument_id, version=instrument.version),
                instrument.instrument_id,
                instrument.sources & asked if asked else instrument.sources,
                named=bool(asked),
            )
            for instrument in convention.instruments
            if not asked or instrument.sources & asked
        ]

    def _under(self, holder: Holder, item: CheckItem, questions: list[_Question], moment: datetime) -> CheckVerdict:
        decisions: list[InstrumentDecision] = []
        for question in questions:
            ruling = self._ask(holder, item, question, moment)
            if not ruling.permit:
                decisions.append(_refusal(question, ruling, holder, moment))
                continue
            covered = question.sources & holder.sources
            clauses = _resting_on(item, question.instrument_id, holder)
            decisions.append(
                InstrumentDecision(instrument=question.reference, permit=True, clauses=clauses, sources=sorted(covered))
            )
            if question.named and covered != question.sources:
                clause = "art4.secure_entry" if item.resource == "declarations" else "art6.habilitation"
                decisions.append(_denial(question.reference, clause, _PARTLY_COVERED))
        return _assemble(holder, decisions)

    def _ask(self, holder: Holder, item: CheckItem, question: _Question, moment: datetime) -> Ruling:
        try:
            action = Operation.Name(item.operation).removeprefix("OPERATION_")
            purpose = purpose_names([item.purpose])[0] if item.purpose else ""
        except ValueError:  # a number that the contract does not know
            return Ruling(permit=False, clauses=(DEFAULT_DENY,), reasons=(_UNKNOWN_SOURCES,))
        context = {
            "purpose": purpose,
            "sources": sorted(question.sources),
            "multi_factor": item.subject.multi_factor,
            "time": microseconds(moment),
        }
        return self._policy.rule(holder.name, action, question.resource, context, self._entities_of(holder))

    def _entities_of(self, holder: Holder) -> Entities:
        entities = self._entities.get(holder.name)
        if entities is None:
            entities = self._entities[holder.name] = self._policy.entities([holder.entity(), *self._resources])
        return entities


def _resources(convention: Convention) -> list[dict[str, object]]:
    term = {"starts": microseconds(convention.term.starts), "ends": microseconds(convention.term.ends)}

    def governed(kind: str, instrument: Instrument) -> dict[str, object]:
        purposes = purpose_names(instrument.purposes & FACT_PURPOSES)
        attributes = {"instrument": instrument.instrument_id, "purposes": purposes, "term": term}
        return entity(kind, instrument.instrument_id, attributes)

    system = [entity(kind, "all", {"purposes": purpose_names(purposes)}) for kind, purposes in _SYSTEM.values()]
    return [*system, *(governed(kind, i) for kind in _GOVERNED.values() for i in convention.instruments)]


def _boundaries(state: State) -> list[datetime]:
    """Every instant at which some decision under this state may change, ascending."""
    if state.convention is None:
        return []
    found = {state.convention.term.starts, state.convention.term.ends}
    found.update(office.since for office in state.convention.offices)
    for clearance in state.clearances.values():
        if clearance.identity is not None:
            found.update((clearance.valid_from, clearance.valid_until))
    return sorted(found)


def _resting_on(item: CheckItem, instrument_id: str, holder: Holder) -> list[str]:
    """The clauses that a permit rests on: those that would have denied it, had their condition not been met."""
    bounded_by_term = item.resource in _GOVERNED and (instrument_id == CONVENTION or holder.party == PARTY_PREFECTURE)
    clauses = {"art9.term"} if bounded_by_term else set()
    if item.resource == "declarations":
        return sorted(clauses | {"art4.secure_entry"})
    own = {"facts": "art6.habilitation", "bindings": "art7.validation", "own-accesses": "house.own_accesses"}.get(
        item.resource, "house.office"
    )
    if item.resource == "clearances" and item.operation == OPERATION_GOVERN:
        own = "art6.habilitation"
    if holder.party == PARTY_PREFECTURE:
        clauses.add("art7.consultation")
    return sorted(clauses | {own, "art6.purpose", "art6.secure_access"})


def _refusal(question: _Question, ruling: Ruling, holder: Holder, moment: datetime) -> InstrumentDecision:
    return InstrumentDecision(
        instrument=question.reference,
        permit=False,
        clauses=ruling.clauses,
        reason_user=" ".join(ruling.reasons),
        reason_admin=_standing(holder, moment) + (f" ; {ruling.faults} erreurs d'évaluation" if ruling.faults else ""),
    )


def _standing(holder: Holder, moment: datetime) -> str:
    if holder.basis == "STRANGER":
        return "aucun titre"
    if holder.revoked:
        return "habilitation retirée"
    if moment < holder.valid_from:
        return "titre pas encore en vigueur"
    return "titre échu" if moment >= holder.valid_until else "titre en vigueur"


def _denial(reference: InstrumentReference, clause: str, reason: str) -> InstrumentDecision:
    return InstrumentDecision(instrument=reference, permit=False, clauses=[clause], reason_user=reason)


def _assemble(holder: Holder, decisions: list[InstrumentDecision]) -> CheckVerdict:
    permit = any(decision.permit for decision in decisions)
    deciding = [decision for decision in decisions if decision.permit == permit]
    return CheckVerdict(
        permit=permit,
        instruments=decisions,
        clauses=sorted({clause for decision in deciding for clause in decision.clauses}),
        clearance_id=holder.title,
        party=holder.party,
        role=holder.role,
        organisation=holder.organisation,
    )
