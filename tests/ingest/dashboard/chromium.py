"""Chromium, driven by Playwright, and axe-core, which finds what keeps people from using a page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.deploy.tools import axe
from tests.support.polling import PATIENCE

# Chromium as root needs the first; the others keep it from calling home.
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@contextmanager
def started_chromium() -> Iterator[Browser]:
    """Start Chromium; skip the test where it is not installed, or fail if that is asked for."""
    program = shutil.which("chromium")
    if not program:
        reason = "chromium is not installed"
        if os.environ.get("INGEST_TEST_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened_page(browser: Browser, address: str) -> Iterator[Page]:
    """Open a page of a new visitor; fail at the end if the browser complained about anything."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # That the page itself is an error is for the test to say.
        if message.type == "error" and message.location["url"] != page.url:
            complaints.append(message.text)

    with browser.new_context(base_url=address, permissions=["clipboard-read", "clipboard-write"]) as context:
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.on("console", note)
        yield page
        assert complaints == []


class Accessibility:
    """Axe-core, as far as the rules of WCAG 2.2 go that a program can check."""

    def __init__(self) -> None:
        self._script = axe().read_text(encoding="utf-8")

    def violations(self, page: Page) -> list[str]:
        """Return each rule that the page breaks, with the first place where it does."""
        page.evaluate(self._script)
        found = page.evaluate(
            "tags => axe.run({runOnly: tags, resultTypes: ['violations']})"
            ".then(result => result.violations.map(rule => rule.id + ': ' + rule.nodes[0].html))",
            _STANDARDS,
        )
        return [str(violation) for violation in found]
