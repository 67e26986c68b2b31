"""The secrets file, changed: comments stay, it is never half there, and only its owner reads it."""

import os
import threading
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ingest.errors import ConfigurationError
from ingest.files import _new_copy, remove_left_copies, replace_private
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import is_above_file, load_settings
from tests.support.processes import PythonProcess

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
    file = tmp_path / "ingest.secrets.toml"
    file.touch(0o600)
    file.write_text(BEFORE)
    return file


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
    account = load_settings(str(tmp_path / "ingest.toml"), environ={}).accounts["sales"]
    assert account.live_secrets() == ("new", "of-the-settings")


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
        SecretsFile(path / "in-a-file" / "ingest.secrets.toml").check("sales")


def test_many_at_once_lose_nothing(path: Path) -> None:
    added = [f"secret-{number}" for number in range(8)]
    threads = [threading.Thread(target=SecretsFile(path).add, args=("sales", secret, ())) for secret in added]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*SecretsFile(path).live("sales")} == {"old", *added}
    assert [file.name for file in path.parent.iterdir() if not file.name.endswith(".lock")] == [path.name]


def test_what_the_environment_or_a_mounted_file_has_is_above_the_file(tmp_path: Path) -> None:
    name = "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS"
    key = ("accounts", "sales", "webhook_secrets")
    assert is_above_file(*key, environ={name: "x"})
    assert not is_above_file(
        *key,
        environ={"INGEST_ACCOUNTS__SALES__API_TOKEN": "x", "INGEST_ACCOUNTS__SUPPORT__WEBHOOK_SECRETS": "x"},
    )
    (tmp_path / name).write_text("x")
    assert is_above_file(*key, environ={"INGEST_SECRETS_DIR": str(tmp_path)})


@pytest.mark.parametrize(
    "text",
    [
        'accounts.sales.api_token = "t"\naccounts.other.api_key = "k"\n',
        'accounts = {sales = {api_token = "t"}, other = {api_key = "k"}}\n',
        '[accounts]\nsales = {api_token = "t"} # c\nother = {api_key = "k"}\n',
        '[accounts]\nsales.api_token = "t"\nother.api_key = "k"\n\n[kafka]\npassword = "p"\n',
        '[accounts.other]\napi_key = "k"\n\n[kafka]\npassword = "p"\n\n[accounts.sales]\napi_token = "t"\n',
        '# c\r\n[accounts.sales]\r\napi_token = "t"\r\n\r\n[kafka]\r\npassword = "p"\r\n',
        '[kafka]\npassword = "p"',
    ],
    ids=[
        "dotted",
        "inline",
        "inline in a table",
        "dotted in a table",
        "apart",
        "of Windows",
        "no end of line",
    ],
)
def test_however_it_is_written_nothing_but_the_secrets_changes(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
    before = tomllib.loads(text)
    file = SecretsFile(path)
    file.check("sales")
    file.add("sales", "older", ())
    file.add("sales", "new", ())
    before.setdefault("accounts", {}).setdefault("sales", {})["webhook_secrets"] = ["new", "older"]
    assert tomllib.loads(path.read_text()) == before


@pytest.mark.parametrize(
    "text",
    [
        'accounts.sales.api_token = "t"\naccounts.other.api_key = "k"\n',
        'accounts = {sales = {api_token = "t"}}\n',
    ],
    ids=["dotted", "inline"],
)
def test_where_an_account_cannot_be_added_safely_that_is_said_before_and_nothing_changes(
    path: Path, text: str
) -> None:
    path.write_text(text)
    file = SecretsFile(path)
    changes: list[Callable[[], object]] = [
        partial(file.check, "support"),
        partial(file.add, "support", "new", ()),
    ]
    for change in changes:
        with pytest.raises(ConfigurationError, match=r"below a line like \[accounts.support\]"):
            change()
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        'accounts = "x"\n',
        "[accounts]\nsales = 3\n",
        "[accounts.sales]\nwebhook_secrets = 3\n",
        "[accounts.sales]\nwebhook_secrets = [1]\n",
    ],
)
def test_what_is_not_what_it_should_be_is_said_and_left(path: Path, text: str) -> None:
    path.write_text(text)
    file = SecretsFile(path)
    changes: list[Callable[[], object]] = [
        partial(file.live, "sales"),
        partial(file.add, "sales", "new", ()),
        partial(file.check, "sales"),
    ]
    for change in changes:
        with pytest.raises(ConfigurationError, match="must be a"):
            change()
    assert path.read_text() == text


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator can give files to somebody")
def test_the_owner_stays_and_where_that_is_not_allowed_nothing_is_written() -> None:
    with TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        path = Path(folder, "ingest.secrets.toml")
        path.parent.chmod(0o777)
        path.write_text(BEFORE)
        os.chown(path, 65534, 65533)
        SecretsFile(path).add("sales", "new", ())
        assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (65534, 65533, 0o600)
        before = path.read_bytes()
        os.seteuid(65532)
        try:
            with pytest.raises(ConfigurationError, match="belongs to user 65534"):
                replace_private(path, b"")
        finally:
            os.seteuid(0)
        assert path.read_bytes() == before
        assert not list(path.parent.glob(".*"))


def test_what_fails_half_way_leaves_no_copy_of_the_secrets(path: Path) -> None:
    folder = path.parent / "in-the-way"
    (folder / "something").mkdir(parents=True)
    with pytest.raises(OSError, match="in-the-way"):
        replace_private(folder, b"secret")
    assert not list(path.parent.glob(".in-the-way-*"))


def test_a_copy_that_a_killed_writer_left_is_removed_and_that_of_one_that_lives_is_not(path: Path) -> None:
    orphan, another = path.parent / f".{path.name}-abcd_123", path.parent / ".another.toml-abcd_123"
    orphan.write_text("[accounts.sales]")
    another.write_text("somebody's")
    with _new_copy(path) as living:
        remove_left_copies(path)
        assert Path(living.name).exists()
    Path(living.name).unlink()
    assert not orphan.exists()
    assert another.exists()


def test_a_writer_that_is_killed_leaves_a_copy_that_the_next_one_removes(path: Path) -> None:
    with PythonProcess(_WRITER, str(path)) as writer:
        assert writer.read_line() == "written"
        assert len(list(path.parent.glob(f".{path.name}-*"))) == 1
        remove_left_copies(path)
        assert len(list(path.parent.glob(f".{path.name}-*"))) == 1, "it lives"
    SecretsFile(path).add("sales", "new", ())
    assert not list(path.parent.glob(f".{path.name}-*"))


_WRITER = """
import sys, time
from pathlib import Path
from ingest.files import _new_copy
with _new_copy(Path(sys.argv[1])) as new:
    new.write(b"secret")
    new.flush()
    print("written", flush=True)
    time.sleep(600)
"""
