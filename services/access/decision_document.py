"""A numbered decision as it is signed and received: French, from the state that the events made and nothing else. Pure.

What a decision says does not change after it: it is written from the terms, the office and the content of its own
instant, so that the same number gives the same bytes for ever.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from planier.access.v1.events_pb2 import (
    APPOINTMENT_KIND_DELEGATION,
    APPOINTMENT_KIND_INTERIM,
    PARTY_CITY,
    PARTY_PREFECTURE,
    REVOCATION_REASON_CHANGE_OF_DUTIES,
    REVOCATION_REASON_DEPARTURE,
    REVOCATION_REASON_MISUSE,
    REVOCATION_REASON_REQUEST,
    ROLE_AUDITOR,
    ROLE_CITY_USER,
    ROLE_COORDINATOR,
    ROLE_PREFECTURE_USER,
    ROLE_PROVIDER_RECIPIENT,
)
from planier.common.v1.release_pb2 import PURPOSE_CROSSING, PURPOSE_OVERSIGHT, PURPOSE_SITUATION, PURPOSE_TENSION

from services.access.clearances import Area, Clearance, Content, Decided, Effect
from services.access.convention import Convention, Office, State, in_force
from services.access.instruments import URGENT_CLEARANCE, YEARLY_REVIEW, Terms
from services.access.offices import held_by
from services.access.people import Person
from services.access.term import review_due
from services.kernel.errors import Problem, not_found, precondition

PARTIES = {PARTY_CITY: "la Ville", PARTY_PREFECTURE: "la Préfecture de Police"}
ROLES = {
    ROLE_CITY_USER: "d'utilisateur de la Ville",
    ROLE_COORDINATOR: "de coordonnateur de la Ville",
    ROLE_PREFECTURE_USER: "d'utilisateur de la Préfecture de Police",
    ROLE_AUDITOR: "d'auditeur",
    ROLE_PROVIDER_RECIPIENT: "de destinataire de remises à un prestataire, sans consultation en ligne",
}
PURPOSES = {
    PURPOSE_SITUATION: "connaître et gérer la situation de l'espace public",
    PURPOSE_CROSSING: "agréger et croiser les sources",
    PURPOSE_TENSION: "identifier les zones de tension",
    PURPOSE_OVERSIGHT: "contrôler l'usage de la plateforme",
}
CAUSES = {
    REVOCATION_REASON_DEPARTURE: "départ du titulaire",
    REVOCATION_REASON_CHANGE_OF_DUTIES: "changement de fonctions du titulaire",
    REVOCATION_REASON_MISUSE: "usage non conforme de l'accès",
    REVOCATION_REASON_REQUEST: "demande du titulaire ou de son service",
}
_TITLES = {
    Effect.GRANTED: "Décision d'habilitation",
    Effect.REFUSED: "Décision de refus d'habilitation",
    Effect.SUSPENDED: "Décision de suspension d'habilitation",
    Effect.RESUMED: "Décision de levée de suspension d'habilitation",
    Effect.REVOKED: "Décision de retrait d'habilitation",
    Effect.RENEWED: "Décision de renouvellement d'habilitation",
    Effect.REVIEWED: "Décision de maintien d'habilitation après revue",
}
_CAPACITIES = {APPOINTMENT_KIND_INTERIM: ", par intérim", APPOINTMENT_KIND_DELEGATION: ", par délégation de signature"}


@dataclass(frozen=True, slots=True)
class Article:
    """One article: its title and its sentences."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A decision in words."""

    title: str
    visas: tuple[str, ...]
    articles: tuple[Article, ...]
    signature: str

    @property
    def text(self) -> str:
        """The whole, as it is hashed: UTF-8, lines ended by a line feed."""
        parts = [self.title, "\n".join(self.visas), "Décide :"]
        parts += ["\n".join((f"{_ordinal(place)} : {one.title}", *one.sentences)) for place, one in self._numbered()]
        return "\n\n".join((*parts, self.signature)) + "\n"

    @property
    def hash(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).digest()

    def _numbered(self) -> Iterable[tuple[int, Article]]:
        return enumerate(self.articles, 1)


