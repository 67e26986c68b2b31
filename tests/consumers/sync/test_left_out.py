"""Tests of what a vendor no longer has, and of what no table can hold.

It is left out or turned into text, that is reported, and the rest is loaded.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from consumers.warehouse.sync_pipeline import SyncPipeline
from ingest.errors import VendorRefused
from tests.consumers.sync.harness import SyncHarness, syncing
from tests.consumers.sync.test_sync_command import command
from tests.support.settings import Tree

# Each vendor's resources that take a request for each object of another list, and the part of the request's
# URL that names the object.
PARTS = [
    ("calendly", "invitees", "/invitees"),
    ("calendly", "routing_form_submissions", "/routing_form_submissions"),
    ("bookeo", "customers_people", "/linkedpeople"),
    ("oncehub", "booking", "/bookings/"),
    ("oncehub", "booking_calendar_time_slots", "/time-slots"),
]


def gone(sync_harness: SyncHarness, part: str, status: int, which: Callable[[int], bool]) -> list[str]:
    """Answer some requests with the status, and return the URLs of these.

    From now on, of the requests with this part in their path, those whose number `which` chooses get the
    status.
    """
    urls: list[str] = []
    refused: list[str] = []

    def fault(_: str, request: Request) -> Response | None:
        if part not in request.url.path:
            return None
        urls.append(str(request.url))
        if not which(len(urls)):
            return None
        refused.append(request.url.path.rpartition("/sales")[2])
        return JSONResponse({"message": "gone"}, status)

    sync_harness.side.server.faults[:] = [fault]
    return refused


@pytest.mark.parametrize(("vendor", "resource", "part"), PARTS)
def test_an_object_that_is_gone_when_its_parts_are_asked_for_is_left_out_and_named(
    vendor: str, resource: str, part: str, tree: Tree, tmp_path: Path
) -> None:
    with syncing(vendor, tree, tmp_path) as sync_harness:
        refused = gone(sync_harness, part, 410 if vendor == "bookeo" else 404, lambda number: number == 1)
        (synced,) = sync_harness.sync(resource).values()
        assert synced.problem is None
        assert len(synced.absent) == len(refused) == 1
        assert refused[0] in synced.absent[0]


def test_the_parts_of_all_other_objects_are_loaded(oncehub: SyncHarness) -> None:
    meetings = len(oncehub.side.meetings)
    refused = gone(oncehub, "/bookings/", 404, lambda number: number in {2, 5})
    synced = oncehub.sync("booking")["booking"]
    assert (synced.rows, len(synced.absent), len(refused)) == (meetings - 2, 2, 2)
    assert len(oncehub.rows("oncehub__booking")) == meetings - 2


def test_a_list_that_is_not_there_is_refused_as_ever(oncehub: SyncHarness) -> None:
    oncehub.answer("/contacts", JSONResponse({}, 404))
    assert isinstance(oncehub.sync("contacts")["contacts"].problem, VendorRefused)


@pytest.mark.parametrize("status", [401, 403, 400])
def test_parts_that_are_refused_for_another_reason_are_a_problem(oncehub: SyncHarness, status: int) -> None:
    gone(oncehub, "/time-slots", status, lambda number: number == 1)
    assert isinstance(
        oncehub.sync("booking_calendar_time_slots")["booking_calendar_time_slots"].problem, VendorRefused
    )


def test_what_was_left_out_is_one_line_exit_code_0_and_in_the_json(
    oncehub: SyncHarness, tmp_path: Path
) -> None:
    gone(oncehub, "/time-slots", 404, lambda number: number == 1)
    result = command(oncehub, tmp_path).run("sync", "sales", "booking_calendar_time_slots", "users")
    lines = [line for line in result.out.splitlines() if "left out" in line]
    assert result.code == 0
    assert len(lines) == 1
    assert lines[0].startswith(
        "sales booking_calendar_time_slots: 1 left out, which the vendor no longer has (404 or 410): /"
    )
    gone(oncehub, "/time-slots", 404, lambda number: number == 1)
    results = json.loads(
        command(oncehub, tmp_path).run("sync", "sales", "booking_calendar_time_slots", "--json").out
    )
    assert [len(result["absent"]) for result in results] == [1]


def listing(sync_harness: SyncHarness, *records: dict[str, Any]) -> None:
    """Answer with these records, as OnceHub's list of contacts does."""
    body = json.dumps({"object": "list", "has_more": False, "data": records}).encode()
    sync_harness.answer("/contacts", Response(body, media_type="application/json"))


