"""Printing: strangers' text never drives a terminal, scripts get every value exactly, and no table is cut."""

import ast
import csv
import io
import json
import logging
import os
import pty
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from ingest.cli.output import print_bytes, print_table, styled
from ingest.errors import IngestError
from ingest.telemetry import configure_logging
from ingest.terminal import visible
from ingest.warehouse.values import json_text, json_value, text_value
from ingest.words import counted
from tests.support.polling import PATIENCE
from tests.support.processes import COMMAND, environment, ingest, refused

ROOT = Path(__file__).parents[3]
# A title, a screen, a colour, a cursor and a bell; C1's own; right-to-left; zero width; a tag; line
# separators; half a character's.
EVIL = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31mAnn\x1b[0m\x9b2J\x85"
    "\u202eevil\u200b\u2066\ufeff\U000e0041\u2028\r\x7f[red]x[/red] "
    ":smile:"
)
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=[]), max_size=20)


def raw_controls(text: str) -> set[str]:
    """Return what of an unstyled output would act on a terminal."""
    return {character for character in text if character != "\n" and visible(character) != character}


@given(ANY_TEXT)
def test_visible_text_can_be_shown_anywhere_and_ordinary_text_is_kept(text: str) -> None:
    safe = visible(text)
    assert raw_controls(safe) == set()
    assert "\n" not in safe
    assert visible(safe) == safe


@pytest.mark.parametrize("text", ["Zoë Ångström", "美咲", "😀", "a\xa0b", "ישראל", "e\u0301", "[b] & <c>"])
def test_names_of_this_world_are_shown_as_they_are(text: str) -> None:
    assert visible(text) == text


@given(ANY_TEXT)
def test_json_is_exact_and_safe_to_look_at(text: str) -> None:
    printed = json_text({text: [text]})
    assert raw_controls(printed) == set()
    assert "\n" not in printed
    assert json.loads(printed) == json.loads(json.dumps({text: [text]}))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a warehouse in which a stranger could write what vendors let them, and more."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "ingest.toml").touch()
    (folder / "data").mkdir()
    with duckdb.connect(str(folder / "data" / "warehouse.duckdb")) as connection:
        connection.execute(
            "create schema ingest; use ingest;"
            "create table bookings (vendor text, account text, booking_id text, customer_name "
            "text, price decimal(38, 9), status text,"
            " starts_at timestamptz, updated_at timestamptz, loaded_at timestamptz, last_via text);"
            "create table booking_events (id text, source text, type text, vendor text, account "
            "text, received_at timestamptz, signed_by text,"
            " data json);"
            "create table dead_letters (id text, source text, reason text, detail text, "
            "happened_at timestamptz, position text, query text,"
            " headers text, data text, loaded_at timestamptz, signed_by text, data_base64 text);"
        )
        connection.execute(
            "insert into bookings select 'calendly', $1, $1, $1, 12.5, $1, now(), now(), now(), $1", [EVIL]
        )
        connection.execute(
            "insert into booking_events select $1, $1, $1, 'calendly', $1, now(), '1', to_json($1)", [EVIL]
        )
        headers = json.dumps({EVIL: EVIL})
        connection.execute(
            "insert into dead_letters select 'd1', '/calendly/' || "
            "$1, $1, $1, now(), $1, $1, $2, $1, now(), '1', null",
            [EVIL, headers],
        )
    return folder


