"""`ingest prove` as people and scripts use it."""

from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from tests.receivers.reconcile.pipeline import Pipeline
from tests.receivers.reconcile.test_trouble import broken
from tests.support.processes import Result, ingest, refused
from tests.support.settings import write_settings

BARE = 'public_url = "https://hooks.example.com"\n[accounts.sales]\nvendor = "calendly"\n'


def prove(pipeline: Pipeline, folder: Path, *arguments: str) -> Result:
    write_settings(folder, pipeline.tree())
    return ingest(folder, "prove", *arguments)


def test_what_is_missing_is_repaired_and_all_hours_are_proven_complete(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo", "oncehub"]).open() as pipeline:
        pipeline.deliver(pipeline.simulate(12)[::2])
        not_asked = prove(pipeline, tmp_path, "--no-ask", "--since", "5d", "--json")
        assert not_asked.code == 1
        assert {proof["complete_until"] for proof in not_asked.json} == {None}
        result = prove(pipeline, tmp_path, "--since", "5d", "--json")
        assert result.code == 0, result
        pipeline.settle()
        assert pipeline.differences() == []
        for proof in result.json:
            assert (proof["missing"], proof["not_complete"], proof["failure"]) == (0, [], None)
            assert proof["complete_until"]
            assert proof["listed"] == len(pipeline.world.meetings[proof["account"]])
        table = prove(pipeline, tmp_path, "--no-ask", "--by", "month")
        assert table.code == 0, table
        assert "bookeo/bookeo" in table.out
        assert "digest" in table.out
        files = [tmp_path / "held.csv"]
        exported = prove(pipeline, tmp_path, "--account", "bookeo", "--export", str(files[0]))
        assert exported.code == 0, exported
        columns = ("--account", "bookeo", "--against", str(files[0]), "--version-column", "changed_at")
        assert prove(pipeline, tmp_path, *columns).code == 0
        files[0].write_text(f"{files[0].read_text()}256,,2026-01-01T00:00Z\n")
        compared = prove(pipeline, tmp_path, *columns, "--json")
        assert (compared.code, compared.json["missing"], compared.json["older"]) == (1, ["256"], [])


def test_a_vendor_that_cannot_be_asked_is_told_apart_from_missing_bookings(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(2)
        body = {"httpStatus": 500, "message": "Down", "errorId": "E1"}
        pipeline.server.faults[:] = [broken("bookeo", JSONResponse(body, 500))]
        result = prove(pipeline, tmp_path, "--since", "2d")
    assert result.code == 3, result
    assert "not asked bookeo/bookeo: " in result.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--against", "missing.csv"], "need one --account"),
        (["--account", "sales", "--against", "missing.csv"], "missing.csv cannot be read"),
        (["--since", "1d", "--until", "2d"], "--since must be before --until"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, arguments: list[str], why: str) -> None:
    (tmp_path / "ingest.toml").write_text(BARE)
    assert why in refused(ingest(tmp_path, "prove", *arguments))
