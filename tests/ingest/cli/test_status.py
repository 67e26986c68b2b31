"""The verdict of `ingest status`: what needs a person, the worst first, and what to do."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.cli.status import exit_code
from ingest.health.facts import Disk, Facts, Part
from ingest.health.gather import gather
from ingest.health.judge import judge
from ingest.log import Record
from ingest.log.sqlite import SqliteProducer
from ingest.readiness import Finding, State, failed
from ingest.settings import Settings
from tests.support.polling import PATIENCE
from tests.support.ports import free_port
from tests.support.processes import COMMAND, Result, environment, ingest

NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
SETTINGS = Settings.model_validate(
    {"accounts": {"sales": {"vendor": "calendly", "api_token": "t"}, "shop": {"vendor": "appointedd"}}}
)
READY = [Part(name, "ready", "127.0.0.1:1") for name in ("receiver", "consumer", "reconciliation")]
TABLES = """
create schema ingest;
create table ingest.bookings (
  vendor text, account text, booking_id text, updated_at timestamptz, loaded_at timestamptz);
create table ingest.booking_events (
  id text, source text, type text, vendor text, account text, signed_by text, received_at timestamptz
);
create table ingest.dead_letters (
  id text, source text, reason text, detail text, happened_at timestamptz, position text, query text,
  headers text, data text,
  loaded_at timestamptz, signed_by text, data_base64 text);
insert into ingest.bookings values
  ('calendly', 'sales', 'one', '2026-06-01 00:00:00+00', '2026-06-01 00:00:01+00'),
  ('bookeo', 'tours', 'two', '2026-06-02 00:00:00+00', '2026-06-02 00:00:01+00');
insert into ingest.booking_events values
  ('first', '/calendly/sales', 'calendly.invitee.created', 'calendly', 'sales', '1',
   '2026-06-01 00:00:00+00'),
  ('second', '/calendly/sales', 'calendly.invitee.created', 'calendly', 'sales', '1',
   '2026-06-01 00:00:09+00'),
  ('trial', '/calendly/sales', 'calendly.ingest.test', 'calendly', 'sales', '1', '2026-06-03 00:00:00+00'),
  ('third', '/bookeo/tours', 'ingest.booking.observed', 'bookeo', 'tours', null, '2026-06-02 00:00:00+00');
insert into ingest.dead_letters values
  ('x', '/bookeo/tours', 'unreadable_payload', 'no booking number', '2026-06-02 00:00:00+00', null,
   null, '{}', '?', '2026-06-02 00:00:00+00', '1', null);
"""


def facts(**changes: Any) -> Facts:
    """Return the facts of a healthy product, with some changes."""
    row = {
        "vendor": "calendly",
        "account": "sales",
        "bookings": 1,
        "newest_change": NOW,
        "last_load": NOW,
        "last_delivery": NOW,
    }
    run = {
        "vendor": "calendly",
        "account": "sales",
        "finished_at": NOW,
        "outcome": "complete",
        "missed": 0,
        "repaired": 0,
    }
    warehouse = {
        "accounts": [row, row | {"vendor": "appointedd", "account": "shop"}],
        "reconciliations": [run],
        "tables": [],
        "open_dead_letters": {},
    }
    well: dict[str, Any] = {
        "parts": READY,
        "log": {"topics": []},
        "spool": {"files": []},
        "warehouse": warehouse,
        "disks": [],
    }
    return Facts(**{**well, **changes})


def waiting(age: timedelta, lag: int = 3) -> dict[str, Any]:
    """Return the facts of a log whose oldest record that is not loaded has this age."""
    return {
        "topics": [{"topic": "bookings.calendly", "partition": 0, "lag": lag, "waiting_since": NOW - age}]
    }


def judged(**changes: Any) -> tuple[int, list[Finding]]:
    """Return the exit code and the findings that are not well."""
    findings = judge(facts(**changes), SETTINGS, NOW)
    order = [State.FAILED, State.WARNING, State.SKIPPED, State.OK]
    assert [finding.state for finding in findings] == sorted(
        (finding.state for finding in findings), key=order.index
    ), "the worst first"
    return exit_code(findings), [finding for finding in findings if finding.state is not State.OK]


def test_what_waits_for_the_next_load_is_not_late_however_far_apart_loads_are() -> None:
    settings = SETTINGS.model_copy(
        update={"consumer": SETTINGS.consumer.model_copy(update={"linger": timedelta(minutes=10)})}
    )

    def state(age: timedelta) -> State:
        return next(
            finding.state
            for finding in judge(facts(log=waiting(age)), settings, NOW)
            if finding.check == "log"
        )

    assert state(timedelta(minutes=10, seconds=30)) is State.OK
    assert state(timedelta(minutes=12)) is State.WARNING
    assert state(timedelta(minutes=16)) is State.FAILED


def part(state: str, *reasons: str, samples: Any = ()) -> list[Part]:
    """Return the three parts, with the receiver in this state."""
    return [Part("receiver", state, "127.0.0.1:8081", reasons, samples), *READY[1:]]


def deliveries(**outcomes: float) -> Any:
    """Return what the receiver counted of the account."""
    account = {"vendor": "calendly", "account": "sales"}
    return tuple(
        ("ingest_deliveries_total", {**account, "outcome": outcome}, value)
        for outcome, value in outcomes.items()
    )


def subscription(state: str) -> list[Part]:
    """Return what reconciliation saw of the account's subscriptions."""
    sample = ("ingest_subscription_state", {"vendor": "calendly", "account": "sales", "state": state}, 1.0)
    return [*READY[:2], Part("reconciliation", "ready", "127.0.0.1:8083", (), (sample,))]


