"""What must hold after a campaign, from outside: the clients' own notes, the RPCs, then the files at rest."""

import hashlib
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.message import Message
from planier.audit.v1.audit_pb2 import (
    GetCheckpointResponse,
    GetConsistencyProofRequest,
    GetInclusionProofRequest,
    ReplayEntry,
    ReplayRequest,
)
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from planier.audit.v1.record_pb2 import AccessRecord
from planier.common.v1.release_pb2 import Receipt
from planier.ingest.v1.events_pb2 import FactAmended, FactCancelled, FactDeclared, FactErased
from sqlalchemy import MetaData, Table, select

from services.analytics.conflicts.projection import Crossing
from services.analytics.conflicts.rules import Rules
from services.analytics.conflicts.subjects import Metres
from services.analytics.projections import FactProjection
from services.audit import merkle
from services.audit.checkpoint import parse_checkpoint
from services.audit.log import leaf_of
from services.audit.note import NoteVerifier
from services.audit.verify import verify_database
from services.cli import session
from services.cli.connection import channel
from services.cli.profile import Profile
from services.ingest.domain import fact_id_of
from services.kernel.clock import SystemClock
from services.kernel.guard.receipts import verify_receipt
from services.kernel.keys import read_public_key
from services.kernel.projection import ProjectionRunner
from services.kernel.store import open_store
from services.kernel.store.base import StoredEvent
from services.kernel.store.chain import ChainBroken
from services.kernel.store.engine import open_engine
from services.kernel.territory import Territory
from services.stack.layout import Layout
from tests.chaos.declaring import Acknowledged
from tests.chaos.watching import Look

PAGE = 10_000
REPLAY_DEADLINE = 120.0
DEADLINE = 30.0
# Inclusion proofs asked for one by one; every receipt is compared with its leaf in any case.
PROOFS = 200
MESSAGES: Mapping[str, type[FactDeclared | FactAmended | FactCancelled | FactErased]] = {
    message.DESCRIPTOR.full_name: message for message in (FactDeclared, FactAmended, FactCancelled, FactErased)
}
ERASED = FactErased.DESCRIPTOR.full_name


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was checked, on how much, and what does not hold (nothing, when all is well)."""

    check: str
    measure: str
    faults: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether it holds."""
        return not self.faults


def finding(check: str, measure: str, faults: Iterable[str]) -> Finding:
    """A finding whose faults are counted, the first five kept."""
    found = list(faults)
    more = [f"and {len(found) - 5} more"] if len(found) > 5 else []
    return Finding(check, measure, (*found[:5], *more))


async def replayed(profile: Profile) -> list[ReplayEntry]:
    """The whole log, as an auditor is given it; what its own answers say of themselves is checked by the caller."""
    signed_in = await session.sign_in(profile, "auditor")
    request = ReplayRequest(consultation=session.consultation("OVERSIGHT", "campagne de pannes"))
    entries: list[ReplayEntry] = []
    async with channel(profile, "audit") as opened:
        call = AuditServiceStub(opened).Replay(request, timeout=REPLAY_DEADLINE, metadata=signed_in.metadata)
        async for answer in call:
            entries += answer.entries
    return entries


def receipts(entries: Sequence[ReplayEntry], given: Sequence[Receipt], key: Ed25519PublicKey) -> Finding:
    """Each receipt is signed, and the log holds at its index the very record that it names."""
    faults: list[str] = []
    for receipt in given:
        verify_receipt(receipt, key)
        entry = entries[receipt.index] if receipt.index < len(entries) else None
        if entry is None or entry.index != receipt.index:
            faults.append(f"no record at {receipt.index}")
            continue
        record = AccessRecord.FromString(entry.record)
        # Of the other party's agents an auditor gets the leaf alone.
        leaf = entry.leaf_hash if entry.masked else leaf_of(entry.salt, entry.record)
        if (record.record_id, leaf) != (receipt.record_id, receipt.leaf_hash) or leaf != entry.leaf_hash:
            faults.append(f"another record at {receipt.index}")
    twice = [
        f"index {index} given {count} times" for index, count in Counter(r.index for r in given).items() if count > 1
    ]
    return finding("each answer has its record", f"{len(given)} receipts, {len(entries)} records", faults + twice)


