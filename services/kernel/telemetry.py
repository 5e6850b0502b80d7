"""Traces and metrics by OpenTelemetry; off unless an OTLP endpoint is given, and then free of charge."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from services.kernel import traces

if TYPE_CHECKING:  # 200 ms of imports that a command of the command line, always off, does without
    from opentelemetry.metrics import Counter, Histogram
    from opentelemetry.metrics import _Gauge as Gauge
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    from services.kernel.config import ServiceSettings

SCOPE = "planier"


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument: what it counts or measures, in which unit, under which attributes, a histogram's bounds."""

    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    description: str
    attributes: tuple[str, ...]
    bounds: tuple[float, ...] = ()


# A call takes 1 ms idle and seconds when all is wrong; OpenTelemetry's own bounds begin at 5 s.
_CALLS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_LAGS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)
_ITEMS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
# An hour to a year: law and practice count in days (a demonstration is declared 3 to 15 days ahead).
_AHEAD = (3600, 21_600, 86_400, 259_200, 604_800, 1_296_000, 2_592_000, 7_776_000, 31_536_000)


# The whole of what is measured; docs/telemetry.md shows it, tests/unit/test_telemetry.py holds both to the code.
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "planier.rpc.server.duration": Metric(
            "histogram",
            "s",
            "Time from a call's arrival to its answer, streams included.",
            ("method", "outcome"),
            _CALLS,
        ),
        "planier.rpc.client.duration": Metric(
            "histogram", "s", "Time a caller waited for an answer of another service.", ("method", "outcome"), _CALLS
        ),
        "planier.door.refused": Metric(
            "counter", "{connection}", "Connections that ended in the TLS handshake.", ("reason",)
        ),
        "planier.batch.size": Metric(
            "histogram", "{item}", "Decisions or records asked for in one message.", ("method",), _ITEMS
        ),
        "planier.declaration.lead_time": Metric(
            "histogram", "s", "From recording to start, of facts recorded before they start.", ("authority",), _AHEAD
        ),
        "planier.declaration.entry_lag": Metric(
            "histogram", "s", "From start to recording, of facts recorded after they start.", ("authority",), _AHEAD
        ),
        "planier.relay.lag": Metric(
            "gauge", "s", "Age of the oldest event that is not on the bus; 0 when all are.", ("stream",)
        ),
        "planier.audit.corrupt": Metric(
            "gauge", "{part}", "Parts of the access log that are altered and not read.", ()
        ),
        "planier.audit.holes": Metric(
            "gauge", "{number}", "Numbers of access records that are overdue: used, and in no record.", ()
        ),
        "planier.engagement.overdue": Metric(
            "gauge", "{engagement}", "Ended engagements whose certificate of destruction is late.", ()
        ),
        "planier.projection.lag": Metric(
            "histogram", "s", "From an event's recording to its being in the read model.", ("projection",), _LAGS
        ),
        "planier.witness.lag": Metric(
            "gauge", "s", "How long a head of the access log has been without a witness's cosignature.", ("party",)
        ),
    }
)


class Span:
    """One piece of work in a trace; holds an OpenTelemetry span only where the trace is recorded."""

    __slots__ = ("_recorded", "traceparent")

    def __init__(self, traceparent: str, recorded: trace.Span | None) -> None:
        self.traceparent = traceparent
        self._recorded = recorded

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; every call has one."""
        return traces.trace_id(self.traceparent)

    def end(self, outcome: str = "OK", *, fault: bool = False) -> None:
        """Ends the span; `outcome` is a status or reason in UPPER_SNAKE, `fault` marks it as ours."""
        if self._recorded is None:
            return
        self._recorded.set_attribute("planier.outcome", outcome)
        if fault:
            self._recorded.set_status(Status(StatusCode.ERROR))
        self._recorded.end()


class SpanBlock:
    """Ends its span with the block, and makes it the current one inside."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = traces.current.set(self._span.traceparent)
        return self._span

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        traces.current.reset(self._token)
        if kind is None:
            self._span.end()
        else:
            self._span.end(kind.__name__, fault=issubclass(kind, Exception))


