"""Tests that a redrive repairs what a reconciliation could not read, as the reconciliation would have."""

from pathlib import Path

import pytest
import tomlkit

from ingest.errors import PayloadError
from ingest.vendors.bookeo import Bookeo
from tests.ingest.cli.command import Result, ingest
from tests.receivers.reconcile.pipeline import Pipeline


def redrive(folder: Path) -> Result:
    settings = {
        "log": f"sqlite:///{folder}/log.db",
        "warehouse": {"credentials": f"{folder}/warehouse.duckdb", "work_dir": f"{folder}/dlt"},
        "accounts": {"bookeo": {"vendor": "bookeo"}},
    }
    (folder / "ingest.toml").write_text(tomlkit.dumps(settings))
    return ingest(folder, "dead-letters", "redrive", "--all", "--json")


def test_records_that_could_not_be_read_are_repaired_and_the_next_reconciliation_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PayloadError("a bug of that day")

    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(3)
        with monkeypatch.context() as patch:
            patch.setattr(Bookeo, "booking_of_record", refuse)
            assert pipeline.reconcile()["bookeo"].counts.unreadable == 3
        pipeline.settle()
        assert pipeline.rig.column("select count(*) from bookings") == [0]
        result = redrive(tmp_path)
        assert [one["outcome"] for one in result.json] == ["redriven"] * 3
        pipeline.settle()
        assert pipeline.differences() == []
        assert pipeline.rig.column("select distinct via from booking_events") == ["reconcile"]
        counts = pipeline.reconcile()["bookeo"].counts
        assert (counts.matched, counts.missed, counts.unreadable) == (3, 0, 0)
        assert {one["outcome"] for one in redrive(tmp_path).json} == {"already_loaded"}