def looks(entries: Sequence[ReplayEntry], given: Sequence[Sequence[Look]]) -> Finding:
    """Each look's record states the digest of the very answer received; nobody was taken back in time."""
    faults = []
    for person in given:
        reached = 0
        for look in person:
            record = AccessRecord.FromString(entries[look.receipt.index].record)
            if record.data.response_digest != look.digest:
                faults.append(f"record {look.receipt.index} states another answer")
            if look.data_position < reached:
                faults.append(f"an answer at {look.data_position} after one at {reached}")
            reached = look.data_position
    return finding("records state what was read", f"{sum(map(len, given))} looks", faults)


async def proofs(profile: Profile, given: Sequence[Receipt], heads: Sequence[GetCheckpointResponse]) -> Finding:
    """Every head seen is signed and extended by the next; receipts are included in the last."""
    last, faults = heads[-1], []
    verifier = NoteVerifier.parse(last.verifier_key)
    if verifier.key.public_bytes_raw() != read_public_key(profile.log_key).public_bytes_raw():
        faults.append("the log signs with another key")
    for head in heads:
        claimed = parse_checkpoint(verifier.open(head.checkpoint))
        if (claimed.size, claimed.root) != (head.tree_size, head.root_hash):
            faults.append(f"the head of {head.tree_size} is not what was signed")
    step = max(1, len(given) // PROOFS)
    async with channel(profile, "audit") as opened:
        stub = AuditServiceStub(opened)
        for before, after in itertools.pairwise(heads):
            sizes = before.tree_size, after.tree_size
            wanted = GetConsistencyProofRequest(first_size=sizes[0], second_size=sizes[1])
            extension = await stub.GetConsistencyProof(wanted, timeout=DEADLINE)
            if not merkle.verify_consistency(*sizes, before.root_hash, after.root_hash, extension.hashes):
                faults.append(f"{sizes[1]} does not extend {sizes[0]}")
        for receipt in given[::step]:
            target = GetInclusionProofRequest(index=receipt.index, tree_size=last.tree_size)
            path = await stub.GetInclusionProof(target, timeout=DEADLINE)
            if not merkle.verify_inclusion(
                receipt.index, last.tree_size, receipt.leaf_hash, path.hashes, last.root_hash
            ):
                faults.append(f"{receipt.index} is not included")
    return finding("the log only grew", f"{len(heads)} heads, {len(given[::step])} inclusions", faults)


def at_rest(layout: Layout, known: Acknowledged, entries: Sequence[ReplayEntry]) -> list[Finding]:
    """What the files say once every process has stopped."""
    store = open_store(url(layout, "ingest"), clock=SystemClock())
    events = [event for start in range(0, store.head().position, PAGE) for event in store.read_all(start, PAGE)]
    faults = store.verify()
    store.close()
    return [
        _nothing_missing(layout, known, events),
        _nothing_double(layout, events),
        _nothing_unrecorded(events, entries),
        _stores(layout, [f"ingest {fault.position} {fault.fault}" for fault in faults]),
        _same_read_model(layout, events, store.store_id),
    ]


def url(layout: Layout, service: str) -> str:
    """A service's own database."""
    return f"sqlite:///{layout.database(service)}"


def _nothing_missing(layout: Layout, known: Acknowledged, events: Sequence[StoredEvent]) -> Finding:
    at = {event.position: event for event in events}
    gone = {fact_id_of(*key) for key in known.erased}
    faults = list(known.contradictions)
    with sqlite3.connect(layout.database("analytics")) as connection:
        read = set(connection.execute("SELECT lower(hex(fact_id)), revision, position FROM fact_versions"))
    for (source, source_id, revision), position in known.positions.items():
        fact_id = fact_id_of(source, source_id)
        event = at.get(position)
        if event is None or (event.stream, event.stream_version) != (f"fact-{fact_id}", revision):
            faults.append(f"{source} {source_id} {revision} is not in ingest at {position}")
        if (fact_id not in gone) != ((fact_id, revision, position) in read):
            what = "erased and still" if fact_id in gone else "not"
            faults.append(f"{source} {source_id} {revision} is {what} in analytics")
    faults += [
        f"the payload at {event.position} outlived its erasure"
        for event in events
        if event.stream.removeprefix("fact-") in gone and event.payload is not None and event.type != ERASED
    ]
    return finding("nothing acknowledged is missing", f"{len(known.positions)} revisions, {len(gone)} erased", faults)


def _nothing_double(layout: Layout, events: Sequence[StoredEvent]) -> Finding:
    revisions = Counter((event.stream, event.stream_version) for event in events)
    ids = Counter(event.event_id for event in events)
    bodies = [message.fact for event in events if isinstance(message := _said(event), FactDeclared | FactAmended)]
    said = Counter((fact.source, fact.source_id, fact.revision) for fact in bodies)
    with sqlite3.connect(layout.database("analytics")) as connection:
        rows = list(connection.execute("SELECT hex(fact_id), revision FROM fact_versions"))
        placed = list(
            connection.execute("SELECT position FROM fact_placements UNION ALL SELECT position FROM fact_superseded")
        )
    counts: list[Counter[Any]] = [revisions, ids, said, Counter(rows), Counter(placed)]
    faults = [f"{key} {number} times" for count in counts for key, number in count.items() if number != 1]
    if len(placed) != len(rows):
        faults.append(f"{len(rows)} versions have {len(placed)} places")
    return finding("nothing is double", f"{len(events)} events, {len(rows)} versions", faults)


def _said(event: StoredEvent) -> Message | None:
    return None if event.payload is None else MESSAGES[event.type].FromString(event.payload)


def _nothing_unrecorded(events: Sequence[StoredEvent], entries: Sequence[ReplayEntry]) -> Finding:
    """Each event names the access that wrote it, and the log holds that attempt."""
    recorded = {AccessRecord.FromString(entry.record).record_id for entry in entries}
    faults, seen = [], 0
    for event in events:
        if event.payload is None:
            continue
        seen += 1
        if MESSAGES[event.type].FromString(event.payload).record_id not in recorded:
            faults.append(f"the event at {event.position} was written without a record")
    return finding("no write without its record", f"{seen} events", faults)


def _stores(layout: Layout, ingest: Sequence[str]) -> Finding:
    access = open_store(url(layout, "access"), clock=SystemClock())
    faults = [*ingest, *(f"access {fault.position} {fault.fault}" for fault in access.verify())]
    head = access.head().position
    access.close()
    report = verify_database(url(layout, "audit"), read_public_key(Profile.read(layout.profile).log_key))
    faults += [f"audit {fault.index} {fault.fault}" for fault in report.faults]
    measure = f"ingest, access ({head} events), audit ({report.tree_size} records, {sum(report.holes.values())} unused)"
    return finding("stores verify", measure, faults)


def _same_read_model(layout: Layout, events: Sequence[StoredEvent], store_id: str) -> Finding:
    """The projection followed live and one built now from ingest's store hold the same bytes."""
    path = layout.home / "rebuilt.db"
    engine = open_engine(f"sqlite:///{path}")
    crossing = Crossing(Rules.load(), Metres(Territory.load(layout.territory).epsg))
    runner = ProjectionRunner(engine, FactProjection(crossing=crossing))
    try:
        runner.rebuild(lambda after: events[after : after + PAGE], store_id=store_id)
    except ChainBroken as broken:
        return finding("read model equals its rebuild", "nothing", [f"ingest's events do not verify: {broken}"])
    finally:
        engine.dispose()
    names = [*FactProjection().metadata.tables]
    live, rebuilt = contents(layout.database("analytics"), names), contents(path, names)
    faults = [f"{name}: {_difference(live[name], rebuilt[name])}" for name in names if live[name] != rebuilt[name]]
    state = [contents(each, ["projections"])["projections"] for each in (layout.database("analytics"), path)]
    positions = {json.dumps([str(row[at]) for at in (4, 5)]) for rows in state for row in rows if row[0] == "facts"}
    if len(positions) != 1:
        faults.append("they stand at different positions")
    return finding("read model equals its rebuild", f"{sum(map(len, live.values()))} rows", faults)


def contents(path: Path, names: Sequence[str]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of tables, in the order of their bytes; types count."""
    engine = open_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            tables = {name: Table(name, MetaData(), autoload_with=connection) for name in names}
            return {
                name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
                for name, table in tables.items()
            }
    finally:
        engine.dispose()


def _difference(live: Sequence[tuple[Any, ...]], rebuilt: Sequence[tuple[Any, ...]]) -> str:
    only = [len(set(a) - set(b)) for a, b in ((live, rebuilt), (rebuilt, live))]
    digests = [hashlib.sha256(repr(rows).encode()).hexdigest()[:12] for rows in (live, rebuilt)]
    return f"{only[0]} rows only live ({digests[0]}), {only[1]} only rebuilt ({digests[1]})"
