"""A convention's whole life, whoever does whatever in whatever order: the clauses hold after every step.

What the clauses ask for is computed here from the commands that were accepted, not from the state that is judged.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from planier.access.v1.access_pb2 import (
    DECISION_KIND_GRANT,
    DECISION_KIND_REFUSE,
    DECISION_KIND_RENEW,
    DECISION_KIND_REVIEW,
    DECISION_KIND_REVOKE,
)
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    REVOCATION_REASON_MISUSE,
    ROLE_CITY_USER,
    ROLE_COORDINATOR,
    ROLE_PREFECTURE_USER,
    Amendment,
    Denunciation,
    Party,
    Termination,
)
from planier.common.v1.release_pb2 import PURPOSE_SITUATION

from services.access import acts
from services.access.clearances import Content
from services.access.convention import Identity, Person, State
from services.access.decisions import Decider
from services.access.domain import (
    AcknowledgeNotice,
    Command,
    ConfirmBinding,
    DecideClearances,
    Decision,
    Event,
    GrantClearance,
    ProposeBinding,
    RecordAct,
    RecordDpia,
    RequestClearance,
    ResumeClearance,
    RevokeClearance,
    SignUndertaking,
    SuspendClearance,
    decide,
    evolve,
)
from services.access.instruments import DELEGATE, HOUSE_RULES, URGENT_CLEARANCE, YEARLY_REVIEW
from services.access.people import identity_of
from services.access.policy import Policy
from services.access.undertaking import HASH
from services.kernel.errors import Problem
from tests.fixtures import access
from tests.fixtures.access import CONVENTION_SOURCES

POLICY = Policy.load()
DELEGATE_IDENTITY = Identity(access.ISSUER, "delegate")
PREFECTURE_DPO = Identity(access.ISSUER, "prefecture-dpo")
PEOPLE = {
    access.DGA: access.DGA_PERSON,
    access.SECOND_DGA: Person("Irène", "Vasseur", "DGA"),
    access.VALIDATOR: access.VALIDATOR_PERSON,
    access.DPO: Person("Denis", "Roux", "DPD"),
    PREFECTURE_DPO: Person("Zoé", "Noir", "DPD"),
    DELEGATE_IDENTITY: Person("Hugo", "Ricard", "DGA Sécurité"),
    access.CITY_USER: access.CITY_PERSON,
    access.PREFECTURE_USER: access.PREFECTURE_PERSON,
}
WHO = st.sampled_from(tuple(PEOPLE))
GRANTERS = st.sampled_from((access.DGA, access.SECOND_DGA, DELEGATE_IDENTITY, access.VALIDATOR))
IDS = tuple(str(UUID(int=number)) for number in range(1, 5))
OFFICERS = st.sampled_from((access.DPO, PREFECTURE_DPO, access.DGA))
CLEARANCE = st.sampled_from(IDS)
PARTIES = st.sampled_from((PARTY_CITY, PARTY_PREFECTURE))
SIGNERS = st.sampled_from((access.BOTH, access.CITY_ALONE, access.PREFECTURE_ALONE))
ROLES = st.sampled_from(
    ((PARTY_CITY, ROLE_CITY_USER), (PARTY_CITY, ROLE_COORDINATOR), (PARTY_PREFECTURE, ROLE_PREFECTURE_USER))
)
DAYS = st.sampled_from((1, 10, 200, 900))
KINDS = st.sampled_from(
    (DECISION_KIND_GRANT, DECISION_KIND_REFUSE, DECISION_KIND_RENEW, DECISION_KIND_REVIEW, DECISION_KIND_REVOKE)
)
STEPS = st.sampled_from((timedelta(seconds=1), timedelta(hours=13), timedelta(days=31), timedelta(days=366)))


def local_midnight(moment: datetime, *, months: int = 0) -> datetime:
    """The beginning of a Paris day some months later, by plain counting; days beyond the 28th come out earlier."""
    zone = access.founded().convention.zone  # type: ignore[union-attr]
    day = moment.astimezone(zone).date()
    month = day.month - 1 + months
    day = day.replace(year=day.year + month // 12, month=month % 12 + 1, day=1) + timedelta(days=day.day - 1)
    return datetime.combine(day, time(), zone).astimezone(UTC)


class Life(RuleBasedStateMachine):
    """The clock only goes on; every command is tried by whoever the rules draw."""

    def __init__(self) -> None:
        super().__init__()
        self.now = access.NOW
        self.state = State()
        self.events: list[tuple[Event, datetime]] = []
        self.accepted: list[tuple[Command, datetime]] = []
        self.serial = 0

    @initialize()
    def sign(self) -> None:
        self.attempt(access.sign_command())

    def act(self, kind: str, content: dict[str, Any], signers: Any) -> RecordAct:
        self.serial += 1
        return access.act_command(kind, content, signers, act_id=str(UUID(int=10_000 + self.serial)))

    def attempt(self, command: Command) -> bool:
        try:
            events = decide(self.state, command, self.now)
        except Problem as problem:
            told = f"{problem} {problem.violations}"
            assert not any(person.usual_name in told for person in PEOPLE.values())
            return False
        for event in events:
            self.state = evolve(self.state, event, self.now)
            self.events.append((event, self.now))
        if events:
            self.accepted.append((command, self.now))
        return bool(events)

    @rule(step=STEPS)
    def time_passes(self, step: timedelta) -> None:
        self.now += step

    @rule(rules=st.sets(st.sampled_from(sorted(HOUSE_RULES))), wider=st.booleans(), signers=SIGNERS)
    def amend(self, rules: set[str], wider: bool, signers: Any) -> None:
        convention = self.state.convention
        assert convention is not None
        terms = access.amendment(
            f"version-{self.serial}",
            previous_version=convention.terms(self.now).version,
            house_rules=[{"rule_id": name} for name in sorted(rules)],
            annex_hash=f"{self.serial:064x}" if wider else convention.terms(self.now).annex_hash,
        )
        assert not (self.attempt(self.act("amendment", terms, signers)) and len(signers) < 2), "art10.avenant"

    @rule(party=PARTIES, signers=SIGNERS, ago=st.integers(-1, 50))
    def denounce(self, party: Party.ValueType, signers: Any, ago: int) -> None:
        content = {"party": party, "received_at": self.now - timedelta(days=ago), "letter_reference": "LRAR"}
        assert not (self.attempt(self.act("denunciation", content, signers)) and party not in signers)

    @rule(party=PARTIES, signers=SIGNERS, reason=st.sampled_from(("MUTUAL", "BREACH")), sure=st.integers(0, 3))
    def terminate(self, party: Party.ValueType, signers: Any, reason: str, sure: int) -> None:
        if sure:  # rarely: little can happen afterwards
            return
        content = {"party": party, "reason": f"TERMINATION_REASON_{reason}", "act_reference": "R"}
        done = self.attempt(self.act("termination", content, signers))
        assert not (done and (party not in signers or (reason == "MUTUAL" and len(signers) < 2)))

    @rule(signers=SIGNERS)
    def destroy(self, signers: Any) -> None:
        document = access.description()["document_hash"]
        content = {"destroyed_at": self.now, "certificate_hash": document}
        if self.attempt(self.act("destruction", content, signers)):
            assert self.end() <= self.now, "art9.termination"
            assert PARTY_CITY in signers

    @rule(signers=SIGNERS, days=DAYS)
    def delegate(self, signers: Any, days: int) -> None:
        content = access.appointment(
            "ROLE_GRANTING_DELEGATE",
            "PARTY_CITY",
            "delegate",
            PEOPLE[DELEGATE_IDENTITY],
            "DELEGATION",
            until=self.now + timedelta(days=days),
        )
        if self.attempt(self.act("appointment", content, signers)):
            assert PARTY_CITY in signers
            assert DELEGATE in self.house(), DELEGATE

    @rule(signers=SIGNERS)
    def discharge(self, signers: Any) -> None:
        content = {
            "role": "ROLE_GRANTING_DELEGATE",
            "party": "PARTY_CITY",
            "identity": {"issuer": access.ISSUER, "subject": "delegate"},
            "act_reference": "ARR",
        }
        assert not (self.attempt(self.act("discharge", content, signers)) and PARTY_CITY not in signers)

    @rule(actor=GRANTERS, name=CLEARANCE, whom=WHO, role=ROLES, days=DAYS, urgent=st.booleans())
    def grant(self, actor: Identity, name: str, whom: Identity, role: Any, days: int, urgent: bool) -> None:
        content = self.content(whom, role, timedelta(hours=12) if urgent and days < 100 else timedelta(days=days))
        if self.attempt(GrantClearance(actor, name, content, "record", urgent)):
            assert actor in (access.DGA, access.SECOND_DGA, DELEGATE_IDENTITY), "art6.habilitation"
            assert PEOPLE[actor] != PEOPLE[whom]
            assert actor != DELEGATE_IDENTITY or DELEGATE in self.house()
            if urgent:
                assert URGENT_CLEARANCE in self.house()
                assert content.valid_until - self.now <= timedelta(hours=12)
                assert {n.party for n in self.state.notices.values() if n.reference == name} >= {
                    PARTY_CITY,
                    PARTY_PREFECTURE,
                }

    def content(self, whom: Identity, role: Any, lasting: timedelta) -> Content:
        purposes = frozenset({PURPOSE_SITUATION})
        return Content(PEOPLE[whom], role[0], role[1], purposes, frozenset(), self.now, self.now + lasting)

    @rule(actor=WHO, name=CLEARANCE, whom=WHO, role=ROLES, days=DAYS)
    def request(self, actor: Identity, name: str, whom: Identity, role: Any, days: int) -> None:
        if self.attempt(RequestClearance(actor, name, self.content(whom, role, timedelta(days=days)), "record")):
            assert role[0] == PARTY_CITY

    @rule(actor=GRANTERS, name=CLEARANCE, kind=KINDS, days=DAYS)
    def decide_one(self, actor: Identity, name: str, kind: Any, days: int) -> None:
        decision = Decision(name, kind, "motif", self.now + timedelta(days=days), REVOCATION_REASON_MISUSE)
        self.attempt(DecideClearances(actor, (decision,), "", "record"))

    @rule(whom=WHO)
    def log_in(self, whom: Identity) -> None:
        self.attempt(ProposeBinding(whom, PEOPLE[whom].given_name, PEOPLE[whom].usual_name, "record"))

    @rule(actor=WHO, name=CLEARANCE, whom=WHO)
    def confirm(self, actor: Identity, name: str, whom: Identity) -> None:
        if self.attempt(ConfirmBinding(actor, name, whom, "record")):
            assert actor != whom, "art7.validation"
            assert self.state.clearances[name].granted_by != whom

    @rule(whom=WHO)
    def undertake(self, whom: Identity) -> None:
        self.attempt(SignUndertaking(whom, HASH, "record"))

    @rule(name=CLEARANCE, whom=st.sampled_from((access.CITY_USER, access.PREFECTURE_USER)), days=DAYS)
    def clear_someone(self, name: str, whom: Identity, days: int) -> None:
        """The ordinary way, whole: drawn rule by rule it would seldom come about."""
        prefecture = whom == access.PREFECTURE_USER
        role = (PARTY_PREFECTURE, ROLE_PREFECTURE_USER) if prefecture else (PARTY_CITY, ROLE_CITY_USER)
        self.grant(access.DGA, name, whom, role, days, urgent=False)
        self.log_in(whom)
        self.confirm(access.VALIDATOR if prefecture else access.SECOND_DGA, name, whom)
        self.undertake(whom)

    @rule(actor=WHO, name=CLEARANCE)
    def revoke(self, actor: Identity, name: str) -> None:
        if self.attempt(RevokeClearance(actor, name, REVOCATION_REASON_MISUSE, "record")):
            assert actor in (access.DGA, access.SECOND_DGA, DELEGATE_IDENTITY)

    @rule(actor=WHO, name=CLEARANCE)
    def suspend(self, actor: Identity, name: str) -> None:
        self.attempt(SuspendClearance(actor, name, REVOCATION_REASON_MISUSE, "record"))

    @rule(actor=WHO, name=CLEARANCE)
    def resume(self, actor: Identity, name: str) -> None:
        self.attempt(ResumeClearance(actor, name, "record"))

    @rule(
        actor=st.sampled_from((access.DPO, PREFECTURE_DPO, access.DGA)), party=st.sampled_from(("CITY", "PREFECTURE"))
    )
    def acknowledge(self, actor: Identity, party: str) -> None:
        for notice_id in [name for name in self.state.notices if name.endswith(party)][-1:]:
            if self.attempt(AcknowledgeNotice(actor, notice_id, "record")):
                assert actor == (access.DPO if party == "CITY" else PREFECTURE_DPO), "art3.change"

    @rule(actor=OFFICERS)
    def study(self, actor: Identity) -> None:
        convention = self.state.convention
        assert convention is not None
        self.attempt(RecordDpia(actor, convention.versions[-1].amendment_id, "AIPD", "record"))

    # What the accepted commands ask for, read anew.

    def contents(self) -> Iterable[tuple[Any, frozenset[Party.ValueType], str, datetime]]:
        for command, at in self.accepted:
            if isinstance(command, RecordAct):
                act = acts.parse(command.act)
                signers = frozenset(signature.party for signature in command.signatures)
                yield acts.content_of(act), signers, act.act_id, at

    def end(self) -> datetime:
        """The first instant at which the convention no longer holds (art9)."""
        ends = [datetime(2029, 2, 28, 23, tzinfo=UTC)]
        for content, signers, _, at in self.contents():
            if isinstance(content, Denunciation):
                received = content.received_at.ToDatetime(UTC) if len(signers) == 2 else at
                ends.append(local_midnight(received, months=2))
            elif isinstance(content, Termination):
                ends.append(at)
        return min(ends)

    def house(self) -> set[str]:
        """The house rules in force now: of the last amendment signed that art3.change does not hold up."""
        annex, found = access.ANNEX_HASH, set[str]()
        waiting: Amendment | None = None
        missing = set[str]()
        for command, _ in self.accepted:
            if isinstance(command, RecordAct):
                act = acts.parse(command.act)
                if act.WhichOneof("content") == "amendment":
                    waiting = act.amendment
                    told = {f"{act.act_id}:CITY", f"{act.act_id}:PREFECTURE", act.act_id}
                    missing = set() if waiting.annex_hash == annex else told
            elif isinstance(command, AcknowledgeNotice):
                missing.discard(command.notice_id)
            elif isinstance(command, RecordDpia):
                missing.discard(command.amendment_id)
            if waiting is not None and not missing:
                annex, found = waiting.annex_hash, {item.rule_id for item in waiting.house_rules}
        return found

    @invariant()
    def facts_are_seen_only_as_the_clauses_permit(self) -> None:
        decider = Decider(POLICY, self.state)
        over = self.end() <= self.now
        for whom in PEOPLE:
            verdict = decider.decide(access.check_item(whom, purpose=PURPOSE_SITUATION, at=self.now))
            for decision in verdict.instruments:
                assert decision.permit or (decision.clauses and decision.reason_user), "no denial without a reason"
            if not verdict.permit:
                continue
            clearance = self.state.clearances[verdict.clearance_id]
            permitted = access.permitted_sources(verdict)
            assert not (over and permitted & set(CONVENTION_SOURCES)), "art9"
            assert not (over and clearance.party == PARTY_PREFECTURE), "art9"
            self.was_cleared(verdict.clearance_id, whom)

    def was_cleared(self, name: str, whom: Identity) -> None:
        """Granted, bound by another, undertaken, neither suspended nor revoked, in time, reviewed where it must be."""
        life = [(event, at) for event, at in self.events if getattr(event, "clearance_id", "") == name]
        kinds = [type(event).__name__ for event, _ in life]
        granted = next(event for event, _ in life if type(event).__name__ == "ClearanceGranted")
        confirmed: Any = next(event for event, _ in life if type(event).__name__ == "BindingConfirmed")
        assert identity_of(confirmed.identity) == whom
        assert whom not in (identity_of(granted.granted_by), identity_of(confirmed.confirmed_by))  # type: ignore[union-attr]
        assert "UndertakingSigned" in kinds
        assert not {"ClearanceRevoked", "ClearanceRefused"} & set(kinds)
        assert kinds.count("ClearanceSuspended") == kinds.count("ClearanceResumed")
        renewals: list[Any] = [event for event, _ in life if type(event).__name__ == "ClearanceRenewed"]
        until: Any = (renewals or [granted])[-1]
        assert self.now < until.valid_until.ToDatetime(UTC)
        assert not self.state.clearances[name].urgent or URGENT_CLEARANCE in self.house()
        if YEARLY_REVIEW in self.house():
            looks = [at for event, at in life if type(event).__name__[9:] in ("Granted", "Renewed", "Reviewed")]
            looks += [at for content, _, _, at in self.contents() if isinstance(content, Amendment)]
            looks += [at for command, at in self.accepted if isinstance(command, (AcknowledgeNotice, RecordDpia))]
            assert self.now - max(looks) < timedelta(days=367)

    @invariant()
    def decisions_are_numbered_once(self) -> None:
        numbers = [number for item in self.state.clearances.values() for number in item.decisions]
        assert len(set(numbers)) == len(numbers)

    @invariant()
    def the_terms_in_force_are_those_that_both_signed(self) -> None:
        convention = self.state.convention
        if convention is not None:
            assert convention.terms(self.now).house_rules == self.house(), "art10.avenant"
            assert (convention.ends_at or self.now) >= self.end() - timedelta(days=3)
            assert convention.ended(self.now) == (self.end() <= self.now) or self.near_the_end_of_a_month()

    def near_the_end_of_a_month(self) -> bool:
        """Two months after the 30th or 31st may be a day that does not exist; the unit tests settle which is taken."""
        return any(isinstance(c, Denunciation) for c, *_ in self.contents()) and abs(self.end() - self.now) < timedelta(
            days=4
        )

    def teardown(self) -> None:
        """The log alone gives the state."""
        state = State()
        for event, at in self.events:
            state = evolve(state, type(event).FromString(event.SerializeToString()), at)
        assert state == self.state


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)
