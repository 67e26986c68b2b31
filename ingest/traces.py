"""Traces by OpenTelemetry: of a delivery, from its request through the log to its load.

Nothing of OpenTelemetry is imported unless `traces.endpoint` is set.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from ingest import __version__
from ingest.errors import ConfigurationError
from ingest.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_CLOSE_SECONDS = 3.0  # for the last spans, which a collector out of reach must not make longer


def require_traces(settings: Settings) -> None:
    """Check that the packages for traces are there if these are wanted. Raises ConfigurationError."""
    if not settings.traces.endpoint:
        return
    try:
        import_module(_EXPORTER)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"traces.endpoint needs the Python package {error.name}, which is not installed here: "
            'pip install "bookings-ingest[traces]", or remove traces.endpoint'
        ) from None


def open_traces(settings: Settings, service: str) -> "Traces | None":
    """Return the traces of a process; None without `traces.endpoint`. Raises ConfigurationError."""
    require_traces(settings)
    return Traces(settings, service) if settings.traces.endpoint else None


class Traces:
    """The export of spans to `traces.endpoint`, in a thread of its own.

    `tracer` makes the spans. They are dropped while the collector is out of reach: nothing waits for it.
    Headers, certificates and limits come from OpenTelemetry's own environment variables.
    """

    def __init__(self, settings: Settings, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        self._sample = settings.traces.sample
        attributes = {"service.name": f"ingest-{service}", "service.version": __version__}
        # What is not sampled has no span at all, which takes less time than a sampler.
        self._provider = TracerProvider(ALWAYS_ON, Resource.create(attributes), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{settings.traces.endpoint}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._provider.get_tracer("ingest", __version__)
        self.system = settings.log.partition(":")[0]
        """The log's kind, as `messaging.system` in the semantic conventions."""

    def is_sampled(self) -> bool:
        """Return whether the next delivery or load is traced, by chance."""
        return random.random() < self._sample  # noqa: S311

    def close(self) -> None:
        """Export the last spans, as far as that takes no more than a moment."""
        thread = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)


@contextmanager
def ending(span: "Span") -> Iterator["Span"]:
    """End a span with the block. An error gives it the error's type, never its message."""
    from opentelemetry.trace import StatusCode

    try:
        yield span
    except BaseException as error:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR)
        raise
    finally:
        span.end()