def contacts(sync_harness: SyncHarness) -> list[dict[str, Any]]:
    synced = sync_harness.sync("contacts")["contacts"]
    assert synced.problem is None
    return sync_harness.rows("oncehub__contacts")


def test_fields_whose_names_fall_together_keep_their_values(either: SyncHarness) -> None:
    listing(
        either,
        {"id": "1", "fooBar": "a", "foo_bar": "b", "account": "c", "_dlt_id": "d", "na!e": "e", "na%e": "f"},
    )
    (row,) = contacts(either)
    assert set("abcdef") < set(row.values())
    assert row["account"] == "sales"


def test_a_field_keeps_its_column_from_sync_to_sync_whatever_comes_first(oncehub: SyncHarness) -> None:
    listing(oncehub, {"id": "1", "fooBar": "camel"})
    contacts(oncehub)
    listing(oncehub, {"id": "2", "foo_bar": "snake"}, {"id": "3", "foo_bar": "snake", "fooBar": "camel"})
    rows = contacts(oncehub)
    assert [row["foo_bar"] for row in rows] == ["camel", None, "camel"]


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**40])
def test_a_number_that_no_column_holds_is_text_to_the_last_digit(either: SyncHarness, number: int) -> None:
    listing(either, {"id": "1", "serial": number})
    (row,) = contacts(either)
    assert row["serial"] == str(number)


def test_odd_texts_and_depths_are_stored(either: SyncHarness) -> None:
    deep = '{"a":' * 1500 + '"the bottom"' + "}" * 1500
    record = f'{{"id": "1", "half": "a\\ud800b", "nul": "a\\u0000b", "deep": {deep}, "ok": "yes"}}'
    either.answer(
        "/contacts",
        Response(f'{{"has_more": false, "data": [{record}, {{"id": "2"}}]}}', media_type="application/json"),
    )
    first, second = contacts(either)
    assert (first["half"], first["nul"], first["ok"], second["id"]) == ("a\ufffdb", "a\ufffdb", "yes", "2")
    assert any("the bottom" in str(value) for value in first.values())


def test_a_record_without_its_key_is_left_out_and_named_and_the_others_are_loaded(
    either: SyncHarness,
) -> None:
    listing(
        either,
        {"id": "1"},
        {"id": None, "name": "no id"},
        {"name": "none"},
        {"id": {"of": "another kind"}},
        {"id": "5"},
    )
    synced = either.sync("contacts")["contacts"]
    assert (synced.problem, synced.rows) == (None, 2)
    assert synced.keyless == ("record 2 has no id", "record 3 has no id", "record 4 has no id")


def test_a_record_that_was_left_out_for_its_key_is_exit_code_1(oncehub: SyncHarness, tmp_path: Path) -> None:
    listing(oncehub, {"id": "1"}, {"id": None})
    result = command(oncehub, tmp_path).run("sync", "sales", "contacts")
    assert result.code == 1
    assert (
        "sales contacts: 1 left out, which cannot be stored without a key: record 2 has no id" in result.out
    )


def test_a_defect_of_ours_in_one_resource_does_not_hide_the_others(
    oncehub: SyncHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = SyncPipeline.load

    def breaking(pipeline: SyncPipeline, name: str, count: Callable[[int], None]) -> object:
        if name == "contacts":
            raise KeyError(name)
        return load(pipeline, name, count)

    monkeypatch.setattr(SyncPipeline, "load", breaking)
    results = oncehub.sync("users", "contacts", "teams")
    assert "contacts failed with KeyError" in str(results["contacts"].problem)
    assert results["users"].rows > 0
    assert results["teams"].rows > 0


@pytest.mark.parametrize("status", [402, 422])
def test_a_calendar_that_has_no_free_times_to_tell_is_left_out(oncehub: SyncHarness, status: int) -> None:
    refused = gone(oncehub, "/time-slots", status, lambda number: number == 2)
    synced = oncehub.sync("booking_calendar_time_slots")["booking_calendar_time_slots"]
    assert synced.problem is None
    assert synced.rows > 0
    assert len(synced.absent) == len(refused) == 1


def test_a_calendar_that_is_not_published_is_not_asked_for_free_times(oncehub: SyncHarness) -> None:
    calendars = {"object": "list", "has_more": False, "data": [{"id": "BKC-1", "published": False}]}
    oncehub.answer("/booking-calendars", JSONResponse(calendars))
    synced = oncehub.sync("booking_calendar_time_slots")["booking_calendar_time_slots"]
    assert (synced.problem, synced.rows, synced.absent) == (None, 0, ())
    assert oncehub.requests() == 1
