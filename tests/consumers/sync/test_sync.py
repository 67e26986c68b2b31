"""Tests of what is in the warehouse after a sync.

Everything is there once, and after a sync that failed the warehouse has what was there before.
"""

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import dlt
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.warehouse import locks
from consumers.warehouse.sync_pipeline import SyncPipeline
from ingest.errors import (
    ConfigurationError,
    VendorBusy,
    VendorRefused,
    VendorUnavailable,
    WarehouseUnavailable,
)
from ingest.simulator import load_simulated_vendor
from ingest.simulator.server import RestServer
from ingest.vendors import dlt_resources
from ingest.warehouse.destination import destination, reading_client
from tests.consumers.harness import open_consumer
from tests.consumers.samples import sample
from tests.consumers.sync.harness import SyncHarness, syncing
from tests.consumers.test_sharing import hold_file
from tests.support.accounts import SIMULATED
from tests.support.settings import Tree

VENDORS = ["appointedd", "bookeo", "calendly", "oncehub"]
# Each vendor's resource that has a row per booking, and the name of its key.
BOOKINGS = {
    "appointedd": ("bookings", "id"),
    "bookeo": ("bookings", "booking_number"),
    "calendly": ("scheduled_events", "uri"),
    "oncehub": ("bookings", "id"),
}
FORBIDDEN = JSONResponse({"title": "Permission Denied"}, 403)
BROKEN = Response(status_code=500)


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_resource_is_a_table_and_a_second_sync_changes_nothing(
    vendor: str, either_tree: Tree, tmp_path: Path
) -> None:
    with syncing(vendor, either_tree, tmp_path) as sync_harness:
        first = sync_harness.sync()
        assert {name: result.problem for name, result in first.items() if result.problem} == {}
        row_counts = {result.table: result.rows for result in first.values() if result.rows}
        tables = sync_harness.tables()
        assert {name: tables[name] for name in row_counts if name} == row_counts
        resource, key = BOOKINGS[vendor]
        bookings = sync_harness.rows(f"{vendor}__{resource}")
        assert len({booking[key] for booking in bookings}) == len(bookings) == len(sync_harness.side.meetings)
        before = {name: sync_harness.rows(name) for name in tables}
        second = sync_harness.sync()
        assert [result.problem for result in second.values() if result.problem] == []
        assert {name: sync_harness.rows(name) for name in sync_harness.tables()} == before


@pytest.mark.parametrize("vendor", ["appointedd", "bookeo", "oncehub"])
def test_where_a_vendor_can_be_asked_for_what_changed_only_that_is_read(
    vendor: str, tree: Tree, tmp_path: Path
) -> None:
    with syncing(vendor, tree, tmp_path) as sync_harness:
        everything = sync_harness.sync("bookings")["bookings"].rows
        changed = next(iter(sync_harness.side.meetings.values()))
        sync_harness.side.meetings[changed.number] = replace(changed, changed_at=datetime.now(UTC))
        assert sync_harness.sync("bookings")["bookings"].rows in {1, 2}  # OnceHub tells the last one again
        assert len(sync_harness.rows(f"{vendor}__bookings")) == everything == len(sync_harness.side.meetings)


def test_what_takes_a_request_for_each_object_of_a_list_is_read_only_when_named(oncehub: SyncHarness) -> None:
    assert not {"booking", "booking_calendar"} & set(oncehub.sync())
    assert oncehub.sync("booking_calendar")["booking_calendar"].rows > 0


def test_how_far_a_list_was_read_for_its_entries_parts_is_not_how_far_it_was_read_for_itself(
    oncehub: SyncHarness,
) -> None:
    meetings = len(oncehub.side.meetings)
    assert oncehub.sync("booking")["booking"].rows == meetings
    assert oncehub.sync("bookings")["bookings"].rows == meetings


def test_a_refused_resource_is_told_and_the_others_are_loaded(either: SyncHarness) -> None:
    either.answer("/contacts", FORBIDDEN)
    results = either.sync("users", "contacts", "teams")
    assert isinstance(results["contacts"].problem, VendorRefused)
    assert "oncehub account sales" in str(results["contacts"].problem)
    assert {name: result.rows > 0 for name, result in results.items()} == {
        "users": True,
        "contacts": False,
        "teams": True,
    }
    assert "oncehub__contacts" not in either.tables()


def test_a_vendor_that_goes_away_half_way_leaves_the_table_as_it_was_and_is_read_again(
    either: SyncHarness,
) -> None:
    meetings = either.side.meetings
    late = dict(list(meetings.items())[100:])
    for number in late:
        del meetings[number]
    either.sync("bookings")
    before = either.rows("oncehub__bookings")
    now = datetime.now(UTC)
    meetings.update({number: replace(meeting, changed_at=now) for number, meeting in late.items()})
    meetings.update(
        {number: replace(meeting, changed_at=now) for number, meeting in list(meetings.items())[:20]}
    )
    pages: list[Request] = []

    def breaks(_: str, request: Request) -> Response | None:
        pages.append(request)
        return BROKEN if len(pages) > 1 else None

    either.side.server.faults[:] = [breaks]
    assert isinstance(either.sync("bookings")["bookings"].problem, VendorUnavailable)
    assert len(pages) > 1, "it broke after the first page"
    assert either.rows("oncehub__bookings") == before
    either.side.server.faults.clear()
    assert either.sync("bookings")["bookings"].problem is None
    assert len(either.rows("oncehub__bookings")) == len(meetings)


