"""Tests of making dlt's destination: what cannot work is refused before the first load."""

import sys
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError
from ingest.settings import Settings
from ingest.warehouse.destination import destination


@pytest.mark.parametrize(
    ("name", "url", "module"),
    [
        ("sqlalchemy", "mysql+pymysql://user:secret@127.0.0.1/db", "sqlalchemy"),
        ("mssql", "mssql://user:secret@127.0.0.1/db", "pyodbc"),
    ],
)
def test_a_missing_package_is_named(
    name: str, url: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for imported in {module, *(known for known in sys.modules if known.startswith(f"{module}."))}:
        monkeypatch.setitem(sys.modules, imported, None)
    warehouse = {"destination": name, "credentials": url, "untested": True, "work_dir": str(tmp_path)}
    with pytest.raises(ConfigurationError, match=f"needs the Python package {module}") as refusal:
        destination(Settings.model_validate({"warehouse": warehouse}))
    assert "secret" not in str(refusal.value)
