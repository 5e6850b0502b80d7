"""What a fresh local installation needs before anybody can look: the deed signed, the list, two clearances.

Everything goes through the same calls that officials would make.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import yaml
from planier.access.v1.access_pb2 import (
    CLEARANCE_STATE_BINDING_PROPOSED,
    ConfirmBindingRequest,
    GetCommitmentsRequest,
    GrantClearanceRequest,
    SignUndertakingRequest,
)
from planier.access.v1.access_pb2_grpc import AccessServiceStub
from planier.access.v1.events_pb2 import (
    PARTY_CITY,
    PARTY_PREFECTURE,
    ROLE_CITY_USER,
    ROLE_PREFECTURE_USER,
    Party,
    Person,
    Role,
)
from planier.access.v1.list_pb2 import SubmitListRequest, ValidateListRequest
from planier.common.v1.release_pb2 import PURPOSE_CROSSING, PURPOSE_SITUATION, PURPOSE_TENSION

from services.access import undertaking
from services.cli import session
from services.cli.clearance import call, everyone
from services.cli.connection import DEADLINE, channel
from services.cli.convention import sign_deed
from services.cli.nominative_list import read_persons
from services.cli.profile import Profile
from services.kernel.keys import read_private_key
from services.stack.layout import ROOT, Layout
from services.stack.plan import PEOPLE

DEED = ROOT / "deploy" / "local" / "deed.yaml"
LIST = ROOT / "deploy" / "local" / "list.yaml"
LETTER = ROOT / "deploy" / "local" / "list-letter.txt"
PARTY_KEYS = {PARTY_CITY: "city.pem", PARTY_PREFECTURE: "prefecture.pem"}
MOTIVE = "mise en service locale"
CLEARED = {
    "duty-officer": (PARTY_CITY, ROLE_CITY_USER, "Centre de supervision urbain", "dga"),
    "prefecture-officer": (PARTY_PREFECTURE, ROLE_PREFECTURE_USER, "État-major", "validator"),
}


async def found(layout: Layout) -> bool:
    """Signs the deed if none is signed; returns whether it did."""
    profile = Profile.read(layout.profile)
    async with channel(profile, "access") as opened:
        commitments = await AccessServiceStub(opened).GetCommitments(GetCommitmentsRequest(), timeout=DEADLINE)
    if commitments.instruments:
        return False
    description = describe(layout, datetime.now(UTC))
    keys = {party: read_private_key(layout.keys / name) for party, name in PARTY_KEYS.items()}
    await sign_deed(profile, description, keys)
    return True


def describe(layout: Layout, now: datetime) -> dict[str, Any]:
    """The local deed with what only this installation knows: its issuer and today's date."""
    description: dict[str, Any] = yaml.safe_load(DEED.read_text())
    for instrument in description["instruments"]:
        if instrument["instrument_id"] == "convention":
            instrument["notified_at"] = now
    for holder in description["office_holders"]:
        holder["identity"]["issuer"] = layout.issuer
        holder["from"] = now
    return description


async def clear(layout: Layout) -> None:
    """The Préfecture's list, then the local users' clearances, granted and confirmed, as the officials would."""
    profile = Profile.read(layout.profile)
    people = yaml.safe_load(PEOPLE.read_text())
    for official in ("dga", "validator", "second-validator"):
        await session.sign_in(profile, official)
    await _list(profile)
    for subject, (party, role, service, confirmer) in CLEARED.items():
        person = Person(**people[subject], service=service, professional_address="Marseille")
        await call(profile, "GrantClearance", _grant(subject, person, party, role), "dga")
        await session.sign_in(profile, subject)
        await _confirm(profile, subject, confirmer)


async def _list(profile: Profile) -> None:
    """The Préfecture's list: transmitted by one validator, signed by the other."""
    request = SubmitListRequest(
        consultation=session.consultation("ADMINISTRATION", MOTIVE),
        proposal_id=str(uuid5(NAMESPACE_URL, "planier-local/list")),
        persons=read_persons(LIST),
    )
    request.expires_at.FromDatetime(datetime.now(UTC) + timedelta(days=300))
    submitted = (await call(profile, "SubmitList", request, "validator")).proposal
    validation = ValidateListRequest(
        consultation=session.consultation("ADMINISTRATION", MOTIVE),
        proposal_id=submitted.proposal_id,
        list_hash=submitted.list_hash,
        letter_hash=sha256(LETTER.read_bytes()).digest(),
    )
    await call(profile, "ValidateList", validation, "second-validator")


def _grant(subject: str, person: Person, party: Party.ValueType, role: Role.ValueType) -> GrantClearanceRequest:
    now = datetime.now(UTC)
    request = GrantClearanceRequest(
        consultation=session.consultation("ADMINISTRATION", MOTIVE),
        clearance_id=str(uuid5(NAMESPACE_URL, f"planier-local/{subject}")),
        person=person,
        party=party,
        role=role,
        purposes=[PURPOSE_SITUATION, PURPOSE_CROSSING, PURPOSE_TENSION],
    )
    request.valid_from.FromDatetime(now)
    request.valid_until.FromDatetime(now + timedelta(days=180))
    return request


async def _confirm(profile: Profile, subject: str, confirmer: str) -> None:
    clearance_id = str(uuid5(NAMESPACE_URL, f"planier-local/{subject}"))
    proposed = {item.clearance_id: item for item in await everyone(profile, MOTIVE, confirmer)}[clearance_id]
    if proposed.state != CLEARANCE_STATE_BINDING_PROPOSED:
        raise RuntimeError(f"the first login of {subject} was not taken for the person that the clearance names")
    request = ConfirmBindingRequest(
        consultation=session.consultation("ADMINISTRATION", MOTIVE),
        clearance_id=clearance_id,
        identity=proposed.identity,
    )
    await call(profile, "ConfirmBinding", request, confirmer)
    consultation = session.consultation("ADMINISTRATION", MOTIVE)
    signature = SignUndertakingRequest(consultation=consultation, text_hash=undertaking.HASH)
    await call(profile, "SignUndertaking", signature, subject)
