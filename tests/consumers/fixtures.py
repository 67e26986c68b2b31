"""Consumers on DuckDB, on a PostgreSQL that is started for the run, and on each in turn."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.postgres import PostgresServer, running_postgres
from tests.support.settings import Tree, settings_tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return settings_tree(tmp_path)


@pytest.fixture
def harness(tree: Tree) -> Iterator[ConsumerHarness]:
    with open_consumer(tree) as harness:
        yield harness


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    request.getfixturevalue("postgres_programs")
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_tree(tmp_path: Path, postgres: PostgresServer) -> Tree:
    """Return settings with a dataset that no other test has."""
    warehouse = {
        "destination": "postgres",
        "credentials": postgres.url,
        "dataset": f"t{uuid4().hex[:12]}",
        "work_dir": f"{tmp_path}/dlt",
    }
    return settings_tree(tmp_path) | {"warehouse": warehouse}


@pytest.fixture
def postgres_harness(postgres_tree: Tree) -> Iterator[ConsumerHarness]:
    with open_consumer(postgres_tree) as harness:
        yield harness


@pytest.fixture(params=["tree", pytest.param("postgres_tree", marks=pytest.mark.postgres)])
def either_tree(request: pytest.FixtureRequest) -> Tree:
    tree: Tree = request.getfixturevalue(request.param)
    return tree


@pytest.fixture(params=["harness", pytest.param("postgres_harness", marks=pytest.mark.postgres)])
def either_harness(request: pytest.FixtureRequest) -> ConsumerHarness:
    harness: ConsumerHarness = request.getfixturevalue(request.param)
    return harness
