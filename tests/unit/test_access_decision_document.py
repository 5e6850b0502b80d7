"""A numbered decision in words: what each kind says, from the state of its own instant, the same bytes for ever."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from planier.access.v1.access_pb2 import (
    DECISION_KIND_GRANT,
    DECISION_KIND_REFUSE,
    DECISION_KIND_RENEW,
    DECISION_KIND_REVIEW,
    DECISION_KIND_REVOKE,
)
from planier.access.v1.events_pb2 import (
    PARTY_PREFECTURE,
    REVOCATION_REASON_MISUSE,
    ROLE_AUDITOR,
    ROLE_PREFECTURE_USER,
    ROLE_PROVIDER_RECIPIENT,
    ClearanceGranted,
    RevocationReason,
    Role,
)
from planier.common.v1.release_pb2 import PURPOSE_OVERSIGHT, PURPOSE_SITUATION

from services.access import decision_document as documents
from services.access.clearances import Area, Effect
from services.access.convention import Person, State
from services.access.domain import Decision, ResumeClearance, RevokeClearance, decide, evolve
from services.access.instruments import DELEGATE, URGENT_CLEARANCE, YEARLY_REVIEW
from services.access.people import Identity
from services.kernel.errors import Problem
from tests.fixtures import access, access_states
from tests.fixtures.access import NOW, applied, founded, grant_command, house_rules
from tests.fixtures.clearances import DELEGATE_IDENTITY, ONE, TWO, delegated, listed, requested, suspended
from tests.fixtures.engagements import ENGAGEMENT
from tests.fixtures.refusals import said

DEED = "09" * 32
GRANTED = f"""\
Décision d'habilitation n° HAB-2026-0001

Vu la convention entre la Ville et la Préfecture de Police, version 2025-03 (document signé, SHA-256 {DEED}), \
notamment art6.habilitation et art6.purpose ;
Vu « Règles de la Ville », version 1 (city-rules) ;
Vu l'acte ACT-dga qui donne à Agathe Delmas qualité pour statuer (art6.habilitation) ;

Décide :

Article 1er : Titulaire
Élise Dupré-Noël, Régie de l'espace public, 1 quai de la Mairie, relevant de la Ville, en qualité d'utilisateur de la \
Ville, reçoit une habilitation nominative et incessible.

Article 2 : Finalités
Seules sont permises (art6.purpose) : connaître et gérer la situation de l'espace public ; agréger et croiser les \
sources ; identifier les zones de tension.

Article 3 : Sources
markets, works.

Article 4 : Périmètre
de 5.3° à 5.4° de longitude et de 43.25° à 43.35° de latitude (WGS 84).

