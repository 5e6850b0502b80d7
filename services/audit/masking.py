"""Each party sees its own people in the log; the other's appear as organisation and stable pseudonym."""

from dataclasses import dataclass
from datetime import datetime

from planier.audit.v1.audit_pb2 import ReplayEntry
from planier.audit.v1.record_pb2 import AccessRecord

from services.audit.domain import Governance
from services.audit.entry import parse_record
from services.kernel.pseudonyms import NOBODY, Pseudonyms

# How a person's pseudonym begins.
PSEUDONYMS = ("CITY-", "PREFECTURE-", f"{NOBODY}-")
HIDDEN = "(masqué)"
# Filters of a look at the log that may name a person.
_NAMING_FILTERS = ("issuer", "subject", "clearance_id")
# References of these services' records are facts; elsewhere they may be sessions and clearances.
_FACTS = ("/planier.analytics.", "/planier.ingest.")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at the log, and at which instant."""

    party: str
    issuer: str
    subject: str
    at: datetime


class Mask:
    """What one viewer may see of a record, under the officers' decisions."""

    def __init__(self, pseudonyms: Pseudonyms, governance: Governance, viewer: Viewer) -> None:
        self._pseudonyms = pseudonyms
        self._viewer = viewer
        self._unmaskings = [one for one in governance.unmaskings.values() if viewer.at < one.valid_until]

    @property
    def party(self) -> str:
        """The viewer's own."""
        return self._viewer.party

    def hides(self, record: AccessRecord) -> bool:
        """Whether the record is of a person whom this viewer sees under a pseudonym."""
        actor, viewer = record.actor, self._viewer
        if not actor.subject:
            # A declaring system's agent is its authority's person.
            return bool(actor.agent_reference) and actor.party != viewer.party and not self._shown(record, "")
        if (actor.issuer, actor.subject) == (viewer.issuer, viewer.subject):
            return False
        if actor.party and actor.party == viewer.party:
            return False
        return not self._shown(record, self._pseudonyms.of(actor.party, actor.issuer, actor.subject))

    def hides_party(self, party: str) -> bool:
        """Whether names of a party's people are withheld from this viewer altogether."""
        viewer = self._viewer
        return party != viewer.party and not any(
            not one.pseudonyms and one.shows(party, "", viewer.issuer, viewer.subject, viewer.at)
            for one in self._unmaskings
        )

    def masked(self, record: AccessRecord) -> AccessRecord:
        """The record with a pseudonym in place of the person and of whatever leads to the person."""
        shown = AccessRecord()
        shown.CopyFrom(record)
        actor, pseudonyms = shown.actor, self._pseudonyms
        if actor.subject:
            actor.subject = pseudonyms.of(actor.party, actor.issuer, actor.subject)
        actor.issuer = ""
        actor.session_id = pseudonyms.of_thing("session", actor.session_id)
        if not actor.clearance_id.startswith("office:"):
            actor.clearance_id = pseudonyms.of_thing("clearance", actor.clearance_id)
        actor.agent_reference = pseudonyms.of_thing("agent", actor.agent_reference)
        # The address of a workstation.
        shown.peer = ""
        for name in _NAMING_FILTERS:
            if name in shown.data.filters:
                shown.data.filters[name] = HIDDEN
        if not shown.rpc.startswith(_FACTS):
            shown.data.references[:] = [pseudonyms.of_thing("reference", one) for one in shown.data.references]
        return shown

    def entry(self, entry: ReplayEntry) -> ReplayEntry:
        """The entry as this viewer may see it; a masked one comes without salt, so that no guess can be tried on it."""
        record = parse_record(entry.record) if entry.HasField("record") else None
        if record is None or not self.hides(record):
            return entry
        content = self.masked(record).SerializeToString(deterministic=True)
        return ReplayEntry(index=entry.index, record=content, leaf_hash=entry.leaf_hash, masked=True)

    def _shown(self, record: AccessRecord, pseudonym: str) -> bool:
        viewer = self._viewer
        return any(
            one.shows(record.actor.party, pseudonym, viewer.issuer, viewer.subject, viewer.at)
            for one in self._unmaskings
        )
