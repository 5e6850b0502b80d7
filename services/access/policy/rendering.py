"""The policy in French, for whoever signs it and does not read Cedar: generated, never written by hand.

An expression that no phrase says raises: a policy that officials could not read is not released.
"""

from collections.abc import Iterable, Mapping

from cedarpy import PolicySet
from cedarpy.pst import (
    ActionEq,
    ActionIn,
    BinaryOp,
    EntityLit,
    Expr,
    GetAttr,
    Is,
    ScopeIs,
    Set,
    StringLit,
    Template,
    UnaryOp,
    Unless,
    Var,
)

_ARTICLES: Mapping[str, str] = {
    "art3.change": "Article 3 : changement de la nature des données",
    "art4.secure_entry": "Article 4 : entrée sécurisée des déclarations",
    "art6.habilitation": "Article 6 : habilitation",
    "art6.purpose": "Article 6 : finalités",
    "art6.secure_access": "Article 6 : accès sécurisé",
    "art7.consultation": "Article 7 : consultation par la Préfecture",
    "art7.list": "Article 7 : liste nominative",
    "art7.validation": "Article 7 : validation et suspension",
    "art8.licence": "Article 8 : droit d'usage interne",
    "art8.provider": "Article 8 : prestataires",
    "art9.denunciation": "Article 9 : dénonciation",
    "art9.term": "Article 9 : durée",
    "art9.termination": "Article 9 : résiliation",
    "house.delegate": "Règle commune : délégation de signature",
    "house.office": "Règle commune : objet de chaque fonction",
    "house.own_accesses": "Règle commune : accès enregistrés sous son propre nom",
    "house.urgent_clearance": "Règle commune : habilitation en urgence",
    "house.yearly_review": "Règle commune : revue annuelle",
    "instrument.term": "Autres conventions : durée",
}
_OBJECTS: Mapping[str, str] = {
    "AccessLog": "le journal des accès",
    "Bindings": "un rattachement d'identité",
    "Clearances": "une habilitation",
    "Convention": "le texte de la convention",
    "Declarations": "une déclaration de faits",
    "Engagements": "une prestation",
    "Facts": "des faits",
    "LogGovernance": "les décisions sur le journal des accès",
    "ListedPersons": "une personne inscrite sur la liste nominative",
    "NominativeList": "la liste nominative de la Préfecture",
    "Notices": "les avis aux délégués à la protection des données",
    "OwnAccesses": "les accès enregistrés sous son propre nom",
    "Requests": "une demande d'habilitation",
    "Suspensions": "une suspension",
    "Undertakings": "un engagement de confidentialité",
}
_ACTIONS: Mapping[str, str] = {
    "ALTER": "modifier",
    "COLLECT": "collecter",
    "CONSULT": "consulter",
    "DISCLOSE": "communiquer",
    "ERASE": "effacer",
    "GOVERN": "décider",
}
_WORDS: Mapping[str, str] = {
    "ADMINISTRATION": "administration",
    "AUDITOR": "auditeur",
    "CITY_USER": "utilisateur de la Ville",
    "CLEARANCE": "habilitation",
    "COORDINATOR": "coordonnateur",
    "CROSSING": "croisement",
    "DATA_PROTECTION_OFFICER": "délégué à la protection des données",
    "DECLARANT": "système déclarant",
    "GRANTING_AUTHORITY": "autorité d'habilitation (DGA Sécurité)",
    "GRANTING_DELEGATE": "délégataire de l'autorité d'habilitation",
    "LISTED": "inscrite",
    "OFFICE": "fonction",
    "OVERSIGHT": "contrôle",
    "PREFECTURE": "la Préfecture",
    "PREFECTURE_USER": "utilisateur de la Préfecture",
    "PREFECTURE_VALIDATOR": "validateur de la Préfecture",
    "PROVIDER_RECIPIENT": "destinataire d'un prestataire",
    "SUSPENDED": "suspendue",
    "convention": "la convention",
}
# What one comparison or attribute says; {} is the word or words compared with.
_PHRASES: Mapping[str, str] = {
    "principal.basis == ?": "la demande est faite au titre de : {}",
    "principal.basis != ?": "la demande n'est pas faite au titre de : {}",
    "?.contains(principal.basis)": "la demande est faite au titre de l'un de : {}",
    "principal.role == ?": "le rôle est : {}",
    "principal.role != ?": "le rôle n'est pas : {}",
    "?.contains(principal.role)": "le rôle est l'un de : {}",
    "principal.party == ?": "la personne ou le système relève de : {}",
    "principal.bound": "l'identité de la personne a été confirmée",
    "principal.revoked": "l'habilitation est retirée",
    "principal.suspended": "l'habilitation est suspendue",
    "principal.undertaken": "l'engagement de confidentialité est signé",
    "principal.list_standing == ?": "sur la liste nominative, la personne est : {}",
    "?.contains(principal.list_standing)": "sur la liste nominative, la personne est l'une de : {}",
    "principal.listed_in == principal.list_version": "la version qui désigne la personne est la dernière",
    "context.time < principal.list_until": "la liste nominative n'est pas échue",
    "principal.urgent": "l'habilitation a été accordée en urgence",
    "principal.valid_from <= context.time": "le titre a commencé",
    "context.time < principal.valid_until": "le titre n'est pas échu",
    "context.time < principal.review_due": "le titre a été revu depuis moins d'un an",
    "principal.purposes.contains(context.purpose)": "la finalité demandée est de celles du titre",
    "principal.sources.containsAny(context.sources)": "le titre couvre une au moins des sources demandées",
    "resource.purposes.contains(context.purpose)": "la finalité est de celles que le texte permet pour cet objet",
    "resource.instrument == ?": "l'objet est régi par : {}",
    "resource.term.starts <= context.time": "la convention a été notifiée",
    "context.time < resource.term.ends": "le terme de la convention n'est pas atteint",
    "context.time < resource.term.denounced": "aucun préavis de dénonciation n'est écoulé",
    "context.time < resource.term.terminated": "la convention n'est pas résiliée",
    "context.time < resource.expires": "la convention du partenaire n'est pas échue",
    "context.purpose == ?": "la finalité demandée est : {}",
    "context.multi_factor": "l'authentification est à plusieurs facteurs",
    "context.within": "le lieu regardé est dans le périmètre du titre",
    "context.house_rules.contains(?)": "un avenant en vigueur institue la règle {}",
    "action == ?": "l'opération est : {}",
    "action != ?": "l'opération n'est pas : {}",
    "?.contains(action)": "l'opération est l'une de : {}",
}
_COMPARISONS = {"eq": "==", "not_eq": "!=", "less": "<", "less_eq": "<="}
_METHODS = {"contains": "contains", "contains_any": "containsAny"}


