"""The first screen."""

import re

from starlette.testclient import TestClient

from ingest.cli.commands import app
from tests.ingest.dashboard.conftest import Browse
from tests.support.settings import Tree


def test_each_account_has_a_verdict_and_the_json_says_the_same(browse: Browse) -> None:
    browser = browse()
    report = browser.get("/home.json").json()
    assert {account["name"]: account["verdict"] for account in report["accounts"]} == {
        "calendly/sales": "Warning",
        "oncehub/support": "Warning",
    }
    page = browser.get("/").text
    assert "no webhook was ever delivered" in page
    assert "ingest webhooks plan sales" in page
    assert report["command"] == "ingest status"


def test_without_an_account_the_page_says_what_to_do(browse: Browse, dashboard_tree: Tree) -> None:
    dashboard_tree["accounts"] = {}
    assert "ingest init" in browse().get("/").text


def test_every_link_of_the_pages_leads_somewhere(browse: Browse) -> None:
    browser = browse()
    for href in _links(browser, "/"):
        assert browser.get(href).status_code == 200, href


def test_commands_that_the_pages_show_exist(browse: Browse) -> None:
    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    names |= {group.name for group in app.registered_groups}
    browser = browse()
    for href in _links(browser, "/"):
        for line in re.findall(r'data-copy="ingest ([\w-]+)', browser.get(href).text):
            assert line in names


def _links(browser: TestClient, path: str) -> set[str]:
    return {href.replace("&amp;", "&") for href in re.findall(r'href="(/[^"]*)"', browser.get(path).text)}
