"""Check: permit or deny per instrument. A pure function of a state and a request, its decision time included."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Self

from cedarpy import Entities
from planier.access.v1.access_pb2 import CheckItem, CheckVerdict, InstrumentDecision
from planier.access.v1.events_pb2 import PARTY_PREFECTURE, ROLE_GRANTING_DELEGATE
from planier.common.v1.guard_pb2 import OPERATION_GOVERN, Operation
from planier.common.v1.release_pb2 import InstrumentReference, Purpose

from services.access.clearances import Area
from services.access.convention import Convention, Identity, State
from services.access.deed import CONVENTION
from services.access.holders import STRANGER, Holder
from services.access.instruments import DELEGATE, URGENT_CLEARANCE, YEARLY_REVIEW, Terms
from services.access.list_state import ListStanding
from services.access.policy import DEFAULT_DENY, Policy, Ruling
from services.access.policy import Question as PolicyQuestion
from services.access.view import GOVERNED, SYSTEM, Titles, View, Views
from services.kernel.clock import microseconds
from services.kernel.instants import instant, is_instant

_NO_CONVENTION = "Aucune convention n'est en vigueur."
_OTHER_POLICY = "La politique en service n'est pas celle que l'avenant en vigueur désigne."
_NO_INSTANT = "La demande ne dit pas à quel instant elle est faite."
_UNKNOWN_SOURCES = "Aucun texte en vigueur ne régit ces sources."
_PARTLY_COVERED = "Votre habilitation ne couvre pas toutes les sources demandées."
_ACTIONS = {value: name.removeprefix("OPERATION_") for name, value in Operation.items()}
_PURPOSES = {value: name.removeprefix("PURPOSE_") for name, value in Purpose.items()} | {0: ""}
# Distinct requests remembered in one state; beyond, all are forgotten at once.
_MEMORY = 20_000

_Key = tuple[str, str, str, bool, int, str, int, tuple[str, ...], tuple[float, ...], int, int]


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

    def __init__(self, policy: Policy, state: State, *, whatever_policy: bool = False) -> None:
        """`whatever_policy`: even where an amendment names another policy set, to see what this one would say."""
        self._policy = policy
        self._whatever_policy = whatever_policy
        self._views = Views(policy, state)
        self._memory: dict[_Key, CheckVerdict] = {}

    def decide(self, item: CheckItem) -> CheckVerdict:
        """The verdict, bearing the item's id; permit when at least one instrument permits."""
        return _answer(item, self.settled(item))

    def settled(self, item: CheckItem) -> CheckVerdict:
        """The verdict without an id, shared by equal requests: for whoever copies it."""
        if not is_instant(item.decision_time):  # denied alone: its neighbours in the batch keep their verdicts
            reference = InstrumentReference(instrument_id=CONVENTION)
            return _sealed(_assemble(STRANGER, [_denial(reference, DEFAULT_DENY, _NO_INSTANT)]))
        moment = instant(item.decision_time)
        found = self._views.at(moment)
        if found is None:
            unsigned = InstrumentReference(instrument_id=CONVENTION)
            return _sealed(_assemble(STRANGER, [_denial(unsigned, "art2.documents", _NO_CONVENTION)]))
        interval, view = found
        titles = _titles_of(view, item)
        key = _key(item, titles, interval, moment)
        known = self._memory.get(key)
        if known is None:
            if len(self._memory) >= _MEMORY:
                self._memory.clear()
            known = self._memory[key] = _sealed(self._verdict(view, titles, item, moment))
        return known

    def decide_together(self, items: Sequence[CheckItem]) -> list[CheckVerdict]:
        """The verdict on each item, in order, as `decide` gives it.

        Where the first title settles an item its questions are put to the policy with those of the others: it is called
        once for many, and each costs it a quarter less.
        """
        keys = self._foresee(items)
        remembered = (self._memory.get(key) if key else None for key in keys)
        return [
            self.decide(item) if known is None else _answer(item, known)
            for item, known in zip(items, remembered, strict=True)
        ]

    def _foresee(self, items: Sequence[CheckItem]) -> list[_Key | None]:
        """Remembers what is settled together; the keys that verdicts are remembered under, None where none may be."""
        if len(self._memory) + len(items) > _MEMORY:
            self._memory.clear()
        together: dict[int, tuple[Entities, dict[_Key, _Foreseen]]] = {}
        keys: list[_Key | None] = []
        met: set[_Key] = set()
        for item in items:
            moment = instant(item.decision_time) if is_instant(item.decision_time) else None
            found = self._views.at(moment) if moment else None
            if found is None or moment is None or not self._executes(found[1]):
                keys.append(None)
                continue
            interval, view = found
            titles = _titles_of(view, item)
            key = _key(item, titles, interval, moment)
            keys.append(key)
            if key in met or key in self._memory:
                continue
            met.add(key)
            foreseen = _Foreseen.of(view, titles, item, moment)
            if foreseen is not None:
                entities = view.entities(foreseen.ranked[0], foreseen.asked[0][2][0])
                together.setdefault(id(entities), (entities, {}))[1][key] = foreseen
        for entities, group in together.values():
            rulings = iter(self._policy.rule_all([one for plan in group.values() for one in plan.asked], entities))
            for key, plan in group.items():
                verdict = plan.ruled([next(rulings) for _ in plan.asked])
                if verdict.permit or len(plan.ranked) == 1:
                    self._memory[key] = _sealed(verdict)
        return keys

    def _executes(self, view: View) -> bool:
        """Whether the terms in force name this policy set, or leave it open."""
        return self._whatever_policy or view.terms.policy_hash in ("", self._policy.hash)

    def _verdict(self, view: View, titles: Titles, item: CheckItem, moment: datetime) -> CheckVerdict:
        ranked = _ranked(titles, item, moment)
        reference = InstrumentReference(instrument_id=CONVENTION, version=view.terms.version)
        if not self._executes(view):
            return _assemble(ranked[0], [_denial(reference, "art10.avenant", _OTHER_POLICY)])
        questions = _questions(view.terms, item)
        if not questions:
            return _assemble(ranked[0], [_denial(reference, DEFAULT_DENY, _UNKNOWN_SOURCES)])
        verdicts = (self._under(view, holder, item, questions, moment) for holder in ranked)
        first = next(verdicts)
        return first if first.permit else next((verdict for verdict in verdicts if verdict.permit), first)

    def _under(
        self, view: View, holder: Holder, item: CheckItem, questions: list[_Question], moment: datetime
    ) -> CheckVerdict:
        asked = [_put(view, holder, item, question, moment) for question in questions]
        rulings = [self._policy.rule(*one, view.entities(holder, one[2][0])) if one else _UNASKED for one in asked]
        return _ruled(view, holder, item, questions, rulings, moment)


