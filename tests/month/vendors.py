"""The month's vendors as a process of their own, so that what is measured is not slowed down by them."""

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ingest.simulator.api import RateLimit
from ingest.simulator.server import RestServer
from ingest.simulator.vendor import load_simulated_vendor
from tests.month.story import Month, Plan

_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Served:
    """By account: settings for `ingest.toml`, and secret ones."""

    accounts: Mapping[str, Mapping[str, Any]]
    secrets: Mapping[str, Mapping[str, Any]]


@contextmanager
def serving(plan: Plan, limits: Mapping[str, RateLimit] | None = None) -> Iterator[Served]:
    """The REST sides of `Month(plan)`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(plan, dict(limits or {}), theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(_START_SECONDS):
            raise RuntimeError("the simulated vendors did not start")
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


def _serve(plan: Plan, limits: Mapping[str, RateLimit], pipe: Connection) -> None:
    month = Month(plan)
    rest = {
        name: load_simulated_vendor(name).api(dialect, month.world.meetings[name])
        for name, dialect in month.dialects.items()
    }
    server = RestServer(rest, limits)
    with server.serving():
        accounts = {
            name: {**dialect.settings(), "api_url": server.api_url(name)}
            for name, dialect in month.dialects.items()
        }
        pipe.send(
            Served(
                accounts,
                {
                    name: {"webhook_secrets": [dialect.secret], **rest[name].settings()}
                    for name, dialect in month.dialects.items()
                },
            )
        )
        pipe.recv()
