"""Tests that another vendor is one folder, its samples and its simulation: nothing that exists is edited.

The steps of CONTRIBUTING.md are taken in a copy of this project, for a vendor that only has webhooks.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest.signing import timestamped_header
from tests.support.polling import PATIENCE, wait_for
from tests.support.ports import free_port
from tests.support.processes import COMMAND, Result, environment, ingest, refused

ROOT = Path(__file__).parents[3]
FIFTH = Path(__file__).with_name("fifth")
SECRET = "a-secret-of-these-tests-only"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project, into which a vendor's folders and samples were put."""
    copy = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("ingest", "receivers", "consumers", "tests"):
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, copy)
    shutil.copytree(ROOT / "docs", copy / "docs")
    for package in ("vendors", "simulator"):
        shutil.copytree(FIFTH / package / "acme", copy / "ingest" / package / "acme", ignore=ignored)
    shutil.copytree(FIFTH / "samples" / "acme", copy / "tests" / "ingest" / "vendors" / "samples" / "acme")
    return copy


def python(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment(PYTHONPATH=str(project)),
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        check=False,
    )


class Installation:
    """A folder with settings for the copy, made by `init`."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.project, self.folder = project, folder
        self.port = free_port()
        assert self.run("init", "--public-url", "https://hooks.example.org").code == 0

    def run(self, *arguments: str) -> Result:
        return ingest(self.folder, *arguments, PYTHONPATH=str(self.project))

    def choose_acme(self) -> None:
        """Remove Calendly's example, which is active, and activate Acme's."""
        self._edit("ingest.toml")
        secrets = self._edit("ingest.secrets.toml")
        secrets.write_text(secrets.read_text().replace("the secret that signs webhooks", SECRET))

    def _edit(self, name: str) -> Path:
        file = self.folder / name
        before, accounts = re.split(r"(?=^\[accounts\.)", file.read_text(), maxsplit=1, flags=re.MULTILINE)
        lines = accounts.partition("# [accounts.acme]\n")[2].splitlines()
        file.write_text(
            before + "\n".join(["[accounts.acme]", *(line.removeprefix("# ") for line in lines)]) + "\n"
        )
        return file

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run receiver, consumer and reconciliation."""
        ports = {f"INGEST_{part}__ADMIN_PORT": "0" for part in ("RECEIVER", "CONSUMER", "RECONCILE")}
        with (self.folder / "up.log").open("wb") as lines:
            process = subprocess.Popen(
                [*COMMAND, "up"],
                cwd=self.folder,
                env=environment(PYTHONPATH=str(self.project), INGEST_RECEIVER__PORT=str(self.port), **ports),
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=lines,
            )
        try:
            wait_for(lambda: self._status("GET", "/healthz") == 200, "the receiver listens")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)

    def deliver(self, body: bytes, secret: str = SECRET) -> int | None:
        """Send a signed delivery as Acme would."""
        headers = {"Acme-Signature": timestamped_header(secret, "v1", body, datetime.now(UTC))}
        return self._status("POST", "/webhooks/acme/acme", content=body, headers=headers)

    def rows(self) -> Any:
        result = self.run("query", "--json", "select vendor, account, booking_id, status from bookings")
        return result.json if result.code == 0 else []

    def _status(self, method: str, path: str, **options: Any) -> int | None:
        try:
            return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", **options).status_code
        except httpx.TransportError:
            return None


@pytest.fixture
def installation(project: Path, tmp_path: Path) -> Installation:
    installation = Installation(project, tmp_path)
    installation.choose_acme()
    return installation


def test_init_writes_an_example_of_its_account(project: Path, tmp_path: Path) -> None:
    Installation(project, tmp_path)
    assert '\n# [accounts.acme]\n# vendor = "acme"\n' in (tmp_path / "ingest.toml").read_text()
    assert "\n# [accounts.acme]\n# webhook_secrets = [" in (tmp_path / "ingest.secrets.toml").read_text()
    schema = json.loads((tmp_path / "ingest.schema.json").read_text())
    assert "acme" in schema["properties"]["accounts"]["additionalProperties"]["properties"]["vendor"]["enum"]


def test_help_names_it(project: Path) -> None:
    assert "Bookeo and Acme" in python(project, "-m", "ingest", "--help").stdout


def test_the_documentation_lists_it_after_make_docs(project: Path) -> None:
    for program in ("tests.ingest.vendors.reference", "tests.ingest.settings.reference"):
        process = python(project, "-m", program)
        assert process.returncode == 0, process.stderr
    assert "\n| Acme | by hand | - |\n" in (project / "README.md").read_text()
    assert "`acme`" in (project / "docs" / "settings.md").read_text()


