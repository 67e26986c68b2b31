"""From an empty folder to settings that work, without an edit, and without ever harming what is there."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from ingest.cli.init import init
from ingest.errors import ConfigurationError
from ingest.settings.introspection import TITLE
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import load_settings
from ingest.vendors import ranked_account_classes
from tests.support.processes import ingest, refused

CONFIG, SECRETS, SCHEMA = "ingest.toml", "ingest.secrets.toml", "ingest.schema.json"
# The example account of each vendor.
EXAMPLES = {
    (vendor.example.account if vendor.example else vendor.vendor): vendor.vendor
    for vendor in ranked_account_classes()
}


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def secret(folder: Path) -> str:
    return load_settings(str(folder / CONFIG), environ={}).accounts["sales"].live_secrets()[0]


def init_here(folder: Path, name: str = CONFIG) -> None:
    """Run the command in this process."""
    init(folder / name, "https://hooks.example.org")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which `init` has run, where new files may be read by all."""
    folder = tmp_path_factory.mktemp("written")
    result = ingest(folder, "init", "--public-url", "https://hooks.example.org")
    assert result.code == 0
    assert "ingest check" in result.out
    assert secret(folder) not in result.out
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder that a test may change."""
    return shutil.copytree(written, tmp_path / "copy")


def test_both_files_are_written_and_no_one_else_reads_the_secrets(written: Path) -> None:
    assert set(files(written)) == {CONFIG, SECRETS, SCHEMA}
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
        offline = re.sub(
            r"^# api_.*\n", "", text, flags=re.MULTILINE
        )  # with a key, `check` would ask the vendor
        (folder / name).write_text(re.sub(r"^# (?=\[|\w+ += )", "", offline, flags=re.MULTILINE))
    result = ingest(folder, "check", "--json")
    assert result.code == 0, result
    assert [finding["check"] for finding in result.json["checks"] if finding["ok"]] == [
        "accounts",
        "listeners",
        "folders",
        "disk",
        "public url",
        "clock",
        "log",
        "feed",
        "spool",
        *(f"REST {account}" for account in EXAMPLES),
        "warehouse",
        "warehouse load",
        "tables",
        *(f"webhooks {account}" for account in EXAMPLES),
    ]
    skipped = {finding["check"]: finding["detail"] for finding in result.json["checks"] if finding["skipped"]}
    assert set(skipped) == {
        "clock",
        "spool",
        *(f"REST {account}" for account in EXAMPLES),
    }
    assert skipped["REST tours"].startswith("not configured: reconcile and sync leave this account out")
    assert skipped["REST tours"].endswith("set its secret_key + api_key")
    tours = "https://hooks.example.org/webhooks/bookeo/tours?domain=bookings&type="
    assert result.json["webhook_urls"] == {
        **{
            account: [f"https://hooks.example.org/webhooks/{EXAMPLES[account]}/{account}"]
            for account in EXAMPLES
        },
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
    assert set(files(tmp_path)) == {"staging.toml", "staging.secrets.toml", SCHEMA}


def test_what_init_writes_is_valid_in_an_editor_that_reads_the_schema_beside_it(written: Path) -> None:
    text = (written / CONFIG).read_text()
    assert text.startswith(f"#:schema ./{SCHEMA}\n")
    validator = Draft7Validator(json.loads((written / SCHEMA).read_text()))
    examples = re.sub(r"^# (?=\[|\w+ += )", "", text, flags=re.MULTILINE)
    for settings in (text, examples):
        assert [error.message for error in validator.iter_errors(tomllib.loads(settings))] == []
    assert len(tomllib.loads(examples)["accounts"]) == len(EXAMPLES)


def test_the_schema_can_be_printed(written: Path, tmp_path: Path) -> None:
    result = ingest(tmp_path, "init", "--schema")
    assert (result.code, result.out) == (0, (written / SCHEMA).read_text())
    assert files(tmp_path) == {}


def test_a_schema_of_an_earlier_init_is_replaced_and_another_file_is_not(tmp_path: Path) -> None:
    (tmp_path / SCHEMA).write_text(json.dumps({"title": TITLE}))
    init_here(tmp_path)
    assert "receiver" in (tmp_path / SCHEMA).read_text()
    (tmp_path / SCHEMA).write_text("{}")
    with pytest.raises(ConfigurationError, match=f"{SCHEMA} exist"):
        init_here(tmp_path, "other.toml")
    assert (tmp_path / SCHEMA).read_text() == "{}"


@pytest.mark.parametrize("before", [None, "", "*.log", "*.log\n", "/data/\n*.log\n"])
def test_in_a_git_repository_secrets_and_data_are_ignored(tmp_path: Path, before: str | None) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    folder = tmp_path / "deploy"
    (folder / "data").mkdir(parents=True)
    if before is not None:
        (folder / ".gitignore").write_text(before)
    init_here(folder)
    SecretsFile(folder / SECRETS).add("sales", "new", ())  # with its lock
    (folder / "data" / "log.db").touch()
    listing = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert sorted(listing.split()[1::2]) == [f"deploy/{name}" for name in (".gitignore", SCHEMA, CONFIG)]
    lines = (folder / ".gitignore").read_text().splitlines()
    assert lines[: len((before or "").splitlines())] == (before or "").splitlines()
    assert len(lines) == len(set(lines))


def test_outside_of_a_git_repository_there_is_no_gitignore(written: Path) -> None:
    assert not (written / ".gitignore").exists()


@pytest.mark.parametrize(
    "url", ["hooks.example.com", "ftp://hooks.example.com", "https://me:hunter2@hooks.example.com"]
)
def test_an_address_that_vendors_cannot_use_is_refused_with_an_example(tmp_path: Path, url: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"--public-url .*write for example https://hooks\.example\.com"
    ) as raised:
        init(tmp_path / CONFIG, url)
    assert "hunter2" not in str(raised.value)
    assert files(tmp_path) == {}


def test_an_address_without_tls_is_refused_unless_it_is_this_machine(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="https address only"):
        init(tmp_path / CONFIG, "http://hooks.example.com")
    assert files(tmp_path) == {}
    init(tmp_path / CONFIG, "http://127.0.0.1:8080")
    assert CONFIG in files(tmp_path)


def test_a_folder_that_is_not_there_is_a_message_not_a_crash(tmp_path: Path) -> None:
    assert "conf/ingest.toml cannot be written" in refused(ingest(tmp_path, "init", "conf/ingest.toml"))
