"""Take the pictures of docs/dashboard.md: `python -m tests.ingest.dashboard.screenshots` writes them.

Simulated vendors and the product run for a minute, so that there is something to see.
"""

import tomllib
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep

from playwright.sync_api import Page, ViewportSize

from tests.ingest.dashboard.chromium import opened_page, started_chromium
from tests.support.polling import is_healthy, wait_for
from tests.support.processes import COMMAND, ROOT, IngestProcess, environment, ingest, start_ingest

FOLDER = ROOT / "docs" / "images"
LARGEST = 150_000  # bytes of a picture
_SCREEN, _PHONE = ViewportSize(width=1000, height=640), ViewportSize(width=360, height=640)
_SECONDS = 60.0


def main() -> None:
    """Start everything, and take a picture of each page that docs/dashboard.md shows."""
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        running.enter_context(start_ingest(folder, "simulate", "--rate", "3", "--folder", "site"))
        config = folder / "site" / "ingest.toml"
        wait_for(config.with_name("ingest.secrets.toml").exists, "the settings are written")
        text = config.read_text().replace("[reconcile]\n", '[reconcile]\njitter = "0s"\n')
        config.write_text(text if "[feed]" in text else f"{text}\n[feed]\nenabled = true\n")
        ingest(folder, "webhooks", "apply", "--yes", "--no-reconcile", "--config", str(config))
        command = [*COMMAND, "up", "--config", str(config)]
        running.enter_context(IngestProcess(folder, "up", command, environment()))
        port = tomllib.loads(config.read_text())["dashboard"]["port"]
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: is_healthy(address), "the dashboard answers")
        sleep(_SECONDS)
        browser = running.enter_context(started_chromium())
        page = running.enter_context(opened_page(browser, address))
        take(page, "/", "first-screen", _SCREEN)
        take(page, "/account?name=bookeo&span=1d", "account", _SCREEN, "By hour")
        page.goto("/bookings?account=oncehub")
        page.locator("[data-row] a").first.click()
        take(page, page.url, "booking", _SCREEN)
        page.emulate_media(color_scheme="dark")
        take(page, "/live", "live-dark-phone", _PHONE)


def take(page: Page, path: str, name: str, size: ViewportSize, heading: str = "") -> None:
    """Take a picture of what a screen of this size shows of a page, from a heading on."""
    page.set_viewport_size(size)
    page.goto(path)
    page.locator("h2, table").first.wait_for()
    if heading:
        page.get_by_role("heading", name=heading).evaluate("element => element.scrollIntoView()")
    elif path == "/live":
        page.locator("#live-state", has_text="live").wait_for()
    file = FOLDER / f"{name}.png"
    page.screenshot(path=file)
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, more than {LARGEST}")


if __name__ == "__main__":
    main()
