"""Relative paths belong to the folder of the settings file.

They do whatever they are for and wherever they are written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ingest.errors import ConfigurationError
from ingest.settings import Settings
from ingest.settings.sources import load_settings


class PathSetting(NamedTuple):
    """A setting that is a path, with its default and how it is read."""

    name: str
    default: str | None
    value: Callable[[Settings], object]


PATHS = [
    PathSetting("log", "data/log.db", lambda settings: settings.build_log().file),
    PathSetting("receiver.spool_dir", "data/spool", lambda settings: settings.receiver.spool_dir),
    PathSetting(
        "warehouse.credentials", "data/warehouse.duckdb", lambda settings: settings.warehouse.duckdb_file
    ),
    PathSetting("warehouse.work_dir", "data/dlt", lambda settings: settings.warehouse.work_dir),
    PathSetting("reconcile.state_dir", "data/reconcile", lambda settings: settings.reconcile.state_dir),
    PathSetting("kafka.ssl_cafile", None, lambda settings: settings.kafka.ssl_cafile),
    PathSetting("kafka.ssl_certfile", None, lambda settings: settings.kafka.ssl_certfile),
    PathSetting("kafka.ssl_keyfile", None, lambda settings: settings.kafka.ssl_keyfile),
]


def text(name: str, path: str) -> str:
    return f"sqlite:///{path}" if name == "log" else path


def toml(name: str, path: str) -> str:
    section, _, key = name.rpartition(".")
    return (f"[{section}]\n" if section else "") + f'{key} = "{text(name, path)}"\n'


def variable(name: str, path: str) -> dict[str, str]:
    return {"INGEST_" + name.upper().replace(".", "__"): text(name, path)}


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """Return a folder with an empty settings file, which is not where the tests are started."""
    (tmp_path / "product").mkdir()
    (tmp_path / "product" / "ingest.toml").touch()
    return tmp_path / "product"


@pytest.mark.parametrize("setting", PATHS, ids=[setting.name for setting in PATHS])
class TestEveryPath:
    """Each setting that is one."""

    @pytest.mark.parametrize(
        ("path", "expected"),
        [("a/b", "product/a/b"), ("./b", "product/b"), ("../b", "b"), ("b c", "product/b c")],
    )
    def test_a_relative_path_is_below_the_settings_file(
        self, product: Path, setting: PathSetting, path: str, expected: str
    ) -> None:
        (product / "ingest.toml").write_text(toml(setting.name, path))
        for config in ("product/ingest.toml", str(product / "ingest.toml")):
            assert str(setting.value(load_settings(config, {}))) == str(product.parent / expected)

    def test_one_from_the_environment_is_too(self, product: Path, setting: PathSetting) -> None:
        assert str(setting.value(load_settings("product/ingest.toml", variable(setting.name, "x/y")))) == str(
            product / "x" / "y"
        )

    def test_without_a_file_it_is_below_the_working_folder(
        self, tmp_path: Path, setting: PathSetting
    ) -> None:
        assert str(setting.value(load_settings(environ=variable(setting.name, "x/y")))) == str(
            tmp_path / "x" / "y"
        )

    def test_an_absolute_path_stays(self, product: Path, setting: PathSetting) -> None:
        (product / "ingest.toml").write_text(toml(setting.name, "/var/lib/x"))
        assert str(setting.value(load_settings("product/ingest.toml", {}))) == "/var/lib/x"

    def test_a_path_may_begin_with_the_users_home(
        self, product: Path, monkeypatch: pytest.MonkeyPatch, setting: PathSetting
    ) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        (product / "ingest.toml").write_text(toml(setting.name, "~/x"))
        assert str(setting.value(load_settings("product/ingest.toml", {}))) == "/home/me/x"

    def test_the_default_is_below_the_settings_file(self, product: Path, setting: PathSetting) -> None:
        value = setting.value(load_settings("product/ingest.toml", {}))
        assert value is None if setting.default is None else str(value) == str(product / setting.default)


@pytest.mark.parametrize(
    ("credentials", "file"),
    [
        ("duckdb:///x.duckdb", "product/x.duckdb"),
        ("duckdb:////var/x.duckdb", "/var/x.duckdb"),
        (":memory:", None),
        ("duckdb:///:memory:", None),
        ("md:bookings", None),
    ],
)
def test_duckdb_is_named_by_a_path_a_url_or_what_is_no_file(
    product: Path, credentials: str, file: str | None
) -> None:
    (product / "ingest.toml").write_text(f'[warehouse]\ncredentials = "{credentials}"')
    path = load_settings("product/ingest.toml", {}).warehouse.duckdb_file
    assert path == (product.parent / file if file else None)


def test_credentials_of_another_destination_are_no_path(product: Path) -> None:
    (product / "ingest.toml").write_text('[warehouse]\ndestination = "snowflake"\ncredentials = "x/y"')
    credentials = load_settings("product/ingest.toml", {}).warehouse.credentials
    assert credentials
    assert credentials.get_secret_value() == "x/y"


def test_the_file_of_an_iceberg_catalog_is_below_the_settings_file(product: Path) -> None:
    (product / "ingest.toml").write_text(
        '[warehouse]\ndestination = "filesystem"\ntable_format = "iceberg"\ncatalog = "sqlite:///lake/c.db"'
    )
    catalog = load_settings("product/ingest.toml", {}).warehouse.catalog
    assert catalog
    assert catalog.get_secret_value() == f"sqlite:///{product}/lake/c.db"


def test_parent_folders_are_not_searched_for_a_settings_file(
    product: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (product / "below").mkdir()
    monkeypatch.chdir(product / "below")
    with pytest.raises(ConfigurationError, match=f"no file {product}/below/ingest.toml"):
        load_settings(environ={})
