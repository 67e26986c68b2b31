"""Tests of tokens.

A token is fetched once for all threads, renewed in time, kept before it is used, and never shown.
"""

import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from starlette.requests import Request
from starlette.responses import Response

from ingest.errors import ConfigurationError, VendorRefused, VendorUnavailable
from ingest.rest import RetryBudget
from ingest.rest.oauth import ClientCredentials, OAuthApp, RotatingTokens
from ingest.simulator.appointedd.api import AppointeddApi
from ingest.simulator.calendly.api import CalendlyApi
from ingest.vendors.rest import AnyRest
from tests.ingest.rest.answering import Answers, told
from tests.support.simulated_vendor import Side, listed, simulated


class Oauth:
    """A simulated account with OAuth.

    `asked` are the last parts of the paths that were asked for.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self.first: dict[str, object] = {}
        self.asked: list[str] = []
        side.server.faults.append(self._note)

    def _note(self, _: str, request: Request) -> Response | None:
        self.asked.append(request.url.path.rpartition("/")[2])
        return None

    @property
    def tokens(self) -> int:
        """Return how often a token was asked for."""
        return self.asked.count("token") + self.asked.count("tokens")

    @property
    def calendly(self) -> CalendlyApi:
        assert isinstance(self.side.dialect, CalendlyApi)
        return self.side.dialect

    @property
    def appointedd(self) -> AppointeddApi:
        assert isinstance(self.side.dialect, AppointeddApi)
        return self.side.dialect

    def open(self, **settings: object) -> AnyRest:
        """Open a REST side with the first refresh token, whatever became of it."""
        return self.side.open(**{**self.first, **settings})

    @property
    def file(self) -> Path:
        return self.side.tokens / "calendly-sales.json"


@pytest.fixture
def calendly_app(calendly: Side) -> Oauth:
    oauth = Oauth(calendly)
    oauth.first = {"api_token": None, **oauth.calendly.oauth_settings()}
    return oauth


@pytest.fixture
def v2(tmp_path: Path) -> Iterator[Oauth]:
    with simulated("appointedd", tmp_path) as side:
        oauth = Oauth(side)
        oauth.appointedd.version = "v2"
        oauth.first = {
            "api": "v2",
            "api_url": side.server.api_url("sales").replace("/v1", "/v2"),
            **oauth.appointedd.settings(),
        }
        yield oauth


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()
    with answers.serving():
        yield answers


def app(server: Answers) -> OAuthApp:
    """Return an app whose refusals read as those of a vendor's account."""
    return OAuthApp(
        "acme account sales",
        f"{server.url}/oauth/token",
        "the-client",
        "the-client-secret",
        lambda response, remedy: f"{response.status_code} {response.text}: {remedy or 'look at it'}",
        lambda _: 0.0,
        RetryBudget(1, 0.0, 3),
    )


def rotating(server: Answers, folder: Path, seed: str = "the-seed-token") -> RotatingTokens:
    return RotatingTokens(app(server), seed, folder / "acme-sales.json", "accounts.sales.refresh_token")


def test_bookings_are_read_with_an_oauth_app_as_with_a_token(calendly_app: Oauth) -> None:
    assert len(listed(calendly_app.open())) == len(calendly_app.side.meetings)
    assert calendly_app.tokens == 1


def test_the_newest_pair_is_kept_for_its_owner_alone_before_it_is_used(calendly_app: Oauth) -> None:
    tokens: list[str] = []

    def record_token(_: str, request: Request) -> Response | None:
        if not request.url.path.endswith("/oauth/token"):
            tokens.append(json.loads(calendly_app.file.read_text())["access_token"])
            assert request.headers["authorization"] == f"Bearer {tokens[-1]}"
        return None

    calendly_app.side.server.faults.append(record_token)
    calendly_app.open().ping()
    assert len(tokens) == 1
    assert stat.S_IMODE(calendly_app.file.stat().st_mode) == 0o600
    text = calendly_app.file.read_text()
    assert json.loads(text)["refresh_token"] == calendly_app.calendly.tokens.refresh_token
    assert str(calendly_app.first["refresh_token"]) not in text
    assert {path.suffix for path in calendly_app.side.tokens.iterdir()} == {".json", ".lock"}


def test_another_process_uses_the_pair_that_is_kept(calendly_app: Oauth) -> None:
    calendly_app.open().ping()
    calendly_app.open().ping()
    assert calendly_app.tokens == 1


def test_a_token_refused_before_its_time_is_renewed(calendly_app: Oauth) -> None:
    rest = calendly_app.open()
    rest.ping()
    calendly_app.calendly.tokens.expire()
    rest.ping()
    assert calendly_app.asked == ["token", "me", "me", "token", "me"]


def test_a_process_whose_token_was_refused_takes_the_one_another_process_got(calendly_app: Oauth) -> None:
    early, late = calendly_app.open(), calendly_app.open()
    early.ping()
    late.ping()
    calendly_app.calendly.tokens.expire()
    early.ping()
    late.ping()
    assert calendly_app.tokens == 2


