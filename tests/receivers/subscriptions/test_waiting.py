"""What `ingest webhooks` says while it waits for a vendor."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.ingest.cli.command import ingest
from tests.kafka.broker import free_port
from tests.receivers.subscriptions.installation import Installation, opened


@pytest.fixture
def calendly(tmp_path: Path) -> Iterator[Installation]:
    with opened(tmp_path / "operator", "calendly") as installation:
        yield installation


def test_a_vendor_that_is_busy_is_waited_for_in_lines_that_say_how_long(calendly: Installation) -> None:
    busy: list[str] = []

    def fault(_: str, request: Request) -> Response | None:
        busy.append(request.url.path)
        return (
            JSONResponse({"title": "Too Many Requests"}, 429, {"Retry-After": "3"})
            if len(busy) == 1
            else None
        )

    calendly.vendor.server.faults[:] = [fault]
    result = ingest(calendly.folder, "webhooks", "plan", "--json")
    assert result.json[0]["error"] is None
    asking, told, waiting, *_ = result.err.splitlines()
    assert asking == "asking calendly/sales …"
    assert told.startswith(
        "calendly account sales: too many requests, the next one is allowed in 3 s. 429 Too Many Requests"
    )
    assert waiting.startswith("waiting 3 s: calendly account sales ")


def test_a_vendor_that_is_down_is_told_before_it_is_tried_again(calendly: Installation) -> None:
    port = free_port()
    result = ingest(
        calendly.folder,
        "webhooks",
        "plan",
        INGEST_ACCOUNTS__SALES__API_URL=f"http://127.0.0.1:{port}",
        INGEST_RECONCILE__PATIENCE="1s",
    )
    assert result.code == 3
    lines = result.err.splitlines()
    assert (
        lines[1] == f"calendly account sales: 127.0.0.1:{port} refuses the connection: nothing listens there."
        " Trying again, for up to 1 s"
    )
