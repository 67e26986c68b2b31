"""What people do with the dashboard, in Chromium, at a running product."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect
from pydantic import SecretStr

from ingest.event import Event
from tests.consumers.samples import sample
from tests.ingest.dashboard.chromium import Accessibility, opened_page, started_chromium
from tests.ingest.dashboard.product import ACCOUNT, HOSTILE, SOURCE, open_product
from tests.ingest.dashboard.serving import serving
from tests.ingest.simulator.rest.served import subscriptions_of
from tests.receivers.reconcile.pipeline import Pipeline
from tests.support.polling import PATIENCE

PAGES = [
    "/",
    f"/account?name={ACCOUNT}",
    "/bookings",
    "/bookings?search=nobody",
    f"/booking?vendor=oncehub&account={ACCOUNT}&id=Hostile",
    "/dead-letters",
    "/live",
    "/reconciliations",
    "/subscriptions",
    "/jobs",
    "/tables",
    "/query",
    "/nothing",
]
PHONE = ViewportSize(width=360, height=640)

expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with started_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def product(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    del chromium  # where there is none, nothing has to be started
    with open_product(tmp_path_factory.mktemp("product")) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def address(product: Pipeline) -> Iterator[str]:
    with serving(product.harness.settings) as address:
        yield address


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    with opened_page(chromium, address) as page:
        yield page


def load(product: Pipeline, event: Event) -> None:
    """Load a webhook of the product's account."""
    product.harness.append(replace(event, source=SOURCE))
    product.settle()


def test_from_the_first_screen_to_what_was_received_of_a_booking(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name=f"oncehub/{ACCOUNT}")).to_be_visible()
    page.get_by_role("link", name=f"oncehub/{ACCOUNT}").click()
    page.get_by_role("link", name="7d").click()
    expect(page.get_by_role("img", name="Deliveries")).to_be_visible()
    expect(page.locator("td.hour.complete").first).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="Bookings").click()
    page.get_by_label("Account").select_option(ACCOUNT)
    page.get_by_label("Id, customer or service").fill("Hostile")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile(rf"/bookings\?search=Hostile&account={ACCOUNT}"))
    page.get_by_role("link", name="Hostile").click()
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_text("made the row what it is")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Id, customer or service")).to_have_value("Hostile")


def test_texts_of_strangers_do_nothing(page: Page) -> None:
    page.goto(f"/booking?vendor=oncehub&account={ACCOUNT}&id=Hostile")
    expect(page.get_by_role("definition").get_by_text(HOSTILE[:40]).first).to_be_visible()
    assert page.locator("main img, main script, main b").count() == 0
    assert "\u202e" not in page.content()


def test_a_redrive_is_planned_confirmed_and_leaves_a_receipt(page: Page, product: Pipeline) -> None:
    page.goto("/dead-letters")
    page.get_by_role("button", name="Plan a redrive").click()
    expect(page.get_by_role("heading", name="Plan")).to_be_visible()
    page.get_by_role("button", name="back into the log").click()
    expect(page.get_by_role("heading", name="Receipt")).to_be_visible()
    expect(page.get_by_text("1 redriven")).to_be_visible()
    product.settle()
    assert product.harness.column("select booking_id from bookings where booking_id = 'Letter'")


def test_a_comparison_with_the_vendor_says_what_is_missing_and_repairs_nothing(page: Page) -> None:
    page.goto("/reconciliations")
    page.get_by_label("Account").select_option(ACCOUNT)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="Receipt")).to_be_visible()
    expect(page.get_by_role("cell", name=f"oncehub/{ACCOUNT}")).to_be_visible()


