"""Settings from the file, the environment, or both; their mistakes are named."""

from pathlib import Path

import pytest

from tests.support.processes import Result, ingest, refused

SALES = '[accounts.sales]\nvendor = "calendly"\n'
BY_ENVIRONMENT = {
    "INGEST_PUBLIC_URL": "https://hooks.example.com",
    "INGEST_ACCOUNTS__SALES__VENDOR": "calendly",
    "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": "new,old",
}


def warehouse(name: str) -> str:
    """Return settings that differ from others by their warehouse."""
    return f'[warehouse]\ncredentials = "{name}.duckdb"\n'


def which(result: Result) -> str:
    """Return which settings a command read: `status` names the warehouse that it does not find."""
    assert result.code == 1, result  # nothing runs, which `status` reports
    error: str = result.json["warehouse"]["nothing"]
    return Path(error.rsplit(maxsplit=1)[-1]).stem


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Return a folder with two settings files, one of them under the usual name."""
    (tmp_path / "ingest.toml").write_text(warehouse("usual"))
    (tmp_path / "other.toml").write_text(warehouse("other"))
    return tmp_path


def test_the_usual_file_is_read_unless_another_is_named(two: Path) -> None:
    assert which(ingest(two, "status", "--json")) == "usual"


def test_a_file_may_be_named_after_the_command(two: Path) -> None:
    assert which(ingest(two, "status", "--json", "--config", "other.toml")) == "other"


def test_a_file_may_be_named_before_the_command(two: Path) -> None:
    assert which(ingest(two, "--config", "other.toml", "status", "--json")) == "other"


def test_a_file_may_be_named_by_the_environment(two: Path) -> None:
    assert which(ingest(two, "status", "--json", INGEST_CONFIG="other.toml")) == "other"


def test_the_command_line_wins_over_the_environment(two: Path) -> None:
    assert (
        which(ingest(two, "--config", "ingest.toml", "status", "--json", INGEST_CONFIG="other.toml"))
        == "usual"
    )


def test_the_environments_value_wins_over_the_files(two: Path) -> None:
    assert (
        which(ingest(two, "status", "--json", INGEST_WAREHOUSE__CREDENTIALS="environment.duckdb"))
        == "environment"
    )


def test_no_file_is_needed_where_the_environment_says_it_all(tmp_path: Path) -> None:
    result = ingest(tmp_path, "check", "--json", **BY_ENVIRONMENT)
    assert result.code == 0, result
    assert result.json["webhook_urls"] == {"sales": ["https://hooks.example.com/webhooks/calendly/sales"]}


def test_a_file_that_is_not_there_is_refused_with_the_remedy(tmp_path: Path) -> None:
    message = refused(ingest(tmp_path, "status", "--config", "nowhere.toml"))
    assert "nowhere.toml" in message
    assert "ingest init" in message


@pytest.mark.parametrize(
    ("file", "environ", "culprit"),
    [
        (
            SALES + 'tolerence = "5m"\n',
            {},
            "unknown setting accounts.sales.tolerence: did you mean accounts.sales.tolerance?",
        ),
        (
            "",
            {"INGEST_RECEIVER__PROT": "1"},
            "unknown setting INGEST_RECEIVER__PROT: did you mean receiver.port?",
        ),
    ],
)
def test_an_unknown_setting_is_refused_with_what_was_probably_meant(
    tmp_path: Path, file: str, environ: dict[str, str], culprit: str
) -> None:
    (tmp_path / "ingest.toml").write_text(file)
    assert refused(ingest(tmp_path, "status", **environ)) == culprit


@pytest.mark.parametrize("command", ["up", "receive"])
def test_without_a_webhook_secret_nothing_starts_and_the_variable_is_named(
    tmp_path: Path, command: str
) -> None:
    (tmp_path / "ingest.toml").write_text(SALES)
    assert "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS" in refused(ingest(tmp_path, command))
    assert [path.name for path in tmp_path.iterdir()] == ["ingest.toml"]


def test_check_finds_everything_that_is_wrong_at_once(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").write_text(
        f'public_url = "http://hooks.example.com"\nlog = "kafka://127.0.0.1:1"\n{warehouse("folder")}{SALES}'
    )
    (tmp_path / "folder.duckdb").mkdir()
    result = ingest(tmp_path, "check")
    assert (result.code, result.err) == (1, "")
    assert (
        "FAIL accounts: no webhook secret for account sales: set INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS"
        in result.out
    )
    assert "FAIL public url: http://hooks.example.com is not https" in result.out
    assert (
        "FAIL log: Kafka at 127.0.0.1:1: no connection (Connection refused): is the broker running"
        in result.out
    )
    assert "FAIL warehouse: " in result.out


def test_a_secret_in_the_open_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").write_text(SALES + 'webhook_secrets = ["the-secret-itself"]\n')
    message = refused(ingest(tmp_path, "check"))
    assert "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS" in message
    assert "the-secret-itself" not in message
