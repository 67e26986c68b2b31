"""A simulated vendor is a folder of this package; this module loads it by its name."""

import importlib
from dataclasses import dataclass

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import NoApi, SimulatedApi


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
