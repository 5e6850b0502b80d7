"""People who look at the map all along, and a witness of the log's heads; each keeps what it was given."""

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from google.protobuf.timestamp_pb2 import Timestamp
from planier.analytics.v1.analytics_pb2 import BoundingBox, QueryMapRequest, QueryMapResponse
from planier.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from planier.audit.v1.audit_pb2 import GetCheckpointRequest, GetCheckpointResponse
from planier.audit.v1.audit_pb2_grpc import AuditServiceStub
from planier.common.v1.fact_pb2 import Period
from planier.common.v1.release_pb2 import Receipt

from services.cli import session
from services.cli.connection import channel
from services.cli.profile import Profile
from services.kernel.errors import Problem
from tests.chaos.declaring import ABSENT, DAY

DEADLINE = 10.0
PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Look:
    """One answer that a person received: its receipt, what it was, and how far its data went."""

    receipt: Receipt
    digest: bytes
    data_position: int


@dataclass(slots=True)
class Reader:
    """One signed-in person who pans over the map until told to stop."""

    profile: Profile
    subject: str
    seed: int
    looks: list[Look] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    # Answers that did not come, by something else than a part that cannot be reached.
    refused: list[str] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Returns at the first answer after `stop`, or at once where one is missing."""
        random = Random(self.seed)  # noqa: S311 -- repeatable
        async with channel(self.profile, "analytics") as opened:
            stub = AnalyticsServiceStub(opened)
            while not stop.is_set():
                try:
                    await self._look(stub, random)
                except Problem as problem:
                    self.failures[f"QueryMap {problem.code.name} {problem.reason}"] += 1
                    if problem.code not in ABSENT:
                        self.refused.append(f"{self.subject}: {problem.code.name} {problem}")
                await asyncio.sleep(PAUSE)

    async def _look(self, stub: AnalyticsServiceStub, random: Random) -> None:
        signed_in = await session.current(self.profile, self.subject)
        west, south = 5.33 + random.random() * 0.06, 43.26 + random.random() * 0.05
        start = DAY - timedelta(days=random.randrange(1, 360))
        period = Period(start=Timestamp(), end=Timestamp())
        period.start.FromDatetime(start)
        period.end.FromDatetime(start + timedelta(days=7))
        request = QueryMapRequest(
            consultation=session.consultation("SITUATION", "campagne de pannes"),
            box=BoundingBox(west=west, south=south, east=west + 0.02, north=south + 0.02),
            period=period,
        )
        answer: QueryMapResponse = await stub.QueryMap(request, timeout=DEADLINE, metadata=signed_in.metadata)
        release = answer.release
        bare = QueryMapResponse()
        bare.CopyFrom(answer)
        bare.ClearField("release")
        # The record states the digest of the answer without its mark (record.proto, DataReference).
        digest = hashlib.sha256(bare.SerializeToString()).digest()
        self.looks.append(Look(release.receipt, digest, release.data_state.position))


@dataclass(slots=True)
class Witness:
    """Keeps every signed head that it saw: each must be one that the next extends."""

    profile: Profile
    heads: list[GetCheckpointResponse] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    async def run(self, stop: asyncio.Event) -> None:
        """Asks for the head twice a second."""
        async with channel(self.profile, "audit") as opened:
            stub = AuditServiceStub(opened)
            while not stop.is_set():
                try:
                    head = await stub.GetCheckpoint(GetCheckpointRequest(), timeout=DEADLINE)
                except Problem as problem:
                    self.failures[f"GetCheckpoint {problem.code.name} {problem.reason}"] += 1
                else:
                    if not self.heads or head.tree_size != self.heads[-1].tree_size:
                        self.heads.append(head)
                await asyncio.sleep(0.5)
