"""Who may call the dashboard, and what other sites cannot do to it through an operator's browser."""

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from ingest.dashboard.app import check_dashboard
from ingest.errors import ConfigurationError
from ingest.settings import Settings
from tests.ingest.dashboard.conftest import ADDRESS, Browse
from tests.ingest.dashboard.forms import form_token, submit

TOKEN = "0123456789abcdef"
HTML = {"accept": "text/html"}


def test_without_a_token_only_loopback_is_served() -> None:
    def settings(host: str, token: str | None) -> Settings:
        return Settings.model_validate(
            {"dashboard": {"host": host, "token": SecretStr(token) if token else None}}
        )

    check_dashboard(settings("127.0.0.1", None))
    check_dashboard(settings("::1", None))
    check_dashboard(settings("0.0.0.0", TOKEN))  # noqa: S104 - it is what is tested
    with pytest.raises(ConfigurationError, match=r"needs dashboard\.token"):
        check_dashboard(settings("0.0.0.0", None))  # noqa: S104 - the same


@pytest.mark.parametrize("path", ["/", "/home.json", "/nope", "/api/bookings"])
def test_with_a_token_nothing_is_answered_without_it(browse: Browse, path: str) -> None:
    browser = browse(token=TOKEN)
    assert browser.get(path).status_code == 401
    assert browser.get(path, headers={"authorization": "Bearer wrong"}).status_code == 401
    redirect = browser.get(path, headers=HTML)
    assert (redirect.status_code, redirect.headers["location"]) == (303, "/login")
    assert browser.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code in {200, 404}


def test_a_browser_logs_in_by_the_token_and_stays_so_in_a_cookie_that_no_script_reads(
    browse: Browse,
) -> None:
    browser = browse(token=TOKEN)
    wrong = submit(browser, "/login", token="wrong")
    assert (wrong.status_code, "ingest_session" in browser.cookies) == (401, False)
    right = submit(browser, "/login", token=TOKEN)
    assert (right.status_code, right.headers["location"]) == (303, "/")
    assert "HttpOnly" in right.headers["set-cookie"]
    assert TOKEN not in right.headers["set-cookie"]
    assert browser.get("/", headers=HTML).status_code == 200


@pytest.mark.parametrize("session", ["", "9999999999.", "9999999999.0000", "x.y", "1.é"])
def test_a_made_up_session_is_none(browse: Browse, session: str) -> None:
    cookie = b"ingest_session=" + session.encode()
    assert browse(token=TOKEN).get("/", headers={b"cookie": cookie}).status_code == 401


def test_a_session_ends_with_its_token(browse: Browse) -> None:
    browser, other = browse(token=TOKEN), browse(token="another-token")
    submit(browser, "/login", token=TOKEN)
    other.cookies.update(browser.cookies)
    assert other.get("/home.json").status_code == 401


def test_another_name_for_this_machine_is_refused_as_in_dns_rebinding(browse: Browse) -> None:
    browser = browse(hosts=["bookings.example.com"])
    assert browser.get("/", headers={"host": "evil.example:8084"}).status_code == 421
    assert browser.get("/", headers={"host": "bookings.example.com"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ],
)
def test_another_site_can_neither_submit_a_form_nor_embed_a_page(
    browse: Browse, headers: dict[str, str]
) -> None:
    browser = browse()
    token = form_token(browser)
    assert browser.post("/login", data={"form_token": token}, headers=headers).status_code == 403
    assert browser.get("/home.json", headers=headers).status_code == 403


def test_a_link_from_another_site_is_followed(browse: Browse) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert browse().get("/", headers=headers).status_code == 200


def test_a_form_of_another_browser_or_of_none_is_refused(browse: Browse) -> None:
    browser = browse()
    token = form_token(browser)
    stranger = TestClient(browser.app, base_url=ADDRESS)
    for answer in (
        stranger.post("/login", data={"form_token": token}),
        browser.post("/login", data={}),
        browser.post("/login", data={"form_token": "é"}),
    ):
        assert answer.status_code == 403


def test_a_form_larger_than_any_of_ours_is_refused_before_it_is_read_to_its_end(browse: Browse) -> None:
    assert browse().post("/login", content=b"a" * 300_000).status_code == 413


@pytest.mark.parametrize("path", ["/", "/nope", "/home.json", "/login"])
def test_no_answer_may_be_stored_framed_or_run_anything_that_is_not_ours(browse: Browse, path: str) -> None:
    headers = browse().get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers
