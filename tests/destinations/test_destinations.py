"""Each destination in turn: what the vendors sent is there, once and as it is, and every command answers.

Four workers begin with a quarter of the tests each: at the beginning of each quarter is one that takes long.
"""

from pathlib import Path

import pytest

from tests.consumers.postgres import PostgresServer
from tests.destinations.bigquery import running_bigquery
from tests.destinations.black_box import open_black_box
from tests.destinations.databases import duckdb_file, postgres_server
from tests.destinations.databricks import running_databricks
from tests.destinations.destination import Destination
from tests.destinations.iceberg import running_iceberg
from tests.destinations.lakes import local_lake, running_azure, running_gcs, running_s3
from tests.destinations.mariadb import running_mariadb
from tests.destinations.redshift import redshift_types
from tests.destinations.snowflake import running_snowflake
from tests.destinations.two_consumers import check_two_consumers


def check(folder: Path, destination: Destination) -> None:
    """Take every step, and check that none fails; then let two consumers load."""
    with open_black_box(folder, destination) as box:
        problems = box.problems()
    assert not problems, "\n".join(f"{step}: {problem[:2000]}" for step, problem in problems.items())
    check_two_consumers(folder, destination)


def test_bigquery(tmp_path: Path) -> None:
    with running_bigquery(tmp_path) as destination:
        check(tmp_path, destination)


def test_duckdb(tmp_path: Path) -> None:
    check(tmp_path, duckdb_file(tmp_path))


def test_lake_in_s3(tmp_path: Path) -> None:
    with running_s3(tmp_path) as destination:
        check(tmp_path, destination)


def test_databricks(tmp_path: Path) -> None:
    with running_databricks(tmp_path) as destination:
        check(tmp_path, destination)


@pytest.mark.postgres
def test_postgres(tmp_path: Path, postgres: PostgresServer) -> None:
    check(tmp_path, postgres_server(postgres))


def test_lake_in_azure(tmp_path: Path) -> None:
    with running_azure(tmp_path) as destination:
        check(tmp_path, destination)


def test_snowflake(tmp_path: Path) -> None:
    with running_snowflake(tmp_path) as destination:
        check(tmp_path, destination)


@pytest.mark.postgres
def test_redshift(tmp_path: Path, postgres: PostgresServer) -> None:
    check(tmp_path, redshift_types(postgres))


def test_lake_in_gcs(tmp_path: Path) -> None:
    with running_gcs(tmp_path) as destination:
        check(tmp_path, destination)


def test_mariadb(tmp_path: Path) -> None:
    with running_mariadb(tmp_path) as destination:
        check(tmp_path, destination)


def test_lake_of_iceberg_tables(tmp_path: Path) -> None:
    with running_iceberg(tmp_path) as destination:
        check(tmp_path, destination)


def test_lake_in_a_folder(tmp_path: Path) -> None:
    check(tmp_path, local_lake(tmp_path))
