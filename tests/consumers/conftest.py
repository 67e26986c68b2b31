"""Consumers on DuckDB, on a PostgreSQL that is started for the run, and on each in turn."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.consumers.postgres import PostgresServer, running_postgres
from tests.consumers.rig import Rig, Tree, opened, tree_for


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return tree_for(tmp_path)


@pytest.fixture
def rig(tree: Tree) -> Iterator[Rig]:
    with opened(tree) as found:
        yield found


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
    return tree_for(tmp_path) | {"warehouse": warehouse}


@pytest.fixture
def postgres_rig(postgres_tree: Tree) -> Iterator[Rig]:
    with opened(postgres_tree) as found:
        yield found


@pytest.fixture(params=["tree", pytest.param("postgres_tree", marks=pytest.mark.postgres)])
def either_tree(request: pytest.FixtureRequest) -> Tree:
    found: Tree = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["rig", pytest.param("postgres_rig", marks=pytest.mark.postgres)])
def either_rig(request: pytest.FixtureRequest) -> Rig:
    found: Rig = request.getfixturevalue(request.param)
    return found