class Telemetry:
    """Spans, metrics and the propagation of trace context of one process.

    A trace begins here when a call comes in without a traceparent; then `ratio` of them are recorded. What comes in
    with one follows its flag. Without an exporter nothing is recorded, yet every call has a trace id.
    """

    def __init__(
        self,
        *,
        tracing: "TracerProvider | None" = None,
        metering: "MeterProvider | None" = None,
        ratio: float = 0.0,
    ) -> None:
        self._tracing = tracing
        self._metering = metering
        self._tracer = tracing.get_tracer(SCOPE) if tracing else None
        self._ratio = ratio
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._gauges: dict[str, Gauge] = {}
        if metering:
            self._create_instruments(metering)

    @classmethod
    def off(cls) -> Self:
        """Records nothing; trace ids still pass through."""
        return cls()

    @classmethod
    def start(cls, settings: "ServiceSettings") -> Self:
        """As the settings say: off without an endpoint, else OTLP over HTTP, in the background."""
        if not settings.otlp_endpoint:
            return cls.off()
        from services.kernel.otlp import exporters  # noqa: PLC0415 -- see the imports for types

        processors, readers = exporters(settings.otlp_endpoint)
        return cls.recording(
            service=settings.service,
            instance=settings.instance,
            ratio=settings.trace_ratio,
            processors=processors,
            readers=readers,
        )

    @classmethod
    def recording(
        cls,
        *,
        service: str,
        instance: str,
        ratio: float,
        processors: "Sequence[SpanProcessor]",
        readers: "Sequence[MetricReader]",
    ) -> Self:
        """Records to these processors and readers."""
        from services.kernel.otlp import providers  # noqa: PLC0415 -- see the imports for types

        tracing, metering = providers(service, instance, processors, readers)
        return cls(tracing=tracing, metering=metering, ratio=ratio)

    @property
    def is_on(self) -> bool:
        """Whether anything can be recorded."""
        return self._tracer is not None

    def begin(
        self, name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: str = "", links: Iterable[str] = ()
    ) -> Span:
        """A span under `parent` (a traceparent, not trusted), else under the current one, else of a new trace.

        `links` are traceparents of other recorded traces that this work is for. Whoever begins a span ends it.
        """
        if not (parent and traces.is_valid(parent)):
            parent = traces.current.get()
        if self._tracer is None:
            return Span(parent or traces.fresh(sampled=False), None)
        if not parent:
            if random.random() >= self._ratio:  # noqa: S311 -- which calls are traced is no secret
                return Span(traces.fresh(sampled=False), None)
            return _recorded(self._tracer.start_span(name, Context(), kind))
        if not traces.is_sampled(parent):
            return Span(parent, None)
        context = trace.set_span_in_context(NonRecordingSpan(_remote(parent)))
        return _recorded(self._tracer.start_span(name, context, kind, links=[Link(_remote(link)) for link in links]))

    def begin_serving(self, name: str, callers: Iterable[str]) -> tuple[Span, ...]:
        """A server's span in each recorded trace among the callers', linked to one another's; none where none is."""
        recorded = traces.recorded_among(callers) if self._tracer is not None else ()
        if not recorded:
            return ()
        first = self.begin(name, SpanKind.SERVER, parent=recorded[0], links=recorded[1:])
        return (
            first,
            *(self.begin(name, SpanKind.SERVER, parent=one, links=(first.traceparent,)) for one in recorded[1:]),
        )

    def begin_following(self, name: str, kind: SpanKind, causes: Iterable[str]) -> Span:
        """A span of work that follows calls, such as a message's: under the first recorded one, linked to the others.

        `causes` are traceparents, not trusted; where none is of a recorded trace, nothing is recorded.
        """
        recorded = traces.recorded_among(causes) if self._tracer is not None else ()
        return self.begin(name, kind, parent=recorded[0], links=recorded[1:]) if recorded else Span("", None)

    def span(self, name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: str = "") -> "SpanBlock":
        """A span around a `with` block, current inside it; an exception that leaves the block marks it as a fault."""
        return SpanBlock(self.begin(name, kind, parent=parent))

    def following(self, name: str, kind: SpanKind, causes: Iterable[str]) -> "SpanBlock":
        """`begin_following` around a `with` block."""
        return SpanBlock(self.begin_following(name, kind, causes))

    def count(self, name: str, amount: int = 1, **attributes: str) -> None:
        """Adds to a counter of METRICS; KeyError where the table has none of that name."""
        if self._metering is not None:
            self._counters[name].add(amount, attributes)

    def measure(self, name: str, value: float, **attributes: str) -> None:
        """Adds a value to a histogram of METRICS; KeyError where the table has none of that name."""
        if self._metering is not None:
            self._histograms[name].record(value, attributes)

    def state(self, name: str, value: float, **attributes: str) -> None:
        """Sets a gauge of METRICS; KeyError where the table has none of that name."""
        if self._metering is not None:
            self._gauges[name].set(value, attributes)

    def shutdown(self) -> None:
        """Sends what is pending and stops; blocks for some seconds where the collector is gone."""
        if self._tracing is not None:
            self._tracing.shutdown()
        if self._metering is not None:
            self._metering.shutdown()

    def _create_instruments(self, metering: "MeterProvider") -> None:
        meter = metering.get_meter(SCOPE)
        for name, metric in METRICS.items():
            if metric.kind == "counter":
                self._counters[name] = meter.create_counter(name, metric.unit, metric.description)
            elif metric.kind == "gauge":
                self._gauges[name] = meter.create_gauge(name, metric.unit, metric.description)
            else:
                self._histograms[name] = meter.create_histogram(
                    name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.bounds
                )


def _remote(traceparent: str) -> SpanContext:
    trace_id, span_id = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _recorded(span: trace.Span) -> Span:
    context = span.get_span_context()
    return Span(f"00-{context.trace_id:032x}-{context.span_id:016x}-01", span)
