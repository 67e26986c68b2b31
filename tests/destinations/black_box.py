"""What every destination has to do: load, be right, and answer each command."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from ingest.simulator.account import Row
from ingest.times import parse_instant
from tests.destinations.destination import Destination
from tests.destinations.vendors import SINCE, Vendors
from tests.support.polling import is_healthy, wait_for
from tests.support.ports import free_port
from tests.support.processes import IngestProcess, PythonProcess, Result
from tests.support.settings import CommandRunner, Tree, settings_tree

_JSON_COLUMNS = {"staff", "answers", "tracking", "guests", "column_versions", "data"}
_EVENT_TYPES = "calendly__event_types"


class BlackBox:
    """The product with one destination, while its receiver and its consumer run.

    Each step is a method that raises an error where something is wrong; `STEPS` has them in their order.
    """

    def __init__(
        self, destination: Destination, vendors: Vendors, product: CommandRunner, consumer: IngestProcess
    ) -> None:
        self._destination, self._vendors = destination, vendors
        self._product, self._consumer = product, consumer

    def problems(self) -> dict[str, str]:
        """Take every step, and return the error of each that fails, by its name.

        Without a load there is nothing to look at, so it is the last step if it fails.
        """
        problems: dict[str, str] = {}
        for step in STEPS:
            try:
                step(self)
            except (AssertionError, LookupError, TypeError, ValueError) as error:
                problems[step.__name__] = f"{type(error).__name__}: {error}"
                if step is BlackBox.load:
                    problems[step.__name__] += f"; the consumer: {self._consumer.stderr()[-1500:]}"
                    break
        return problems

    def load(self) -> None:
        """Every delivery is loaded; each wave comes when the tables have the waves before it."""
        *waves, last = self._vendors.waves()
        for wave in [*waves, [*last, self._vendors.unreadable()]]:
            self._vendors.post(wave)
            wait_for(self._is_loaded, "everything is loaded")

    def events(self) -> None:
        """Every webhook is one event, with the payload as it came, or as much of it as a column holds."""
        rows = [row for row in self._rows("booking_events") if row["via"] == "webhook"]
        cut = [row for row in rows if row.get("cut")]
        limit = self._destination.longest_json or sys.maxsize
        fitting = [body for body in self._vendors.payloads() if len(body) <= limit]
        expected = Counter(_canonical(json.loads(body)) for body in fitting)
        actual = Counter(_canonical(row["data"]) for row in rows if row not in cut)
        lacking, surplus = expected - actual, actual - expected
        examples = [text[:400] for text in [*list(lacking)[:2], *list(surplus)[:2]]]
        assert not lacking + surplus, f"{lacking.total()} lack, {surplus.total()} are too many: {examples}"
        assert len(rows) == len(self._vendors.payloads())
        assert [row["data"]["cut"]["position"] for row in cut] == [row["position"] for row in cut]

    def dead_letter(self) -> None:
        """One dead letter has the bytes of what cannot be read, or as many as a column holds."""
        [letter] = self._destination.read("dead_letters")
        _, webhook = self._vendors.unreadable()
        assert letter["reason"] == "unreadable_payload"
        if len(webhook.body) <= (self._destination.longest_text or sys.maxsize):
            assert letter["data"] == webhook.body.decode()
        else:
            assert (letter["cut"], letter["data_bytes"]) == ("data", len(webhook.body))
            assert webhook.body.decode().startswith(letter["data"])

    def reconcile(self) -> None:
        """Reconciliation repairs just what never arrived, and then finds everything."""
        repaired = self._json("reconcile", "--since", SINCE, "--json")
        assert _sums(repaired, "missed", "repaired") == [self._vendors.missed] * 2
        again = self._json("reconcile", "--since", SINCE, "--dry-run", "--json")
        assert _sums(again, "missed", "seen") == [0, len(self._vendors.world.truth())]

    def bookings(self) -> None:
        """Every booking is one row, each column as it truly is."""
        rows = self._rows("bookings")
        differences = self._vendors.differences(rows)
        assert not differences, f"{len(differences)} differences: {differences[:5]}"
        assert {row["last_via"] for row in rows} == {"webhook", "reconcile"}

    def check(self) -> None:
        """`check` says that the warehouse is well."""
        checks = json.loads(self._product.run("check", "--json").out)["checks"]
        findings = [finding for finding in checks if finding["check"].startswith("warehouse")]
        assert findings
        assert [finding["detail"] for finding in findings if not finding["ok"]] == []

    def status(self) -> None:
        """`status` counts the bookings of each account."""
        warehouse = json.loads(self._product.run("status", "--json").out)["warehouse"]
        counts = {account["account"]: account["bookings"] for account in warehouse["accounts"]}
        assert counts == self._vendors.booking_counts()

    def query(self) -> None:
        """`query` returns what the own client does, and a table that is not there is told in one sentence."""
        sql = "select booking_id, status, starts_at, price, staff from bookings order by account, booking_id"
        answer = self._json("query", "--json", sql)
        rows = sorted(self._rows("bookings"), key=lambda row: (row["account"], row["booking_id"]))
        columns = ("booking_id", "status", "starts_at", "price", "staff")
        assert [_as_queried(row) for row in answer] == [{name: row[name] for name in columns} for row in rows]
        refused = self._product.run("query", "select * from no_such_table")
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith("error: ")
        assert "Traceback" not in refused.err

    def replay(self) -> None:
        """Nothing is changed by a replay of all records."""
        before = [self._rows(table) for table in ("bookings", "booking_events")]
        report = self._json("replay", "--json")
        assert report["loaded"]
        assert report["replayed"] >= len(self._vendors.arriving)
        for rows, table in zip(before, ("bookings", "booking_events"), strict=True):
            assert Counter(map(_canonical, self._rows(table))) == Counter(map(_canonical, rows)), table

    def sync(self) -> None:
        """`sync` loads what a vendor has, once."""
        for _ in range(2):
            results = self._json("sync", "sales_calendly", "event_types", "--json")
            assert [result["problem"] for result in results] == [None]
        uris = [row["uri"] for row in self._destination.read(_EVENT_TYPES)]
        assert len(uris) == len(set(uris)) > 1

    def dead_letters_list(self) -> None:
        """`dead-letters list` shows the letter."""
        [letter] = self._json("dead-letters", "list", "--json")
        assert (letter["reason"], letter["loaded"]) == ("unreadable_payload", False)

    def _is_loaded(self) -> bool:
        assert self._consumer.running, self._consumer.stderr()[-3000:]
        return self._product.lag() == 0

    def _rows(self, table: str) -> list[Row]:
        """Return the rows of a table by the own client, with JSON as values and instants in UTC."""
        return [
            {name: _value(name, value) for name, value in row.items()}
            for row in self._destination.read(table)
        ]

    def _json(self, *arguments: str) -> Any:
        result = self._product.run(*arguments)
        assert result.code == 0, result
        return result.json


class ForkedCommands(CommandRunner):
    """Runs commands to their end in forks of one process, which has imported what they need.

    It has not imported all of the destination's client: some start threads then, and a fork of them crashes.
    """

    @contextmanager
    def forking(self, client_modules: Sequence[str]) -> Iterator[None]:
        """Run the process from which commands are forked."""
        modules = ["ingest.cli.commands", "ingest.cli.check", "consumers.warehouse.rights", "consumers.sync"]
        modules += ["consumers.replay", "consumers.dead_letters.letters", "receivers.reconcile.run"]
        modules += client_modules
        serve = "from tests.destinations.programs.forked_commands import serve; serve()"
        with PythonProcess(serve, *modules, **self.environ) as self._process:
            yield

    def run(self, *arguments: str) -> Result:
        """Run a command to its end."""
        files = [self.folder / "command.stdout", self.folder / "command.stderr"]
        self._process.write_line(json.dumps([str(self.folder), *map(str, files), *arguments]))
        code = int(self._process.read_line())
        return Result(code, *(file.read_text(encoding="utf-8") for file in files))


STEPS: Sequence[Callable[[BlackBox], None]] = (
    BlackBox.load,
    BlackBox.events,
    BlackBox.dead_letter,
    BlackBox.reconcile,
    BlackBox.bookings,
    BlackBox.check,
    BlackBox.status,
    BlackBox.query,
    BlackBox.replay,
    BlackBox.sync,
    BlackBox.dead_letters_list,
)


@contextmanager
def open_black_box(folder: Path, destination: Destination) -> Iterator[BlackBox]:
    """Run simulated vendors, a receiver and a consumer, which have to end well."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    vendors = Vendors(url)
    with vendors.serving():
        tree: Tree = settings_tree(folder, linger="300ms") | {
            "public_url": url,
            "receiver": {"port": port, "admin_port": 0, "spool_dir": f"{folder}/spool"},
            "reconcile": {"lag": "0s", "admin_port": 0, "state_dir": f"{folder}/reconcile"},
            "warehouse": {**destination.warehouse, "work_dir": f"{folder}/dlt"},
            "accounts": vendors.settings(),
        }
        product = ForkedCommands(folder, tree, **destination.environ)
        with (
            product.start("receive") as receiver,
            product.consuming() as consumer,
            product.forking(destination.client_modules),
        ):

            def accepts() -> bool:
                assert receiver.running, receiver.written()
                return is_healthy(url)

            wait_for(accepts, "the receiver answers")
            yield BlackBox(destination, vendors, product, consumer)
            assert receiver.stop() == 0, receiver.written()
            # 3 where the emulator or the log was too busy for the last load, which is done at the next start.
            assert consumer.stop() in {0, 3}, consumer.written()


