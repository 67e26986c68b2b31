"""Tests that missing rights of consumer and sync are found before they are needed, without a trace."""

import errno
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest

from consumers.warehouse import Warehouse
from consumers.warehouse.rights import check_warehouse
from ingest.errors import WarehouseUnavailable
from ingest.readiness import Finding, State
from ingest.settings import Settings
from ingest.warehouse.destination import check_reachable
from tests.consumers.postgres import PostgresServer
from tests.support.ports import free_port
from tests.support.processes import PythonProcess
from tests.support.settings import Tree, with_section

ACCOUNTS = {"sales": {"vendor": "calendly", "webhook_secrets": ["for tests"], "api_token": "for tests"}}


def settings_of(tree: Tree, **warehouse: str) -> Settings:
    return Settings.model_validate(with_section(tree, "warehouse", **warehouse) | {"accounts": ACCOUNTS})


def by_name(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_warehouse(settings)}


class Database:
    """The server as its owner sees it, and a user without rights."""

    def __init__(self, server: PostgresServer) -> None:
        import psycopg2

        self._connection = psycopg2.connect(server.url)
        self._connection.autocommit = True
        self.user = f"u{uuid4().hex[:12]}"
        self.url = server.url.replace("ingest:any", f"{self.user}:any")
        self.run(f"CREATE ROLE {self.user} LOGIN")

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        self.run(f"DROP OWNED BY {self.user}")
        self.run(f"DROP ROLE {self.user}")
        self._connection.close()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    with closing(Database(postgres)) as database:
        yield database


@pytest.fixture
def settings(postgres_tree: Tree, database: Database) -> Settings:
    """Return settings with the user without rights."""
    return settings_of(postgres_tree, credentials=database.url)


def dataset_of(settings: Settings) -> str:
    return settings.warehouse.dataset


def failing(findings: dict[str, Finding]) -> set[str]:
    return {name for name, finding in findings.items() if finding.failed}


@pytest.mark.postgres
def test_a_user_who_may_create_schemas_needs_no_more_and_none_is_left(
    settings: Settings, database: Database
) -> None:
    database.run(f"GRANT CREATE ON DATABASE postgres TO {database.user}")
    findings = by_name(settings)
    assert {name: str(finding.state) for name, finding in findings.items()} == dict.fromkeys(
        ["warehouse", "warehouse sync", "warehouse load"], "ok"
    )
    assert re.search(r"unchanged\. A load took [0-9.]+ s", findings["warehouse load"].detail)
    assert (
        database.run(f"SELECT nspname FROM pg_namespace WHERE nspname LIKE '{dataset_of(settings)}%'") == []
    )
    warehouse = Warehouse(settings)
    with closing(warehouse):
        warehouse.prepare()  # what was promised is so
    assert failing(by_name(settings)) == set()
    assert database.run("SELECT relname FROM pg_class WHERE relname LIKE 'ingest_probe%'"
                        f" OR relnamespace = '{dataset_of(settings)}'::regnamespace "
                        "AND relname LIKE '%probe%'") == []  # fmt: skip


@pytest.mark.postgres
def test_a_user_who_may_not_create_schemas_is_told_what_to_grant(
    settings: Settings, database: Database
) -> None:
    findings = by_name(settings)
    assert failing(findings) == {"warehouse", "warehouse sync"}
    assert {finding.remedy for finding in findings.values()} == {
        f"GRANT CREATE ON DATABASE postgres TO {database.user}"
    }


@pytest.mark.postgres
@pytest.mark.parametrize("grant", ["", "USAGE", "CREATE"])
def test_a_schema_without_the_rights_to_it_is_told(
    settings: Settings, database: Database, grant: str
) -> None:
    dataset = dataset_of(settings)
    database.run(f"CREATE SCHEMA {dataset}")
    database.run(f"GRANT CREATE ON DATABASE postgres TO {database.user}")
    if grant:
        database.run(f"GRANT {grant} ON SCHEMA {dataset} TO {database.user}")
    findings = by_name(settings)
    assert failing(findings) == {"warehouse"}
    assert findings["warehouse"].remedy == f"GRANT USAGE, CREATE ON SCHEMA {dataset} TO {database.user}"


