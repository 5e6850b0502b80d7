"""What is recorded, what travels on, and what it costs when it is off."""

import json
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.kernel import traces
from services.kernel.logs import JsonFormatter, StandardError
from services.kernel.telemetry import METRICS, Telemetry

ROOT = Path(__file__).parents[2]
SAMPLED = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
UNSAMPLED = SAMPLED[:-1] + "0"


class Recording:
    def __init__(self, ratio: float) -> None:
        self._spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.telemetry = Telemetry.recording(
            service="s", instance="i", ratio=ratio, processors=[SimpleSpanProcessor(self._spans)], readers=[self.reader]
        )

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._spans.get_finished_spans()


def test_off_makes_a_trace_id_for_every_call_and_records_nothing() -> None:
    telemetry = Telemetry.off()
    span, other = telemetry.begin("a"), telemetry.begin("a")
    assert traces.is_valid(span.traceparent)
    assert span.trace_id != other.trace_id
    assert not traces.is_sampled(span.traceparent)
    telemetry.count("planier.door.refused", reason="PLAINTEXT")
    telemetry.shutdown()


def test_what_comes_in_decides_whether_a_trace_is_recorded() -> None:
    recording = Recording(ratio=0)
    with recording.telemetry.span("in", SpanKind.SERVER, parent=SAMPLED) as span:
        assert span.trace_id == traces.trace_id(SAMPLED)
        assert span.traceparent != SAMPLED
        with recording.telemetry.span("within"):
            pass
    recording.telemetry.begin("out", parent=UNSAMPLED).end()
    recording.telemetry.begin("new").end()
    within, outer = recording.spans
    assert (within.name, outer.name) == ("within", "in")
    assert within.parent is not None
    assert outer.context is not None
    assert within.parent.span_id == outer.context.span_id
    assert outer.parent is not None
    assert outer.parent.is_remote


def test_a_new_trace_is_recorded_at_the_given_ratio() -> None:
    recording = Recording(ratio=1)
    span = recording.telemetry.begin("new")
    assert traces.is_sampled(span.traceparent)
    span.end("RECORD_UNAVAILABLE", fault=True)
    (recorded,) = recording.spans
    assert recorded.attributes == {"planier.outcome": "RECORD_UNAVAILABLE"}
    assert not recorded.status.is_ok


@pytest.mark.parametrize(
    "traceparent",
    ["", "x", SAMPLED.upper(), SAMPLED + "0", "ff" + SAMPLED[2:], f"00-{'0' * 32}-{'1' * 16}-01", SAMPLED + "\n"],
)
def test_a_malformed_traceparent_starts_a_new_trace(traceparent: str) -> None:
    span = Telemetry.off().begin("a", parent=traceparent)
    assert traces.is_valid(span.traceparent)
    assert span.traceparent != traceparent


def test_every_instrument_of_the_table_is_made_and_no_other() -> None:
    recording = Recording(ratio=0)
    for name, metric in METRICS.items():
        attributes = dict.fromkeys(metric.attributes, "X")
        if metric.kind == "counter":
            recording.telemetry.count(name, 1, **attributes)
        elif metric.kind == "gauge":
            recording.telemetry.state(name, 0.5, **attributes)
        else:
            recording.telemetry.measure(name, 0.5, **attributes)
    data = recording.reader.get_metrics_data()
    assert data is not None
    made = {m.name: (m.unit, m.description) for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert made == {name: (metric.unit, metric.description) for name, metric in METRICS.items()}
    with pytest.raises(KeyError):
        recording.telemetry.count("planier.unheard.of")


def test_the_code_uses_each_instrument_of_the_table_and_no_other() -> None:
    use = re.compile(r'\.(count|measure|state)\(\s*"(planier\.[a-z_.]+)"')
    kinds = {"count": "counter", "measure": "histogram", "state": "gauge"}
    sources = [path.read_text() for path in (ROOT / "services").rglob("*.py")]
    used = {(name, kinds[verb]) for source in sources for verb, name in use.findall(source)}
    assert used == {(name, metric.kind) for name, metric in METRICS.items()}


def test_the_documentation_shows_the_table() -> None:
    rows = re.findall(r"^\| `(planier\.[^`]+)` \| (.*) \|$", (ROOT / "docs/telemetry.md").read_text(), re.MULTILINE)
    assert dict(rows) == {
        name: f"{m.kind} | {m.unit} | {', '.join(m.attributes)} | {m.description}" for name, m in METRICS.items()
    }


def fail() -> None:
    raise ValueError("what a request held")


def test_a_log_line_names_the_trace_and_never_an_exceptions_text() -> None:
    formatter = JsonFormatter("ingest", "i-1")
    try:
        fail()
    except ValueError:
        record = logging.getLogger("a").makeRecord(
            "a", logging.ERROR, "f", 1, "call %s", ("failed",), sys.exc_info(), extra={"method": "/x/Y"}
        )
    with Telemetry.off().span("call", parent=SAMPLED):
        text = formatter.format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert line["trace_id"] == traces.trace_id(SAMPLED)
    assert (line["message"], line["method"], line["exception"]) == ("call failed", "/x/Y", "builtins.ValueError")
    assert line["stack"][-1].endswith(" fail")
    assert "what a request held" not in text


def test_logs_follow_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    handler = StandardError()
    handler.emit(logging.makeLogRecord({"msg": "line"}))
    assert capsys.readouterr().err == "line\n"
