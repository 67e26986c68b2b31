"""A receiver, a log, a consumer, a warehouse and the command in one folder."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from ingest.log import Record
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.receivers.in_process import InProcess, stored
from tests.receivers.requests import SECRET, Request
from tests.support.processes import Result, ingest
from tests.support.settings import settings_tree, write_settings

ACCOUNTS: Mapping[str, Mapping[str, Any]] = {
    "sales": {"vendor": "calendly"},
    "support": {"vendor": "oncehub"},
    "clinic": {"vendor": "appointedd", "webhook_user": "clinic"},
    "tours": {"vendor": "bookeo"},
}
SECRETS = [SECRET, "the-secret-before"]


class Product:
    """The command reads its settings from a file and its secrets from the environment, as users have them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._open = ExitStack()
        self.harness: ConsumerHarness = self._open.enter_context(open_consumer(settings_tree(folder)))
        self.configure(ACCOUNTS)

    def configure(self, accounts: Mapping[str, Mapping[str, Any]]) -> None:
        """Write these accounts into the command's settings."""
        write_settings(self.folder, settings_tree(self.folder) | {"accounts": accounts})
        self._secrets = {
            f"INGEST_ACCOUNTS__{name.upper()}__WEBHOOK_SECRETS": ",".join(SECRETS) for name in accounts
        }

    @cached_property
    def receiver(self) -> InProcess:
        accounts = {name: {**table, "webhook_secrets": SECRETS} for name, table in ACCOUNTS.items()}
        return self._open.enter_context(closing(InProcess(self.folder, accounts)))

    @contextmanager
    def broken(self, vendor: type, method: str, error: Exception) -> Iterator[None]:
        """Break a method of a vendor, as a deploy with a bug does, until the context ends."""

        def fail(*_: object) -> None:
            raise error

        with self._monkeypatch.context() as patch:
            patch.setattr(vendor, method, fail)
            yield

    def receive(self, *requests: Request) -> None:
        """Send requests to the receiver, which acknowledges each of them."""
        for request in requests:
            assert self.receiver.ask(request).status == 202

    def run(self, *arguments: str, **environ: str) -> Result:
        """Run `ingest dead-letters …`."""
        return ingest(self.folder, "dead-letters", *arguments, **self._secrets, **environ)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what `list --json` prints."""
        result = self.run("list", "--json", *arguments)
        assert result.code == 0, result
        letters: list[dict[str, Any]] = result.json
        return letters

    def redriven(self, *arguments: str, code: int = 0) -> dict[str, str]:
        """Redrive letters, and return the outcomes by id."""
        result = self.run("redrive", "--json", *arguments)
        assert (result.code, result.err) == (code, ""), result
        return {letter["id"]: letter["outcome"] for letter in json.loads(result.out)}

    def records(self, topic: str) -> list[Record]:
        """Return all records that were ever appended to a topic, in order."""
        return stored(self.folder / "log.db", topic)

    def close(self) -> None:
        self._open.close()
