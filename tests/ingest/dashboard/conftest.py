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


def tree_in(folder: Path) -> Tree:
    """Return settings with two accounts, of which everything is in this folder."""
    accounts = {
        "sales": {"vendor": "calendly", "webhook_secrets": ["s"]},
        "support": {"vendor": "oncehub", "webhook_secrets": ["s"]},
    }
    return settings_tree(folder) | {
        "accounts": accounts,
        "receiver": {"admin_port": 0},
        "reconcile": {"admin_port": 0, "state_dir": str(folder / "reconcile")},
    }


def open_browser(tree: Tree, **dashboard: object) -> TestClient:
    """Open a browser at a dashboard with these further settings of its section."""
    settings = Settings.model_validate(tree | {"dashboard": {"port": 0, **dashboard}})
    return TestClient(
        build_app(settings), base_url=ADDRESS, follow_redirects=False, raise_server_exceptions=False
    )


@pytest.fixture
def dashboard_tree(tmp_path: Path) -> Tree:
    """Return settings with two accounts, where nothing runs and nothing was loaded."""
    return tree_in(tmp_path)


@pytest.fixture
def browse(dashboard_tree: Tree) -> Browse:
    """Return a function that opens a browser at such a dashboard."""
    return lambda **dashboard: open_browser(dashboard_tree, **dashboard)