class UnsaidError(ValueError):
    """The policy holds an expression that no French phrase says."""


def rendering(policy_text: str, policy_hash: str) -> str:
    """Markdown: each clause in order of its id, what it forbids and unless what."""
    policies = PolicySet.from_str(policy_text).to_pst().static_policies
    by_clause: dict[str, list[Template]] = {}
    for policy in sorted(policies.values(), key=lambda node: int(node.id.removeprefix("policy"))):
        by_clause.setdefault(policy.annotations["id"], []).append(policy)
    (base,) = by_clause.pop("base")
    parts = [_HEAD.format(policy_hash=policy_hash, operations=_operations(base))]
    for clause in sorted(by_clause):
        if clause not in _ARTICLES:
            raise UnsaidError(clause)
        parts += [f"## `{clause}` {_ARTICLES[clause]}", *map(_policy, by_clause[clause])]
    return "\n\n".join(parts) + "\n"


_HEAD = """\
# La politique d'accès, clause par clause

Ce texte est produit à partir de la politique que le logiciel exécute (`services/access/policy/convention.cedar`) par
`make policy`. Chaque décision cite les clauses qui l'ont faite et l'empreinte de la politique et de son schéma :
`{policy_hash}`.

Une demande n'est permise que si aucune des clauses ci-dessous ne la refuse.
Les opérations connues sont : {operations}.
Toute autre demande, et toute demande dont l'examen échoue, est refusée (`default.deny`).
Rien n'est permis tant qu'aucune convention n'est signée (`art2.documents`), ni sous une autre politique que celle qu'un
avenant en vigueur désigne (`art10.avenant`)."""