def test_a_token_is_renewed_before_its_end(server: Answers) -> None:
    server.answers = [
        told({"access_token": "first", "expires_in": 0}),
        told({"access_token": "second", "expires_in": 3600}),
    ]
    credential = ClientCredentials(app(server))
    assert [credential.headers()["Authorization"] for _ in range(3)] == [
        "Bearer first",
        "Bearer second",
        "Bearer second",
    ]
    assert parse_qs(server.bodies[0].decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["the-client"],
        "client_secret": ["the-client-secret"],
    }


def test_all_threads_get_along_with_one_token(calendly_app: Oauth) -> None:
    rest = calendly_app.open()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: rest.ping(), range(24)))
    calendly_app.calendly.tokens.expire()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: rest.ping(), range(24)))
    assert calendly_app.tokens == 2


def test_all_processes_get_along_with_one_token(calendly_app: Oauth) -> None:
    rests = [calendly_app.open() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda rest: rest.ping(), rests))
    calendly_app.calendly.tokens.expire()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda rest: rest.ping(), rests))
    assert calendly_app.tokens == 2


def test_a_spent_refresh_token_needs_a_person(calendly_app: Oauth) -> None:
    calendly_app.open().ping()
    calendly_app.file.unlink()
    with pytest.raises(VendorRefused) as caught:
        calendly_app.open().ping()
    message = str(caught.value)
    assert message.startswith("calendly account sales: no token: 400 invalid_grant")
    assert "authorise the app again and set accounts.sales.refresh_token" in message
    assert not any(str(calendly_app.first[name]) in message for name in ("refresh_token", "client_secret"))


def test_a_new_token_in_the_settings_wins_over_what_was_kept(calendly_app: Oauth) -> None:
    calendly_app.open().ping()
    calendly_app.calendly.tokens.refresh_token = "authorised-again"
    calendly_app.open(refresh_token="authorised-again").ping()
    assert calendly_app.tokens == 2
    calendly_app.open(refresh_token="authorised-again").ping()
    assert calendly_app.tokens == 2


def test_a_broken_file_is_as_none(calendly_app: Oauth) -> None:
    calendly_app.file.parent.mkdir(parents=True, exist_ok=True)
    calendly_app.file.write_bytes(b'{"seed": ')
    calendly_app.open().ping()
    assert (
        json.loads(calendly_app.file.read_bytes())["refresh_token"]
        == calendly_app.calendly.tokens.refresh_token
    )


def test_no_token_is_spent_that_cannot_be_kept(server: Answers, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="tokens cannot be kept in"):
        rotating(server, tmp_path / "file").headers()
    assert not server.asked


def test_without_rotation_the_refresh_token_stays(server: Answers, tmp_path: Path) -> None:
    server.answers = [told({"access_token": "one", "expires_in": 0}), told({"access_token": "two"})]
    credential = rotating(server, tmp_path)
    credential.headers()
    credential.headers()
    assert [parse_qs(body.decode())["refresh_token"] for body in server.bodies] == [
        ["the-seed-token"],
        ["the-seed-token"],
    ]


def test_a_rotated_token_is_used_and_not_the_first_again(server: Answers, tmp_path: Path) -> None:
    server.answers = [
        told({"access_token": "one", "refresh_token": "next", "expires_in": 0}),
        told({"access_token": "two"}),
    ]
    rotating(server, tmp_path).headers()
    rotating(server, tmp_path).headers()
    assert [parse_qs(body.decode())["refresh_token"] for body in server.bodies] == [
        ["the-seed-token"],
        ["next"],
    ]


@pytest.mark.parametrize("body", [{}, [], {"access_token": ""}, {"access_token": 7}, None])
def test_an_answer_without_a_token_is_nonsense(server: Answers, body: object) -> None:
    server.answers = [told(body)]
    with pytest.raises(VendorUnavailable, match="without an access_token"):
        ClientCredentials(app(server)).headers()


def test_a_token_that_could_not_be_had_at_once_is_asked_for_again(server: Answers) -> None:
    server.answers = [told({}, 429), told({"access_token": "at-last"})]
    assert ClientCredentials(app(server)).headers() == {"Authorization": "Bearer at-last"}


def test_errors_do_not_repeat_what_was_sent(server: Answers, tmp_path: Path) -> None:
    server.answers = [told({"error": "the-client-secret and the-seed-token are wrong"}, 401)]
    credential = rotating(server, tmp_path)
    with pytest.raises(VendorRefused) as caught:
        credential.headers()
    assert "… and … are wrong" in str(caught.value)
    assert "the-client-secret" not in f"{credential!r} {app(server)!r}"


def test_v2_is_read_with_a_token_for_the_app(v2: Oauth) -> None:
    v2.open().ping()
    assert v2.asked == ["tokens", "accounts"]


def test_v2s_token_is_renewed_when_it_is_refused(v2: Oauth) -> None:
    rest = v2.open()
    rest.ping()
    v2.appointedd.v2.revoke()
    rest.ping()
    assert v2.tokens == 2


def test_v2_with_a_wrong_secret_is_refused(v2: Oauth) -> None:
    with pytest.raises(
        VendorRefused, match=r"^appointedd account sales: no token: 401 invalid_client: the key is wrong"
    ):
        v2.open(client_secret="not-this-one").ping()
