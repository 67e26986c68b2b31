"""The feed as server-sent events, over real connections."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest

from ingest.changes import BOOKING_COLUMNS, change_record
from ingest.dashboard import changes as changes_module
from ingest.dashboard.changes import ChangeFeed
from ingest.log import Follower, Record, Start, wait_until_durable
from ingest.settings import Settings
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import sample
from tests.ingest.dashboard.serving import serving
from tests.support.polling import PATIENCE
from tests.support.settings import Tree

Sent = dict[str, str]

ROW: dict[str, Any] = dict.fromkeys(BOOKING_COLUMNS) | {
    "vendor": "oncehub", "account": "support", "booking_id": "B1", "status": "confirmed", "version": "1",
}  # fmt: skip


@pytest.fixture
def harness(tree: Tree) -> Iterator[ConsumerHarness]:
    with open_consumer(tree | {"feed": {"enabled": True}}) as harness:
        yield harness


@contextmanager
def subscribed(url: str, last_id: str = "", **query: str) -> Iterator[Iterator[Sent]]:
    """Subscribe, and yield the events that come, heartbeats included, from the first heartbeat on."""
    headers = {"last-event-id": last_id} if last_id else {}
    with httpx.stream(
        "GET", f"{url}/api/changes", params=query, headers=headers, timeout=PATIENCE
    ) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response)


def _events(response: httpx.Response) -> Iterator[Sent]:
    event: Sent = {}
    for line in response.iter_lines():
        if not line:
            yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def next_change(events: Iterator[Sent]) -> tuple[dict[str, Any], str]:
    """Return the next change, without heartbeats, and its id."""
    event = next(event for event in events if "data" in event)
    return json.loads(event["data"]), event["id"]


def booking_of(events: Iterator[Sent]) -> str:
    return str(next_change(events)[0]["subject"])


def test_a_subscriber_gets_what_changes_from_now_on(harness: ConsumerHarness) -> None:
    harness.load(sample(1, "B1", at=1))
    with serving(harness.settings) as url, subscribed(url) as events:
        assert "data" not in next(events)  # it has joined
        harness.load(sample(2, "B2", at=2))
        change, last_id = next_change(events)
        assert change["type"] == "ingest.booking.changed"
        assert (change["source"], change["subject"]) == ("/oncehub/support", "B2")
        assert change["data"]["service_name"] == "told by E2"
        assert last_id == "0:2"


def test_one_that_resumes_gets_what_it_missed_and_then_goes_on(harness: ConsumerHarness) -> None:
    harness.load(*(sample(number, f"B{number}", at=number) for number in range(5)))
    with serving(harness.settings) as url:
        with subscribed(url, last_id="0:0") as events:
            seen = [booking_of(events) for _ in range(2)]
        with subscribed(url, last_id="0:2") as events:
            seen += [booking_of(events) for _ in range(3)]
            next(events)  # it has joined the others
            harness.load(sample(9, "B9", at=9))
            seen.append(booking_of(events))
    assert seen == ["B0", "B1", "B2", "B3", "B4", "B9"]


def test_a_subscriber_may_begin_at_a_time(harness: ConsumerHarness) -> None:
    harness.load(sample(1, "B1", at=1))
    with serving(harness.settings) as url, subscribed(url, since="2020-01-01T00:00:00Z") as events:
        assert booking_of(events) == "B1"


def test_filters_choose_changes_and_the_heartbeat_moves_on(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "HEARTBEAT_SECONDS", 0.05)
    with serving(harness.settings) as url, subscribed(url, status="cancelled", account="support") as events:
        assert next(events)["id"] == "0:0"
        harness.load(sample(1, "B1", at=1))
        assert next(event for event in events if event.get("id") == "0:1").keys() == {"id"}
        harness.load(sample(2, "B2", at=2, status="canceled"))
        assert booking_of(events) == "B2"


def test_many_subscribers_get_the_same(harness: ConsumerHarness) -> None:
    with serving(harness.settings) as url, subscribed(url) as first, subscribed(url) as second:
        next(first), next(second)
        harness.load(sample(1, "B1", at=1))
        assert next_change(first) == next_change(second)


@pytest.mark.parametrize(
    ("query", "headers", "word"),
    [
        ({"colour": "red"}, {}, "colour"),
        ({"since": "yesterday"}, {}, "since"),
        ({}, {"last-event-id": "nonsense"}, "Last-Event-ID"),
    ],
)
def test_what_makes_no_sense_is_refused(
    harness: ConsumerHarness, query: dict[str, str], headers: dict[str, str], word: str
) -> None:
    with serving(harness.settings) as url:
        answer = httpx.get(f"{url}/api/changes", params=query, headers=headers, timeout=PATIENCE)
        assert (answer.status_code, word in answer.json()["error"]) == (400, True)


def test_without_a_feed_it_says_how_to_switch_it_on(tree: Tree) -> None:
    with serving(Settings.model_validate(tree)) as url:
        answer = httpx.get(f"{url}/api/changes", timeout=PATIENCE)
        assert (answer.status_code, "feed.enabled" in answer.json()["error"]) == (400, True)


def test_a_client_that_does_not_read_is_dropped_and_harms_nobody(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "MOST_KEPT_BYTES", 2_000_000)
    monkeypatch.setattr(changes_module, "_SEND_SECONDS", 0.5)
    with serving(harness.settings) as url, subscribed(url) as slow, subscribed(url) as quick:
        next(slow), next(quick)
        for number in range(120):
            append(harness, large(number))
            assert booking_of(quick) == f"B{number}"
        assert list(slow)[-1]["event"] == "dropped"


def test_who_resumes_soon_gets_what_it_missed_without_reading_the_log_again(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Start] = []
    open_follower = ChangeFeed._open

    def count(feed: ChangeFeed, start: Start) -> Follower:
        opened.append(start)
        return open_follower(feed, start)

    monkeypatch.setattr(ChangeFeed, "_open", count)
    with serving(harness.settings) as url, subscribed(url) as events:
        next(events)
        append(harness, *map(large, range(3)))
        assert [booking_of(events) for _ in range(3)] == ["B0", "B1", "B2"]
        with subscribed(url, last_id="0:1") as resumed:
            assert [booking_of(resumed) for _ in range(2)] == ["B1", "B2"]
    assert opened == [None]


def test_a_slow_client_that_resumes_leaves_the_others_their_turn(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "_MOST_RESUMING", 1)
    monkeypatch.setattr(changes_module, "_SEND_SECONDS", 2 * PATIENCE)
    append(harness, *map(large, range(120)))
    with (
        serving(harness.settings) as url,
        subscribed(url, last_id="0:0"),  # which never reads
        subscribed(url, last_id="0:0") as quick,
    ):
        assert [booking_of(quick) for _ in range(120)] == [f"B{number}" for number in range(120)]


def large(number: int) -> Record:
    """Return the record of a change of about 200 kB."""
    return change_record(ROW | {"booking_id": f"B{number}", "service_name": "x" * 200_000})


def append(harness: ConsumerHarness, *changes: Record) -> None:
    """Append changes to the feed, as a consumer does."""
    with closing(harness.settings.build_log().producer()) as producer:
        future = producer.append(harness.settings.changes_topic, changes)
        wait_until_durable(future, PATIENCE, "the changes")
