"""Tests of what only one vendor does."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dlt
import pytest
from dlt.sources.rest_api import rest_api_resources
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ingest.errors import ConfigurationError, VendorRefused, VendorUnavailable
from ingest.rest import ListCache, Rate, RetryBudget
from ingest.simulator.api import RateLimit
from ingest.simulator.appointedd.api import AppointeddApi
from ingest.simulator.oncehub.api import OncehubApi
from ingest.vendors.dlt_resources import split
from ingest.vendors.rest import Window
from tests.support.accounts import BEGINNING, SIMULATED
from tests.support.simulated_vendor import ALL, END, Side, listed, read, simulated


def paths(side: Side) -> list[str]:
    """Return a list that grows by the path of each request to the vendor."""
    requested: list[str] = []

    def note(_: str, request: Request) -> Response | None:
        requested.append(request.url.path.removeprefix(f"/sales{side.dialect.base_path}"))
        return None

    side.server.faults.append(note)
    return requested


@pytest.mark.parametrize("vendor", ["appointedd", "bookeo", "calendly", "oncehub"])
def test_a_vendors_limit_is_waited_for(vendor: str, tmp_path: Path) -> None:
    with simulated(vendor, tmp_path, {"sales": RateLimit(2, 0.2)}) as side:
        rest = side.open(RetryBudget(60, 10, 10))
        for _ in range(6):
            rest.ping()
        assert side.server.requests["sales", 200] == 6


def test_oncehub_staff_has_a_name_though_lists_have_ids_and_users_are_read_once(oncehub: Side) -> None:
    rest = oncehub.open()
    requested = paths(oncehub)
    entries = listed(rest)
    assert all(isinstance(entry["owner"], str) for entry in entries)
    hosts = {
        SIMULATED["oncehub"].expected(meeting)["booking_id"]: meeting.host
        for meeting in oncehub.meetings.values()
    }
    for entry in entries:
        assert read(rest, rest.complete(entry)[0])["staff_name"] == hosts[entry["id"]].name
    assert requested.count("/users") == 1


def test_oncehub_staff_that_is_gone_has_an_id_only(oncehub: Side) -> None:
    rest = oncehub.open()
    booking = read(rest, rest.complete({**listed(rest)[0], "owner": "USR-GONE"})[0])
    assert (booking["staff"], booking["staff_name"]) == (["USR-GONE"], None)


@pytest.mark.parametrize(
    ("prefix", "expandable", "expected_expansions"),
    [
        ("", {"contact", "conversation"}, ["contact,conversation"]),
        ("data.", {"contact", "conversation"}, ["contact,conversation", "data.contact,data.conversation"]),
        ("", {"contact"}, ["contact,conversation", "data.contact,data.conversation", "contact"]),
        (
            "data.",
            {"contact"},
            ["contact,conversation", "data.contact,data.conversation", "contact", "data.contact"],
        ),
        (
            "",
            {"owner"},
            ["contact,conversation", "data.contact,data.conversation", "contact", "data.contact", ""],
        ),
    ],
)
def test_oncehubs_customers_are_read_by_whatever_it_expands(
    oncehub: Side, prefix: str, expandable: set[str], expected_expansions: list[str]
) -> None:
    assert isinstance(oncehub.dialect, OncehubApi)
    oncehub.dialect.prefix, oncehub.dialect.expandable = prefix, frozenset(expandable)
    expansions: list[str] = []

    def note(_: str, request: Request) -> Response | None:
        if request.url.path.endswith("/bookings") and "after" not in request.query_params:
            expansions.append(request.query_params.get("expand", ""))
        return None

    oncehub.server.faults.append(note)
    rest = oncehub.open()
    truth = {row["booking_id"]: row for row in map(SIMULATED["oncehub"].expected, oncehub.meetings.values())}
    for entry in [*listed(rest)[:40], *listed(rest)[:40]]:
        booking = read(rest, rest.complete(entry)[0])
        for name in ("customer_name", "customer_email", "customer_phone"):
            assert booking[name] == truth[entry["id"]][name]
        assert booking["customer_id"].startswith("CTC-")
    assert expansions == [
        *expected_expansions,
        expected_expansions[-1],
    ]  # what was refused once is not tried again


def test_oncehubs_contacts_are_asked_for_once_and_only_where_nothing_else_tells_who_booked(
    oncehub: Side,
) -> None:
    assert isinstance(oncehub.dialect, OncehubApi)
    oncehub.dialect.expandable = frozenset()
    rest = oncehub.open()
    entries = listed(rest)[:40]
    requested = paths(oncehub)
    for entry in [*entries, *entries]:
        rest.complete(entry)
    expected_paths = {
        f"/contacts/{entry['contact']}" for entry in entries if entry["form_submission"] is None
    }
    assert sorted(path for path in requested if path != "/users") == sorted(expected_paths)
    assert {f"/{child}" for entry in entries for child in rest.detail_keys(entry)} == expected_paths
    assert expected_paths


@pytest.mark.parametrize("status", [403, 404])
def test_an_oncehub_contact_that_cannot_be_read_leaves_the_booking(oncehub: Side, status: int) -> None:
    assert isinstance(oncehub.dialect, OncehubApi)
    oncehub.dialect.expandable = frozenset()
    oncehub.server.faults.append(
        lambda _, request: Response(status_code=status) if "/contacts/" in request.url.path else None
    )
    rest = oncehub.open()
    entry = next(entry for entry in listed(rest) if entry["form_submission"] is None)
    booking = read(rest, rest.complete(entry)[0])
    assert (booking["customer_id"], booking["customer_name"]) == (entry["contact"], None)
    assert booking["customer_email"] in entry["attendees"][1:]


@pytest.mark.parametrize(
    ("parts", "is_asked"),
    [
        ({"contact": "CTC-9"}, True),
        ({"contact": {"id": "CTC-9"}}, True),
        ({"conversation": {"id": "CVR-1", "contact": "CTC-9"}}, True),
        ({"contact": "CTC-9", "conversation": {"id": "CVR-1", "contact": {"id": "CTC-9"}}}, True),
        ({"contact": "CTC-9", "form_submission": {"name": "", "email": None}}, True),
        ({"contact": {"id": "CTC-9", "email": "a@example.com"}}, False),
        ({"contact": "CTC-9", "form_submission": {"name": "Ada"}}, False),
        (
            {
                "contact": "CTC-9",
                "conversation": {"id": "CVR-1", "contact": {"id": "CTC-9", "first_name": "Ada"}},
            },
            False,
        ),
    ],
)
def test_oncehubs_contact_is_asked_for_wherever_its_id_is_all_that_is_told_of_who_booked(
    oncehub: Side, parts: dict[str, object], *, is_asked: bool
) -> None:
    rest = oncehub.open()
    entry = listed(rest)[0] | {"form_submission": None, "conversation": None, "contact": None} | parts
    assert rest.detail_keys(entry) == ({"contacts/CTC-9"} if is_asked else set())


def test_oncehubs_campaign_parameters_are_read(oncehub: Side) -> None:
    rest = oncehub.open()
    for entry in listed(rest)[:20]:
        meeting = oncehub.meetings[int(entry["id"].removeprefix("BKNG-"))]
        assert read(rest, entry)["tracking"] == (meeting.campaign or None)


def test_oncehub_refusing_for_another_reason_than_what_is_expanded_is_a_refusal(oncehub: Side) -> None:
    oncehub.server.faults.append(
        lambda *_: JSONResponse({"type": "invalid_request_error", "message": "Invalid date"}, 400)
    )
    with pytest.raises(VendorRefused, match="400 Invalid date"):
        listed(oncehub.open())


@pytest.mark.parametrize("body", [{}, {"object": "list", "data": []}, ["text"], "text"])
def test_oncehubs_time_slots_that_are_no_array_are_told(oncehub: Side, body: object) -> None:
    oncehub.server.faults.append(
        lambda _, request: JSONResponse(body) if "/time-slots" in request.url.path else None
    )
    slots = dlt.source(lambda: rest_api_resources(oncehub.open().config()), name="vendor")().with_resources(
        "booking_calendar_time_slots"
    )
    with pytest.raises(Exception, match="no list of objects") as caught:
        list(slots)
    assert isinstance(caught.value.__cause__, VendorUnavailable)


def test_oncehub_pages_by_its_older_answers_too(oncehub: Side) -> None:
    assert isinstance(oncehub.dialect, OncehubApi)
    oncehub.dialect.lists_have_more = False
    assert len({entry["id"] for entry in listed(oncehub.open())}) == len(oncehub.meetings)


def test_oncehub_without_the_plan_says_so(oncehub: Side) -> None:
    assert isinstance(oncehub.dialect, OncehubApi)
    oncehub.dialect.plan_allows = False
    with pytest.raises(VendorRefused, match=r"403 .*plan does not include the API"):
        oncehub.open().ping()


@pytest.mark.parametrize("lists_cancelled", [True, False])
def test_appointedds_cancelled_bookings_are_listed_whether_asked_for_or_not(
    appointedd: Side, lists_cancelled: bool
) -> None:
    assert isinstance(appointedd.dialect, AppointeddApi)
    appointedd.dialect.lists_cancelled = lists_cancelled
    apart: list[str] = []
    appointedd.server.faults.append(lambda _, request: apart.extend(request.query_params.getlist("statuses")))
    entries = listed(appointedd.open())
    assert len(entries) == len({entry["id"] for entry in entries}) == len(appointedd.meetings)
    assert "cancelled" in {entry["status"] for entry in entries}
    assert set(apart) == (set() if lists_cancelled else {"cancelled"})


def test_appointedd_not_heeding_a_filter_costs_pages_and_no_booking(appointedd: Side) -> None:
    rest = appointedd.open()
    window = Window(BEGINNING + timedelta(days=1), BEGINNING + timedelta(days=2))
    heeded = {entry["id"] for entry in listed(rest, window)}
    everything = rest.pages

    def unfiltered(path: str, selector: str, **params: object) -> object:
        return everything(
            path,
            selector,
            **{name: value for name, value in params.items() if not name.startswith("updated_")},
        )

    rest.pages = unfiltered  # type: ignore[method-assign,assignment]
    assert {entry["id"] for entry in listed(rest, window)} == heeded
    assert 0 < len(heeded) < len(appointedd.meetings)


def test_appointedds_names_are_read_once_each(appointedd: Side) -> None:
    rest = appointedd.open()
    entries = listed(rest)
    requested = paths(appointedd)
    for entry in [*entries, *entries]:
        rest.complete(entry)
    customers = {customer["id"] for entry in entries for customer in entry["customers"]}
    assert sorted(requested) == sorted(
        [*(f"/v1/customers/{name}" for name in customers), "/v1/resources", "/v1/services"]
    )


def test_an_appointedd_customer_that_is_gone_leaves_the_booking(appointedd: Side) -> None:
    rest = appointedd.open()
    entry = listed(rest)[0]
    customer = {**entry["customers"][0], "id": "gone", "customer_id": "gone"}
    booking = read(rest, rest.complete({**entry, "customers": [customer]})[0])
    assert (booking["customer_id"], booking["customer_name"]) == ("gone", None)


@pytest.mark.parametrize("body", [{}, [], {"data": None}, {"data": {"profile": "Ada"}}])
def test_an_appointedd_customer_that_nobody_can_read_leaves_the_booking(
    appointedd: Side, body: object
) -> None:
    rest = appointedd.open()
    entry = listed(rest)[0]
    appointedd.server.faults.append(
        lambda _, request: JSONResponse(body) if "/customers/" in request.url.path else None
    )
    assert read(rest, rest.complete(entry)[0])["customer_id"] == entry["customers"][0]["id"]


@pytest.mark.parametrize(
    "body",
    [{}, [], {"resource": None}, {"resource": {}}, {"resource": {"uri": 1, "current_organization": None}}],
)
@pytest.mark.parametrize("scope", ["user", "organization"])
def test_calendly_not_telling_whose_the_token_is_is_told(calendly: Side, scope: str, body: object) -> None:
    rest = calendly.open(scope=scope)
    calendly.server.faults.append(lambda *_: JSONResponse(body, headers={"X-Request-Id": "r-1"}))
    for ask in (lambda: next(rest.bookings(ALL)), rest.resources):
        with pytest.raises(
            VendorUnavailable,
            match=r"^calendly account sales: the answer has no `resource\..*\(request r-1\)",
        ):
            ask()


def test_a_calendly_event_that_is_gone_since_it_was_listed_has_no_bookings(calendly: Side) -> None:
    rest = calendly.open()
    entry = listed(rest)[0]
    booking_id = read(rest, rest.complete(entry)[0])["booking_id"]
    calendly.server.faults.append(
        lambda _, request: Response(status_code=404) if "/scheduled_events/" in request.url.path else None
    )
    assert rest.complete(entry) == []
    assert rest.fetch(booking_id) is None


def test_calendlys_invitees_are_read_though_their_paging_is_nonsense(calendly: Side) -> None:
    rest = calendly.open()
    entry = listed(rest)[0]
    calendly.server.faults.append(
        lambda *_: JSONResponse({"collection": [{"uri": "one"}], "pagination": ["next"]})
    )
    assert [record["uri"] for record in rest.complete(entry)] == ["one"]


@pytest.mark.parametrize(
    ("per_minute", "account", "address"), [(None, (5, 1), True), (120, (120, 60), True), (0, None, False)]
)
def test_another_limit_for_the_account_leaves_the_vendors_for_an_address(
    oncehub: Side, per_minute: int | None, account: tuple[int, float] | None, address: bool
) -> None:
    limits = oncehub.open(rate_limit=per_minute)._limits()
    assert limits.account == ((Rate(*account),) if account else ())
    assert limits.address == ((Rate(200, 300),) if address else ())


def test_appointedd_not_finding_what_it_lists_is_no_proof_that_a_booking_is_gone(appointedd: Side) -> None:
    rest = appointedd.open()
    appointedd.server.faults.append(
        lambda _, request: Response(status_code=404) if "/bookings/" in request.url.path else None
    )
    with pytest.raises(VendorRefused, match="not even one that is listed"):
        rest.fetch(next(iter(listed(rest)))["id"])


def test_appointedd_is_doubted_anew_in_each_run(appointedd: Side) -> None:
    rest = appointedd.open()
    booking = next(iter(listed(rest)))["id"]
    assert rest.fetch(booking)
    appointedd.server.faults.append(
        lambda _, request: Response(status_code=404) if "/bookings/" in request.url.path else None
    )
    with pytest.raises(VendorRefused, match="not even one that is listed"):
        appointedd.open().fetch(booking)


def test_appointedd_is_doubted_once(appointedd: Side) -> None:
    rest = appointedd.open()
    requested = paths(appointedd)
    assert [rest.fetch(f"{number:024x}") for number in (1, 2, 3)] == [None] * 3
    assert len(requested) == 5


def test_appointedds_bookings_of_v2_are_compared_with_nothing(appointedd: Side) -> None:
    assert isinstance(appointedd.dialect, AppointeddApi)
    rest = appointedd.open(api="v2", **appointedd.dialect.v2.settings())
    for compare in (lambda: rest.bookings(ALL), lambda: rest.key({}), lambda: rest.fetch("x")):
        with pytest.raises(
            ConfigurationError, match=r'set accounts\.sales\.api = "v1" and accounts\.sales\.api_key'
        ):
            compare()


def test_bookeos_longest_window_is_answered_with_what_is_added_to_it(bookeo: Side) -> None:
    rest = bookeo.open()
    overlap = timedelta(minutes=5)
    since = BEGINNING - timedelta(days=3, microseconds=1)
    window = Window(since - overlap, since + rest.longest_window + overlap)
    assert len(listed(rest, window)) == len(bookeo.meetings)


def test_bookeo_without_an_end_reads_up_to_now(bookeo: Side) -> None:
    rest = bookeo.open()
    assert len(listed(rest, Window(datetime.now(UTC) - timedelta(days=1)))) == 0


@pytest.mark.parametrize("name", ["api_key", "secret_key"])
def test_bookeo_needs_both_keys(bookeo: Side, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"accounts\.sales\.{name}"):
        bookeo.open(**{name: None})


@pytest.mark.parametrize(("days", "spans"), [(31, [31]), (32, [31, 1]), (62, [31, 31]), (0, [0])])
def test_a_long_window_is_split_without_a_gap(days: int, spans: list[int]) -> None:
    parts = list(split(Window(END - timedelta(days=days), END), timedelta(days=31)))
    assert [(part.until or END) - part.since for part in parts] == [timedelta(days=span) for span in spans]
    assert [part.since for part in parts[1:]] == [part.until for part in parts[:-1]]
    assert parts[-1].until == END


def test_a_directory_is_read_again_for_what_came_up_since_and_not_for_what_is_not_there() -> None:
    known = [{"id": "a"}]
    reads: list[int] = []

    def everything() -> list[dict[str, str]]:
        reads.append(len(known))
        return [*known]

    directory = ListCache(everything)
    assert directory.find("a") == {"id": "a"}
    known.append({"id": "b"})
    assert [directory.find(name) for name in ("b", "c", "c", "a")] == [{"id": "b"}, None, None, {"id": "a"}]
    assert reads == [1, 2, 2]
