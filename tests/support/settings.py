"""Settings for tests, and commands that run with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomlkit

from ingest.settings import Settings
from ingest.settings.introspection import secret_fields
from ingest.vendors import load_account_class
from tests.support.processes import IngestProcess, Result, ingest, start_ingest

Tree = dict[str, Any]


def settings_tree(folder: Path, **consumer: Any) -> Tree:
    """Return settings that keep everything in one folder; `consumer` are further settings of the consumer."""
    return {
        "log": f"sqlite:///{folder}/log.db",
        "consumer": {"linger": "10ms", "admin_port": 0, **consumer},
        "dashboard": {"port": 0},
        "warehouse": {
            "destination": "duckdb",
            "credentials": f"{folder}/warehouse.duckdb",
            "work_dir": f"{folder}/dlt",
        },
    }


def with_section(tree: Tree, section: str, **values: Any) -> Tree:
    """Return the settings with other values in one section."""
    return tree | {section: tree[section] | values}


def write_settings(folder: Path, tree: Tree) -> None:
    """Write the settings into `ingest.toml`, and the accounts' secrets into `ingest.secrets.toml`."""
    accounts = {name: dict(table) for name, table in tree.get("accounts", {}).items()}
    secrets = {name: _take_secrets(table) for name, table in accounts.items()}
    (folder / "ingest.toml").write_text(tomlkit.dumps({**tree, "accounts": accounts}))
    if any(secrets.values()):
        file = folder / "ingest.secrets.toml"
        file.touch(0o600)
        file.write_text(tomlkit.dumps({"accounts": secrets}))


def _take_secrets(table: Tree) -> Tree:
    """Remove the secrets from an account's settings, and return them."""
    names = secret_fields(load_account_class(table["vendor"]).settings_model)
    return {name: table.pop(name) for name in names if name in table}


class CommandRunner:
    """Runs commands in a folder with settings, all with the same further variables in their environment."""

    def __init__(self, folder: Path, tree: Tree, **environ: str) -> None:
        self.folder, self.environ = folder, environ
        write_settings(folder, tree)
        self.settings = Settings.model_validate(tree)

    def run(self, *arguments: str) -> Result:
        """Run a command to its end."""
        return ingest(self.folder, *arguments, **self.environ)

    def start(self, *arguments: str) -> IngestProcess:
        """Start a command."""
        return start_ingest(self.folder, *arguments, **self.environ)

    @contextmanager
    def consuming(self) -> Iterator[IngestProcess]:
        """Run `ingest consume`, and kill it at the end if it still runs."""
        with self.start("consume") as process:
            yield process

    def lag(self) -> int:
        """Return the number of records that are not committed."""
        return sum(entry.lag for entry in self.settings.build_log().backlog())
