"""Engagements over mTLS, from the opening to an overdue certificate that alerts, blocks, and is at last given."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from planier.access.v1 import engagement_pb2 as pb
from planier.access.v1.engagement_events_pb2 import ENGAGEMENT_END_BREACH, EngagedPerson, Provider
from planier.common.v1.release_pb2 import PURPOSE_SITUATION

from services.access import engagements
from services.access.convention import person_message
from services.access.deed import raw_public_key
from services.access.overdue import OverdueWatch
from services.kernel.errors import Problem
from tests.fixtures import access
from tests.fixtures import engagements as made
from tests.fixtures.access import Replica
from tests.fixtures.access_issuer import TestIssuer, issuer_running
from tests.fixtures.access_service import ADMINISTRATION, TIMEOUT, Service, refusal, running, settings_in
from tests.fixtures.store import HandClock
from tests.fixtures.telemetry import Recording


@pytest.fixture
def issuer() -> Iterator[TestIssuer]:
    with issuer_running() as found:
        yield found


@pytest.fixture
async def service(issuer: TestIssuer, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(settings_in(tmp_path, issuer), issuer, tmp_path) as opened:
        await opened.found()
        yield opened


def opening() -> pb.OpenEngagementRequest:
    request = pb.OpenEngagementRequest(
        consultation=ADMINISTRATION,
        engagement_id=str(uuid4()),
        provider=Provider(siret=made.PROVIDER.siret, name=made.PROVIDER.name),
        service="étude de fréquentation",
        purposes=[PURPOSE_SITUATION],
        sources=["works"],
        persons=[
            EngagedPerson(
                person_id=made.RECIPIENT.person_id,
                person=person_message(made.RECIPIENT.person),
                siret=made.PROVIDER.siret,
            )
        ],
        destruction_days=10,
        certificate_key=raw_public_key(made.PROVIDER_KEY.public_key()),
    )
    request.valid_from.FromDatetime(datetime.now(UTC) - timedelta(hours=1))
    request.valid_until.FromDatetime(datetime.now(UTC) + timedelta(days=30))
    return request


async def test_from_the_opening_to_the_certificate(service: Service) -> None:
    _, dga = await service.login("dga", access.DGA_PERSON)
    request = opening()
    opened = await service.stub.OpenEngagement(request, timeout=TIMEOUT, metadata=dga)
    assert opened.engagement.state == pb.ENGAGEMENT_STATE_UNDER_WAY
    hand_over = pb.AuthoriseHandOverRequest(
        consultation=ADMINISTRATION,
        engagement_id=request.engagement_id,
        hand_over_id=str(uuid4()),
        person_id=made.RECIPIENT.person_id,
        sources=["works"],
    )
    answer = await service.stub.AuthoriseHandOver(hand_over, timeout=TIMEOUT, metadata=dga)
    assert len(answer.engagement.hand_overs) == 1
    end = pb.EndEngagementRequest(
        consultation=ADMINISTRATION, engagement_id=request.engagement_id, cause=ENGAGEMENT_END_BREACH
    )
    ended = await service.stub.EndEngagement(end, timeout=TIMEOUT, metadata=dga)
    assert ended.engagement.state == pb.ENGAGEMENT_STATE_DESTRUCTION_DUE
    hand_over.hand_over_id = str(uuid4())
    problem = await refusal(service.stub.AuthoriseHandOver(hand_over, timeout=TIMEOUT, metadata=dga))
    assert (problem.reason, problem.clause) == ("ENGAGEMENT_NOT_UNDER_WAY", "art8.provider")
    assert service.records()[-1].refusal_reason == "ENGAGEMENT_NOT_UNDER_WAY"
    certificate = engagements.certificate_content(
        request.engagement_id, made.DOCUMENT_HASH, datetime.now(UTC), [made.PROVIDER.siret]
    )
    certification = pb.CertifyDestructionRequest(
        consultation=ADMINISTRATION,
        engagement_id=request.engagement_id,
        certificate=certificate,
        signature=engagements.sign(certificate, made.PROVIDER_KEY),
    )
    closed = await service.stub.CertifyDestruction(certification, timeout=TIMEOUT, metadata=dga)
    assert (closed.engagement.state, closed.engagement.document_hash) == (
        pb.ENGAGEMENT_STATE_CLOSED,
        made.DOCUMENT_HASH,
    )
    listing = pb.ListEngagementsRequest(consultation=ADMINISTRATION)
    (listed,) = (await service.stub.ListEngagements(listing, timeout=TIMEOUT, metadata=dga)).engagements
    assert listed == closed.engagement
    listing.overdue = True
    assert not (await service.stub.ListEngagements(listing, timeout=TIMEOUT, metadata=dga)).engagements
    stored = b"".join(record.SerializeToString() for record in service.records())
    assert made.RECIPIENT.person.usual_name.encode() not in stored


async def test_a_late_certificate_alerts_and_blocks_until_it_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock(access.NOW)
    replica = Replica(access.sqlite_url(tmp_path), clock)
    recorded = Recording()
    try:
        replica.run(*access.founding_commands(), made.open_command())
        watch = OverdueWatch(replica.core.cache, clock, recorded.telemetry)
        assert await watch.look() == 0
        clock.shown = access.NOW + timedelta(days=60)
        assert [await watch.look(), await watch.look()] == [1, 1]
        assert recorded.last_value("planier.engagement.overdue") == 1
        assert [getattr(line, "engagement_id", "") for line in caplog.records] == [made.ENGAGEMENT]
        with pytest.raises(Problem, match="DESTRUCTION_OVERDUE"):
            replica.run(made.open_command(str(uuid4()), valid_until=clock.shown + timedelta(days=9)))
        replica.run(made.certify_command(clock.shown))
        assert await watch.look() == 0
        assert recorded.last_value("planier.engagement.overdue") == 0
        replica.run(made.open_command(str(uuid4()), valid_until=clock.shown + timedelta(days=9)))
    finally:
        replica.close()
        recorded.telemetry.shutdown()
