"""Files as editors of other systems and Kubernetes leave them."""

import codecs
import os
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import load_settings
from tests.ingest.settings.test_settings import SALES, account, fault, load, write

SECRETS = '[accounts.sales]\nwebhook_secrets = ["new", "old"]\n'
VARIABLE = "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS"
WINDOWS = [codecs.BOM_UTF8, b""]


def encoded(text: str, mark: bytes) -> bytes:
    return mark + text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("mark", WINDOWS)
class TestWindows:
    """A byte order mark, or not, and line ends of two characters."""

    def test_settings_and_secrets_are_read(self, folder: Path, mark: bytes) -> None:
        (folder / "ingest.toml").write_bytes(encoded(SALES, mark))
        (folder / "ingest.secrets.toml").touch(0o600)
        (folder / "ingest.secrets.toml").write_bytes(encoded(SECRETS, mark))
        assert account(load()).live_secrets() == ("new", "old")

    def test_a_mounted_secret_is_read(self, folder: Path, mark: bytes) -> None:
        write(SALES)
        (folder / VARIABLE).write_bytes(encoded("new,old\n", mark))
        assert account(load(INGEST_SECRETS_DIR=".")).live_secrets() == ("new", "old")

    def test_secrets_are_changed_in_such_a_file(self, folder: Path, mark: bytes) -> None:
        (folder / "ingest.secrets.toml").write_bytes(encoded(SECRETS, mark))
        file = SecretsFile(folder / "ingest.secrets.toml")
        file.add("sales", "newest", ())
        assert file.live("sales") == ("newest", "new", "old")


@pytest.mark.parametrize("name", ["ingest.toml", "ingest.secrets.toml", VARIABLE])
def test_a_file_in_utf_16_is_told_with_the_remedy(folder: Path, name: str) -> None:
    write(SALES, "")
    (folder / name).write_bytes("a = 'b'".encode("utf-16"))
    message = fault(INGEST_SECRETS_DIR=str(folder))
    assert name in message
    assert "it is not UTF-8 but UTF-16; save it as UTF-8" in message


class TestKubernetes:
    """Secrets as files of a pod.

    https://kubernetes.io/docs/concepts/configuration/secret/#using-secrets-as-files-from-a-pod
    """

    @staticmethod
    def mount(folder: Path, name: str, text: str, mode: int) -> Path:
        """Write a file as a Secret's volume has it: a link through `..data`."""
        (folder / "..2026").mkdir(parents=True)
        (folder / "..2026" / name).write_text(text)
        (folder / "..2026" / name).chmod(mode)
        (folder / "..data").symlink_to("..2026")
        (folder / name).symlink_to(f"..data/{name}")
        return folder / name

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o440, 0o400])
    def test_a_mounted_secret_is_read_whatever_its_mode(self, folder: Path, mode: int) -> None:
        write(SALES)
        self.mount(folder / "mounted", VARIABLE, "new,old\n", mode)
        assert account(load(INGEST_SECRETS_DIR="mounted")).live_secrets() == ("new", "old")

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o440])
    def test_a_mounted_secrets_file_is_read_whatever_its_mode(self, folder: Path, mode: int) -> None:
        self.mount(folder / "etc", "ingest.secrets.toml", SECRETS, mode)
        (folder / "etc" / "ingest.toml").write_text(SALES)
        assert account(load(INGEST_CONFIG="etc/ingest.toml")).live_secrets() == ("new", "old")

    def test_another_link_to_a_file_that_others_may_read_is_refused(self, folder: Path) -> None:
        write(SALES)
        (folder / "secrets").write_text(SECRETS)
        (folder / "secrets").chmod(0o644)
        (folder / "ingest.secrets.toml").symlink_to("secrets")
        assert "chmod 600" in fault()

    def test_a_mounted_settings_file_has_its_data_beside_the_link(self, folder: Path) -> None:
        self.mount(folder / "etc", "ingest.toml", SALES, 0o644)
        assert load(INGEST_CONFIG="etc/ingest.toml").log == f"sqlite:///{folder}/etc/data/log.db"

    def test_folders_and_other_files_beside_the_secrets_are_not_read(self, folder: Path) -> None:
        write(SALES)
        self.mount(folder / "mounted", VARIABLE, "new", 0o644)
        (folder / "mounted" / "INGEST_FOLDER").mkdir()
        (folder / "mounted" / "tls.crt").write_bytes(b"\xff")
        assert account(load(INGEST_SECRETS_DIR="mounted")).live_secrets() == ("new",)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator can be somebody else for a moment")
    def test_a_secret_that_may_not_be_read_is_told_by_its_name(self, folder: Path) -> None:
        for parent in (folder, *folder.parents[:3]):
            parent.chmod(0o755)
        path = self.mount(folder / "mounted", VARIABLE, "hunter2", 0o400)
        os.seteuid(65534)
        try:
            with pytest.raises(ConfigurationError, match="Permission denied") as raised:
                load_settings(environ={"INGEST_SECRETS_DIR": str(folder / "mounted")})
        finally:
            os.seteuid(0)
        assert str(path) in str(raised.value)


@pytest.mark.parametrize("config", ["elsewhere", "ingest.toml/nested.toml"])
def test_a_settings_file_that_is_not_there_is_told_with_its_folder(folder: Path, config: str) -> None:
    write(SALES)
    assert str(folder) in fault(INGEST_CONFIG=config)


def test_a_folder_is_not_a_settings_file(folder: Path) -> None:
    (folder / "etc").mkdir()
    assert (
        fault(INGEST_CONFIG="etc")
        == f"etc in {folder} is not a file: name the settings file, for example etc/ingest.toml"
    )