def _value(column: str, value: Any) -> Any:
    """Return a value of the own client: JSON parsed where it is text, and instants in UTC."""
    if column in _JSON_COLUMNS and value is not None:
        value = json.loads(value) if isinstance(value, str) else value
        assert not isinstance(value, str), f"{column} has text within JSON: {value[:100]!r}"
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _as_queried(row: Row) -> Row:
    """Return a row of `query --json` as the own client has it."""
    price = row["price"]
    return {
        **row,
        "starts_at": row["starts_at"] and parse_instant(row["starts_at"]),
        "price": None if price is None else Decimal(str(price)),
        "staff": _value("staff", row["staff"]),
    }


def _canonical(value: Any) -> str:
    """Return a text that is equal for equal values, whichever way numbers and objects are written."""
    match value:
        case Mapping():
            return f"{{{','.join(f'{name}:{_canonical(value[name])}' for name in sorted(value))}}}"
        case list():
            return f"[{','.join(map(_canonical, value))}]"
        case bool() | None:
            return str(value)
        case int() | float() | Decimal():
            return f"{Decimal(str(value)).normalize():f}"
        case _:
            return repr(value)


def _sums(reports: Sequence[Mapping[str, Any]], *counts: str) -> list[int]:
    return [sum(report[count] for report in reports) for count in counts]
