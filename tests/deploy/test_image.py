"""The steps of the image without an engine: its files are read-only, and nobody knows its user."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.deploy.tools import python_tool
from tests.receivers.requests import SECRET, booking
from tests.support.polling import PATIENCE, is_healthy, wait_for
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text().replace("\\\n", "")
PYTHON = "/usr/bin/python3"  # one that every user can run; that of the tests may be in somebody's home
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "*.lock", "ingest", "receivers", "consumers")
# A file system that is read-only but for the volume and a small /tmp.
ISOLATE = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && mount -t tmpfs none /tmp && exec "$@"'


def _instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.+)$", DOCKERFILE, re.MULTILINE)


def _can_isolate() -> bool:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        return (
            subprocess.run(["unshare", "-m", "sh", "-c", ISOLATE, folder, "true"], check=False).returncode
            == 0
        )


pytestmark = [
    pytest.mark.skipif(not Path(PYTHON).exists(), reason="the system has no Python for every user"),
    pytest.mark.skipif(not _can_isolate(), reason="a read-only file system needs root and mount namespaces"),
]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder that every user can reach."""
    path = Path(tempfile.mkdtemp(prefix="ingest-image-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def prefix(folder: Path) -> Path:
    """Run the build's own commands with other folders and another Python; return where they install."""
    source = folder / "src"
    tracked = subprocess.run(
        ["git", "ls-files", "--", *BUILT_FROM],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (build,) = [command for command in _instructions("RUN") if command.startswith("uv build")]
    for there, here in (
        ("/opt/ingest", f"{folder}/ingest"),
        ("/wheel", f"{folder}/wheel"),
        ("--compile-bytecode", ""),  # takes long, and changes nothing else
        ("--no-cache", ""),
    ):
        build = build.replace(there, here)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", DOCKERFILE, re.MULTILINE)
    environ = {**os.environ, "PATH": path, "EXTRAS": extras, "UV_PYTHON": PYTHON}
    done = subprocess.run(
        ["sh", "-ec", build], cwd=source, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "ingest"


def _in_image(prefix: Path, home: Path, environ: Mapping[str, str], *command: str) -> list[str]:
    """Return the command line that runs a command as the image does."""
    (user,) = _instructions("USER")
    uid, gid = user.split(":")
    return [
        *("unshare", "-m", "sh", "-c", ISOLATE, str(home / "data")),
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"),
        *("env", "-i", f"PATH={prefix}/bin:/usr/bin:/bin", "INGEST_RECEIVER__HOST=0.0.0.0"),
        *(f"{name}={value}" for name, value in environ.items()),
        *command,
    ]


def test_as_an_unknown_user_on_read_only_files_it_takes_a_delivery_loads_it_and_stops(
    folder: Path, prefix: Path
) -> None:
    home = folder / "home"
    (home / "data").mkdir(parents=True)
    os.chown(home / "data", 10001, 10001)
    (home / "ingest.toml").write_text('[accounts.sales]\nvendor = "calendly"\n')
    ports = {name: free_port() for name in ("RECEIVER__PORT", "RECEIVER__ADMIN_PORT", "CONSUMER__ADMIN_PORT")}
    environ = {f"INGEST_{name}": str(port) for name, port in ports.items()}
    environ["INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS"] = SECRET
    url = f"http://127.0.0.1:{ports['RECEIVER__PORT']}"
    (entry,), (default,) = _instructions("ENTRYPOINT"), _instructions("CMD")
    (health,) = [json.loads(line.partition("CMD ")[2]) for line in _instructions("HEALTHCHECK")]
    health = [word.replace("8080", str(ports["RECEIVER__PORT"])) for word in health]
    command = _in_image(prefix, home, environ, *json.loads(entry), *json.loads(default))
    process = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True)

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        line = _in_image(prefix, home, environ, *command)
        return subprocess.run(line, cwd=home, capture_output=True, text=True, check=False)

    try:
        wait_for(lambda: is_healthy(url), "the receiver listens")
        assert run(*health).returncode == 0
        request = booking(1)
        answer = httpx.post(f"{url}{request.target}", content=request.body, headers=list(request.headers))
        assert answer.status_code == 202
        wait_for(
            lambda: "1" in run("ingest", "query", "--csv", "select count(*) from bookings").stdout.split(),
            "the booking is loaded",
        )
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        _, written = process.communicate()
    assert "Traceback" not in written
    assert {path.name for path in home.iterdir()} == {"data", "ingest.toml"}


def test_the_image_has_no_compiler_no_secrets_and_no_root() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert "apt-get" not in final
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*", "everything is left out unless it is named"
    assert not any("toml" in line and "pyproject" not in line for line in ignored)


def test_hadolint_finds_nothing_wrong() -> None:
    command = [python_tool("hadolint"), ROOT / "deploy" / "docker" / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
