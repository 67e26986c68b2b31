"""Closed, full or ASCII-only standard streams stop nothing, and no file is written to by mistake."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.receivers.in_process import stored
from tests.receivers.requests import booking, signed, subject
from tests.receivers.running import TOPIC, on_linux, post, receiver_environment, subjects, unused_port
from tests.support.polling import PATIENCE, is_healthy, wait_for
from tests.support.processes import COMMAND, ROOT, IngestProcess, environment, run

TELLING = "from ingest.telemetry import configure_logging; import structlog; configure_logging('test'); "


def _in_shell(redirection: str, *command: str) -> list[str]:
    return ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]


@on_linux
@pytest.mark.parametrize(
    ("redirection", "workers"), [("2>&-", "1"), ("<&- >&- 2>&-", "2"), (">/dev/full 2>/dev/full", "1")]
)
def test_a_receiver_without_streams_takes_deliveries_and_keeps_them(
    tmp_path: Path, redirection: str, workers: str
) -> None:
    port = unused_port()
    settings = {"INGEST_RECEIVER__PORT": port, "INGEST_RECEIVER__WORKERS": workers}
    command = _in_shell(redirection, *COMMAND, "receive")
    with IngestProcess(tmp_path, "receive", command, receiver_environment(tmp_path, settings)) as process:
        wait_for(lambda: is_healthy(f"http://127.0.0.1:{port}"), "the receiver answers")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            assert post(client, signed(b"{}", secret="nobody's")).status_code == 401
            assert [post(client, booking(number)).status_code for number in range(3)] == [202] * 3
        assert subjects(stored(tmp_path / "log.db", TOPIC)) == [subject(number) for number in range(3)]
        assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path(
            "/dev/full" if "full" in redirection else os.devnull
        )
        assert process.stop() == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_an_encoding_lacks_are_written_as_escapes(encoding: str) -> None:
    program = TELLING + "structlog.get_logger().warning('told', why='\\u20ac'); print('\\u2192 \\ud800')"
    environ = os.environ | {"PYTHONIOENCODING": encoding}
    completed = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, check=True, timeout=PATIENCE
    )
    assert completed.stdout == b"\\u2192 \\ud800\n"
    assert b"\\u20ac" in completed.stderr


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_file_that_is_opened_later_is_never_taken_for_a_stream(tmp_path: Path, redirection: str) -> None:
    file = tmp_path / "file"
    program = (
        f"{TELLING}file = open({str(file)!r}, 'w'); structlog.get_logger().error('told'); print('printed'); "
        "import os, sys; os.write(2, b'raw'); sys.stderr.write('text'); sys.stdin.read(); "
        "file.write('its own'); file.close()"
    )
    command = _in_shell(redirection, sys.executable, "-c", program)
    result = run(command, tmp_path, environment())
    assert result.code == 0, result.err
    assert file.read_text() == "its own"


def test_a_pipe_that_nobody_reads_stops_nothing_and_what_is_read_later_are_whole_lines() -> None:
    lines = (
        "log = structlog.get_logger(); [log.warning('told', "
        "number=number, more='x' * 1000) for number in range(100)]; "
    )
    program = f"{TELLING}{lines} print('all told'); import sys; sys.stdout.flush(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "all told\n"
        _, output = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert 10 < output.count('"event": "told"') < 100
    assert all(line.startswith("{") and line.endswith("}") for line in output.splitlines())


def test_a_command_with_everything_closed_ends_as_it_would() -> None:
    for redirection in ("2>&-", ">&-", "<&- >&- 2>&-"):
        result = run(_in_shell(redirection, *COMMAND, "--version"), ROOT, environment())
        assert (redirection, result.code) == (redirection, 0)