def test_check_passes_and_says_what_the_vendor_does_not_have(installation: Installation) -> None:
    result = installation.run("check", "--json")
    assert result.code == 0, result
    findings = {finding["check"]: finding for finding in result.json["checks"]}
    assert findings["REST acme"]["skipped"]
    assert findings["REST acme"]["detail"].startswith("acme has no REST side here, only webhooks: reconcile")
    assert findings["webhooks acme"]["detail"].startswith("nothing has arrived yet")
    assert result.json["webhook_urls"] == {"acme": ["https://hooks.example.org/webhooks/acme/acme"]}


def test_its_webhooks_are_made_by_hand(installation: Installation) -> None:
    result = installation.run("webhooks", "plan", "acme", "--json")
    assert result.code == 2, result
    assert result.json[0]["by_hand"][:3] == [
        "acme has no API for webhooks. By hand:",
        "1. have a webhook made at acme with URL https://hooks.example.org/webhooks/acme/acme",
        "2. set accounts.acme.webhook_secrets to the secret that signs it (some are set: keep it the first)",
    ]
    assert installation.run("webhooks", "remove", "acme", "--yes").err.startswith(
        "error: acme has no API for webhooks"
    )


@pytest.mark.parametrize("command", [("sync", "acme"), ("reconcile", "--account", "acme")])
def test_commands_that_need_a_rest_side_say_that_there_is_none(
    installation: Installation, command: tuple[str, ...]
) -> None:
    assert "acme has no REST side here, only webhooks" in refused(installation.run(*command))


def test_without_a_test_delivery_the_command_asks_for_a_test_booking(installation: Installation) -> None:
    result = installation.run("webhooks", "test", "acme")
    assert refused(result) == "there is no test delivery for acme: make a test booking"


def test_a_signed_delivery_is_accepted_and_becomes_a_row(installation: Installation) -> None:
    created = (FIFTH / "samples" / "acme" / "created" / "body").read_bytes()
    cancelled = (FIFTH / "samples" / "acme" / "cancelled" / "body").read_bytes()
    row = {"vendor": "acme", "account": "acme", "booking_id": "B-1", "status": "cancelled"}
    with installation.up():
        assert installation.deliver(created, "nobody's secret") == 401
        assert [installation.deliver(cancelled), installation.deliver(created)] == [202, 202]
        wait_for(lambda: installation.rows() == [row], "the booking is loaded, at its newest version")
        status = installation.run("status", "--json")
    assert status.code in {0, 1}, status
    assert "acme" in status.out


def test_it_passes_the_tests_of_all_vendors_with_its_samples_and_its_simulation(project: Path) -> None:
    suites = [
        "tests/ingest/vendors/test_contract.py",
        "tests/receivers/test_samples.py",
        "tests/ingest/simulator/test_simulation.py",
        "tests/ingest/simulator/test_webhooks.py",
    ]
    chosen = "acme or account_expects"
    process = python(
        project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, "--color", "no", *suites
    )
    assert process.returncode == 0, process.stdout
    passed = re.search(r"(\d+) passed", process.stdout.splitlines()[-1])
    assert passed is not None, process.stdout
    assert int(passed[1]) > 50


def demo(project: Path, folder: Path, *arguments: str) -> int:
    """Run a demo, which must find the warehouse right, and return the number of Acme's bookings in it."""
    result = ingest(folder, "demo", "--json", *arguments, PYTHONPATH=str(project))
    assert result.code == 0, result
    assert result.json["right"] is True
    sql = "select count(*) as n from bookings where vendor = 'acme'"
    counted = ingest(folder, "query", "--config", ".demo/ingest.toml", "--json", sql, PYTHONPATH=str(project))
    count: int = counted.json[0]["n"]
    return count


def test_the_demo_includes_it(project: Path, tmp_path: Path) -> None:
    assert demo(project, tmp_path, "--seconds", "5", "--rate", "20") > 0


def test_a_demo_with_an_outage_leaves_it_out_because_nothing_could_repair_what_it_lost(
    project: Path, tmp_path: Path
) -> None:
    assert demo(project, tmp_path, "--seconds", "1", "--outage", "4", "--rate", "15") == 0


def test_the_sources_for_dlt_are_those_of_the_other_vendors(project: Path) -> None:
    program = "from ingest import sources; print(*dir(sources)); print(hasattr(sources, 'acme_source'))"
    names, has_source = python(project, "-c", program).stdout.splitlines()
    assert names == "appointedd_source bookeo_source calendly_source oncehub_source"
    assert has_source == "False"
