"""A product with something on every page: bookings, a stranger's texts, dead letters, reconciliations."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.vendors.oncehub import Oncehub
from tests.consumers.samples import sample
from tests.ingest.simulator.rest.served import subscriptions_of
from tests.receivers.reconcile.pipeline import Pipeline
from tests.support.settings import write_settings

ACCOUNT = "oncehub"
SOURCE = f"/oncehub/{ACCOUNT}"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.exe"
LONG = "n" * 10_000


@contextmanager
def open_product(folder: Path) -> Iterator[Pipeline]:
    """Start simulated vendors and a consumer, with two accounts of which one has missed webhooks."""
    receiver = {"admin_port": 0, "spool_dir": f"{folder}/spool"}
    pipeline = Pipeline(folder, ["calendly", ACCOUNT], receiver=receiver, feed={"enabled": True})
    with pytest.MonkeyPatch.context() as environment, pipeline.open():
        write_settings(folder, pipeline.tree())
        environment.setenv("INGEST_CONFIG", str(folder / "ingest.toml"))
        subscriptions_of(pipeline.rest[ACCOUNT]).clear()
        changes = pipeline.simulate(60)
        pipeline.deliver(changes[:-3])
        pipeline.reconcile()
        form = {"name": HOSTILE + LONG, "email": "=cmd()"}
        hostile = sample(1, "Hostile", form_submission=form, subject="<b>bold</b>")
        pipeline.harness.append(replace(hostile, source=SOURCE))
        pipeline.settle()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Oncehub, "booking_of_webhook", _crash)
            pipeline.harness.append(replace(sample(2, "Letter"), source=SOURCE))
            pipeline.settle()
        yield pipeline


def _crash(*_: object) -> None:
    raise KeyError("a bug that is mended later")
