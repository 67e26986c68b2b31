"""Tests of what people are told about a vendor's error, and of what is understood of its headers."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import orjson
import pytest
from requests import Response

from ingest.vendors import load_account_class
from ingest.vendors.rest import AnyRest

KEY = "a-key-nobody-should-see"


@pytest.fixture
def rest(tmp_path: Path) -> AnyRest:
    return rest_of("oncehub", tmp_path, api_key=KEY)


@pytest.fixture
def calendly(tmp_path: Path) -> AnyRest:
    return rest_of("calendly", tmp_path, api_token=KEY)


def rest_of(name: str, folder: Path, **secret: str) -> AnyRest:
    vendor = load_account_class(name)
    settings = vendor.settings_model.model_validate({"name": "sales", "vendor": name, **secret})
    return vendor(settings, "").rest(folder)


@pytest.fixture
def bookeo_rest(tmp_path: Path) -> AnyRest:
    return rest_of("bookeo", tmp_path, secret_key=KEY, api_key=KEY)


def response(status: int, body: object = None, **headers: str) -> Response:
    answer = Response()
    answer.status_code = status
    answer._content = body if isinstance(body, bytes) else orjson.dumps(body)
    answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return answer


def test_a_refusal_tells_status_words_request_and_remedy(rest: AnyRest) -> None:
    message = rest.describe_error(response(401, {"message": "Invalid key"}, Request_Id="r-1"))
    assert (
        message == "401 Invalid key (request r-1): the key is wrong, expired or revoked;"
        " put a new one into the secrets file or the environment"
    )


def test_a_better_remedy_may_be_given(rest: AnyRest) -> None:
    assert rest.describe_error(response(400), "ask again") == "400: ask again"


@pytest.mark.parametrize("body", [None, [], b"<html>", {"message": None}, {"message": ""}])
def test_an_error_without_words_is_told_all_the_same(rest: AnyRest, body: object) -> None:
    assert rest.describe_error(response(500, body)) == "500: the vendor failed; try again later"


def test_a_key_that_the_vendor_repeats_is_not_told(rest: AnyRest) -> None:
    assert KEY not in rest.describe_error(response(401, {"message": f"The key {KEY} is unknown"}))


def test_what_others_wrote_is_one_line_of_bounded_length(rest: AnyRest) -> None:
    message = rest.describe_error(
        response(400, {"message": "a\nb\x1b[2J\u202e" + "x" * 1000}, Request_Id="y" * 1000)
    )
    assert message.isprintable()
    assert message.startswith("400 a b [2J xx")
    assert len(message) < 600


def test_a_key_across_the_end_of_the_line_is_not_told_in_part(rest: AnyRest) -> None:
    assert KEY[:8] not in rest.describe_error(response(401, {"message": "x" * 190 + f" {KEY}"}))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0.0), ("120", 120.0), ("²", None), ("-1", None), ("1.5", None), ("", None), ("soon", None)],
)
def test_a_pause_in_seconds(rest: AnyRest, header: str, seconds: float | None) -> None:
    assert rest.retry_after(response(429, Retry_After=header)) == seconds


def test_a_pause_until_a_date(rest: AnyRest) -> None:
    later = rest.retry_after(
        response(429, Retry_After=format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True))
    )
    assert later is not None
    assert 3500 < later <= 3600
    assert rest.retry_after(response(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")) == 0.0


@pytest.mark.parametrize(
    "date",
    ["Wed, 21 Oct 2065 07:28:00 -0000", "Wed, 21 Oct 99999 07:28:00 GMT", "Wed, 99 Oct 2065 07:28:00 GMT"],
)
def test_a_date_that_is_none_is_no_pause(rest: AnyRest, date: str) -> None:
    assert rest.retry_after(response(429, Retry_After=date)) is None


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        ({"retryAfter": 30}, {}, 30.0),
        ({"retryAfter": "12.5"}, {}, 12.5),
        ({"retryAfter": 30}, {"Retry_After": "7"}, 7.0),
        ({"retryAfter": -1}, {}, None),
        ({"retryAfter": True}, {}, None),
        ({"retryAfter": "soon"}, {}, None),
        ({"retryAfter": "inf"}, {}, None),
        ({"retryAfter": "nan"}, {}, None),
        ([30], {}, None),
        (b"Too many requests", {}, None),
    ],
)
def test_bookeo_tells_the_pause_in_the_body(
    bookeo_rest: AnyRest, body: object, headers: dict[str, str], seconds: float | None
) -> None:
    assert bookeo_rest.retry_after(response(429, body, **headers)) == seconds


def test_a_pause_in_the_body_of_a_success_is_data(bookeo_rest: AnyRest) -> None:
    assert bookeo_rest.retry_after(response(200, {"retryAfter": 30})) is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"title": "Permission Denied", "required_scopes": ["event_types:read", "users:read"]},
            "required scopes: event_types:read, users:read",
        ),
        (
            {
                "title": "Invalid Argument",
                "details": [{"parameter": "events", "message": "users:read is required"}, {"message": "no"}],
            },
            "events: users:read is required; no",
        ),
        (
            {"message": "no", "details": ["one", {"field": "url", "detail": "is not https"}, 7, None, {}]},
            "no; one; url: is not https",
        ),
    ],
)
def test_what_an_error_says_of_scopes_and_parameters_is_told(rest: AnyRest, body: object, words: str) -> None:
    assert f"{words}:" in rest.describe_error(response(403, body))


@pytest.mark.parametrize("odd", [None, "text", 7, {"a": 1}, [None], [[]], [{"parameter": None}]])
def test_details_of_another_kind_are_no_reason_to_fail(rest: AnyRest, odd: object) -> None:
    assert rest.describe_error(
        response(500, {"message": "no", "details": odd, "required_scopes": odd})
    ).startswith("500 no")


def test_details_hold_no_key_and_are_of_bounded_length(rest: AnyRest) -> None:
    message = rest.describe_error(
        response(400, {"message": "x", "details": [{"parameter": KEY, "message": f"\x1b[2J{KEY}" * 300}]})
    )
    assert KEY not in message
    assert message.isprintable()
    assert len(message) < 600


SCOPES = "This operation requires the scopes listed in the 'required_scopes' array."
INVALID = "The supplied parameters are invalid."


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            403,
            {"message": SCOPES, "required_scopes": ["event_types:read"]},
            ["required scopes: event_types:read", "give the token"],
        ),
        (
            403,
            {"message": SCOPES, "required_scopes": ["groups:read", "users:read"]},
            ["groups:read, users:read", "give the token"],
        ),
        (
            403,
            {"message": "You do not have permission", "required_scopes": []},
            ["You do not have permission", "owner or admin"],
        ),
        (
            400,
            {
                "message": INVALID,
                "details": [
                    {
                        "parameter": "events",
                        "message": "scheduled_events:read is required for invitee.created",
                    }
                ],
            },
            [
                "events: scheduled_events:read is required for invitee.created",
                "give the token the scopes it lacks",
            ],
        ),
        (
            400,
            {
                "message": INVALID,
                "details": [{"message": "url is taken"}, {"parameter": "scope", "message": "is unknown"}],
            },
            ["url is taken; scope: is unknown"],
        ),
        (400, {"message": INVALID, "details": []}, [INVALID.rstrip(".")]),
        (400, {"message": INVALID, "details": [None, "text", {}]}, [INVALID.rstrip(".")]),
        (400, {"message": INVALID, "details": "text", "required_scopes": "text"}, [INVALID.rstrip(".")]),
        (400, {"error": "invalid_grant", "error_description": "it was used"}, ["invalid_grant: it was used"]),
    ],
)
def test_calendly_says_which_scopes_and_which_parameters(
    calendly: AnyRest, status: int, body: dict[str, object], words: list[str]
) -> None:
    refusal = calendly.describe_error(response(status, body))
    assert refusal.startswith(f"{status} ")
    assert "\n" not in refusal
    assert all(word in refusal for word in words), refusal
    assert ("give the token" in refusal) == (status == 403 or "scheduled_events:read" in str(body))
