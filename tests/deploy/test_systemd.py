"""The units of systemd, by systemd's own checks; and what services tell it."""

import re
import shutil
import socket
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from typer.main import get_command

from ingest.cli.commands import app
from ingest.settings.sources import load_settings
from tests.deploy.roles import SECTIONS
from tests.receivers.requests import SECRET
from tests.support.polling import PATIENCE
from tests.support.ports import free_port
from tests.support.settings import CommandRunner, settings_tree

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(path for path in FOLDER.iterdir() if path.suffix in {".service", ".target"})
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
MOST_EXPOSED = 15  # tenths: 1.5 of 10, where systemd's own words are "OK"

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Return copies of all units whose program exists here."""
    for unit in UNITS:
        text = unit.read_text().replace("/opt/ingest/bin/ingest", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    return [tmp_path / unit.name for unit in UNITS]


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(units: list[Path]) -> None:
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_a_service_may_do_little(service: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", str(service)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-200:]


def test_each_role_has_a_service_that_runs_a_command_there_is() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]  # the application is a group
    for service in SERVICES:
        (line,) = re.findall(r"^ExecStart=/opt/ingest/bin/ingest (.+)$", service.read_text(), re.MULTILINE)
        assert service.stem == f"ingest-{line.split()[0]}"
        assert line.split()[0] in commands
    assert {service.stem for service in SERVICES} == {f"ingest-{role}" for role in (*SECTIONS, "dashboard")}
    target = (FOLDER / "ingest.target").read_text()
    assert set(re.findall(r"ingest-\w+\.service", target)) == {service.name for service in SERVICES}


def test_the_dashboard_starts_only_with_the_token_that_the_steps_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = (FOLDER / "ingest-dashboard.service").read_text()
    (needed,) = re.findall(r"^AssertFileNotEmpty=(.+)$", unit, re.MULTILINE)
    ((prefix, credentials),) = re.findall(r"^LoadCredential=(\w+):(.+)$", unit, re.MULTILINE)
    name = needed.removeprefix(f"{credentials}/")
    (step,) = [
        line for line in (FOLDER / "README.md").read_text().splitlines() if line.endswith(f" {needed}")
    ]
    token = tmp_path / f"{prefix}_{name}"  # as systemd calls a credential of a folder
    subprocess.run(["sh", "-c", step.replace(needed, str(token))], check=True)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environ={"INGEST_SECRETS_DIR": str(tmp_path)})
    assert settings.dashboard.token
    assert len(settings.dashboard.token.get_secret_value()) >= 32


@pytest.mark.parametrize("command", [("receive",), ("consume",), ("reconcile", "--watch"), ("dashboard",)])
def test_a_service_says_when_it_is_ready(tmp_path: Path, command: tuple[str, ...]) -> None:
    tree = settings_tree(tmp_path)
    tree |= {name: tree.get(name, {}) | {"admin_port": free_port()} for name in SECTIONS.values()}
    tree["receiver"]["port"] = free_port()
    tree["accounts"] = {"sales": {"vendor": "calendly", "webhook_secrets": [SECRET], "api_token": "none"}}
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        runner = CommandRunner(tmp_path, tree, NOTIFY_SOCKET=str(tmp_path / "notify"))
        with runner.start(*command) as process:
            assert manager.recv(100) == b"READY=1", process.written()
            assert process.stop() == 0
