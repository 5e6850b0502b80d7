"""What a duty officer reads: each zone's reason, the summary and the cautions, in French; pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from services.analytics.tension.facts import Feed
from services.analytics.tension.opinion import Opinion
from services.analytics.tension.trend import Pattern
from services.analytics.tension.zones import LEAST_STEPS, Study, Zone
from services.kernel.clock import from_microseconds

NO_ZONE = "Aucune zone significative"

_MONTHS = (
    *("janvier", "février", "mars", "avril", "mai", "juin"),
    *("juillet", "août", "septembre", "octobre", "novembre", "décembre"),
)
_PATTERNS = {
    Pattern.NONE: "aucune évolution caractérisée",
    Pattern.NEW: "apparue au dernier pas de temps",
    Pattern.CONSECUTIVE: "présente sans interruption depuis quelques pas de temps, jamais auparavant",
    Pattern.INTENSIFYING: "durable et de plus en plus marquée",
    Pattern.PERSISTENT: "durable et stable",
    Pattern.DIMINISHING: "durable mais de moins en moins marquée",
    Pattern.SPORADIC: "intermittente",
    Pattern.OSCILLATING: "changeante, tantôt au-dessus, tantôt au-dessous de la normale",
    Pattern.HISTORICAL: "longtemps marquée, plus au dernier pas de temps",
}
_NATURES = {"reported": "signalés", "discovered": "constatés par des patrouilles", "planned": "prévus"}


def reason(zone: Zone, study: Study, zone_time: ZoneInfo) -> str:
    """Why this zone is shown, how sure that is, and what weakens it."""
    parts = [_what(zone, study, zone_time), _how_sure(zone, study), _trend(zone, study), _checks(zone)]
    if zone.only_discovered:
        parts.append(
            "Attention : sans les faits constatés par des patrouilles, cette zone ne ressort plus ; "
            "elle peut ne montrer que les lieux où l'on a cherché."
        )
    return " ".join(parts)


def summary(study: Study) -> str:
    """The whole answer in a sentence or two."""
    family = study.analysis.family
    if not len(study.facts):
        return f"{NO_ZONE} : aucun fait pris en compte dans ce secteur et cette période."
    if not family:
        return (
            f"{NO_ZONE} : les effectifs sont trop faibles pour juger à cette finesse. "
            "Élargissez les mailles ou la période."
        )
    hot = sum(zone.side > 0 for zone in study.zones)
    cold = len(study.zones) - hot
    hidden = (
        f" {_several(study.withheld, 'zone masquée', 'zones masquées')} : effectif inférieur au minimum publiable."
        if study.withheld
        else ""
    )
    if not study.zones:
        return f"{NO_ZONE} parmi {_units(family, study)}.{hidden}"
    found = [_several(number, *words) for number, words in ((hot, _HOT), (cold, _COLD)) if number]
    return f"{' et '.join(found)} parmi {_units(family, study)}.{hidden}"


_HOT = ("zone où les faits sont anormalement nombreux", "zones où les faits sont anormalement nombreux")
_COLD = ("zone où ils sont anormalement rares", "zones où ils sont anormalement rares")


def cautions(study: Study, asked: Iterable[Feed]) -> list[str]:
    """What these figures do not say."""
    said = [
        "Ces chiffres montrent où des faits sont enregistrés, non où ils se produisent.",
        "Ils ne disent rien d'une personne et ne prédisent rien.",
        "Les manifestations, les opérations et les visites officielles n'entrent jamais dans ces statistiques.",
    ]
    seen = {study.facts.feeds[index].source for index in set(study.facts.feed.tolist())}
    coarse = {feed.kind for feed in study.too_coarse}
    silent = sorted({feed.source_label for feed in asked if feed.source not in seen and feed.kind not in coarse})
    if any(feed.discovered and feed.source in seen for feed in asked):
        said.append("Une partie des faits est constatée par des patrouilles, qui trouvent là où elles cherchent.")
    if study.too_coarse:
        labels = ", ".join(feed.label for feed in study.too_coarse)
        said.append(f"Laissé de côté, car localisé moins finement que les mailles : {labels}.")
    if silent:
        said.append(f"Aucun fait sur la période pour : {', '.join(silent)}.")
    return said


def disagreement(zone: Zone, opinion: Opinion) -> str:
    """What the other methods say against the zone; empty where they agree."""
    against = []
    if not opinion.same_quadrant(zone):
        against.append("le I de Moran local ne range pas cette zone du même côté")
    if zone.side > 0 and not opinion.in_cluster(zone):
        against.append(
            "le balayage spatio-temporel de Kulldorff n'y voit pas d'agrégat en cours à la fin de la période"
        )
    return f"Avis divergent : {' et '.join(against)}." if against else ""


def number(value: float, digits: int = 2) -> str:
    """A number as French writes it."""
    return f"{value:.{digits}f}".replace(".", ",")


def _what(zone: Zone, study: Study, zone_time: ZoneInfo) -> str:
    natures = list(dict.fromkeys(_NATURES[feed.nature] for feed in zone.counts))
    question = study.question
    first, last = _day(question.first_us, zone_time), _day(question.end_us - 1, zone_time)
    ratio = zone.raw_rate / (len(study.facts) / (float(study.support.surfaces.sum()) * question.exposure))
    where = ", ".join(study.support.names[unit] for unit in zone.units[:5].tolist()) if study.support.names else ""
    more = " et d'autres" if where and len(zone.units) > 5 else ""  # noqa: PLR2004 -- five names fill a line
    place = f" ({where}{more})" if where else ""
    words = "anormalement nombreux" if zone.side > 0 else "anormalement rares"
    return (
        f"Faits {words} sur {_extent(zone, study)}{place} : {_whole(zone.total)} faits {_listed(natures)}, "
        f"du {first} au {last}, soit {number(ratio, 1)} fois la densité moyenne du secteur "
        f"({number(zone.raw_rate, 1)} par km² et par mois, {number(zone.smoothed_rate, 1)} après lissage)."
    )


def _how_sure(zone: Zone, study: Study) -> str:
    family = _units(study.analysis.family, study)
    return (
        f"Le hasard seul expliquerait mal cet écart : Gi* z = {number(zone.z)}, q = {_small(zone.q)} "
        f"parmi {family}, permutations p = {_small(zone.p_permutation)}."
    )


def _trend(zone: Zone, study: Study) -> str:
    if not zone.has_trend:
        why = (
            "moins de dix pas de temps" if study.question.steps < LEAST_STEPS else "trop peu de faits par pas de temps"
        )
        return f"Évolution non qualifiée ({why})."
    other = zone.pattern_side and zone.pattern_side != zone.side
    side = f", du côté {'froid' if zone.side > 0 else 'chaud'}" if other else ""
    return f"Évolution : {_PATTERNS[zone.pattern]}{side} (Mann-Kendall p = {_small(zone.trend_p)})."


def _checks(zone: Zone) -> str:
    found, tried = sum(found for _, found in zone.stability), len(zone.stability)
    if not tried:
        return "Solidité non évaluée : aucun autre découpage ne convient à ces faits."
    verdict = "Zone fragile" if zone.fragile else "Zone solide"
    return f"{verdict} : retrouvée par {found} autre{_s(found)} découpage{_s(found)} sur {tried}."


def _extent(zone: Zone, study: Study) -> str:
    size = _several(len(zone.units), *(("périmètre", "périmètres") if study.support.names else ("maille", "mailles")))
    return f"{size} ({number(zone.surface, 1 if zone.surface >= 1 else 2)} km²)"


def _units(family: int, study: Study) -> str:
    words = ("périmètre jugé", "périmètres jugés") if study.support.names else ("maille jugée", "mailles jugées")
    return _several(family, *words)


def _several(count: int, one: str, many: str) -> str:
    # French: zero and one take the singular.
    return f"{_whole(count)} {one if count < 2 else many}"  # noqa: PLR2004


def _whole(count: int) -> str:
    return f"{count:,}".replace(",", "\u00a0")


def _s(count: int) -> str:
    return "" if count < 2 else "s"  # noqa: PLR2004


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} et {words[-1]}"


def _small(chance: float) -> str:
    return "moins de 0,001" if chance < 0.001 else number(chance, 3)  # noqa: PLR2004 -- what three digits can show


def _day(at_us: int, zone_time: ZoneInfo) -> str:
    moment: datetime = from_microseconds(at_us).astimezone(zone_time)
    return f"{moment.day if moment.day > 1 else '1er'} {_MONTHS[moment.month - 1]} {moment.year}"
