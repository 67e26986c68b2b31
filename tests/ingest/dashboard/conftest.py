"""A dashboard over a folder of its own, asked as a browser would."""

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ingest.dashboard.app import build_app
from ingest.settings import Settings
from tests.support.settings import Tree, settings_tree

ADDRESS = "http://127.0.0.1:8084"
Browse = Callable[..., TestClient]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return settings with two accounts, where nothing runs and nothing was loaded."""
    accounts = {
        "sales": {"vendor": "calendly", "webhook_secrets": ["s"]},
        "tours": {"vendor": "bookeo", "secret_key": "k", "api_key": "a"},
    }
    return settings_tree(tmp_path) | {
        "accounts": accounts,
        "receiver": {"admin_port": 0},
        "reconcile": {"admin_port": 0, "state_dir": str(tmp_path / "reconcile")},
    }


@pytest.fixture
def browse(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Browse:
    """Return a function that opens a browser at a dashboard with these further settings of its section."""
    monkeypatch.chdir(tmp_path)

    def open_browser(**dashboard: object) -> TestClient:
        settings = Settings.model_validate(tree | {"dashboard": {"port": 0, **dashboard}})
        return TestClient(
            build_app(settings), base_url=ADDRESS, follow_redirects=False, raise_server_exceptions=False
        )

    return open_browser
