"""Spans of deliveries. Imported only where traces are switched on."""

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ingest.errors import LogUnavailable
from ingest.event import TRACEPARENT, vendor_and_account
from ingest.log import PolledProducer, Record
from ingest.settings import Settings
from ingest.times import parse_instant
from ingest.traces import Traces
from receivers.appender import Appender

_ROUTE = "/webhooks/{vendor}/{account}"
_ACCEPTED, _UNAVAILABLE = 202, 503


class TracedAppender(Appender):
    """An appender that makes a span of each sampled delivery, from its receipt to its answer.

    The span's context is in the record. A trace never continues one of the request: anybody can send that.
    Deliveries that are refused have no span, so that strangers cannot make any.
    """

    def __init__(self, producer: PolledProducer, settings: Settings, traces: Traces) -> None:
        super().__init__(producer, settings.receiver.append_timeout.total_seconds())
        self._traces = traces
        self._scheme = urlsplit(settings.public_url).scheme
        self._propagator = TraceContextTextMapPropagator()

    def append(
        self,
        topic: str,
        record: Record,
        on_answer: Callable[[LogUnavailable | None], None],
        on_outcome: Callable[[], None],
    ) -> None:
        """Append a record like `Appender`, with a span if it is sampled."""
        if not self._traces.is_sampled():
            super().append(topic, record, on_answer, on_outcome)
            return
        span = self._start(topic, record)

        def end_and_answer(error: LogUnavailable | None) -> None:
            status = _UNAVAILABLE if error else _ACCEPTED
            span.set_attribute("http.response.status_code", status)
            if error:
                span.set_attribute("error.type", str(status))
                span.set_status(StatusCode.ERROR)
            span.end()
            on_answer(error)

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        traced = replace(record, headers={**record.headers, TRACEPARENT: carrier["traceparent"]})
        super().append(topic, traced, end_and_answer, on_outcome)

    def _start(self, topic: str, record: Record) -> Span:
        headers = record.headers
        vendor, account = vendor_and_account(headers["ce_source"])
        # A dead letter's time is that of its receipt.
        received_at = parse_instant(headers.get("ce_receivedat") or headers["ce_time"])
        return self._traces.tracer.start_span(
            f"POST {_ROUTE}",
            Context(),  # it has no parent
            SpanKind.SERVER,
            {
                "http.request.method": "POST",
                "http.route": _ROUTE,
                "url.path": _ROUTE.format(vendor=vendor, account=account),
                "url.scheme": self._scheme,
                "messaging.system": self._traces.system,
                "messaging.operation.name": "append",
                "messaging.operation.type": "send",
                "messaging.destination.name": topic,
                "ingest.vendor": vendor,
                "ingest.account": account,
            },
            start_time=int(received_at.timestamp() * 1_000_000) * 1000,
        )
