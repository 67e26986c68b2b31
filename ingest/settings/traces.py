"""The section of traces."""

from typing import Annotated

from pydantic import AfterValidator, Field

from ingest.address import parse_web_address
from ingest.settings.sections import Section


def _check_endpoint(url: str) -> str:
    return parse_web_address(url).rstrip("/") if url.strip() else ""


class TracesSettings(Section):
    """Traces: where they are sent, and how many deliveries are traced."""

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] = Field(
        "",
        description="Address to which receivers and consumers send traces by OTLP over HTTP, without "
        "`/v1/traces`, for example `http://localhost:4318`. Without it nothing is traced. It needs the extra "
        "`traces`.",
    )
    sample: float = Field(
        0.01, ge=0, le=1, description="Share of verified deliveries that are traced, from 0 to 1."
    )