def read_again(because: str) -> list[Part]:
    """Return a consumer that had to read again."""
    sample = (
        "ingest_read_again_total",
        {"topic": "bookings.bookeo", "partition": "2", "because": because},
        1.0,
    )
    return [READY[0], Part("consumer", "ready", "127.0.0.1:8082", (), (sample,)), READY[2]]


def run(**changes: Any) -> dict[str, Any]:
    """Return a warehouse with this last reconciliation."""
    well = facts().warehouse
    return {**well, "reconciliations": [{**well["reconciliations"][0], **changes}]}


def silent() -> dict[str, Any]:
    """Return a warehouse in which one account has nothing."""
    well = facts().warehouse
    return {**well, "accounts": [row for row in well["accounts"] if row["account"] != "sales"]}


def open_gap(age: timedelta, until: datetime | None) -> dict[str, Any]:
    """Return what the warehouse has when one gap is open."""
    gap = {
        "vendor": "calendly",
        "account": "sales",
        "cause": "receiver_down",
        "from_at": NOW - timedelta(hours=3),
        "until_at": until,
        "found_at": NOW - age,
        "missed": 0,
        "repaired": 0,
        "waits_for": "a receiver to start",
    }
    return {**facts().warehouse, "gaps": [gap]}


def test_what_is_well_is_healthy() -> None:
    assert judged() == (0, [])


@pytest.mark.parametrize(
    ("changes", "code", "check", "says"),
    [
        ({"parts": part("stopped")}, 1, "receiver", "not running: nothing listens on 127.0.0.1:8081"),
        ({"parts": part("not ready", "spool: full")}, 1, "receiver", "spool: full"),
        ({"parts": part("silent")}, 1, "receiver", "no answer from 127.0.0.1:8081"),
        ({"parts": part("refused")}, 1, "receiver", "does not accept the admin token"),
        (
            {"parts": part("foreign")},
            1,
            "receiver",
            (
                "another program listens on 127.0.0.1:8081; stop "
                "that program, or choose another receiver.admin_port"
            ),
        ),
        ({"parts": part("unknown")}, 0, "receiver", "admin_port is 0"),
        ({"log": waiting(timedelta(minutes=2))}, 0, "log", "3 records not loaded yet, the oldest for 2 min"),
        ({"log": waiting(timedelta(hours=2), 1)}, 1, "log", "1 record not loaded yet, the oldest for 2 h"),
        (
            {"log": {"topics": [{**waiting(timedelta())["topics"][0], "lag": 0, "next": 3, "committed": 5}]}},
            1,
            "log",
            "ends before what was loaded of it",
        ),
        (
            {"parts": read_again("warehouse")},
            0,
            "warehouse",
            "bookings.bookeo/2 was read again since the consumer started: the warehouse was",
        ),
        (
            {"parts": read_again("log")},
            0,
            "log",
            "bookings.bookeo/2 was read again since the consumer started: the log was cut",
        ),
        ({"log": {"error": "no broker"}}, 3, "log", "no broker"),
        (
            {"spool": {"files": [{"records": 7, "oldest_seconds": 900}]}},
            1,
            "spool",
            "7 records waiting on this machine",
        ),
        ({"warehouse": {"error": "refused"}}, 3, "warehouse", "refused"),
        (
            {
                "warehouse": facts().warehouse
                | {"changed_by_hand": [failed("tables", "bookings lacks version").to_json()]}
            },
            1,
            "tables",
            "bookings lacks",
        ),
        (
            {"warehouse": facts().warehouse | {"open_dead_letters": {"sales": 2}}},
            1,
            "dead letters",
            "2 dead letters open (sales 2)",
        ),
        (
            {"parts": part("ready", samples=deliveries(rejected=9))},
            1,
            "sales",
            "all 9 deliveries since the receiver started were refused",
        ),
        (
            {"parts": part("ready", samples=deliveries(rejected=1, accepted=5))},
            0,
            "sales",
            "1 delivery refused",
        ),
        ({"parts": subscription("replace")}, 1, "sales", "webhook subscriptions need: replace"),
        ({"parts": subscription("unknown")}, 0, "sales", "could not be asked"),
        ({"warehouse": silent()}, 0, "sales", "no webhook was ever delivered"),
        ({"warehouse": run(outcome="failed")}, 1, "sales", "the last reconciliation failed"),
        ({"warehouse": run(missed=3, repaired=1)}, 1, "sales", "2 bookings were missed and are not repaired"),
        ({"warehouse": run(missed=3, repaired=3)}, 0, "sales", "found and repaired 3 bookings that no"),
        ({"warehouse": run(finished_at=NOW - timedelta(days=1))}, 0, "sales", "not reconciled for 1 d"),
        (
            {"warehouse": open_gap(timedelta(minutes=20), until=None)},
            0,
            "sales",
            (
                "1 gap in what was delivered, the first found 20 min ago: receiver_down from "
                "2026-06-10 09:00 to now UTC, waits for a receiver to start"
            ),
        ),
        (
            {"warehouse": open_gap(timedelta(hours=4), until=NOW)},
            1,
            "sales",
            "to 2026-06-10 12:00 UTC, waits for",
        ),
        ({"disks": [Disk("the log", "data", 100 * 1024**2)]}, 1, "disk", "100 MiB free for the log in data"),
        ({"disks": [Disk("the log", "data", 900 * 1024**2)]}, 0, "disk", "900 MiB free for the log in data"),
    ],
)
def test_each_trouble_is_told_with_what_it_is_about(
    changes: dict[str, Any], code: int, check: str, says: str
) -> None:
    judgement, (finding,) = judged(**changes)
    assert (judgement, finding.check) == (code, check)
    assert says in finding.sentence


