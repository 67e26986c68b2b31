"""A vendor without a REST API, in two folders outside of the packages: it is in the demo like any other."""

import json
from pathlib import Path

from tests.support.processes import ingest

VENDOR = """\
from ingest.vendors.appointedd import Appointedd


class Walkin(Appointedd):
    vendor = "walkin"


ACCOUNT = Walkin
"""
SIMULATED_VENDOR = """\
from ingest.simulator.appointedd.webhooks import SimulatedAppointedd
from ingest.simulator.vendor import SimulatedVendor


class SimulatedWalkin(SimulatedAppointedd):
    vendor = "walkin"


VENDOR = SimulatedVendor(SimulatedWalkin)
"""
# Python imports it when it starts, in the processes of the demo too.
SITECUSTOMIZE = """\
from pathlib import Path

import ingest.simulator
import ingest.vendors

ingest.vendors.__path__.append(str(Path(__file__).parent / "vendors"))
ingest.simulator.__path__.append(str(Path(__file__).parent / "simulator"))
"""


def install(folder: Path) -> None:
    """Write the vendor's two packages, and a module that adds them to the product's."""
    for path, source in {
        "vendors/walkin/__init__.py": VENDOR,
        "simulator/walkin/__init__.py": SIMULATED_VENDOR,
        "sitecustomize.py": SITECUSTOMIZE,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(source)


def demo(tmp_path: Path, *arguments: str) -> dict[str, object]:
    install(tmp_path / "packages")
    result = ingest(tmp_path, "demo", "--json", *arguments, PYTHONPATH=str(tmp_path / "packages"))
    assert result.code == 0, result
    summary: dict[str, object] = json.loads(result.out)
    assert summary["right"] is True
    return summary


def walkin_bookings(tmp_path: Path) -> int:
    sql = "select count(*) as n from bookings where vendor = 'walkin'"
    packages = str(tmp_path / "packages")
    result = ingest(tmp_path, "query", "--config", ".demo/ingest.toml", "--json", sql, PYTHONPATH=packages)
    count: int = result.json[0]["n"]
    return count


def test_the_demo_includes_a_vendor_without_an_api(tmp_path: Path) -> None:
    demo(tmp_path, "--seconds", "5", "--rate", "20")
    assert walkin_bookings(tmp_path) > 0


def test_a_demo_with_an_outage_leaves_it_out_because_nothing_could_repair_what_it_lost(
    tmp_path: Path,
) -> None:
    demo(tmp_path, "--seconds", "1", "--outage", "4", "--rate", "15")
    assert walkin_bookings(tmp_path) == 0
