"""The whole life of the nominative list, whoever acts in whatever order: the clauses are the invariants."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from planier.access.v1.events_pb2 import PARTY_CITY, PARTY_PREFECTURE, ROLE_PREFECTURE_USER, Party
from planier.access.v1.list_events_pb2 import ListedPerson
from planier.common.v1.release_pb2 import PURPOSE_SITUATION

from services.access.convention import Identity, Person, State
from services.access.decisions import Decider
from services.access.domain import Command, ConfirmBinding, ProposeBinding, SignUndertaking, decide, evolve
from services.access.list_state import ListStanding, listing_of
from services.access.nominative_list import (
    ProposeListChange,
    RefuseList,
    RefuseListedPerson,
    ResumeListedPerson,
    SuspendListedPerson,
    WithdrawList,
)
from services.access.policy import Policy
from services.access.undertaking import HASH
from services.kernel.errors import Problem
from tests.fixtures import access
from tests.fixtures.access import listed_person, submit_command, validate_command

POLICY = Policy.load()
VALIDATORS = {access.VALIDATOR: access.VALIDATOR_PERSON, access.SECOND_VALIDATOR: access.SECOND_VALIDATOR_PERSON}
PEOPLE = [access.PREFECTURE_PERSON, Person("Jeanne", "Second", "État-major"), *VALIDATORS.values()]
ENTRIES = [listed_person(person) for person in PEOPLE]
IDENTITIES = {person.usual_name: Identity(access.ISSUER, f"user-{number}") for number, person in enumerate(PEOPLE)}
ACTORS = [
    access.DGA,
    access.SECOND_DGA,
    *VALIDATORS,
    access.AUDITOR,
    access.CITY_USER,
    access.STRANGER,
    *IDENTITIES.values(),
]
CITY = {access.DGA, access.SECOND_DGA}


def mostly(*right: Identity) -> st.SearchStrategy[Identity]:
    """Those who may, more often than anybody: otherwise nothing would ever happen."""
    return st.one_of(st.sampled_from(right), st.sampled_from(right), st.sampled_from(ACTORS))


@dataclass
class Model:
    """What should be so, told in sets and numbers."""

    named: dict[str, set[str]] = field(default_factory=dict)  # proposal → entries
    proposers: dict[str, Identity] = field(default_factory=dict)
    suspended: dict[str, set[Party.ValueType]] = field(default_factory=dict)


class ListMachine(RuleBasedStateMachine):
    """Random people at the list's every door."""

    proposals = Bundle("proposals")

    @initialize()
    def founded(self) -> None:
        self.state: State = access.founded()
        self.now: datetime = access.NOW
        self.model = Model()
        self.in_force: set[str] = set()
        self.cleared: set[str] = set()
        self.somebody_submits(access.VALIDATOR, ENTRIES[:2], 200)
        self.somebody_validates_the_newest(access.SECOND_VALIDATOR)
        for person in PEOPLE[:2]:
            self.somebody_clears(access.DGA, person)

    def attempt(self, command: Command) -> bool:
        """Whether the command had an effect."""
        try:
            events = decide(self.state, command, self.now)
        except Problem as problem:
            told = f"{problem} {problem.violations}"
            assert not any(person.usual_name in told for person in PEOPLE)
            return False
        for event in events:
            self.state = evolve(self.state, event, self.now)
        return bool(events)

    @rule(days=st.integers(0, 15))
    def time_passes(self, days: int) -> None:
        self.now += timedelta(days=days)

    @rule(
        target=proposals,
        actor=mostly(*VALIDATORS),
        entries=st.lists(st.sampled_from(ENTRIES), unique_by=lambda entry: entry.entry_id, min_size=1),
        days=st.one_of(st.integers(60, 360), st.integers(-5, 380)),
    )
    def somebody_submits(self, actor: Identity, entries: list[ListedPerson], days: int) -> str:
        command = submit_command(*entries, actor=actor, expires_at=self.now + timedelta(days=days))
        if self.attempt(command):
            assert actor not in CITY
            self.model.named[command.proposal_id] = {entry.entry_id for entry in entries}
            self.model.proposers[command.proposal_id] = actor
        return command.proposal_id

    @rule(
        target=proposals,
        actor=mostly(*VALIDATORS, *IDENTITIES.values()),
        entry=st.sampled_from(ENTRIES),
        removed=st.frozensets(st.sampled_from([entry.entry_id for entry in ENTRIES]), max_size=2),
    )
    def somebody_proposes_a_change(self, actor: Identity, entry: ListedPerson, removed: frozenset[str]) -> str:
        proposal_id = submit_command().proposal_id
        if self.attempt(ProposeListChange(actor, proposal_id, (entry,), removed, None, "record")):
            self.model.named[proposal_id] = (self.in_force | {entry.entry_id}) - removed
            self.model.proposers[proposal_id] = actor
        return proposal_id

    @rule(actor=mostly(*VALIDATORS))
    def somebody_validates_the_newest(self, actor: Identity) -> None:
        newest = max(self.model.proposers, key=lambda one: listing_of(self.state).proposals[one].number, default=None)
        if newest is not None:
            self.somebody_validates(actor, newest, access.LETTER_HASH)

    @rule(actor=mostly(*VALIDATORS), proposal_id=proposals, letter=st.sampled_from([access.LETTER_HASH, b""]))
    def somebody_validates(self, actor: Identity, proposal_id: str, letter: bytes) -> None:
        known = listing_of(self.state).proposals.get(proposal_id)
        before = listing_of(self.state).highest
        command = validate_command(proposal_id, known.hash if known else b"x" * 32, actor=actor, letter_hash=letter)
        if not self.attempt(command):
            assert listing_of(self.state).highest == before
            return
        assert actor in VALIDATORS
        assert actor != self.model.proposers[proposal_id]
        assert letter
        assert listing_of(self.state).highest == before + 1
        entered = self.model.named[proposal_id] - self.in_force
        assert listed_person(VALIDATORS[actor]).entry_id not in entered
        self.in_force = self.model.named[proposal_id]
        gone = {entry.entry_id for entry in ENTRIES} - self.in_force
        self.cleared -= {
            clearance.clearance_id
            for clearance in self.state.clearances.values()
            if listed_person(clearance.person).entry_id in gone
        }
        self.model.suspended = {one: by for one, by in self.model.suspended.items() if one in self.in_force}

    @rule(actor=mostly(*VALIDATORS), proposal_id=proposals, make=st.sampled_from([RefuseList, WithdrawList]))
    def somebody_ends_a_proposal(self, actor: Identity, proposal_id: str, make: type[Command]) -> None:
        refusing = make is RefuseList
        command = RefuseList(actor, proposal_id, "non", "r") if refusing else WithdrawList(actor, proposal_id, "r")
        if self.attempt(command):
            assert actor in VALIDATORS if refusing else actor == self.model.proposers[proposal_id]

    @rule(actor=st.sampled_from(ACTORS), entry=st.sampled_from(ENTRIES))
    def somebody_suspends(self, actor: Identity, entry: ListedPerson) -> None:
        if self.attempt(SuspendListedPerson(actor, entry.entry_id, "en attente", "record")):
            self.model.suspended.setdefault(entry.entry_id, set()).add(self.party_of(actor))

    @rule(actor=mostly(access.DGA, *VALIDATORS), entry=st.sampled_from(ENTRIES))
    def somebody_resumes(self, actor: Identity, entry: ListedPerson) -> None:
        if self.attempt(ResumeListedPerson(actor, entry.entry_id, "record")):
            self.model.suspended[entry.entry_id].remove(self.party_of(actor))

    @rule(actor=st.sampled_from(ACTORS), entry=st.sampled_from(ENTRIES[1:]))
    def somebody_refuses_a_person(self, actor: Identity, entry: ListedPerson) -> None:
        if self.attempt(RefuseListedPerson(actor, entry.entry_id, "hors périmètre", "record")):
            assert actor in CITY

    @rule(actor=mostly(access.DGA), person=st.sampled_from(PEOPLE))
    def somebody_clears(self, actor: Identity, person: Person) -> None:
        grant = access.grant_command(
            actor=actor,
            person=person,
            party=PARTY_PREFECTURE,
            role=ROLE_PREFECTURE_USER,
            valid_from=self.now,
            valid_until=self.now + timedelta(days=200),
        )
        if self.attempt(grant):
            assert actor in CITY
            assert listed_person(person).entry_id in self.in_force
            self.cleared.add(grant.clearance_id)
            identity = IDENTITIES[person.usual_name]
            self.attempt(ProposeBinding(identity, person.given_name, person.usual_name, "record"))
            for confirmer in VALIDATORS:  # neither confirms themselves
                self.attempt(ConfirmBinding(confirmer, grant.clearance_id, identity, "record"))
            self.attempt(SignUndertaking(identity, HASH, "record"))

    @invariant()
    def only_whom_the_verified_list_names_and_nobody_suspends_is_permitted(self) -> None:
        listing = listing_of(self.state)
        assert not listing.fault
        decider = Decider(POLICY, self.state)
        for person in PEOPLE:
            entry_id = listed_person(person).entry_id
            item = access.check_item(IDENTITIES[person.usual_name], purpose=PURPOSE_SITUATION, at=self.now)
            verdict = decider.decide(item)
            if verdict.permit:
                assert listing.current is not None
                assert self.now < listing.current.expires_at
                assert entry_id in self.in_force
                assert not self.model.suspended.get(entry_id)
                assert verdict.clearance_id in self.cleared
                assert {"art7.list", "art7.validation"} <= set(verdict.clauses)

    @invariant()
    def the_list_is_what_was_last_validated(self) -> None:
        current = listing_of(self.state).current
        assert set(current.entries if current else ()) == self.in_force
        for clearance in self.state.clearances.values():
            standing = listing_of(self.state).standing_of(clearance)
            if standing is ListStanding.LISTED:
                assert listed_person(clearance.person).entry_id in self.in_force

    @staticmethod
    def party_of(actor: Identity) -> Party.ValueType:
        assert actor in CITY or actor in VALIDATORS
        return PARTY_CITY if actor in CITY else PARTY_PREFECTURE


ListMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestList: Callable[..., object] = ListMachine.TestCase