def test_what_could_not_be_asked_is_not_said_to_be_empty() -> None:
    unknown = facts(log={"error": "no broker answers"}, spool={"error": "cannot be read"})
    assert (unknown.waiting_in_log, unknown.waiting_in_spool) == (None, None)


def test_with_kafka_a_part_may_run_on_another_machine() -> None:
    settings = SETTINGS.model_copy(update={"log": "kafka://broker:9092"})
    findings = judge(facts(parts=part("stopped")), settings, NOW)
    assert exit_code(findings) == 0
    assert "not on this machine" in next(
        finding.detail for finding in findings if finding.check == "receiver"
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with settings, a warehouse and a log in their usual places, where nothing runs."""
    folder = tmp_path_factory.mktemp("loaded")
    (folder / "data").mkdir()
    accounts = '[accounts.quiet]\nvendor = "calendly"\n[accounts.tours]\nvendor = "bookeo"\n'
    (folder / "ingest.toml").write_text(free_ports() + accounts)
    with duckdb.connect(str(folder / "data" / "warehouse.duckdb")) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(TABLES)
    with closing(SqliteProducer(folder / "data" / "log.db")) as producer:
        producer.append("bookings.calendly", [Record("a", b"1"), Record("b", b"2")]).result(PATIENCE)
    return folder


def test_scripts_get_all_of_it(loaded: Path) -> None:
    result = ingest(loaded, "status", "--json")
    report = result.json
    assert (result.code, report["healthy"], report["verdict"]) == (1, False, "needs attention")
    waiting = {entry["topic"]: entry for entry in report["log"]["topics"]}
    assert waiting["bookings.calendly"].pop("waiting_since") is not None
    assert waiting["bookings.calendly"] == {
        "topic": "bookings.calendly",
        "partition": 0,
        "next": 2,
        "committed": 0,
        "lag": 2,
    }
    assert waiting["bookings.bookeo"]["lag"] == waiting["bookings.dead-letters"]["lag"] == 0
    assert (report["waiting_in_log"], report["waiting_in_spool"]) == (2, 0)
    accounts = {row["account"]: row for row in report["warehouse"]["accounts"]}
    assert accounts["sales"] == {
        "vendor": "calendly", "account": "sales", "bookings": 1, "newest_change": "2026-06-01T00:00:00Z",
        "last_load": "2026-06-01T00:00:01Z", "last_delivery": "2026-06-01T00:00:09Z",
        "in_hour": 0, "usual_in_hour": 0, "usual_since_delivery": 0, "is_silent": False,
    }  # fmt: skip
    assert accounts["tours"]["last_delivery"] is None, "what reconciliation found was not delivered"
    assert accounts["quiet"] == {
        "vendor": "calendly",
        "account": "quiet",
        "bookings": 0,
        "newest_change": None,
        "last_load": None,
        "last_delivery": None,
        "in_hour": 0,
        "usual_in_hour": 0,
        "usual_since_delivery": 0,
        "is_silent": False,
    }
    verdicts = {row["account"]: row for row in report["accounts"]}
    assert verdicts.keys() == {"quiet", "tours"}, "those of the settings"
    assert verdicts["tours"]["verdict"] == "Degraded"
    assert verdicts["tours"]["why"].startswith("receiver: not running")
    assert verdicts["tours"]["command"] == "ingest up"
    assert verdicts["tours"]["dead_letters"] == {"unreadable_payload": 1}
    assert report["warehouse"]["open_dead_letters"] == {"tours": 1}
    assert {entry["table"]: entry["rows"] for entry in report["warehouse"]["tables"]} == {
        "bookings": 2, "booking_events": 4, "dead_letters": 1, "reconciliations": None,
        "completeness": None, "gaps": None, "freshness": None,
    }  # fmt: skip
    assert set(report["warehouse"]["complete_until"].values()) <= {None}, "nothing is proven yet"
    assert {name: part["state"] for name, part in report["parts"].items()} == {
        "receiver": "stopped",
        "consumer": "stopped",
    }
    assert all(disk["free"] > 0 for disk in report["disks"])


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_people_read_the_same_at_any_width_without_a_broken_word(loaded: Path, columns: str) -> None:
    result = ingest(loaded, "status", COLUMNS=columns)
    assert (result.code, result.err) == (1, "")
    assert result.out.startswith("needs attention\nFAILED")
    assert max(map(len, result.out.splitlines())) <= int(columns)
    port = (loaded / "ingest.toml").read_text().split("admin_port = ")[1].split()[0]
    words = set(result.out.replace("│", " ").split())
    assert {
        "running:",
        "listens",
        f"127.0.0.1:{port};",
        "letters:",
        "letter",
        "calendly/quiet",
        "bookeo/tours",
        "never",
        "booking_events",
    } <= words


def test_of_nothing_yet_only_what_does_not_run_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").write_text(free_ports())
    result = ingest(tmp_path, "status", "--json")
    assert result.code == 1
    assert [finding["check"] for finding in result.json["findings"] if not finding["ok"]] == [
        "receiver",
        "consumer",
    ]
    assert result.json["log"] == {"topics": []}
    assert "nothing has been loaded yet" in result.json["warehouse"]["nothing"]
    assert [path.name for path in tmp_path.iterdir()] == ["ingest.toml"]


def test_a_log_that_cannot_be_read_leaves_the_verdict_open(tmp_path: Path) -> None:
    (tmp_path / "data" / "log.db").mkdir(parents=True)
    (tmp_path / "ingest.toml").write_text("")
    result = ingest(tmp_path, "status")
    assert result.code == 3
    assert result.out.startswith("cannot be judged\n")


def test_a_product_that_runs_is_healthy(tmp_path: Path) -> None:
    with running(tmp_path) as folder:
        result = _until_healthy(folder)
        assert result.out.startswith("healthy\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>hello</html>",
        b'{"ready": true}',
        b'{"ready": true, "reasons": []}',
        b"ingest_deliveries_total 1",
        b"\xff",
        b"[]",
        b"",
    ],
)
def test_another_program_on_an_admin_port_is_told_as_such(answer: bytes) -> None:
    with answering(answer) as port:
        settings = Settings.model_validate({"receiver": {"admin_port": port}, "consumer": {"admin_port": 0}})
        receiver, _ = gather(settings).parts
    assert receiver.state == "foreign"


@contextmanager
def answering(body: bytes) -> Iterator[int]:
    """Run a web server that gives every request this answer. Yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """Run receiver and consumer in a folder of their own."""
    account = '[accounts.shop]\nvendor = "appointedd"\nwebhook_header = "X-Key"\n'
    (folder / "ingest.toml").write_text(free_ports() + account)
    environ = environment(INGEST_ACCOUNTS__SHOP__WEBHOOK_SECRETS="secret")
    with (
        (folder / "up.log").open("w") as lines,
        subprocess.Popen([*COMMAND, "up"], cwd=folder, env=environ, stderr=lines) as process,
    ):
        try:
            yield folder
        finally:
            process.terminate()
            process.wait(PATIENCE)


def free_ports() -> str:
    """Return settings of listeners with free ports."""
    return (
        f"[receiver]\nport = {free_port()}\nadmin_port = "
        f"{free_port()}\n[consumer]\nadmin_port = {free_port()}\n[dashboard]\nport = 0\n"
    )


def _until_healthy(folder: Path) -> Result:
    for _ in range(60):
        result = ingest(folder, "status", INGEST_ACCOUNTS__SHOP__WEBHOOK_SECRETS="secret")
        if result.code == 0:
            return result
    pytest.fail(result.out + (folder / "up.log").read_text())
