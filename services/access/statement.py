"""What GetConvention says: every version signed, the term as computed, who holds office."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from planier.access.v1 import access_pb2 as pb
from planier.access.v1.events_pb2 import Appointment, Deed, HouseRule, OfficeHolder

from services.access.acts import digest
from services.access.convention import Convention
from services.access.instruments import Terms
from services.access.offices import Office
from services.access.people import identity_message, person_message


def statement(convention: Convention, at: datetime) -> pb.GetConventionResponse:
    """The convention at an instant."""
    return pb.GetConventionResponse(
        deed=Deed.FromString(convention.deed),
        signed_at=_stamp(convention.signed_at),
        term_ends_at=_stamp(convention.ends_at),
        versions=[_version(convention, terms, at) for terms in convention.versions],
        term=term_of(convention, at),
        offices=[_office(office) for office in convention.offices],
        deed_hash=digest(convention.deed),
    )


def term_of(convention: Convention, at: datetime) -> pb.ConventionTerm:
    """art9 at an instant."""
    term, denunciation, termination = convention.term, convention.denunciation, convention.termination
    if term is None:
        return pb.ConventionTerm()
    ended = convention.ended(at)
    year = 0 if ended else term.year(at)
    due = convention.destroy_before
    message = pb.ConventionTerm(
        notified_at=_stamp(term.starts),
        year=year,
        year_ends_at=_stamp(term.year_ends[year - 1] if year else None),
        hard_stop_at=_stamp(term.ends),
        in_force=year > 0,
        destroy_before=_stamp(due if ended else None),
        destroyed_at=_stamp(convention.destroyed_at),
        destruction_overdue=ended and convention.destroyed_at is None and due is not None and at >= due,
    )
    if denunciation:
        message.denounced_until.FromDatetime(denunciation.until)
        message.denounced_by = denunciation.party
    if termination:
        message.terminated_at.FromDatetime(termination.at)
        message.termination_reason = termination.reason
    return message


def _version(convention: Convention, terms: Terms, at: datetime) -> pb.ConventionVersion:
    since = terms.in_force_from
    if since is None or since > at:
        state = pb.VERSION_STATE_PENDING
    else:
        state = pb.VERSION_STATE_IN_FORCE if terms is convention.terms(at) else pb.VERSION_STATE_PAST
    founding = not terms.amendment_id
    return pb.ConventionVersion(
        version=terms.version,
        state=state,
        amendment_id=terms.amendment_id,
        in_force_from=_stamp(convention.signed_at if founding else since),
        annex_hash=terms.annex_hash,
        instruments=terms.message.instruments,
        declarants=terms.message.declarants,
        house_rules=[HouseRule(rule_id=rule) for rule in sorted(terms.house_rules)],
        widens=terms.widens,
        awaits=terms.awaits,
    )


def _office(office: Office) -> Appointment:
    holder = OfficeHolder(
        role=office.role,
        party=office.party,
        person=person_message(office.person),
        identity=identity_message(office.identity),
        act_reference=office.act_reference,
    )
    getattr(holder, "from").FromDatetime(office.since)  # a keyword of Python
    return Appointment(kind=office.kind, holder=holder, until=_stamp(office.until))


def _stamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