EVERY_FORM = [
    ["query", "select * from bookings"],
    ["query", "select customer_name from bookings"],
    ["query", "--csv", "select customer_name from bookings"],
    ["query", "--json", "select * from bookings, booking_events"],
    ["query", f'select 1 as "{EVIL}"'],
    ["query", f'select * from "{EVIL}"'],
    ["status"],
    ["status", "--json"],
    ["dead-letters", "list"],
    ["dead-letters", "list", "--json"],
    ["dead-letters", "show", "d1"],
    ["dead-letters", "show", "d1", "--json"],
    ["dead-letters", "show", EVIL],
    ["dead-letters", "redrive", "--all", "--dry-run"],
    ["webhooks", "plan", EVIL],
    ["sync", EVIL],
    ["reconcile", "--account", EVIL],
    ["replay", "--account", EVIL, "--dry-run"],
    ["check", "--config", EVIL],
    ["query", f"select error('{EVIL}')"],
    ["query", f"select * from read_text('{EVIL}')"],
    ["query", "--file", EVIL],
    ["query", "--timeout", EVIL, "select 1"],
    ["query", "--limit", EVIL, "select 1"],
    ["query", f"--{EVIL}"],
    [EVIL],
    [f"--{EVIL}"],
    ["webhooks", EVIL],
    ["webhooks", "list", f"--{EVIL}"],
    ["dead-letters", "list", "too", EVIL],
]


@pytest.mark.parametrize("arguments", EVERY_FORM, ids=[" ".join(words[:2])[:20] for words in EVERY_FORM])
def test_no_command_lets_a_strangers_text_through_to_a_terminal(hostile: Path, arguments: list[str]) -> None:
    output = on_terminal(hostile, *arguments)
    assert raw_controls(output) == set()
    assert output


CRASH = """
import sys, threading
from ingest.terminal import repair_streams
repair_streams()
def crash():
    raise RuntimeError(sys.argv[1])
thread = threading.Thread(target=crash)
thread.start()
thread.join()
crash()
"""


def test_tracebacks_of_threads_and_of_a_whole_process_are_visible_text() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", CRASH, EVIL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert completed.returncode == 1
    assert completed.stderr.count("RuntimeError: \\x1b]0;owned") == 2
    assert raw_controls(completed.stderr) == set()


def on_terminal(folder: Path, *arguments: str, **environ: str) -> str:
    """Return all that reaches a terminal from a command, without colours."""
    master, slave = pty.openpty()
    variables = environment(NO_COLOR="1", TERM="dumb", INGEST_ACCOUNTS__SALES__VENDOR="calendly", **environ)
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        chunks = []
        while chunk := _read(master):
            chunks.append(chunk)
        process.wait(PATIENCE)
    os.close(master)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux tells that nobody has the other end any more
        return b""


