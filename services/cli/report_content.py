"""The auditors' report as titles and tables, in French; what renders it adds nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from services.audit.statistics import ClearanceNote, Statistics, Tally

CLAUSES = {
    "art3.anonymised": "données anonymisées",
    "art4.secure_entry": "entrée par une connexion sécurisée",
    "art6.habilitation": "habilitation",
    "art6.purpose": "finalité",
    "art6.secure_access": "accès sécurisé et authentifié",
    "art7.consultation": "consultation seule de la Préfecture",
    "art7.list": "liste nominative",
    "art7.validation": "validation par la Préfecture",
    "art8.provider": "prestataires",
    "art9.denunciation": "dénonciation",
    "art9.termination": "résiliation",
    "art8.licence": "usage interne, sans communication",
    "art9.term": "terme de la convention",
    "default.deny": "aucun texte ne permet",
    "house.office": "fonction exercée",
    "house.own_accesses": "ses propres accès",
}
PURPOSES = {
    "SITUATION": "connaissance et gestion de la situation",
    "CROSSING": "croisement des sources",
    "TENSION": "zones de tension",
    "ADMINISTRATION": "administration",
    "OVERSIGHT": "contrôle",
    "REFUSED_IDENTIFYING_PERSONS": "refusée : identification de personnes",
    "REFUSED_ENFORCEMENT": "refusée : poursuite d'une personne",
    "REFUSED_STAFF_EVALUATION": "refusée : évaluation d'agents",
    "REFUSED_INTELLIGENCE": "refusée : renseignement",
    "UNSPECIFIED": "aucune (déclarations, connexions)",
}
OPERATIONS = {
    "COLLECT": "collecte",
    "ALTER": "modification",
    "CONSULT": "consultation",
    "DISCLOSE": "communication",
    "COMBINE": "interconnexion",
    "ERASE": "effacement",
    "GOVERN": "administration",
    "UNSPECIFIED": "non précisée",
}
PARTIES = {"CITY": "Ville de Marseille", "PREFECTURE": "Préfecture de Police", "": "inconnue"}
NOTES = {"UNUSED": "inutilisée sur la période", "DUE": "échéance dans les 30 jours"}
_NOTHING = "Rien à signaler."


@dataclass(frozen=True, slots=True)
class Section:
    """A title, some sentences, and a table where there is one; cells are text."""

    title: str
    sentences: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What both renderings show."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    # At the foot of each printed page.
    footer: str = "Journal des accès, usage interne (art8.licence)"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the report rests on beside the records."""

    start: datetime
    end: datetime
    made_at: datetime
    zone: ZoneInfo
    convention_version: str
    term_ends: datetime
    tree_size: int
    root: bytes
    record_id: str
    # (first index, end index, fault), (instance, how many)
    corrupt: tuple[tuple[int, int, str], ...] = ()
    holes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class LateEngagement:
    """An ended engagement whose certificate of destruction is late (art8.destruction)."""

    engagement_id: str
    provider: str
    ended_at: datetime
    due_at: datetime


def report_of(
    statistics: Statistics, notes: Sequence[ClearanceNote], late: Sequence[LateEngagement], facts: Facts
) -> Report:
    """The report of one period."""
    zone = facts.zone
    period = f"du {_day(facts.start, zone)} au {_day(facts.end, zone)} (exclu)"
    return Report(
        title="Rapport sur le journal des accès",
        subtitle=f"Plateforme de la tranquillité publique — {period}",
        sections=(
            _summary(statistics),
            _tallies("Par clause", "Clause", statistics.by_clause, CLAUSES, keeps_key=True),
            _tallies("Par finalité", "Finalité", statistics.by_purpose, PURPOSES),
            _tallies("Par opération", "Opération", statistics.by_operation, OPERATIONS),
            _organisations(statistics),
            _reasons(statistics),
            _unusual(statistics),
            _disclosures(statistics, zone),
            _clearances(notes, zone),
            _engagements(late, zone),
            _term(facts),
            _integrity(facts),
            _method(facts),
        ),
    )


def _summary(statistics: Statistics) -> Section:
    total = statistics.total
    rows = (
        ("Accès et tentatives enregistrés", _number(total.accesses)),
        ("dont refusés", f"{_number(total.refusals)} ({_share(total)})"),
        ("Tentatives non authentifiées", _number(statistics.strangers)),
        ("Enregistrements effacés au terme de leur durée", _number(statistics.erased)),
    )
    return Section("Synthèse", columns=("", "Nombre"), rows=rows)


def _tallies(
    title: str, column: str, tallies: Mapping[str, Tally], words: Mapping[str, str], *, keeps_key: bool = False
) -> Section:
    ordered = sorted(tallies.items(), key=lambda item: (-item[1].accesses, item[0]))

    def name(key: str) -> str:
        word = words.get(key, "" if keeps_key else key)
        return f"{key} — {word}" if keeps_key and word else word or key

    rows = tuple((name(key), _number(tally.accesses), _number(tally.refusals)) for key, tally in ordered)
    return Section(title, columns=(column, "Accès", "Refus"), rows=rows)