def test_changes_show_live_and_stay_out_of_the_way_of_who_moves(page: Page, product: Pipeline) -> None:
    page.goto("/live")
    state = page.locator("#live-state")
    expect(state).to_have_text("live")
    load(product, sample(10, "Live1"))
    expect(page.get_by_role("link", name="Live1")).to_be_visible()
    page.get_by_role("link", name="Live1").hover()
    expect(state).to_contain_text("paused")
    load(product, sample(11, "Live2"))
    expect(state).to_have_text("paused, 1 new")
    page.locator("h1").hover()
    expect(page.get_by_role("link", name="Live2")).to_be_visible()
    page.keyboard.press("p")
    load(product, sample(12, "Live1", at=1, form_submission={"name": HOSTILE}))
    expect(state).to_have_text("paused, 1 new")
    page.keyboard.press("p")
    expect(page.get_by_role("row", name="Live1")).to_contain_text("<script>")
    assert "\u202e" not in page.content()
    assert page.locator("[data-key$=Live1]").count() == 1


def test_a_booking_leaves_what_is_live_when_it_no_longer_has_the_chosen_status(
    page: Page, product: Pipeline
) -> None:
    load(product, sample(20, "Leaves"))
    page.goto("/live?status=confirmed")
    expect(page.get_by_role("link", name="Leaves")).to_be_visible()
    expect(page.locator("#live-state")).to_have_text("live")
    load(product, sample(21, "Leaves", at=1, status="canceled"))
    load(product, sample(22, "Stays"))
    expect(page.get_by_role("link", name="Leaves")).to_have_count(0)
    expect(page.get_by_role("link", name="Stays")).to_be_visible()
    load(product, sample(23, "Leaves", at=2))
    expect(page.get_by_role("link", name="Leaves")).to_be_visible()


def test_subscriptions_are_planned_confirmed_and_made(page: Page, product: Pipeline) -> None:
    page.goto("/subscriptions")
    page.get_by_label(f"Choose {ACCOUNT}").check()
    page.get_by_role("button", name="Plan").click()
    expect(page.get_by_role("cell", name="create")).to_be_visible()
    page.get_by_role("button", name="Do this at the vendors").click()
    expect(page.get_by_text(f"oncehub/{ACCOUNT}: as wanted")).to_be_visible()
    assert subscriptions_of(product.rest[ACCOUNT]).all()


def test_who_has_the_token_logs_in_and_follows_what_is_live(chromium: Browser, product: Pipeline) -> None:
    settings = product.harness.settings
    guarded = settings.dashboard.model_copy(update={"token": SecretStr("a-token-of-a-test")})
    with (
        serving(settings.model_copy(update={"dashboard": guarded})) as address,
        opened_page(chromium, address) as page,
    ):
        page.goto("/bookings")
        page.get_by_label("Token").fill("a-token-of-a-test")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Accounts")).to_be_visible()
        page.get_by_role("link", name="Live").click()
        expect(page.locator("#live-state")).to_have_text("live")


def test_a_page_that_waits_says_so_and_comes_by_itself(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.dashboard.page._PATIENCE_SECONDS", 0)
    page.goto("/bookings")
    expect(page.get_by_text("this waits for its turn")).to_be_visible()
    assert Accessibility().violations(page) == []
    expect(page.get_by_role("table")).to_be_visible()


def test_keys_move_open_search_and_explain(page: Page) -> None:
    page.goto("/bookings")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()  # until then keys go to it
    page.keyboard.press("/")
    expect(page.get_by_label("Id, customer or service")).to_be_focused()
    page.keyboard.press("Tab")
    page.locator("h1").click()
    for key in "jjk":
        page.keyboard.press(key)
    expect(page.locator("[data-row].current")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What was received")).to_be_visible()
    page.wait_for_load_state()  # until then nobody listens to keys
    page.keyboard.press("g")
    expect(page.get_by_role("heading", name="Accounts")).to_be_visible()


def test_a_command_line_is_copied(page: Page) -> None:
    page.goto("/bookings")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert str(page.evaluate("navigator.clipboard.readText()")).startswith("ingest query")


def test_a_query_is_run_and_shown(page: Page) -> None:
    page.goto("/query")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("cell", name="confirmed")).to_be_visible()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_can_be_used_by_everybody_light_dark_and_on_a_phone(page: Page, path: str) -> None:
    accessibility = Accessibility()
    violations = {}
    page.goto(path)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        violations[scheme] = accessibility.violations(page)
    page.set_viewport_size(PHONE)
    violations["phone"] = accessibility.violations(page)
    assert not any(violations.values()), violations
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing beyond the edge"