def number_text(number: tuple[int, int]) -> str:
    """A number as it is cited: HAB-2026-0007."""
    return f"HAB-{number[0]}-{number[1]:04d}"


def find(state: State, number: tuple[int, int]) -> tuple[Clearance, Decided]:
    """The decision of that number and its clearance. Raises Problem DECISION_UNKNOWN."""
    found = (
        (clearance, decided)
        for clearance in state.clearances.values()
        for decided in clearance.decisions
        if decided.number == number
    )
    one = next(found, None)
    if one is None:
        raise unknown()
    return one


def unknown() -> Problem:
    """What answers for a number that there is not, and for one that the asker may not see."""
    return not_found("DECISION_UNKNOWN", "no such decision among those that you may see")


def document_of(state: State, decided: Decided) -> Document:
    """The decision in words. Raises Problem DECISION_UNSIGNED where nobody in office took it."""
    convention = in_force(state)
    office = held_by(convention.offices, decided.by, decided.at)
    if office is None:
        raise precondition("DECISION_UNSIGNED", "no office was held by whoever took it", "art6.habilitation")
    terms = convention.terms(decided.at)
    return Document(
        title=f"{_TITLES[decided.effect]} n° {number_text(decided.number)}",
        visas=(*_visas(terms, office, decided), *_grounds(terms, decided)),
        articles=tuple(_articles(convention, decided)),
        signature=_signature(convention.zone, office, decided),
    )


def _visas(terms: Terms, office: Office, decided: Decided) -> Iterable[str]:
    document = terms.message.document_hash.hex()
    yield (
        f"Vu la convention entre la Ville et la Préfecture de Police, version {terms.version} "
        f"(document signé, SHA-256 {document}), notamment art6.habilitation et art6.purpose ;"
    )
    titles = {item.instrument_id: item.title for item in terms.message.instruments}
    sources = decided.content.sources or terms.sources
    for one in terms.instruments:
        if one.sources & sources and decided.content.role != ROLE_AUDITOR:
            yield f"Vu « {titles[one.instrument_id]} », version {one.version} ({one.instrument_id}) ;"
    capacity = _CAPACITIES.get(office.kind, "")
    yield (
        f"Vu l'acte {office.act_reference} qui donne à {_name(office.person)} qualité pour statuer"
        f"{capacity} (art6.habilitation) ;"
    )


def _grounds(terms: Terms, decided: Decided) -> Iterable[str]:
    content = decided.content
    if content.party == PARTY_PREFECTURE and decided.list_version:
        yield (
            f"Vu la liste nominative de la Préfecture de Police, version {decided.list_version} "
            "(art7.services, art7.list, art7.validation) ;"
        )
    if content.engagement_id:
        yield f"Vu la prestation {content.engagement_id} (art8.provider) ;"
    if decided.requested:
        yield "Vu la demande présentée par un coordonnateur de la Ville (art6.habilitation) ;"
    if decided.urgent:
        yield (
            f"Vu l'urgence ({URGENT_CLEARANCE}), dont le délégué à la protection des données de chaque partie "
            "est avisé ;"
        )
    if decided.effect in (Effect.SUSPENDED, Effect.RESUMED):
        yield "Vu la faculté de chaque partie de suspendre seule et sans délai (art7.validation) ;"
    if decided.effect is Effect.REVIEWED and YEARLY_REVIEW in terms.house_rules:
        yield f"Vu la revue annuelle des habilitations ({YEARLY_REVIEW}) ;"


def _articles(convention: Convention, decided: Decided) -> Iterable[Article]:
    named = f"{_person(decided.content)}, en qualité {ROLES[decided.content.role]}"
    since = _moment(decided.at, convention.zone)
    match decided.effect:
        case Effect.GRANTED:
            yield Article("Titulaire", (f"{named}, reçoit une habilitation nominative et incessible.",))
            yield from _bounds(convention, decided)
            yield from _conditions(decided)
        case Effect.REFUSED:
            yield Article("Refus", (f"L'habilitation demandée pour {named}, est refusée.",))
            yield Article("Motif", (decided.refusal,))
        case Effect.RENEWED:
            yield Article("Renouvellement", (f"L'habilitation de {named}, est renouvelée.",))
            yield from _bounds(convention, decided)
        case Effect.REVIEWED:
            yield Article("Maintien", (f"L'habilitation de {named}, a été revue et est maintenue.",))
            yield from _bounds(convention, decided)
        case Effect.RESUMED:
            effect = f"La suspension par la Ville de l'habilitation de {named}, est levée le {since}."
            yield Article("Levée", (effect, "Une suspension par l'autre partie, s'il en est une, demeure."))
        case _:
            yield from _ended(named, since, decided)


