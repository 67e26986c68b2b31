"""From an empty folder to settings that work, without an edit, and without ever harming what is there."""

import re
import shutil
from pathlib import Path

import pytest

from ingest.settings.sources import load_settings
from tests.cli.command import ingest, refused

CONFIG, SECRETS = "ingest.toml", "ingest.secrets.toml"


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def secret(folder: Path) -> str:
    return load_settings(str(folder / CONFIG), environ={}).accounts["sales"].live_secrets()[0]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `init` makes of an empty folder, where new files may be read by all."""
    folder = tmp_path_factory.mktemp("written")
    result = ingest(folder, "init", "--public-url", "https://hooks.example.org")
    assert result.code == 0
    assert "ingest check" in result.out
    assert secret(folder) not in result.out
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to do things with."""
    return shutil.copytree(written, tmp_path / "copy")


def test_both_files_are_written_and_no_one_else_reads_the_secrets(written: Path) -> None:
    assert set(files(written)) == {CONFIG, SECRETS}
    assert mode(written / SECRETS) == 0o600
    assert secret(written) not in (written / CONFIG).read_text()
    assert len(secret(written)) >= 32


def test_what_init_writes_passes_check_as_it_is(folder: Path) -> None:
    result = ingest(folder, "check")
    assert (result.code, result.err) == (0, "")
    assert "FAIL" not in result.out
    assert "skip REST sales: not configured: reconcile and sync leave this account out" in result.out
    assert "https://hooks.example.org/webhooks/calendly/sales" in result.out


def test_the_examples_in_the_files_are_right_for_every_vendor(folder: Path) -> None:
    for name, text in files(folder).items():
        offline = re.sub(r"^# api_.*\n", "", text, flags=re.MULTILINE)  # with a key, `check` would ask the vendor
        (folder / name).write_text(re.sub(r"^# (?=\[|\w+ += )", "", offline, flags=re.MULTILINE))
    result = ingest(folder, "check", "--json")
    assert result.code == 0, result
    assert [finding["check"] for finding in result.json["checks"] if finding["ok"]] == [
        "accounts",
        "public url",
        "listeners",
        "log",
        "spool",
        "warehouse",
        *(f"REST {account}" for account in ("sales", "support", "salon", "tours")),
        "webhooks salon",
    ]
    skipped = {finding["check"]: finding["detail"] for finding in result.json["checks"] if finding["skipped"]}
    assert set(skipped) == {f"REST {account}" for account in ("sales", "support", "salon", "tours")}
    assert skipped["REST tours"].startswith("not configured: reconcile and sync leave this account out")
    assert skipped["REST tours"].endswith("set its secret_key + api_key")
    tours = "https://hooks.example.org/webhooks/bookeo/tours?domain=bookings&type="
    assert result.json["webhook_urls"] == {
        "sales": ["https://hooks.example.org/webhooks/calendly/sales"],
        "support": ["https://hooks.example.org/webhooks/oncehub/support"],
        "salon": ["https://hooks.example.org/webhooks/appointedd/salon"],
        "tours": [tours + "created", tours + "updated", tours + "deleted"],
    }


def test_files_that_are_there_are_left_alone(folder: Path) -> None:
    before = files(folder)
    message = refused(ingest(folder, "init"))
    assert CONFIG in message
    assert "--force" in message
    assert files(folder) == before


def test_secrets_alone_are_reason_enough_to_refuse(tmp_path: Path) -> None:
    (tmp_path / SECRETS).write_text("mine")
    assert SECRETS in refused(ingest(tmp_path, "init"))
    assert files(tmp_path) == {SECRETS: "mine"}


def test_force_replaces_both_and_makes_private_what_was_not(folder: Path) -> None:
    before = secret(folder)
    (folder / SECRETS).chmod(0o644)
    assert ingest(folder, "init", "--force").code == 0
    assert mode(folder / SECRETS) == 0o600
    assert secret(folder) != before


def test_another_name_has_its_own_secrets_beside_it(tmp_path: Path) -> None:
    assert ingest(tmp_path, "init", "staging.toml").code == 0
    assert set(files(tmp_path)) == {"staging.toml", "staging.secrets.toml"}


def test_a_folder_that_is_not_there_is_a_message_not_a_crash(tmp_path: Path) -> None:
    assert "conf/ingest.toml cannot be written" in refused(ingest(tmp_path, "init", "conf/ingest.toml"))