@pytest.mark.postgres
def test_a_sync_needs_a_schema_of_its_own_and_a_load_does_not(settings: Settings, database: Database) -> None:
    dataset = dataset_of(settings)
    database.run(f"CREATE SCHEMA {dataset} AUTHORIZATION {database.user}")
    findings = by_name(settings)
    assert failing(findings) == {"warehouse sync"}
    assert findings["warehouse sync"].remedy == f"GRANT CREATE ON DATABASE postgres TO {database.user}"


@pytest.mark.postgres
def test_a_user_who_has_the_schemas_and_may_create_none_is_told_that_no_load_was_tried(
    settings: Settings, database: Database
) -> None:
    without_sync = settings.model_copy(update={"accounts": {}})
    database.run(f"CREATE SCHEMA {dataset_of(settings)} AUTHORIZATION {database.user}")
    findings = by_name(without_sync)
    assert failing(findings) == set()
    assert findings["warehouse load"].detail == (
        f"not tried: {database.user} in postgres may not create a scratch schema for it"
    )
    with closing(Warehouse(without_sync)) as warehouse:
        warehouse.prepare()  # what was promised is so


@pytest.mark.postgres
def test_a_read_only_user_is_told_whatever_else_was_granted(settings: Settings, database: Database) -> None:
    database.run(f"GRANT CREATE ON DATABASE postgres TO {database.user}")
    database.run(f"ALTER ROLE {database.user} SET default_transaction_read_only = on")
    findings = by_name(settings)
    assert failing(findings) == {"warehouse", "warehouse sync"}
    assert f"{database.user} in postgres is read-only" in findings["warehouse"].detail


@pytest.mark.postgres
def test_tables_that_another_user_made_are_told(
    postgres_tree: Tree, settings: Settings, database: Database
) -> None:
    with closing(Warehouse(settings_of(postgres_tree))) as owners:
        owners.prepare()
    dataset = dataset_of(settings)
    database.run(f"GRANT CREATE ON DATABASE postgres TO {database.user}")
    database.run(f"GRANT USAGE, CREATE ON SCHEMA {dataset} TO {database.user}")
    findings = by_name(settings)
    assert "lacks DELETE, INSERT, SELECT, UPDATE on" in findings["warehouse tables"].detail
    assert "bookings" in findings["warehouse tables"].detail
    assert (
        findings["warehouse tables"].remedy
        == f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {dataset} TO {database.user}"
    )
    database.run(findings["warehouse tables"].remedy)
    findings = by_name(settings)
    assert findings["warehouse tables"].state is State.WARNING
    assert "does not own" in findings["warehouse tables"].detail


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("/postgres", "/nowhere"), 'database "nowhere" does not exist; create it (CREATE DATABASE)'),
        (("ingest:", "nobody:"), 'role "nobody" does not exist; create that user'),
        (("@127.0.0.1", "@nowhere.invalid"), "could not translate host name"),
    ],
)
def test_why_nobody_is_let_in_is_told(
    postgres: PostgresServer, postgres_tree: Tree, change: tuple[str, str], expected: str
) -> None:
    settings = settings_of(postgres_tree, credentials=postgres.url.replace(*change))
    [finding] = check_warehouse(settings)
    assert finding.failed
    assert expected in finding.detail
    with pytest.raises(WarehouseUnavailable) as error:
        check_reachable(settings.warehouse)
    assert expected in str(error.value)