def _ended(named: str, since: str, decided: Decided) -> Iterable[Article]:
    if decided.effect is Effect.SUSPENDED:
        lasting = "Aucun accès n'est permis jusqu'à la levée de la suspension par la partie qui l'a prononcée."
        yield Article("Suspension", (f"L'habilitation de {named}, est suspendue le {since}.", lasting))
    else:
        lasting = "Aucun accès n'est plus permis à ce titre ; l'engagement de confidentialité demeure."
        yield Article("Retrait", (f"L'habilitation de {named}, est retirée le {since}.", lasting))
    yield Article("Motif", (f"{CAUSES[decided.cause].capitalize()}.",))


def _bounds(convention: Convention, decided: Decided) -> Iterable[Article]:
    content, zone = decided.content, convention.zone
    purposes = " ; ".join(words for purpose, words in PURPOSES.items() if purpose in content.purposes)
    yield Article("Finalités", (f"Seules sont permises (art6.purpose) : {purposes}.",))
    if content.role != ROLE_AUDITOR:
        named = ", ".join(sorted(content.sources))
        yield Article("Sources", (f"{named}." if named else "Toutes celles que régissent les textes en vigueur.",))
        places = " ; ".join(_box(area) for area in content.areas)
        yield Article("Périmètre", (f"{places}." if places else "Tout le territoire.",))
    start, end = _moment(content.valid_from, zone), _moment(content.valid_until, zone)
    yield Article("Durée", (f"Du {start} au {end}, ce dernier instant exclu.", _review(convention, decided)))


def _review(convention: Convention, decided: Decided) -> str:
    since = convention.house_since(YEARLY_REVIEW, decided.at)
    if since is None:
        return "Aucun avenant en vigueur n'institue de revue annuelle."
    due = _moment(review_due(max(since, decided.at), convention.zone), convention.zone)
    return f"À défaut de revue avant le {due}, l'habilitation cesse à cet instant ({YEARLY_REVIEW})."


def _conditions(decided: Decided) -> Iterable[Article]:
    if decided.undertaking_hash:
        signed = f"l'engagement de confidentialité (texte de SHA-256 {decided.undertaking_hash.hex()})"
        effect = f"L'habilitation prend effet une fois l'identité du titulaire confirmée et {signed} signé par lui."
        yield Article("Engagement de confidentialité", (effect,))
    yield Article(
        "Exercice",
        (
            "L'habilitation est révocable à tout moment ; chaque partie peut la suspendre seule (art7.validation).",
            "L'usage est strictement interne (art8.licence) ; chaque accès est enregistré.",
        ),
    )


def _signature(zone: ZoneInfo, office: Office, decided: Decided) -> str:
    capacity = _CAPACITIES.get(office.kind, "")
    signed = f"Fait le {_moment(decided.at, zone)}.\n{_name(office.person)}, {office.person.service}"
    return f"{signed}, pour l'autorité d'habilitation{capacity}\nEnregistrée sous {decided.record_id}"


def _name(person: Person) -> str:
    return f"{person.given_name} {person.usual_name}"


def _person(content: Content) -> str:
    person = content.person
    parts = (_name(person), person.service, person.professional_address, f"relevant de {PARTIES[content.party]}")
    return ", ".join(part for part in parts if part)


def _box(area: Area) -> str:
    return (
        f"de {area.west:g}° à {area.east:g}° de longitude et de {area.south:g}° à {area.north:g}° de latitude (WGS 84)"
    )


def _moment(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).strftime("%d/%m/%Y à %H h %M min %S s (%Z)")


def _ordinal(place: int) -> str:
    return "Article 1er" if place == 1 else f"Article {place}"
