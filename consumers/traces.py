"""Spans of loads, with links to those of the deliveries in them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingest.event import TRACEPARENT
from ingest.log import StoredRecord
from ingest.settings import Settings
from ingest.traces import Traces, ending, open_traces

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class LoadTraces:
    """The spans of one consumer's loads, of which there is one at a time; none where traces are off."""

    def __init__(self, settings: Settings) -> None:
        """Open the export where it is wanted. Raises ConfigurationError."""
        self._traces = open_traces(settings, "consumer")
        self._group = settings.consumer.group
        self._load: Span | None = None

    @contextmanager
    def load(self, records: Sequence[StoredRecord]) -> Iterator[None]:
        """Make a span of the load of a batch, where a record of it is traced or the load itself is sampled.

        It continues the trace of the first such record, and has a link to each.
        """
        texts = [stored.record.headers.get(TRACEPARENT) for stored in records] if self._traces else []
        contexts = [text for text in texts if text]
        if not self._traces or not (contexts or self._traces.is_sampled()):
            yield
            return
        with ending(self._start(self._traces, len(records), contexts)) as span:
            self._load = span
            try:
                yield
            finally:
                self._load = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Make a span of a step of the current load, if that has one."""
        if not self._traces or not self._load:
            yield
            return
        from opentelemetry.trace import set_span_in_context

        with ending(self._traces.tracer.start_span(name, set_span_in_context(self._load))):
            yield

    def close(self) -> None:
        """Export the last spans."""
        if self._traces:
            self._traces.close()

    def _start(self, traces: Traces, records: int, texts: Sequence[str]) -> "Span":
        """Start the span of a load of so many records. `texts` are trace contexts of theirs."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, SpanKind, get_current_span, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        deliveries = [get_current_span(propagator.extract({"traceparent": text})) for text in texts]
        deliveries = [span for span in deliveries if span.get_span_context().is_valid]
        attributes: dict[str, str | int] = {
            "messaging.system": traces.system,
            "messaging.operation.name": "load",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": self._group,
            "messaging.batch.message_count": records,
        }
        return traces.tracer.start_span(
            "load",
            set_span_in_context(deliveries[0]) if deliveries else Context(),
            SpanKind.CONSUMER,
            attributes,
            links=[Link(span.get_span_context()) for span in deliveries],
        )
