"""Simulated vendors: a world of bookings, and for each vendor the webhooks and the REST API that report them.

A vendor is a folder of this package. It is written from the vendor's documentation, not from our own reading
of it, so that it can prove that reading wrong.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import SimulatedApi


class NoApi(SimulatedApi):
    """Stands in where a vendor has no REST API: there are no credentials and no endpoints."""

    base_path = ""

    def settings(self) -> Mapping[str, Any]:
        return {}

    def auth_headers(self) -> Mapping[str, str]:
        return {}

    def routes(self) -> Sequence[Route]:
        return []

    def is_authentic(self, request: Request) -> bool:
        return True

    def unauthorized(self) -> Response:
        return Response(status_code=401)

    def too_many(self, seconds: float) -> Response:
        return Response(status_code=429)


@dataclass(frozen=True, slots=True)
class SimulatedVendor:
    """The two classes of a vendor: its accounts with their webhooks, and the REST API, which it may lack."""

    account: type[SimulatedAccount]
    api: type[SimulatedApi] = NoApi

    @property
    def has_api(self) -> bool:
        """Say whether the vendor has a REST API, without which nothing can be reconciled."""
        return self.api is not NoApi


def load_simulated_vendor(name: str) -> SimulatedVendor:
    """Return `VENDOR` of the folder with this name."""
    vendor: SimulatedVendor = importlib.import_module(f"ingest.simulator.{name}").VENDOR
    return vendor
