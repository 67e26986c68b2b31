"""Each destination in turn: what the vendors sent is there, once and as it is, and every command answers."""

from pathlib import Path

import pytest

from tests.consumers.postgres import PostgresServer
from tests.destinations.black_box import open_black_box
from tests.destinations.databases import duckdb_file, postgres_server
from tests.destinations.destination import Destination
from tests.destinations.lake import local_lake


def check(folder: Path, destination: Destination) -> None:
    """Take every step, and check that none fails but those that the emulator cannot show."""
    with open_black_box(folder, destination) as box:
        problems = box.problems()
    assert problems.keys() == destination.impossible.keys(), problems


def test_duckdb(tmp_path: Path) -> None:
    check(tmp_path, duckdb_file(tmp_path))


@pytest.mark.postgres
def test_postgres(tmp_path: Path, postgres: PostgresServer) -> None:
    check(tmp_path, postgres_server(postgres))


def test_lake_in_a_folder(tmp_path: Path) -> None:
    check(tmp_path, local_lake(tmp_path))
