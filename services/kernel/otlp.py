"""OpenTelemetry's SDK and its exporters, imported only where something is recorded."""

from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased


def exporters(endpoint: str) -> tuple[list[SpanProcessor], list[MetricReader]]:
    """What sends traces and metrics to a collector, OTLP over HTTP, in the background."""
    base = endpoint.rstrip("/")
    return (
        [BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces"))],
        [PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{base}/v1/metrics"))],
    )


def providers(
    service: str, instance: str, processors: Sequence[SpanProcessor], readers: Sequence[MetricReader]
) -> tuple[TracerProvider, MeterProvider]:
    """A process's sources of spans and of instruments."""
    resource = Resource.create({"service.name": service, "service.instance.id": instance})
    # The head's decision is taken before a span exists, so that what is not recorded costs none.
    tracing = TracerProvider(resource=resource, sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    for processor in processors:
        tracing.add_span_processor(processor)
    return tracing, MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