def _ruled(
    view: View,
    holder: Holder,
    item: CheckItem,
    questions: list[_Question],
    rulings: Sequence[Ruling],
    moment: datetime,
) -> CheckVerdict:
    """The verdict under one title, once the policy ruled on each question."""
    decisions: list[InstrumentDecision] = []
    for question, ruling in zip(questions, rulings, strict=True):
        if not ruling.permit:
            decisions.append(_refusal(question, ruling, holder, moment))
            continue
        covered = question.sources & holder.sources
        clauses = _resting_on(view, item, question.instrument_id, holder)
        decisions.append(
            InstrumentDecision(instrument=question.reference, permit=True, clauses=clauses, sources=sorted(covered))
        )
        if question.named and covered != question.sources:
            clause = "art4.secure_entry" if item.resource == "declarations" else "art6.habilitation"
            decisions.append(_denial(question.reference, clause, _PARTLY_COVERED))
    return _assemble(holder, decisions)


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """A request as its asker's first title puts it to the policy."""

    view: View
    item: CheckItem
    moment: datetime
    ranked: tuple[Holder, ...]
    questions: list[_Question]
    asked: list[PolicyQuestion]

    @classmethod
    def of(cls, view: View, titles: Titles, item: CheckItem, moment: datetime) -> Self | None:
        """The request, or None where the policy is not asked about it."""
        ranked = _ranked(titles, item, moment)
        questions = _questions(view.terms, item)
        put = [_put(view, ranked[0], item, question, moment) for question in questions]
        asked = [one for one in put if one is not None]
        if not asked or len(asked) != len(put):
            return None
        return cls(view, item, moment, ranked, questions, asked)

    def ruled(self, rulings: Sequence[Ruling]) -> CheckVerdict:
        """The verdict under the first title."""
        return _ruled(self.view, self.ranked[0], self.item, self.questions, rulings, self.moment)


