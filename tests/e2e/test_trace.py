"""One trace from the client through every service it causes to work, and nothing in it that the access log is for."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from services.stack.layout import SERVICES
from services.stack.plan import PEOPLE
from tests.e2e.test_path import march, write
from tests.fixtures.otlp import Collector, collecting
from tests.fixtures.stack import Stack

pytestmark = pytest.mark.e2e

READ, DECLARED = "0a" * 16, "0b" * 16
MOTIVE = "suivi du cortège du premier mai"
MOTIVE_WITH_NUMBER = "rappeler le 06 12 34 56 78"
TITLE = "Réfection de la chaussée rue Consolat"
TITLE_WITH_ADDRESS = "contact jeanne.blanc@example.org"
# The mock of the identity provider is no part of what is deployed, and prints its people.
LOGS = (*SERVICES, "broker")


@dataclass(frozen=True, slots=True)
class Story:
    """What was sent, and everything that the services said of it."""

    collector: Collector
    secrets: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)


def traceparent(trace_id: str) -> dict[str, str]:
    return {"TRACEPARENT": f"00-{trace_id}-{'c' * 16}-01"}


def works(source_id: str, title: str) -> dict[str, object]:
    place = {"point": {"longitude": 5.38, "latitude": 43.29}}
    return march(source_id, source="works", kind="ROADWORKS", title=title, geometry=place, attributes=[])


def act(stack: Stack, folder: Path) -> None:
    """A declaration and a look, each in a trace of its own, and whatever else could leave words behind."""
    sent = stack.planier(
        "cortege", "send", write(folder / "a.jsonl", march("TRACE-1")), variables=traceparent(DECLARED)
    )
    assert sent.status == 0, sent.errors
    city = write(folder / "b.jsonl", works("TRACE-2", TITLE), works("TRACE-3", TITLE_WITH_ADDRESS))
    assert stack.planier("cortege", "send", city, "--certificate", "city-importer").status == 2
    for person in ("duty-officer", "auditor", "dga"):
        assert stack.planier("login", "--as", person).status == 0
    look = ("map", "--as", "duty-officer", "--motive", MOTIVE)
    assert stack.planier(*look, variables=traceparent(READ)).status == 0
    assert stack.planier("map", "--as", "duty-officer", "--motive", MOTIVE_WITH_NUMBER).status == 1
    assert stack.planier("map", "--as", "duty-officer", "--purpose", "REFUSED_ENFORCEMENT").status == 1
    assert stack.planier("clearance", "list", "--as", "dga").status == 0
    assert stack.planier("audit", "replay", "--as", "auditor").status == 0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Told once; the installation has stopped by then, so that all it had to say is said."""
    folder = tmp_path_factory.mktemp("trace")
    with collecting() as collector:
        stack = Stack(folder / "var", ("--no-demo", "--otlp-endpoint", collector.endpoint))
        stack.start()
        try:
            act(stack, folder)
        finally:
            stack.stop()
        sessions = [json.loads(path.read_text()) for path in (stack.home / "client").glob("session-*.json")]
        people = yaml.safe_load(PEOPLE.read_text())
        secrets = [name for person in people.values() for name in person.values()]
        secrets += [session[token] for session in sessions for token in ("access_token", "session_token")]
        logs = {name: (stack.home / "log" / f"{name}.log").read_text() for name in LOGS}
        yield Story(collector, [*secrets, *people], logs)


def test_a_look_is_one_trace_through_analytics_access_and_audit(story: Story) -> None:
    found = {(service, span.name.rpartition("/")[2]) for service, span in story.collector.spans(READ)}
    assert {
        ("analytics", "QueryMap"),
        ("analytics", "guard.check"),
        ("analytics", "guard.record"),
        ("access", "StreamChecks"),
        ("audit", "StreamRecords"),
    } <= found


def test_a_declaration_is_one_trace_across_the_bus(story: Story) -> None:
    found = {(service, span.name.rpartition("/")[2]) for service, span in story.collector.spans(DECLARED)}
    assert {
        ("ingest", "StreamFacts"),
        ("access", "StreamChecks"),
        ("audit", "StreamRecords"),
        ("ingest", "bus.publish"),
        ("analytics", "bus.receive"),
        ("analytics", "projection.apply"),
    } <= found


@pytest.mark.parametrize("trace_id", [READ, DECLARED])
def test_every_span_hangs_under_the_clients(story: Story, trace_id: str) -> None:
    spans = {span.span_id: span for _, span in story.collector.spans(trace_id)}
    assert {span.parent_span_id for span in spans.values()} <= {*spans, bytes.fromhex("cc" * 8)}


def test_what_the_parties_ask_of_a_run_is_measured(story: Story) -> None:
    assert {
        "planier.rpc.server.duration",
        "planier.rpc.client.duration",
        "planier.batch.size",
        "planier.declaration.lead_time",
        "planier.relay.lag",
        "planier.projection.lag",
    } <= story.collector.metric_names()
    # Nobody stood at a door: the server's own question about TLS 1.2 is no attempt.
    assert story.collector.counted("planier.door.refused") == set()


def test_logs_and_exports_hold_nobody_and_no_secret(story: Story) -> None:
    secrets = [*story.secrets, MOTIVE, MOTIVE_WITH_NUMBER, "06 12 34", TITLE, TITLE_WITH_ADDRESS, "example.org"]
    secrets += ["Bearer", "eyJ", "Canebi", "Vieux-Port", "TRACE-1", "premier mai", "Consolat"]
    said = {**story.logs, "spans and metrics": story.collector.text()}
    assert all(len(text) > 100 for text in said.values())
    # What is looked through is what was said.
    assert "projection.apply" in said["spans and metrics"]
    assert '"call refused"' in story.logs["analytics"]
    found = {(where, secret) for where, text in said.items() for secret in secrets if secret.lower() in text.lower()}
    assert found == set()
