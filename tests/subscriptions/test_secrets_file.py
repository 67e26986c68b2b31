"""The secrets file, changed: comments stay, it is never half there, and only its owner reads it."""

import os
import threading
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import is_above_file, load_settings

BEFORE = """\
# of the whole company

[accounts.sales]   # Calendly
api_token = "token"
webhook_secrets = ["old"]  # from the form

[accounts.support]
webhook_secrets = ["theirs"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "ingest.secrets.toml"
    found.touch(0o600)
    found.write_text(BEFORE)
    return found


def test_a_new_secret_is_the_first_and_everything_else_stays(path: Path) -> None:
    SecretsFile(path).add("sales", "new", ())
    assert path.read_text() == BEFORE.replace('["old"]', '["new", "old"]')
    assert path.stat().st_mode & 0o777 == 0o600


def test_one_that_is_there_is_not_there_twice(path: Path) -> None:
    SecretsFile(path).add("sales", "old", ())
    assert SecretsFile(path).live("sales") == ("old",)


def test_a_dropped_one_is_gone_and_the_others_stay(path: Path) -> None:
    file = SecretsFile(path)
    file.add("sales", "new", ())
    file.drop("sales", ["old"])
    assert (file.live("sales"), file.live("support")) == (("new",), ("theirs",))


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ingest.secrets.toml"
    before = os.umask(0)
    try:
        SecretsFile(path).add("sales", "new", ["of-the-settings"])
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "ingest.toml").write_text('[accounts.sales]\nvendor = "calendly"\n')
    found = load_settings(str(tmp_path / "ingest.toml"), environ={}).accounts["sales"]
    assert found.live_secrets() == ("new", "of-the-settings")


def test_one_text_with_commas_is_a_list(path: Path) -> None:
    path.write_text('[accounts.sales]\nwebhook_secrets = "one, two"\n')
    SecretsFile(path).add("sales", "new", ())
    assert SecretsFile(path).live("sales") == ("new", "one", "two")


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    SecretsFile(link).add("sales", "new", ())
    assert link.is_symlink()
    assert SecretsFile(path).live("sales") == ("new", "old")


def test_what_cannot_be_read_is_not_written_over(path: Path) -> None:
    path.write_text("[accounts.sales\nsecret-in-a-broken-line")
    with pytest.raises(ConfigurationError, match="cannot be read") as refused:
        SecretsFile(path).add("sales", "new", ())
    assert "secret-in" not in str(refused.value)
    assert path.read_text().startswith("[accounts.sales\n")


def test_a_file_that_cannot_be_written_is_said_with_a_way_out(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--print-secrets"):
        SecretsFile(path / "in-a-file" / "ingest.secrets.toml").check()


def test_many_at_once_lose_nothing(path: Path) -> None:
    added = [f"secret-{number}" for number in range(8)]
    threads = [threading.Thread(target=SecretsFile(path).add, args=("sales", secret, ())) for secret in added]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*SecretsFile(path).live("sales")} == {"old", *added}
    assert [found.name for found in path.parent.iterdir() if not found.name.endswith(".lock")] == [path.name]


def test_what_the_environment_or_a_mounted_file_has_is_above_the_file(tmp_path: Path) -> None:
    name = "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS"
    asked = ("accounts", "sales", "webhook_secrets")
    assert is_above_file(*asked, environ={name: "x"})
    assert not is_above_file(*asked, environ={"INGEST_ACCOUNTS__SALES__API_TOKEN": "x", "INGEST_ACCOUNTS__SUPPORT__WEBHOOK_SECRETS": "x"})
    (tmp_path / name).write_text("x")
    assert is_above_file(*asked, environ={"INGEST_SECRETS_DIR": str(tmp_path)})
