"""The accounts of a running receiver, as its files change."""

from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.errors import ConfigurationError
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import load_settings, watched_paths
from receivers.accounts import ReloadingAccounts, accounts_with_secrets
from tests.support.polling import wait_for

pytestmark = pytest.mark.usefixtures("files_checked_at_each_call")

ONE = '[accounts.sales]\nvendor = "calendly"\n'
TWO = ONE + '[accounts.support]\nvendor = "oncehub"\n'
SALES, SUPPORT = ("calendly", "sales"), ("oncehub", "support")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ingest.toml").write_text(ONE)
    SecretsFile(tmp_path / "ingest.secrets.toml").add("sales", "old", ())
    return tmp_path


def accounts(folder: Path, read: Callable[[], None] = lambda: None) -> ReloadingAccounts:
    config = folder / "ingest.toml"

    def load() -> object:
        read()
        return accounts_with_secrets(load_settings(str(config), environ={}))

    return ReloadingAccounts(load, [config, folder / "ingest.secrets.toml"])  # type: ignore[arg-type]  # it is what accounts_with_secrets returns


def live(reloading: ReloadingAccounts) -> tuple[str, ...]:
    return reloading[SALES].settings.live_secrets()


def test_an_account_without_a_secret_does_not_hold_up_the_others(folder: Path) -> None:
    reloading = accounts(folder)
    (folder / "ingest.toml").write_text(TWO)
    SecretsFile(folder / "ingest.secrets.toml").add("sales", "new", ())
    assert live(reloading) == ("new", "old")
    assert list(reloading) == [SALES]


def test_a_new_account_is_live_as_soon_as_it_has_a_secret(folder: Path) -> None:
    reloading = accounts(folder)
    SecretsFile(folder / "ingest.secrets.toml").add("support", "theirs", ())
    assert live(reloading) == ("old",)
    (folder / "ingest.toml").write_text(TWO)
    assert list(reloading) == [SALES, SUPPORT]


def test_settings_that_are_mended_are_enough_for_a_secret_that_came_before(folder: Path) -> None:
    reloading = accounts(folder)
    (folder / "ingest.toml").write_text("[acc")
    SecretsFile(folder / "ingest.secrets.toml").add("sales", "new", ())
    assert live(reloading) == ("old",)
    (folder / "ingest.toml").write_text(ONE)
    assert live(reloading) == ("new", "old")


def test_what_failed_is_read_again_though_no_file_changed(folder: Path) -> None:
    failures = iter([False, True])

    def read() -> None:
        if next(failures, False):
            raise ConfigurationError("half of it")

    reloading = accounts(folder, read)
    SecretsFile(folder / "ingest.secrets.toml").add("sales", "new", ())
    assert live(reloading) == ("old",)
    wait_for(lambda: live(reloading) == ("new", "old"), "it was read again")


@pytest.mark.parametrize("name", ["ingest.toml", "ingest.secrets.toml"])
def test_a_file_that_cannot_even_be_looked_at_changes_nothing_and_is_told(folder: Path, name: str) -> None:
    reloading = accounts(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("x" * 300)  # too long for a file: looking at it fails for everybody, root too
    with capture_logs() as logged:
        assert live(reloading) == ("old",)
        assert live(reloading) == ("old",)
    [line] = logged
    assert (line["event"], line["log_level"]) == ("secrets.not_reloaded", "error")
    assert name in line["why"]


def test_what_nobody_thought_of_changes_nothing_and_is_told_without_what_it_quotes(folder: Path) -> None:
    failures = iter([False, True])

    def read() -> None:
        if next(failures, False):
            raise RuntimeError("a secret")

    reloading = accounts(folder, read)
    SecretsFile(folder / "ingest.secrets.toml").add("sales", "new", ())
    with capture_logs() as logged:
        assert live(reloading) == ("old",)
    assert [line["why"] for line in logged] == ["RuntimeError"]


def test_files_without_any_secret_change_nothing(folder: Path) -> None:
    reloading = accounts(folder)
    (folder / "ingest.secrets.toml").write_text("")
    assert live(reloading) == ("old",)


class TestMounted:
    """A folder of mounted secrets as in Kubernetes: links through `..data`, which one rename swaps."""

    VARIABLE = "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS"

    @pytest.fixture
    def mounted(self, tmp_path: Path) -> Path:
        (tmp_path / "ingest.toml").write_text(ONE)
        folder = tmp_path / "mounted"
        (folder / "..1").mkdir(parents=True)
        (folder / "..1" / self.VARIABLE).write_text("old\n")
        (folder / "..data").symlink_to("..1")
        (folder / self.VARIABLE).symlink_to(f"..data/{self.VARIABLE}")
        return folder

    def swap(self, folder: Path, **files: str) -> None:
        (folder / "..2").mkdir()
        for name, text in files.items():
            (folder / "..2" / name).write_text(text)
        (folder / "..data_tmp").symlink_to("..2")
        (folder / "..data_tmp").rename(folder / "..data")

    def accounts(self, folder: Path) -> ReloadingAccounts:
        environ = {"INGEST_CONFIG": str(folder.parent / "ingest.toml"), "INGEST_SECRETS_DIR": str(folder)}
        return ReloadingAccounts(
            lambda: accounts_with_secrets(load_settings(environ=environ)), watched_paths(environ)
        )

    def test_a_swapped_secret_is_live_at_the_next_look(self, mounted: Path) -> None:
        reloading = self.accounts(mounted)
        assert live(reloading) == ("old",)
        self.swap(mounted, **{self.VARIABLE: "new,old\n"})
        assert live(reloading) == ("new", "old")

    def test_a_secret_that_is_written_over_is_too(self, mounted: Path) -> None:
        reloading = self.accounts(mounted)
        (mounted / "..1" / self.VARIABLE).write_text("another")
        assert live(reloading) == ("another",)

    def test_an_account_whose_secret_is_added_is_live(self, mounted: Path) -> None:
        (mounted.parent / "ingest.toml").write_text(TWO)
        reloading = self.accounts(mounted)
        assert list(reloading) == [SALES]
        (mounted / "INGEST_ACCOUNTS__SUPPORT__WEBHOOK_SECRETS").write_text("theirs")
        assert list(reloading) == [SALES, SUPPORT]

    def test_a_folder_that_is_gone_for_a_moment_changes_nothing(self, mounted: Path) -> None:
        reloading = self.accounts(mounted)
        mounted.rename(mounted.parent / "away")
        assert live(reloading) == ("old",)
        (mounted.parent / "away").rename(mounted)
        self.swap(mounted, **{self.VARIABLE: "new"})
        wait_for(lambda: live(reloading) == ("new",), "the new secret is live")

    def test_nothing_is_read_again_while_nothing_changes(self, mounted: Path) -> None:
        reloading = self.accounts(mounted)
        with capture_logs() as lines:
            assert [live(reloading) for _ in range(3)] == [("old",)] * 3
        assert lines == []
