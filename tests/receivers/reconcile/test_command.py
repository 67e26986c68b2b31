"""`ingest reconcile` as people and scripts use it."""

import json
import re
from pathlib import Path

import pytest
import typer
from starlette.responses import JSONResponse

from ingest.cli.reconcile import reconcile
from ingest.errors import LogUnavailable
from tests.receivers.reconcile.pipeline import Pipeline
from tests.receivers.reconcile.test_trouble import broken
from tests.support.processes import Result, ingest, refused
from tests.support.settings import write_settings

BARE = 'public_url = "https://hooks.example.com"\n[accounts.sales]\nvendor = "calendly"\n'


def run(pipeline: Pipeline, folder: Path, *arguments: str) -> Result:
    write_settings(folder, pipeline.tree())
    return ingest(folder, "reconcile", *arguments)


def test_a_run_tells_what_it_found_in_a_table_and_in_json(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo", "oncehub"]).open() as pipeline:
        pipeline.simulate(6)
        table = run(pipeline, tmp_path, "--since", "5d", "--account", "bookeo")
        assert table.code == 0, table
        assert re.search(r"bookeo\D+(\d+)\D+0\D+\1\D+\1", table.out), table.out
        result = run(pipeline, tmp_path, "--since", "5d", "--json")
        assert result.code == 0, result
        reports = {report["account"]: report for report in result.json}
        assert reports["bookeo"]["matched"] == len(pipeline.world.meetings["bookeo"])
        assert reports["oncehub"]["repaired"] == len(pipeline.world.meetings["oncehub"])
        assert pipeline.differences() == []


def test_a_dry_run_exits_1_when_something_is_missing_and_0_when_nothing_is(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(2)
        assert run(pipeline, tmp_path, "--since", "5d", "--dry-run").code == 1
        assert pipeline.harness.column("select count(*) from bookings") == [0]
        assert run(pipeline, tmp_path, "--since", "5d").code == 0
        assert run(pipeline, tmp_path, "--since", "5d", "--dry-run").code == 0


def test_the_exit_code_tells_a_refused_key_from_a_vendor_that_is_down(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo", "oncehub"]).open() as pipeline:
        body = {"httpStatus": 403, "message": "Invalid key", "errorId": "E17"}
        pipeline.server.faults[:] = [broken("bookeo", JSONResponse(body, 403))]
        result = run(pipeline, tmp_path, "--since", "5d")
        assert result.code == 2
        assert "failed bookeo/bookeo: bookeo account bookeo: 403 Invalid key (request E17)" in result.out
        pipeline.server.faults[:] = [broken("bookeo", JSONResponse(body, 500))]
        assert run(pipeline, tmp_path, "--since", "5d").code == 3


def test_a_report_that_is_not_in_the_log_is_said_and_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object) -> None:
        raise LogUnavailable("the brokers are away")

    monkeypatch.setattr("receivers.reconcile.run.AccountRun._append", away)
    monkeypatch.setattr("ingest.cli.reconcile.configure_logging", lambda _: None)
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        write_settings(tmp_path, pipeline.tree())
        monkeypatch.chdir(tmp_path)
        with pytest.raises(typer.Exit) as exit_info:
            reconcile("5d")
        assert exit_info.value.exit_code == 3
        assert (
            "not recorded yet bookeo/bookeo: the brokers are away; the next run tells what was found"
            in capsys.readouterr().out
        )
        with pytest.raises(typer.Exit):
            reconcile("6d", as_json=True)
        assert json.loads(capsys.readouterr().out.splitlines()[-1])[0]["recorded"] is False


def test_without_a_consumer_what_is_missing_is_in_the_log_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.waits.STALLED_SECONDS", 0.5)
    pipeline = Pipeline(tmp_path, ["bookeo"], consumer={"linger": "1500ms"})
    with pipeline.open():
        pipeline.simulate(3)
    with pipeline.server.serving(), pipeline.opened():
        report = pipeline.reconcile()["bookeo"]
        assert report.counts.missed == 3
        assert report.counts.repaired == 0
        assert "no consumer has loaded any" in str(report.failure)
        assert "for 2 s: " in str(report.failure), "it waited for the time between two loads too"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--confirm-key"], "--confirm-key needs --account"),
        (["--watch", "--confirm-key"], "--watch can be combined only with --account"),
        (["--since", "yesterday"], "--since yesterday"),
        (["--since", "2026-13-01"], "--since 2026-13-01"),
        (["--since", "2026-11-02", "--until", "2026-11-01"], "--since must be before --until"),
        (["--since", "2999-01-01"], "before now"),
        (["--watch", "--dry-run"], "--watch can be combined only with --account"),
        (["--account", "nobody"], "no account is called nobody; the settings have sales"),
        (["--account", "sales"], "set api_token, or client_id + client_secret + refresh_token"),
        ([], "no account has what its vendor's REST side needs"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "ingest.toml").write_text(BARE)
    assert expected in refused(ingest(tmp_path, "reconcile", *arguments))


def test_json_is_one_array_also_when_an_account_fails(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["oncehub"], oncehub={"api_key": "not-this-one"}).open() as pipeline:
        result = run(pipeline, tmp_path, "--json")
        assert result.code == 2
        (report,) = json.loads(result.out)
        assert (report["outcome"], report["seen"]) == ("failed", 0)
        assert "not-this-one" not in result.out + result.err