def _organisations(statistics: Statistics) -> Section:
    rows = tuple(
        (
            PARTIES.get(party, party),
            name or "non précisée",
            _number(tally.accesses),
            _number(tally.refusals),
            _number(statistics.unusual_hours[party, name]),
        )
        for (party, name), tally in sorted(statistics.by_organisation.items())
    )
    columns = ("Partie", "Organisation", "Accès", "Refus", "Entre 22 h et 6 h")
    return Section("Par organisation", columns=columns, rows=rows)


def _reasons(statistics: Statistics) -> Section:
    rows = tuple((reason, _number(count)) for reason, count in statistics.reasons.most_common())
    return Section("Motifs de refus", () if rows else (_NOTHING,), ("Motif", "Nombre") if rows else (), rows)


def _unusual(statistics: Statistics) -> Section:
    rows = tuple(
        (
            f"{one.day:%d/%m/%Y}",
            PARTIES.get(one.organisation[0], one.organisation[0]),
            one.organisation[1],
            _number(one.accesses),
            f"{one.usual:g}".replace(".", ","),
        )
        for one in statistics.unusual_days()
    )
    columns = ("Jour", "Partie", "Organisation", "Accès", "Habituel (médiane)")
    return Section("Volumes inhabituels", () if rows else (_NOTHING,), columns if rows else (), rows)


def _disclosures(statistics: Statistics, zone: ZoneInfo) -> Section:
    rows = tuple(
        (_moment(one.at, zone), one.reference, ", ".join(one.recipients), str(one.index))
        for one in statistics.disclosures
    )
    columns = ("Date", "Référence", "Destinataires", "Index au journal")
    sentences = () if rows else ("Aucune communication sous obligation légale.",)
    return Section("Communications sous obligation légale", sentences, columns if rows else (), rows)


def _clearances(notes: Sequence[ClearanceNote], zone: ZoneInfo) -> Section:
    unknown = len({note.clearance_id for note in notes if note.note == "NOT_ASSESSED"})
    rows = tuple(
        (
            note.clearance_id,
            PARTIES.get(note.organisation[0], ""),
            note.organisation[1],
            _day(note.valid_until, zone),
            NOTES[note.note],
        )
        for note in notes
        if note.note in NOTES
    )
    sentences = [] if rows else [_NOTHING]
    if unknown:
        plural = "s" if unknown > 1 else ""
        sentences.append(
            f"{unknown} habilitation{plural} de l'autre partie : usage non évalué, ses agents sont ici sous pseudonyme."
        )
    columns = ("Habilitation", "Partie", "Organisation", "Valable jusqu'au", "Constat")
    return Section("Habilitations à revoir", tuple(sentences), columns if rows else (), rows)


def _engagements(late: Sequence[LateEngagement], zone: ZoneInfo) -> Section:
    rows = tuple((one.engagement_id, one.provider, _day(one.ended_at, zone), _day(one.due_at, zone)) for one in late)
    columns = ("Prestation", "Prestataire", "Terminée le", "Attestation due le")
    title = "Attestations de destruction en retard"
    return Section(title, () if rows else (_NOTHING,), columns if rows else (), rows)


def _term(facts: Facts) -> Section:
    left = (facts.term_ends - facts.made_at).days
    sentence = (
        f"La convention {facts.convention_version} cesse d'être en vigueur le {_day(facts.term_ends, facts.zone)}, "
        + (f"dans {left} jours." if left >= 0 else "date passée.")
    )
    return Section("Terme de la convention", (sentence,))


def _integrity(facts: Facts) -> Section:
    sentences = [
        f"Journal de {_number(facts.tree_size)} enregistrements, racine {facts.root.hex()}.",
        "La vérification complète se fait hors ligne, sur une copie et les clés publiques.",
    ]
    rows = [(f"de {first} à {end - 1}", f"altéré : {fault}") for first, end, fault in facts.corrupt]
    rows += [(instance, f"{missing} numéros sans enregistrement") for instance, missing in facts.holes]
    if not rows:
        sentences.append("L'autocontrôle ne signale ni altération ni numéro manquant.")
    return Section("Intégrité", tuple(sentences), ("Où", "Constat") if rows else (), tuple(rows))


def _method(facts: Facts) -> Section:
    return Section(
        "Ce que ce rapport dit et ne dit pas",
        (
            "Un enregistrement précède la réponse : il borne par le haut ce qui a été vu.",
            "Rien n'est compté ni noté par personne : évaluer des agents avec ce journal est refusé (art6.purpose).",
            "Une heure ou un volume inhabituel est le fait d'une organisation, et n'est pas un soupçon.",
            f"Établi le {_moment(facts.made_at, facts.zone)} ; cette lecture du journal y figure : {facts.record_id}.",
        ),
    )


def texts(report: Report) -> Iterable[str]:
    """Every piece of text of a report, in order."""
    yield from (report.title, report.subtitle)
    for section in report.sections:
        yield section.title
        yield from section.sentences
        yield from section.columns
        for row in section.rows:
            yield from row


def _share(tally: Tally) -> str:
    return f"{100 * tally.refusals / tally.accesses:.1f} %".replace(".", ",") if tally.accesses else "néant"


def _number(value: int) -> str:
    # A thin no-break space between thousands is not in the standard fonts of PDF; a no-break space is.
    return f"{value:,}".replace(",", "\u00a0")


def _moment(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%d/%m/%Y à %H:%M}"


def _day(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%d/%m/%Y}"