Article 5 : Durée
Du 28/02/2026 à 13 h 00 min 00 s (CET) au 09/06/2026 à 14 h 00 min 00 s (CEST), ce dernier instant exclu.
Aucun avenant en vigueur n'institue de revue annuelle.
"""


def text_of(state: State, clearance_id: str = ONE) -> str:
    """The newest decision on a clearance."""
    clearance = state.clearances[clearance_id]
    decided = clearance.decisions[-1]
    assert documents.find(state, decided.number) == (clearance, decided)
    return documents.document_of(state, decided).text


def granted(**changes: Any) -> State:
    return applied(founded(), grant_command(ONE, **changes))


def test_a_grant_says_who_for_what_where_and_how_long() -> None:
    command = grant_command(ONE, sources=frozenset(access.CITY_SOURCES))
    bounded = replace(command, content=replace(command.content, areas=(Area(5.3, 43.25, 5.4, 43.35),)))
    text = text_of(applied(founded(), bounded))
    assert text.startswith(GRANTED)
    assert text.endswith(
        "Fait le 01/03/2026 à 13 h 00 min 00 s (CET).\n"
        "Agathe Delmas, DGA Sécurité, pour l'autorité d'habilitation\n"
        "Enregistrée sous record\n"
    )
    assert "Article 6 : Engagement de confidentialité\nL'habilitation prend effet une fois l'identité" in text
    assert "(texte de SHA-256 " in text
    assert "Article 7 : Exercice\nL'habilitation est révocable à tout moment" in text


def test_a_grant_that_asked_for_no_undertaking_speaks_of_none() -> None:
    (event,) = decide(founded(), grant_command(ONE), NOW)
    assert isinstance(event, ClearanceGranted)
    event.ClearField("undertaking_hash")
    assert "Article 6 : Exercice" in text_of(evolve(founded(), event, NOW))


def test_what_is_not_bounded_is_said_to_be_so() -> None:
    text = text_of(granted())
    assert "Toutes celles que régissent les textes en vigueur." in text
    assert "Tout le territoire." in text
    assert "Vu « Convention », version 2025-03 (convention) ;" in text
    assert "Vu « Règles de la Ville »" in text
    one = text_of(granted(purposes=frozenset({PURPOSE_SITUATION})))
    assert "(art6.purpose) : connaître et gérer la situation de l'espace public.\n" in one


def test_an_auditor_has_neither_sources_nor_area() -> None:
    text = text_of(granted(role=ROLE_AUDITOR, purposes=frozenset({PURPOSE_OVERSIGHT})))
    assert "contrôler l'usage de la plateforme" in text
    assert "Sources" not in text
    assert "Périmètre" not in text
    assert "Vu «" not in text


def test_of_the_prefectures_person_the_list_is_cited_in_the_version_relied_upon() -> None:
    state = access.listed(founded(), access.listed_person(access.PREFECTURE_PERSON))
    other: dict[str, Any] = {"party": PARTY_PREFECTURE, "role": ROLE_PREFECTURE_USER}
    state = applied(state, grant_command(ONE, person=access.PREFECTURE_PERSON, **other))
    text = text_of(state)
    assert "Vu la liste nominative de la Préfecture de Police, version 1 (art7.services, art7.list" in text
    assert "relevant de la Préfecture de Police" in text
    newer = access.listed(state, access.listed_person(access.PREFECTURE_PERSON))
    assert text_of(newer) == text, "a later version changes no decision taken before"
    left = applied(access.listed(newer), RevokeClearance(access.DGA, ONE, REVOCATION_REASON_MISUSE, "record"))
    assert "liste nominative" not in text_of(left)
    assert "liste nominative" not in text_of(granted())


def test_a_refusal_is_reasoned_and_rests_on_a_request() -> None:
    state = applied(requested(ONE), listed(Decision(ONE, DECISION_KIND_REFUSE, reason="poste supprimé")))
    text = text_of(state)
    assert text.startswith("Décision de refus d'habilitation n° HAB-2026-")
    assert "Vu la demande présentée par un coordonnateur de la Ville (art6.habilitation) ;" in text
    assert "L'habilitation demandée pour Camille Nom 5, Voirie, relevant de la Ville, en qualité d'utilisateur" in text
    assert "Article 2 : Motif\nposte supprimé\n" in text
    assert "Vu la demande" not in text_of(granted())
    assert "Vu la demande" in text_of(applied(requested(ONE), listed(Decision(ONE, DECISION_KIND_GRANT))))


def test_a_suspension_and_its_end_are_told_from_a_revocation() -> None:
    state = applied(granted(), suspended(granted(), access.DGA, ONE))
    text = text_of(state)
    assert text.startswith("Décision de suspension d'habilitation n° HAB-2026-0002\n")
    assert "est suspendue le 01/03/2026 à 13 h 00 min 00 s (CET)." in text
    assert "Article 2 : Motif\nUsage non conforme de l'accès.\n" in text
    assert "(art7.validation)" in text
    lifted = text_of(applied(state, ResumeClearance(access.DGA, ONE, "record")))
    assert lifted.startswith("Décision de levée de suspension d'habilitation n° HAB-2026-0003\n")
    assert "est levée le 01/03/2026" in lifted
    assert "(art7.validation)" in lifted
    ended = text_of(applied(state, access.revoke_command(ONE)))
    assert ended.startswith("Décision de retrait d'habilitation n° HAB-2026-0003\n")
    assert "est retirée le 01/03/2026" in ended
    assert "Article 2 : Motif\nDépart du titulaire.\n" in ended
    assert "art7.validation" not in ended


def test_a_renewal_says_until_when_and_a_review_until_which_next_one() -> None:
    until = NOW + timedelta(days=200)
    text = text_of(applied(granted(), listed(Decision(ONE, DECISION_KIND_RENEW, valid_until=until))))
    assert text.startswith("Décision de renouvellement d'habilitation")
    assert "au 17/09/2026 à 14 h 00 min 00 s (CEST), ce dernier instant exclu." in text
    state = applied(granted(), house_rules(YEARLY_REVIEW))
    reviewed = text_of(applied(state, listed(Decision(ONE, DECISION_KIND_REVIEW)), NOW + timedelta(days=30)))
    assert reviewed.startswith("Décision de maintien d'habilitation après revue")
    assert f"Vu la revue annuelle des habilitations ({YEARLY_REVIEW}) ;" in reviewed
    assert "À défaut de revue avant le 31/03/2027 à 14 h 00 min 00 s (CEST), l'habilitation cesse" in reviewed
    assert "version 2026-02" in reviewed
    without = text_of(applied(granted(), listed(Decision(ONE, DECISION_KIND_REVIEW))))
    assert YEARLY_REVIEW not in without
    early = text_of(applied(state, grant_command(TWO, person=Person("Jean", "Autre", "s"))), TWO)
    assert "Vu la revue annuelle" not in early
    assert "À défaut de revue avant le 01/03/2027 à 13 h 00 min 00 s (CET)" in early


def test_a_delegate_an_interim_and_urgency_are_said() -> None:
    person = Person("Jean", "Autre", "s")
    text = text_of(applied(delegated(), grant_command(ONE, actor=DELEGATE_IDENTITY, person=person)))
    assert "Vu l'acte ACT-delegate qui donne à Hugo Ricard qualité pour statuer, par délégation de signature" in text
    assert "pour l'autorité d'habilitation, par délégation de signature\n" in text
    interim = Identity(access.ISSUER, "interim-dga")
    state = applied(access_states.offices(founded()), grant_command(ONE, actor=interim, person=person))
    assert "qualité pour statuer, par intérim (art6.habilitation)" in text_of(state)
    urgent = replace(grant_command(ONE, valid_from=NOW, valid_until=NOW + timedelta(hours=12)), urgent=True)
    rules = applied(founded(), house_rules(DELEGATE, URGENT_CLEARANCE))
    assert f"Vu l'urgence ({URGENT_CLEARANCE}), dont le délégué" in text_of(applied(rules, urgent))
    assert "Vu l'urgence" not in text


def test_a_recipients_decision_names_the_engagement() -> None:
    person = Person("Camille", "Kaci", "Service")
    state = applied(founded(), access_states.engagement_of(person))
    command = grant_command(ONE, person=person, role=ROLE_PROVIDER_RECIPIENT)
    text = text_of(applied(state, replace(command, content=replace(command.content, engagement_id=ENGAGEMENT))))
    assert f"Vu la prestation {ENGAGEMENT} (art8.provider) ;" in text


def test_what_follows_changes_no_word_of_a_decision() -> None:
    state = applied(requested(ONE), listed(Decision(ONE, DECISION_KIND_GRANT)))
    before = documents.document_of(state, state.clearances[ONE].decisions[0])
    discharge = {"role": "ROLE_GRANTING_AUTHORITY", "party": "PARTY_CITY", "act_reference": "FIN-1"}
    identity = {"issuer": access.ISSUER, "subject": "dga"}
    later = applied(state, house_rules(YEARLY_REVIEW), NOW + timedelta(hours=1))
    act = access.act_command("discharge", {**discharge, "identity": identity}, access.CITY_ALONE)
    later = applied(later, act, NOW + timedelta(hours=2))
    later = applied(later, access.revoke_command(ONE, access.SECOND_DGA), NOW + timedelta(hours=3))
    after = documents.document_of(later, later.clearances[ONE].decisions[0])
    assert (after.text, after.hash) == (before.text, before.hash)
    assert after.hash != documents.document_of(later, later.clearances[ONE].decisions[1]).hash


def test_a_revocation_in_a_list_is_a_decision_as_any_other() -> None:
    revoked = Decision(ONE, DECISION_KIND_REVOKE, revocation=REVOCATION_REASON_MISUSE)
    assert "Décision de retrait" in text_of(applied(granted(), listed(revoked)))


def test_a_decision_that_there_is_not_and_one_that_no_office_took_are_refused() -> None:
    state = granted()
    with pytest.raises(Problem) as problem:
        documents.find(state, (2026, 2))
    assert said(problem.value).reason == "DECISION_UNKNOWN"
    forged = replace(state.clearances[ONE].decisions[0], by=access.STRANGER)
    with pytest.raises(Problem) as problem:
        documents.document_of(state, forged)
    assert (said(problem.value).reason, problem.value.clause) == ("DECISION_UNSIGNED", "art6.habilitation")


def test_every_word_of_the_contract_has_its_french() -> None:
    offices = {1, 2, 4, 8}
    assert set(documents.ROLES) == set(Role.values()) - offices - {0}
    assert set(documents.CAUSES) == set(RevocationReason.values()) - {0}
    assert {one.effect for one in granted().clearances[ONE].decisions} == {Effect.GRANTED}