@pytest.mark.postgres
def test_a_wrong_password_is_told_and_not_repeated(
    postgres: PostgresServer, settings: Settings, database: Database
) -> None:
    postgres.demand_password(database.user)
    database.run("SELECT pg_reload_conf()")
    database.run(f"ALTER ROLE {database.user} PASSWORD 'the-right-one'")
    credentials = settings.warehouse.credentials
    assert credentials is not None
    wrong = credentials.get_secret_value().replace(":any@", ":the-wrong-one@")
    [finding] = check_warehouse(
        settings.model_copy(
            update={
                "warehouse": settings.warehouse.model_copy(update={"credentials": type(credentials)(wrong)})
            }
        )
    )
    assert "password authentication failed" in finding.detail
    assert "correct user and password in INGEST_WAREHOUSE__CREDENTIALS" in finding.detail
    assert "the-wrong-one" not in finding.sentence


@pytest.mark.postgres
def test_a_server_that_is_gone_is_told(postgres_tree: Tree) -> None:
    settings = settings_of(postgres_tree, credentials=f"postgresql://a:b@127.0.0.1:{free_port()}/postgres")
    [finding] = check_warehouse(settings)
    assert "Connection refused; is the server running" in finding.detail
    assert finding.unreachable


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def test_a_duckdb_file_that_is_not_there_is_not_made(tree: Tree, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    settings = settings_of(tree, credentials=f"{tmp_path}/deep/er/warehouse.duckdb")
    [finding, load] = check_warehouse(settings)
    assert (finding.state, load.state) == (State.OK, State.OK), load
    assert "will be created by the first load" in finding.detail
    assert sorted(tmp_path.rglob("*")) == before


def test_a_duckdb_file_is_tried_and_left_as_it_was(tree: Tree, tmp_path: Path) -> None:
    settings = settings_of(tree)
    with closing(Warehouse(settings)) as warehouse:
        warehouse.prepare()
    file = tmp_path / "warehouse.duckdb"
    before, files = digest(file), sorted(tmp_path.rglob("*"))
    [finding, load] = check_warehouse(settings)
    assert (finding.state, finding.detail) == (State.OK, f"{file} can be written to, dataset ingest")
    assert load.state is State.OK
    assert re.match(r"DuckDB takes rows and returns them unchanged\. A load took [0-9.]+ s", load.detail)
    assert digest(file) == before
    assert sorted(tmp_path.rglob("*")) == files


def test_a_file_that_is_no_duckdb_is_told(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_bytes(b"no database at all " * 300)
    [finding] = check_warehouse(settings_of(tree))
    assert finding.failed
    assert "warehouse.duckdb" in finding.detail


def test_a_duckdb_file_that_another_program_holds_is_told(tree: Tree, tmp_path: Path) -> None:
    file = tmp_path / "warehouse.duckdb"
    duckdb.connect(str(file)).close()
    holding = (
        "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    with PythonProcess(holding, str(file)) as other:
        other.read_line()
        [finding] = check_warehouse(settings_of(tree))
        other.finish()
    assert finding.failed
    assert str(other.pid) in finding.detail, "DuckDB knows who"
    assert "loads wait until the other program closes it" in finding.detail


def test_a_folder_that_may_not_be_written_to_is_told(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")  # which root never gets

    monkeypatch.setattr("consumers.warehouse.rights.TemporaryDirectory", refuse)
    findings = check_warehouse(settings_of(tree, credentials=f"{tmp_path}/locked/warehouse.duckdb"))
    assert [finding.check for finding in findings] == ["warehouse", "warehouse load"]
    assert "cannot be written to: Permission denied" in findings[-1].detail
    assert "let this user write" in findings[-1].remedy


def test_a_folder_that_is_a_file_is_told(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    settings = settings_of(tree, credentials=f"{tmp_path}/occupied/warehouse.duckdb")
    [finding] = check_warehouse(settings)
    assert finding.failed
    assert "occupied" in finding.detail


def test_a_server_that_does_not_answer_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = Settings.model_validate(
            {"warehouse": {"destination": "postgres", "credentials": f"postgresql://a:b@127.0.0.1:{port}/x"}}
        )
        with pytest.raises(WarehouseUnavailable, match="timeout expired"):
            check_reachable(settings.warehouse)
