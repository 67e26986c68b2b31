"""Dead letters in the dashboard: masked until asked for, and redriven by a plan that somebody confirms."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from ingest.dashboard.letters import mask
from ingest.log import Record
from tests.consumers.harness import open_consumer
from tests.consumers.samples import TOPIC, in_envelope, moment, sample
from tests.ingest.dashboard.conftest import Browse, open_browser, tree_in
from tests.ingest.dashboard.forms import submit
from tests.support.polling import wait_for

UNREADABLE = in_envelope(7, {"id": None, "email": "ada@example.com"}, moment(7), moment(7))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """Return a browser at a dashboard with two dead letters."""
    tree = tree_in(tmp_path_factory.mktemp("letters"))
    with open_consumer(tree) as harness:
        harness.append_records(TOPIC, Record("k", b"\x00no json"))
        harness.load(sample(1), UNREADABLE)
        assert harness.column("select count(*) from dead_letters") == [2]
    return open_browser(tree)


def letters(browser: TestClient) -> list[dict[str, Any]]:
    """Return the dead letters of the list."""
    listed: list[dict[str, Any]] = browser.get("/dead-letters.json").json()["letters"]
    return listed


def letter_with_a_body(browser: TestClient) -> str:
    """Return the id of the letter whose body is JSON."""
    return next(str(letter["id"]) for letter in letters(browser) if letter["source"] == "oncehub/support")


def finished_job(browser: TestClient, location: str) -> dict[str, Any]:
    """Return a job's receipt, once it has ended."""
    address = location.replace("/jobs/job?", "/jobs/job.json?")
    job: dict[str, Any] = wait_for(
        lambda: (receipt := browser.get(address).json()["job"])["finished_at"] and receipt, "the job ends"
    )
    return job


def test_values_are_masked_until_somebody_asks_and_the_ask_is_logged(browser: TestClient) -> None:
    letter = letter_with_a_body(browser)
    masked = browser.get(f"/dead-letters/letter?id={letter}").text
    assert "email" in masked
    assert "ada@example.com" not in masked
    with capture_logs() as lines:
        shown = submit(browser, "/dead-letters/show", id=letter).text
    assert "ada@example.com" in shown
    assert [line["letter"] for line in lines if line["event"] == "dashboard.letter_shown"] == [letter]


def test_json_of_a_letter_is_masked_too(browser: TestClient) -> None:
    letter = letter_with_a_body(browser)
    assert "ada@example.com" not in browser.get(f"/dead-letters/letter.json?id={letter}").text


def test_names_of_fields_stay_and_no_value_does() -> None:
    value = {"name": "Ada", "n": 7, "list": ["a", None, True], "x" * 50: {}}
    assert mask(value) == {"name": "•••", "n": "•••", "list": ["•••", None, True], "•••": {}}


def test_a_plan_changes_nothing_and_its_receipt_says_what_stays_and_why(browser: TestClient) -> None:
    answer = submit(browser, "/dead-letters/plan")
    job = finished_job(browser, answer.headers["location"])
    assert (job["state"], job["done"], job["total"]) == ("done", 2, 2)
    assert len(job["result"]["staying"]) == 2
    page = browser.get(answer.headers["location"]).text
    assert "2 still bad" in page
    assert "ingest dead-letters redrive --all --dry-run" in page


def test_only_a_plan_that_found_something_can_be_confirmed(browser: TestClient) -> None:
    plan = finished_job(browser, submit(browser, "/dead-letters/plan").headers["location"])
    refused = submit(browser, "/dead-letters/redrive", plan=plan["id"])
    assert (refused.status_code, "no plan with anything to redrive" in refused.text) == (400, True)
    assert submit(browser, "/dead-letters/redrive", plan="none").status_code == 400


def test_the_list_is_csv_too_and_says_when_nothing_matches(browser: TestClient, browse: Browse) -> None:
    assert len(browser.get("/dead-letters.csv").text.splitlines()) == 3
    assert "No dead letter matches" in browser.get("/dead-letters?reason=load_refused").text
    assert "There is no dead letter" in browse().get("/dead-letters").text


def test_a_reconciliation_that_cannot_be_started_says_what_is_needed(browser: TestClient) -> None:
    assert "nothing can be compared" in browser.get("/reconciliations").text
    refused = submit(browser, "/reconciliations/start", account="sales")
    assert (refused.status_code, "cannot be reconciled" in refused.text) == (400, True)
    assert submit(browser, "/reconciliations/start", since="soon").status_code == 400


def test_every_page_in_the_navigation_is_answered(browser: TestClient) -> None:
    for href in re.findall(r'<a href="(/[a-z-]*)"', browser.get("/").text):
        assert browser.get(href).status_code == 200, href
