"""Serves the REST APIs of the month's vendors from a process that does not slow the measured one."""

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection

from ingest.simulator import load_simulated_vendor
from ingest.simulator.api import RateLimit
from ingest.simulator.server import RestServer
from tests.month.month import Month, MonthPlan
from tests.support.settings import Tree

_START_SECONDS = 120.0


@contextmanager
def serving(plan: MonthPlan, limits: Mapping[str, RateLimit] | None = None) -> Iterator[Mapping[str, Tree]]:
    """Serve the APIs of `Month(plan)`, and return the settings of the accounts, secrets included."""
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


def _serve(plan: MonthPlan, limits: Mapping[str, RateLimit], pipe: Connection) -> None:
    month = Month(plan)
    apis = {
        name: load_simulated_vendor(name).api(account, month.world.meetings[name])
        for name, account in month.accounts.items()
    }
    server = RestServer(apis, limits)
    with server.serving():
        tables: dict[str, Tree] = {
            name: {
                **account.settings(),
                **apis[name].settings(),
                "api_url": server.api_url(name),
                "webhook_secrets": [account.secret],
            }
            for name, account in month.accounts.items()
        }
        pipe.send(tables)
        pipe.recv()
