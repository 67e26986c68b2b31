"""The OAuth tokens of Calendly's simulated REST API: they expire and rotate."""

from collections.abc import Iterator
from datetime import timedelta
from typing import cast

import httpx
import pytest

from ingest.simulator.calendly.api import CalendlyApi
from ingest.simulator.calendly.records import ORGANIZATION
from tests.ingest.simulator.rest.served import ServedAccount, history_of, served


def calendly_api(account: ServedAccount) -> CalendlyApi:
    return cast("CalendlyApi", account.api)


def renewed(account: ServedAccount, **instead: str) -> httpx.Response:
    """Return the response to a refresh token, without any other credential."""
    form = {"grant_type": "refresh_token", **calendly_api(account).oauth_settings(), **instead}
    return httpx.post(f"{account.server.api_url('calendly')}/oauth/token", data=form)


def me(account: ServedAccount, access_token: str) -> int:
    return account.client.get("users/me", headers={"Authorization": f"Bearer {access_token}"}).status_code


@pytest.fixture
def oauth() -> Iterator[ServedAccount]:
    with served(history_of("calendly", 3)) as account:
        yield account


def test_a_refresh_token_gives_an_access_token_and_the_next_refresh_token(oauth: ServedAccount) -> None:
    first = calendly_api(oauth).oauth_settings()["refresh_token"]
    tokens = renewed(oauth).json()
    assert me(oauth, tokens["access_token"]) == 200
    assert tokens["refresh_token"] == calendly_api(oauth).oauth_settings()["refresh_token"] != first
    assert (tokens["token_type"], tokens["expires_in"], tokens["organization"]) == (
        "Bearer",
        7200,
        ORGANIZATION,
    )


def test_access_tokens_can_be_ended_early_and_the_next_is_good(oauth: ServedAccount) -> None:
    early = renewed(oauth).json()["access_token"]
    calendly_api(oauth).tokens.expire()
    assert (me(oauth, early), me(oauth, renewed(oauth).json()["access_token"])) == (401, 200)


def test_a_refresh_token_is_good_once(oauth: ServedAccount) -> None:
    first = calendly_api(oauth).oauth_settings()["refresh_token"]
    second = renewed(oauth).json()["refresh_token"]
    again = renewed(oauth, refresh_token=first)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert renewed(oauth, refresh_token=second).status_code == 200


def test_an_access_token_is_good_until_its_time_is_over(oauth: ServedAccount) -> None:
    tokens = [renewed(oauth).json()["access_token"] for _ in range(2)]
    assert [me(oauth, token) for token in tokens] == [200, 200]
    calendly_api(oauth).tokens.seconds = 0
    assert [me(oauth, token) for token in tokens] == [401, 401]
    assert oauth.get("users/me"), "a personal access token lasts"


@pytest.mark.parametrize(
    ("instead", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "wrong"}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"refresh_token": "wrong"}, 400, "invalid_grant"),
        ({"refresh_token": ""}, 400, "invalid_grant"),
    ],
)
def test_oauth_refuses_in_its_own_words_and_uses_nothing_up(
    oauth: ServedAccount, instead: dict[str, str], status: int, error: str
) -> None:
    refused = renewed(oauth, **instead)
    assert (refused.status_code, refused.json()["error"], set(refused.json())) == (
        status,
        error,
        {"error", "error_description"},
    )
    assert renewed(oauth).status_code == 200


def test_more_than_eight_tokens_a_minute_are_too_many(oauth: ServedAccount) -> None:
    answers = [renewed(oauth) for _ in range(9)]
    assert [answer.status_code for answer in answers] == [200] * 8 + [429]
    assert 0 < int(answers[-1].headers["X-RateLimit-Reset"]) <= timedelta(minutes=1).total_seconds()


def test_tokens_are_made_by_posts_alone(oauth: ServedAccount) -> None:
    assert oauth.client.get("oauth/token", headers={"Authorization": ""}).status_code == 401
    assert oauth.client.get("oauth/token").status_code == 404