def test_a_load_that_failed_is_read_again_from_where_the_last_one_ended(oncehub: SyncHarness) -> None:
    meetings = oncehub.side.meetings
    number, meeting = meetings.popitem()
    oncehub.sync("bookings")
    meetings[number] = replace(meeting, changed_at=datetime.now(UTC))
    with open_consumer(oncehub.tree) as sync_harness, ExitStack() as stack:

        def hold(_: str, __: Request) -> None:
            if not oncehub.side.server.requests["held", 0]:
                oncehub.side.server.requests["held", 0] += 1
                stack.enter_context(hold_file(sync_harness))

        oncehub.side.server.faults[:] = [hold]
        assert isinstance(oncehub.sync("bookings")["bookings"].problem, WarehouseUnavailable)
    assert len(oncehub.rows("oncehub__bookings")) == len(meetings) - 1
    oncehub.side.server.faults.clear()
    assert oncehub.sync("bookings")["bookings"].rows in {1, 2}
    assert len(oncehub.rows("oncehub__bookings")) == len(meetings)


def test_what_comes_without_a_key_replaces_what_its_account_had(either: SyncHarness) -> None:
    for names in (["a", "b"], ["c"]):
        either.answer(
            "/webhook-events", JSONResponse({"object": "list", "data": [{"name": name} for name in names]})
        )
        assert either.sync("webhook_events")["webhook_events"].rows == len(names)
    assert either.rows("oncehub__webhook_events") == [{"name": "c", "account": "sales"}]


@pytest.mark.parametrize("entry", [["ada@example.com"], "ada@example.com"])
def test_a_vendors_answer_that_nobody_can_read_is_told_without_what_is_in_it(
    oncehub: SyncHarness, entry: object
) -> None:
    oncehub.answer("/users", JSONResponse({"object": "list", "data": [entry]}))
    problem = oncehub.sync("users")["users"].problem
    assert isinstance(problem, VendorUnavailable)
    assert "ada@example" not in str(problem)
    assert oncehub.sync("teams")["teams"].problem is None
    assert oncehub.tables() == {"oncehub__teams": 1}


def listing(*entries: object) -> Response:
    return JSONResponse({"object": "list", "data": entries, "has_more": False})


def test_half_a_character_in_one_record_is_replaced_and_keeps_nothing_back(oncehub: SyncHarness) -> None:
    body = (
        rb'{"data": [{"id": "U1", "name": "ok\ud83d"}, {"id": "U2", "name": "\ud83d\ude00"}],'
        rb' "has_more": false}'
    )
    oncehub.answer("/users", Response(body, media_type="application/json"))
    assert oncehub.sync("users")["users"].problem is None
    assert [row["name"] for row in oncehub.rows("oncehub__users")] == [
        "ok\N{REPLACEMENT CHARACTER}",
        "\N{GRINNING FACE}",
    ]


def test_a_vendors_own_account_is_beside_ours(either: SyncHarness) -> None:
    either.answer("/users", listing({"id": "U1", "account": "A"}, {"id": "U2", "Account": "B"}))
    assert either.sync("users")["users"].problem is None
    rows = {row["id"]: row for row in either.rows("oncehub__users")}
    assert {row["account"] for row in rows.values()} == {"sales"}
    assert rows["U1"]["vendor_account"] == "A"
    assert "B" in rows["U2"].values(), "a field of another spelling keeps its value in a column of its own"


def test_a_booking_of_the_future_does_not_end_all_syncs(oncehub: SyncHarness) -> None:
    meetings = oncehub.side.meetings
    number, late = meetings.popitem()
    first = next(iter(meetings))
    meetings[first] = replace(meetings[first], changed_at=datetime(2099, 1, 1, tzinfo=UTC))
    assert oncehub.sync("bookings")["bookings"].rows == len(meetings)
    meetings[number] = replace(late, changed_at=datetime.now(UTC))
    assert oncehub.sync("bookings")["bookings"].problem is None
    assert len(oncehub.rows("oncehub__bookings")) == len(meetings)