_UNASKED = Ruling(permit=False, clauses=(DEFAULT_DENY,), reasons=(_UNKNOWN_SOURCES,))


def _put(view: View, holder: Holder, item: CheckItem, question: _Question, moment: datetime) -> PolicyQuestion | None:
    """A question in the policy's words; None where it holds a number that the contract does not know."""
    action, purpose = _ACTIONS.get(item.operation), _PURPOSES.get(item.purpose)
    if action is None or purpose is None:
        return None
    context = {
        "purpose": purpose,
        "sources": sorted(question.sources),
        "multi_factor": item.subject.multi_factor,
        "time": microseconds(moment),
        "within": holder.within(_box(item)),
        "house_rules": view.house_rules,
    }
    return holder.name, action, question.resource, context


def _answer(item: CheckItem, known: CheckVerdict) -> CheckVerdict:
    verdict = CheckVerdict()
    verdict.CopyFrom(known)
    verdict.check_id = item.check_id
    return verdict


def _sealed(verdict: CheckVerdict) -> CheckVerdict:
    """The verdict with its digest: what a record keeps, for whoever computes it again."""
    verdict.digest = sha256(verdict.SerializeToString(deterministic=True)).digest()
    return verdict


def _titles_of(view: View, item: CheckItem) -> Titles:
    subject = item.subject
    if subject.certificate_identity and not subject.identity.subject:
        holder = view.declarant(subject.certificate_identity)
        return Titles((holder,) if holder else (), (), bounded=False)
    return view.titles(Identity(subject.identity.issuer, subject.identity.subject))


def _key(item: CheckItem, titles: Titles, interval: int, moment: datetime) -> _Key:
    """All that a decision depends on: of the time the intervals, of the place nothing where no title is bounded."""
    subject, box = item.subject, item.area
    return (
        subject.certificate_identity,
        subject.identity.issuer,
        subject.identity.subject,
        subject.multi_factor,
        item.operation,
        item.resource,
        item.purpose,
        tuple(item.sources),
        (box.west, box.south, box.east, box.north) if titles.bounded and item.HasField("area") else (),
        interval,
        titles.interval(moment),
    )


def _ranked(titles: Titles, item: CheckItem, moment: datetime) -> tuple[Holder, ...]:
    """The asker's titles, the one that a refusal should speak of first: on facts clearances, elsewhere offices."""
    first = "CLEARANCE" if item.resource in GOVERNED else "OFFICE"

    def rank(title: Holder) -> tuple[bool, bool, int, str]:
        return (not title.holds(moment), title.basis != first, -microseconds(title.valid_until), title.name)

    if len(titles.holders) == 1:
        return titles.holders
    return tuple(sorted(titles.holders, key=rank)) or (STRANGER,)


def _questions(terms: Terms, item: CheckItem) -> list[_Question]:
    if item.resource not in GOVERNED:
        kind = SYSTEM.get(item.resource, (item.resource, ()))[0]
        reference = InstrumentReference(instrument_id=CONVENTION, version=terms.version)
        return [_Question((kind, "all"), reference, CONVENTION, frozenset(), named=False)]
    asked = frozenset(item.sources)
    return [
        _Question(
            (GOVERNED[item.resource], instrument.instrument_id),
            InstrumentReference(instrument_id=instrument.instrument_id, version=instrument.version),
            instrument.instrument_id,
            instrument.sources & asked if asked else instrument.sources,
            named=bool(asked),
        )
        for instrument in terms.instruments
        if not asked or instrument.sources & asked
    ]


