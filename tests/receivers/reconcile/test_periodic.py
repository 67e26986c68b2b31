"""`ingest up` reconciles by itself, and lives on without."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import IngestError
from ingest.settings import Settings
from ingest.simulator.account import differences
from ingest.simulator.calendly.api import CalendlyApi
from ingest.warehouse.query import query
from tests.receivers.reconcile.pipeline import Pipeline
from tests.support.polling import get, wait_for
from tests.support.ports import free_port
from tests.support.processes import IngestProcess, ingest, start_ingest
from tests.support.settings import Tree, write_settings

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are watched in /proc, which only Linux has"
)


@contextmanager
def up(folder: Path, tree: Tree, port: int = 0) -> Iterator[IngestProcess]:
    """Run `ingest up` until a clean stop, which is checked."""
    write_settings(folder, tree | {"receiver": {"port": port, "admin_port": 0}})
    with start_ingest(folder, "up") as process:
        yield process
        assert process.stop() == 0, process.written()


def rows(tree: dict[str, Any], sql: str) -> list[dict[str, Any]]:
    try:
        answer = query(Settings.model_validate(tree), sql)
    except IngestError:
        return []
    return answer.dicts()


def test_what_no_webhook_told_is_repaired_again_and_again(tmp_path: Path) -> None:
    pipeline = Pipeline(
        tmp_path, ["bookeo", "oncehub"], reconcile={"every": "1s", "jitter": "0s", "lookback": "5d"}
    )
    with pipeline.server.serving():
        pipeline.simulate(5)
        tree = pipeline.tree()
        with up(tmp_path, tree):
            wait_for(
                lambda: (
                    differences(pipeline.world, pipeline.accounts, rows(tree, "select * from bookings")) == []
                ),
                "all is repaired",
            )
            pipeline.simulate(5)
            wait_for(
                lambda: (
                    differences(pipeline.world, pipeline.accounts, rows(tree, "select * from bookings")) == []
                ),
                "and once more",
            )
            wait_for(lambda: len(rows(tree, "select * from reconciliations")) > 2, "every run is a row")


def test_a_vendor_that_refuses_does_not_take_the_receiver_down(tmp_path: Path) -> None:
    pipeline = Pipeline(
        tmp_path, ["bookeo"], reconcile={"every": "1s", "jitter": "0s"}, bookeo={"api_key": "not-this-one"}
    )
    with pipeline.server.serving():
        tree = pipeline.tree()
        with up(tmp_path, tree) as process:
            wait_for(
                lambda: len(rows(tree, "select * from reconciliations where outcome = 'failed'")) > 1,
                "it fails, again and again",
            )
            assert process.running
        assert "not-this-one" not in process.written()


def test_a_subscription_that_is_not_there_is_made_where_that_is_allowed_and_seen_where_not(
    tmp_path: Path,
) -> None:
    port = free_port()
    pipeline = Pipeline(tmp_path, ["calendly"], reconcile={"every": "1h", "jitter": "0s", "admin_port": port})
    with pipeline.server.serving():
        calendly = pipeline.rest["calendly"]
        assert isinstance(calendly, CalendlyApi)
        calendly.subscriptions.clear()
        tree = pipeline.tree() | {"webhooks": {"every": "1h"}}
        metric = 'ingest_subscription_state{account="calendly",state="%s",vendor="calendly"} 1.0'
        with up(tmp_path, tree):
            wait_for(lambda: metric % "create" in metrics(port), "it is seen")
            assert calendly.subscriptions.all() == []
            applied = ingest(tmp_path, "webhooks", "apply", "--yes", "--no-reconcile")
            assert applied.code == 0, applied
            wait_for(lambda: metric % "keep" in metrics(port), "what a command has made is seen soon")
        calendly.subscriptions.clear()
        tree["webhooks"]["repair"] = True
        with up(tmp_path, tree):
            wait_for(lambda: metric % "keep" in metrics(port), "it is made")
        (subscription,) = calendly.subscriptions.all()
        assert subscription.url.startswith("https://hooks.example.com/webhooks/calendly/calendly")


def test_a_receiver_that_is_killed_leaves_a_gap_that_is_compared_as_soon_as_the_next_one_runs(
    tmp_path: Path,
) -> None:
    pipeline = Pipeline(tmp_path, ["bookeo"], reconcile={"every": "1h", "jitter": "0s", "lookback": "5d"})
    with pipeline.server.serving():
        tree = pipeline.tree()
        with up(tmp_path, tree) as process:
            wait_for(
                lambda: len(rows(tree, "select * from reconciliations")) == 1, "the first comparison is done"
            )
            assert rows(tree, "select * from gaps") == []
            victim = wait_for(lambda: process.child("receive"), "the receiver runs")
            pipeline.simulate(5)
            os.kill(victim.pid, signal.SIGKILL)
            (gap,) = wait_for(
                lambda: rows(tree, "select * from gaps where until_at is not null"), "the gap has an end"
            )
            assert (gap["cause"], gap["account"]) == ("receiver_down", "bookeo")
            wait_for(lambda: len(rows(tree, "select * from reconciliations")) > 1, "it is compared")
            wait_for(
                lambda: rows(
                    tree, "select * from gaps where waits_for like '%a comparison%' or closed_at > from_at"
                ),
                "it says what it waits for, unless its hour was just over",
            )


def test_a_new_account_and_a_new_key_are_taken_while_it_runs(tmp_path: Path) -> None:
    pipeline = Pipeline(
        tmp_path, ["bookeo", "oncehub"], reconcile={"every": "1s", "jitter": "0s", "lookback": "5d"}
    )
    with pipeline.server.serving():
        pipeline.simulate(6)
        tree = pipeline.tree()
        oncehub = tree["accounts"].pop("oncehub")
        key = tree["accounts"]["bookeo"]["api_key"]
        tree["accounts"]["bookeo"]["api_key"] = "not-this-one"
        with up(tmp_path, tree):
            wait_for(
                lambda: rows(tree, "select * from reconciliations where outcome = 'failed'"),
                "the key is refused",
            )
            tree["accounts"] |= {"bookeo": tree["accounts"]["bookeo"] | {"api_key": key}, "oncehub": oncehub}
            write_settings(tmp_path, tree | {"receiver": {"port": 0, "admin_port": 0}})
            wait_for(
                lambda: (
                    differences(pipeline.world, pipeline.accounts, rows(tree, "select * from bookings")) == []
                ),
                "all is repaired",
            )


def metrics(port: int) -> str:
    """Return the metrics of the admin listener, "" while there is none."""
    response = get(f"http://127.0.0.1:{port}/metrics")
    return response.text if response else ""
