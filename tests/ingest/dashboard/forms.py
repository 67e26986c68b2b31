"""Forms as a browser fills them in."""

import re
from typing import Any

import httpx
from starlette.testclient import TestClient


def form_token(browser: TestClient, path: str = "/login") -> str:
    """Return the proof that a form of this page has."""
    match = re.search(r'name="form_token" value="(\w+)"', browser.get(path).text)
    assert match
    return match[1]


def submit(browser: TestClient, path: str, **fields: Any) -> httpx.Response:
    """Submit a form of ours, as a browser does that shows our page."""
    origin = str(browser.base_url).rstrip("/")
    data = {"form_token": form_token(browser), **fields}
    answer: httpx.Response = browser.post(path, data=data, headers={"origin": origin})
    return answer