@pytest.mark.parametrize("vendor", ["appointedd", "bookeo"])
def test_after_a_clock_that_was_ahead_nothing_is_missed(
    vendor: str, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Ahead":
            return super().now(tz) + timedelta(hours=2)

    with syncing(vendor, tree, tmp_path) as sync_harness:
        meetings = sync_harness.side.meetings
        number, late = meetings.popitem()
        with monkeypatch.context() as patched:
            patched.setattr(dlt_resources, "datetime", Ahead)
            assert sync_harness.sync("bookings")["bookings"].rows == len(meetings)
        meetings[number] = replace(late, changed_at=datetime.now(UTC) - timedelta(minutes=30))
        assert sync_harness.sync("bookings")["bookings"].problem is None
        assert len(sync_harness.rows(f"{vendor}__bookings")) == len(meetings)


def test_two_accounts_of_a_vendor_share_tables_and_not_rows(oncehub: SyncHarness) -> None:
    api = load_simulated_vendor("oncehub").api(
        SIMULATED["oncehub"], dict(list(oncehub.side.meetings.items())[:7])
    )
    server = RestServer({"support": api})
    with server.serving():
        accounts = oncehub.tree["accounts"]
        accounts["support"] = accounts["sales"] | {"api_url": server.api_url("support")}
        for account in ("sales", "support", "sales"):
            assert oncehub.sync("bookings", account=account)["bookings"].problem is None
    rows = [row["account"] for row in oncehub.rows("oncehub__bookings")]
    assert (rows.count("sales"), rows.count("support")) == (len(oncehub.side.meetings), 7)


def test_an_account_that_nothing_can_be_asked_of_is_told_and_the_others_are_loaded(
    tree: Tree, tmp_path: Path
) -> None:
    with syncing("calendly", tree, tmp_path) as sync_harness, syncing("oncehub", tree, tmp_path) as other:
        sync_harness.tree["accounts"]["support"] = other.tree["accounts"]["sales"]
        sync_harness.answer("/users/me", FORBIDDEN)
        results = sync_harness.sync(account=None)
        assert isinstance(results[None].problem, VendorRefused)
        assert results["users"].account == "support"
        assert "calendly__users_me" not in sync_harness.tables()


def test_an_account_without_credentials_is_left_out_unless_it_is_named(oncehub: SyncHarness) -> None:
    oncehub.tree["accounts"]["bare"] = {"vendor": "bookeo"}
    assert {result.account for result in oncehub.sync("users", account=None).values()} == {"sales"}
    with pytest.raises(ConfigurationError, match=r"accounts\.bare\."):
        oncehub.sync(account="bare")
    del oncehub.tree["accounts"]["sales"]
    with pytest.raises(ConfigurationError, match="no account has what"):
        oncehub.sync(account=None)


def test_a_vendor_that_is_too_busy_is_asked_no_more(oncehub: SyncHarness) -> None:
    oncehub.answer("/users", Response(status_code=429, headers={"Retry-After": "60"}))
    results = oncehub.sync("users", "teams")
    assert [type(results[name].problem) for name in ("users", "teams")] == [VendorBusy, VendorBusy]
    assert oncehub.side.server.requests["sales", 429] == 1


def test_unknown_names_are_a_mistake_that_tells_the_known_ones(oncehub: SyncHarness) -> None:
    with pytest.raises(ConfigurationError, match="no account is called sails; the settings have sales"):
        oncehub.sync(account="sails")
    with pytest.raises(ConfigurationError, match=r"no resource event_type: known are .*event_types"):
        oncehub.sync("event_type")


def test_one_account_is_synced_by_one_process_at_a_time(
    oncehub: SyncHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_FOLDER_PATIENCE_SECONDS", 0.01)
    account = oncehub.settings.build_accounts()["oncehub", "sales"]
    first = SyncPipeline(oncehub.settings, account.rest(Path()))
    assert "another sync of account sales is running" in str(oncehub.sync("users")["users"].problem)
    first.close()
    assert oncehub.sync("users")["users"].problem is None


def test_a_consumer_that_loads_meanwhile_is_delayed_and_never_broken(either: SyncHarness) -> None:
    with open_consumer(either.tree) as sync_harness:
        sync_harness.load(sample(0, "B0"))
        with sync_harness.running():
            for number in range(1, 11):
                sync_harness.append(sample(number, f"B{number}"))
                assert either.sync("users")["users"].problem is None
        sync_harness.load()
        assert sync_harness.column("select count(*) from bookings") == [11]
        assert sync_harness.written("bookings.dead-letters") == 0


def test_a_dataset_that_was_made_and_not_yet_loaded_into_is_synced_into(either: SyncHarness) -> None:
    with reading_client(either.settings) as client:
        client.create_dataset()
    assert either.sync("users")["users"].problem is None
    assert either.tables()["oncehub__users"] == 5


def test_what_a_killed_sync_had_read_is_dropped_and_read_again(either: SyncHarness) -> None:
    pipeline = dlt.pipeline(
        "ingest_sync_sales",
        pipelines_dir=either.settings.warehouse.work_dir,
        destination=destination(either.settings, "sync_sales"),
        dataset_name=either.settings.warehouse.dataset,
    )
    pipeline.extract([{"id": "USR-of-then", "account": "sales"}], table_name="oncehub__users")
    pipeline.deactivate()
    assert either.sync("users")["users"].problem is None
    assert "USR-of-then" not in [row["id"] for row in either.rows("oncehub__users")]


def test_nothing_is_left_in_the_working_folder(oncehub: SyncHarness) -> None:
    oncehub.sync("users", "teams")
    oncehub.answer("/users", FORBIDDEN)
    oncehub.sync("users")
    names: list[Any] = [
        path.name for path in Path(oncehub.settings.warehouse.work_dir).rglob("*") if path.suffix != ".lock"
    ]
    assert names == []