def test_csv_in_a_pipe_is_exact(hostile: Path) -> None:
    completed = subprocess.run(
        [*COMMAND, "query", "--csv", "select customer_name, price from bookings"], cwd=hostile,
        env=environment(PYTHONIOENCODING="ascii"),
        stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert list(csv.reader(io.StringIO(completed.stdout.decode(), newline=""))) == [
        ["customer_name", "price"],
        [EVIL, "12.50"],
    ]


def test_json_on_an_ascii_stream_is_exact(hostile: Path) -> None:
    result = ingest(hostile, "query", "--json", "select '美咲' as name", PYTHONIOENCODING="ascii")
    assert result.out.isascii()
    assert result.json == [{"name": "美咲"}]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_very_bytes_go_to_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(IngestError, match="send them to a file"):
        print_bytes(EVIL.encode())
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
def test_a_reader_that_leaves_ends_a_query_quietly(hostile: Path, form: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    sql = "select range, repeat('x', 100) as text from range(20000)"
    with os.fdopen(writing, "wb") as stdout:
        completed = subprocess.run(
            [*COMMAND, "query", *form, sql],
            cwd=hostile,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            timeout=PATIENCE,
        )
    assert (completed.returncode, completed.stderr) == (141, b"")


def test_a_reader_that_leaves_ends_the_printing_of_the_schema_quietly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        completed = subprocess.run(
            [*COMMAND, "init", "--schema"],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            timeout=PATIENCE,
        )
    assert (completed.returncode, completed.stderr) == (141, b"")


def test_a_full_disk_is_one_line(hostile: Path) -> None:
    with Path("/dev/full").open("wb") as stdout:
        completed = subprocess.run(
            [*COMMAND, "query", "--csv", "select 1"],
            cwd=hostile,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    assert completed.returncode == 1
    assert completed.stderr == "error: standard output cannot be written: No space left on device\n"


def test_logs_on_a_terminal_are_visible_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    before = structlog.get_config()
    handlers = logging.root.handlers[:]
    monkeypatch.setattr(sys, "stderr", terminal)
    try:
        configure_logging("test")
        structlog.get_logger().warning("event." + EVIL, **{"key" + EVIL: EVIL, "number": 1})
        logging.getLogger("some.library").warning("said %s", EVIL)
    finally:
        structlog.configure(**before)
        logging.root.handlers[:] = handlers
    output = terminal.getvalue()
    assert output.count("owned") == 4
    assert "\x1b]" not in output
    assert "\x1b[2J" not in output
    assert not {"\x9b", "\x85", "\u202e", "\r", "\x7f"} & set(output)


PRINTS = {"print", "input"}
WRITES = {"stdout", "stderr"}
LIBRARIES = {"rich.console", "rich.text", "rich.markup"}
# What starts before anything can be imported, repairs the streams, or is the log.
MAY = {
    "ingest/cli/output.py",
    "ingest/cli/__init__.py",
    "ingest/terminal.py",
    "ingest/telemetry.py",
    "consumers/reading.py",  # its standard output is what it answers the consumer
}


def prints(tree: ast.AST) -> list[str]:
    """Return the lines in which a module prints by itself."""
    offenders = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in PRINTS:
                offenders.append(f"{node.lineno}: {name}()")
            case ast.Attribute(value=ast.Name(id="sys"), attr=name) if name in WRITES and not _asks_terminal(
                tree, node
            ):
                offenders.append(f"{node.lineno}: sys.{name}")
            case ast.Attribute(
                value=ast.Name(id="typer" | "click"), attr="echo" | "secho" | "confirm" | "prompt" as name
            ):
                offenders.append(f"{node.lineno}: {name}")
            case ast.ImportFrom(module=module) if module in LIBRARIES and not {
                alias.name for alias in node.names
            } <= {"RenderableType"}:
                offenders.append(f"{node.lineno}: {module}")
    return offenders


def _asks_terminal(tree: ast.AST, stream: ast.Attribute) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.value is stream and node.attr == "isatty"
        for node in ast.walk(tree)
    )


def test_no_other_module_prints_by_itself() -> None:
    modules = [path for part in ("ingest", "receivers", "consumers") for path in (ROOT / part).rglob("*.py")]
    offenders = {
        name: prints(ast.parse(path.read_text()))
        for path in modules
        if (name := str(path.relative_to(ROOT))) not in MAY
    }
    assert {name: lines for name, lines in offenders.items() if lines} == {}
    assert len(modules) > 50


@pytest.mark.parametrize(
    ("value", "text", "number"),
    [
        ("12.500000000", "12.50", "12.5"),
        ("1.25E+1", "12.5", "12.5"),
        ("30.000000000", "30.00", "30"),
        (
            "12345678901234567890.123456789",
            "12345678901234567890.123456789",
            "12345678901234567890.123456789",
        ),
        ("-0.000000001", "-0.000000001", "-0.000000001"),
        ("1E+3", "1000", "1000"),
        ("42", "42", "42"),
        ("NaN", "NaN", "null"),
        ("-Infinity", "-Infinity", "null"),
    ],
)
def test_decimals_are_written_as_people_write_money_and_exact_in_json(
    value: str, text: str, number: str
) -> None:
    assert text_value(Decimal(value)) == text
    assert json_text(json_value(Decimal(value))) == number


ODD_SQL = (
    "select 1 as id, 2 as id, 'nan'::double as nan, '-inf'::double as inf, interval '1 month' as "
    "month, '\\xAA'::blob as bytes,"
    " [1.50::decimal(9, 2)] as list, {'a': timestamptz '2026-05-09 10:00+02', 'b': null} as "
    "struct, map {1: 'x'} as pairs,"
    " time '24:00' as midnight, '12:00:00+02'::timetz as zoned, "
    "'6d0c9a2e-0000-4000-8000-000000000001'::uuid as uuid,"
    " 'a'::enum ('a', 'b') as word, 170141183460469231731687303715884105727::hugeint as huge, "
    "date '10000-01-01' as far, true as yes,"
    ' \'{"n": 1e400, "d": 0.10}\'::json as document'
)
ODD: dict[str, Any] = {
    "id": 1, "id_2": 2, "nan": None, "inf": None, "month": "30 days, 0:00:00", "bytes": "\\xaa",
    "list": [1.5],
    "struct": {"a": "2026-05-09T08:00:00Z", "b": None}, "pairs": {"1": "x"}, "midnight": "24:00:00",
    "zoned": "12:00:00+02:00",
    "uuid": "6d0c9a2e-0000-4000-8000-000000000001", "word": "a",
    "huge": 170141183460469231731687303715884105727, "far": "10000-01-01",
    "yes": True, "document": {"n": float("inf"), "d": 0.1},
}  # fmt: skip


def test_every_type_is_written_in_every_form(hostile: Path) -> None:
    result = ingest(hostile, "query", "--json", ODD_SQL)
    assert (result.code, result.err) == (0, "")
    assert "NaN" not in result.out
    assert "Infinity" not in result.out
    assert '"n": 1e400, "d": 0.10' in result.out
    assert result.json == [ODD]
    ((header, row)) = csv.reader(io.StringIO(ingest(hostile, "query", "--csv", ODD_SQL).out, newline=""))
    cells = dict(zip(header, row, strict=True))
    assert header == list(ODD)
    assert (cells["nan"], cells["inf"], cells["list"], cells["yes"], cells["bytes"]) == (
        "NaN",
        "-Infinity",
        "[1.5]",
        "true",
        "\\xaa",
    )
    for columns in ("80", "2000"):
        result = ingest(hostile, "query", ODD_SQL, COLUMNS=columns)
        assert (result.code, result.err) == (0, "")
        for name in ODD:
            assert name in result.out


def test_a_statement_comes_from_a_file_or_standard_input(hostile: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.sql"
    file.write_bytes(b"\xef\xbb\xbfselect 'from a file' as text;\n-- and a remark\n")
    assert ingest(hostile, "query", "--json", "--file", str(file)).json == [{"text": "from a file"}]
    completed = subprocess.run(
        [*COMMAND, "query", "--json", "-"],
        cwd=hostile,
        env=environment(),
        input="select 'é' as text",
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert json.loads(completed.stdout) == [{"text": "é"}]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Give one statement"),
        (["select 1", "--file", "x.sql"], "Give one statement"),
        (["--file", "nowhere.sql"], "nowhere.sql cannot be read: No such file or directory"),
        (["--file", "data/warehouse.duckdb"], "is not UTF-8 text"),
        (["-"], "no statement"),
        (["select 1; select 2"], "Only one statement is allowed (got 2)."),
        (["select 1", "--json", "--csv"], "Use either --json or --csv."),
    ],
)
def test_what_is_no_single_statement_is_refused(hostile: Path, arguments: list[str], why: str) -> None:
    assert why in refused(ingest(hostile, "query", *arguments))


def test_many_rows_are_a_table_too(hostile: Path) -> None:
    result = ingest(hostile, "query", "select range as number, 'text ' || range as text from range(20000)")
    assert result.code == 0
    assert len(result.out.splitlines()) == 20_002
    assert "text 19999" in result.out


URL = "http://127.0.0.1:8080/webhooks/bookeo/tours?domain=bookings&type=created"
ROWS = [{"account": "bookeo/tours", "do": styled("as wanted", "green"), "what": URL, "why": ""}]


@pytest.mark.parametrize(("columns", "listed"), [("200", False), ("100", True), ("80", True)])
def test_a_table_that_is_too_wide_becomes_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str, listed: bool
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_table(ROWS)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert any(URL in line and "as wanted" not in line for line in lines) == listed
    assert ("bookeo/tours" in lines) == listed
    assert any(URL in line for line in lines)


def test_no_rows_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([], "title")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("number", "text"), [(0, "0 bookings"), (1, "1 booking"), (1200, "1,200 bookings")])
def test_a_number_agrees_with_its_noun(number: int, text: str) -> None:
    assert counted(number, "booking") == text