def _box(item: CheckItem) -> Area | None:
    if not item.HasField("area"):
        return None
    box = Area(item.area.west, item.area.south, item.area.east, item.area.north)
    return box if box.is_box() else None


def _resting_on(view: View, item: CheckItem, instrument_id: str, holder: Holder) -> list[str]:
    """The clauses that a permit rests on: those that would have denied it, had their condition not been met."""
    clauses = _term_clauses(view.convention, item, instrument_id, holder)
    if item.resource == "declarations":
        return sorted(clauses | {"art4.secure_entry"})
    own = _OWN_CLAUSE.get(item.resource, "house.office")
    own = _OWN_OF_GOVERNING.get(item.resource, own) if item.operation == OPERATION_GOVERN else own
    if holder.party == PARTY_PREFECTURE:
        clauses |= {"art7.consultation"} | ({"art7.list", "art7.validation"} if holder.basis == "CLEARANCE" else set())
    if holder.role == ROLE_GRANTING_DELEGATE:
        clauses.add(DELEGATE)
    if holder.urgent:
        clauses.add(URGENT_CLEARANCE)
    if holder.basis == "CLEARANCE" and YEARLY_REVIEW in view.terms.house_rules:
        clauses.add(YEARLY_REVIEW)
    return sorted(clauses | {own, "art6.purpose", "art6.secure_access"})


_OWN_CLAUSE = {
    "facts": "art6.habilitation",
    "clearance-requests": "art6.habilitation",
    "undertakings": "art6.habilitation",
    "bindings": "art7.validation",
    "suspensions": "art7.validation",
    "listed-persons": "art7.validation",
    "notices": "art3.change",
    "own-accesses": "house.own_accesses",
}
_OWN_OF_GOVERNING = {
    "clearances": "art6.habilitation",
    "nominative-list": "art7.list",
    "engagements": "art8.provider",
}
_LIST_WORDS = {
    ListStanding.SUSPENDED.name: "personne suspendue",
    ListStanding.REFUSED.name: "personne refusée",
    ListStanding.LEFT.name: "personne sortie de la liste",
    ListStanding.UNLISTED.name: "personne absente de la liste",
}


def _term_clauses(convention: Convention, item: CheckItem, instrument_id: str, holder: Holder) -> set[str]:
    """art9, where it bounds the permit: notice given and not yet over is said too."""
    if item.resource not in GOVERNED or (instrument_id != CONVENTION and holder.party != PARTY_PREFECTURE):
        return set()
    return {"art9.term", "art9.denunciation"} if convention.denunciation else {"art9.term"}


def _refusal(question: _Question, ruling: Ruling, holder: Holder, moment: datetime) -> InstrumentDecision:
    return InstrumentDecision(
        instrument=question.reference,
        permit=False,
        clauses=ruling.clauses,
        reason_user=" ".join(ruling.reasons),
        reason_admin=_standing(holder, moment) + (f" ; {ruling.faults} erreurs d'évaluation" if ruling.faults else ""),
    )


def _standing(holder: Holder, moment: datetime) -> str:
    first_that_holds = (
        (holder.basis == "STRANGER", "aucun titre"),
        (holder.revoked, "habilitation retirée"),
        (holder.suspended, "habilitation suspendue"),
        (not holder.undertaken, "engagement de confidentialité attendu"),
        (moment < holder.valid_from, "titre pas encore en vigueur"),
        (moment >= min(holder.valid_until, holder.review_due), "titre échu"),
        (holder.list_standing in _LIST_WORDS, f"liste nominative : {_LIST_WORDS.get(holder.list_standing)}"),
        (holder.listed_in != holder.list_version, "liste nominative non vérifiée"),
        (moment >= holder.list_until, "liste nominative échue"),
    )
    return next((words for holds, words in first_that_holds if holds), "titre en vigueur")


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