def _operations(base: Template) -> str:
    if not isinstance(base.action, ActionIn):
        raise UnsaidError(base.id)
    return ", ".join(_known(_ACTIONS, action.id) for action in base.action.entities)


def _policy(policy: Template) -> str:
    lines = [f"**« {policy.annotations['reason']} »**", "", f"Refusé : {_scope(policy)}."]
    for clause in policy.clauses:
        lead = "Sauf si" if isinstance(clause, Unless) else "Seulement quand"
        lines += ["", f"{lead} :", "", *_bullets(clause.expr, 0)]
    return "\n".join(lines)


def _scope(policy: Template) -> str:
    action, resource = policy.action, policy.resource
    what = f"« {_known(_ACTIONS, action.entity.id)} »" if isinstance(action, ActionEq) else "toute opération"
    on = _known(_OBJECTS, resource.entity_type.basename) if isinstance(resource, ScopeIs) else "tout objet"
    return f"{what} sur {on}"


def _bullets(expression: Expr, depth: int) -> Iterable[str]:
    indent = "  " * depth
    if isinstance(expression, BinaryOp) and expression.op in ("and", "or"):
        word = "toutes ces conditions" if expression.op == "and" else "l'une de ces conditions"
        yield f"{indent}- {word} :"
        for part in _parts(expression, expression.op):
            yield from _bullets(part, depth + 1)
    else:
        yield f"{indent}- {_phrase(expression)}"


def _parts(expression: Expr, op: str) -> Iterable[Expr]:
    """The operands of a chain of one operator."""
    if isinstance(expression, BinaryOp) and expression.op == op:
        yield from _parts(expression.left, op)
        yield from _parts(expression.right, op)
    else:
        yield expression


def _phrase(expression: Expr) -> str:
    match expression:
        case UnaryOp(op="not", arg=arg):
            return f"il n'est pas vrai que : {_phrase(arg)}"
        case Is(base=Var(name="resource"), entity_type=kind):
            return f"l'objet est : {_known(_OBJECTS, kind.basename)}"
    words: list[str] = []
    pattern = _pattern(expression, words)
    return _known(_PHRASES, pattern).format(", ".join(words))


def _pattern(expression: Expr, words: list[str]) -> str:
    """The expression as Cedar writes it, its constants replaced by ? and collected in French."""
    match expression:
        case Var(name=name):
            return name
        case GetAttr(base=base, attr=attr):
            return f"{_pattern(base, words)}.{attr}"
        case StringLit() | EntityLit() | Set():
            words += _constants(expression)
            return "?"
        case BinaryOp(op=op, left=left, right=right) if op in _COMPARISONS:
            return f"{_pattern(left, words)} {_COMPARISONS[op]} {_pattern(right, words)}"
        case BinaryOp(op=op, left=left, right=right) if op in _METHODS:
            return f"{_pattern(left, words)}.{_METHODS[op]}({_pattern(right, words)})"
    raise UnsaidError(type(expression).__name__)


def _constants(expression: Expr) -> Iterable[str]:
    match expression:
        case StringLit(value=value):
            yield f"`{value}`" if value.startswith("house.") else _known(_WORDS, value)
        case EntityLit(value=uid):
            yield _known(_ACTIONS, uid.id)
        case Set(elements=elements):
            for element in elements:
                yield from _constants(element)
        case _:
            raise UnsaidError(type(expression).__name__)


def _known(table: Mapping[str, str], name: str) -> str:
    if name not in table:
        raise UnsaidError(name)
    return table[name]
