"""Tests of the transport against servers that are busy, broken, or not what they should be."""

import copy
import gzip
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest
from requests import PreparedRequest, Response, Session
from starlette.requests import Request
from starlette.responses import Response as ServerResponse
from starlette.responses import StreamingResponse

from ingest.errors import VendorBusy, VendorRefused, VendorUnavailable
from ingest.rest import Credential, Limits, Rate, RequestPolicy, RetryBudget
from ingest.rest.adapter import VendorAdapter, open_session
from tests.ingest.rest.answering import Answers, raw, told

LABEL = "acme account sales"
NO_LIMITS = Limits()
HASTY = RetryBudget(3, 3, 3)


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()
    with answers.serving():
        yield answers


def refusal(response: Response) -> str:
    return f"{response.status_code}: do something"


def pause(response: Response) -> float | None:
    return float(response.headers["Retry-After"]) if "Retry-After" in response.headers else None


def opened(
    credential: Credential | None = None, limits: Limits = NO_LIMITS, patience: RetryBudget = HASTY
) -> tuple[Session, VendorAdapter]:
    return open_session(
        RequestPolicy(
            LABEL, limits, credential or Credential({"X-Key": "the-key-itself"}), refusal, pause, patience
        ),
        "http://127.0.0.1",
    )


class Renewing(Credential):
    """A credential that can be renewed until its token number `last`."""

    def __init__(self, last: int) -> None:
        super().__init__({})
        self.number = 1
        self._last = last

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.number}"}

    def renew(self, refused: PreparedRequest) -> bool:
        assert refused.headers["Authorization"] == f"Bearer {self.number}"
        self.number += 1
        return self.number <= self._last


def test_an_answer_is_json_that_was_asked_for_with_the_credential(server: Answers) -> None:
    server.answers = [told({"a": ["ü"]})]
    session, adapter = opened()
    assert session.get(server.url).json() == {"a": ["ü"]}
    assert server.asked[0].headers["x-key"] == "the-key-itself"
    assert adapter.requests == 1


def test_a_compressed_answer_is_read_as_well(server: Answers) -> None:
    server.answers = [raw(gzip.compress(b'{"many": "' + b"x" * 500_000 + b'"}'), Content_Encoding="gzip")]
    assert len(opened()[0].get(server.url).json()["many"]) == 500_000


def test_busy_is_waited_for_and_asked_again(server: Answers) -> None:
    server.answers = [told({}, 429, Retry_After="0"), told({}, 429, Retry_After="0.01"), told({"at": "last"})]
    session, adapter = opened()
    assert session.get(server.url).json() == {"at": "last"}
    assert adapter.requests == 3


def test_what_is_busy_for_longer_than_we_have_patience_is_given_up_at_once(server: Answers) -> None:
    server.answers = [told({}, 429, Retry_After="3600")]
    session, adapter = opened()
    with pytest.raises(
        VendorBusy,
        match=f"^{LABEL}: too many requests, the next one is allowed in 3600 s. 429: do something$",
    ) as caught:
        session.get(server.url)
    assert caught.value.retry_after == 3600
    with pytest.raises(VendorBusy, match="wants no request for 3"):
        session.get(server.url)
    assert adapter.requests == len(server.asked) == 1


def test_a_pause_that_never_ends_is_no_number_to_sleep_for(server: Answers) -> None:
    server.answers = [told({}, 429, Retry_After="9" * 400)]
    with pytest.raises(VendorBusy):
        opened()[0].get(server.url)


def test_a_pause_after_a_success_holds_for_the_next_request(server: Answers) -> None:
    server.answers = [told({"a": 1}, Retry_After="3600")]
    session, _ = opened()
    assert session.get(server.url).json() == {"a": 1}
    with pytest.raises(VendorBusy):
        session.get(server.url)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_failing_server_is_asked_again(server: Answers, status: int) -> None:
    server.answers = [told({}, status, Retry_After="0"), told({"ok": True})]
    assert opened()[0].get(server.url).json() == {"ok": True}


def test_a_server_that_goes_on_failing_is_given_up(server: Answers) -> None:
    server.answers = [told({}, 503)]
    with pytest.raises(VendorUnavailable, match=f"^{LABEL}: 503: do something$") as caught:
        opened(patience=RetryBudget(100, 0.0, 3))[0].get(server.url)
    assert not isinstance(caught.value, VendorBusy)


def test_being_busy_for_long_leaves_all_the_patience_for_a_failure_after_it(server: Answers) -> None:
    server.answers = [told({}, 429, Retry_After="1.5"), told({}, 503, Retry_After="0"), told({"ok": True})]
    assert opened(patience=RetryBudget(10, 1.4, 3))[0].get(server.url).json() == {"ok": True}


def test_what_may_have_been_done_is_not_done_again(server: Answers) -> None:
    server.answers = [told({}, 503, Retry_After="0")]
    with pytest.raises(VendorUnavailable):
        opened()[0].post(server.url)
    assert len(server.asked) == 1


def test_what_was_not_done_because_of_the_limit_is_done_again(server: Answers) -> None:
    server.answers = [told({}, 429, Retry_After="0"), told({}, 201)]
    assert opened()[0].post(server.url).status_code == 201


@pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 422])
def test_a_no_is_a_no(server: Answers, status: int) -> None:
    server.answers = [told({}, status)]
    session, adapter = opened()
    with pytest.raises(VendorRefused, match=f"^{LABEL}: {status}: do something$") as caught:
        session.get(server.url)
    assert caught.value.status_code == status
    assert adapter.requests == 1


def test_a_refused_credential_is_renewed_once(server: Answers) -> None:
    server.answers = [told({}, 401), told({"ok": True})]
    assert opened(Renewing(2))[0].get(server.url).json() == {"ok": True}
    assert [request.headers["authorization"] for request in server.asked] == ["Bearer 1", "Bearer 2"]


def test_a_renewed_credential_that_is_refused_too_is_a_no(server: Answers) -> None:
    server.answers = [told({}, 401)]
    with pytest.raises(VendorRefused) as caught:
        opened(Renewing(9))[0].get(server.url)
    assert caught.value.status_code == 401
    assert len(server.asked) == 2


def test_a_credential_that_cannot_be_renewed_is_not_sent_again(server: Answers) -> None:
    server.answers = [told({}, 401)]
    with pytest.raises(VendorRefused):
        opened()[0].get(server.url)
    assert len(server.asked) == 1


@pytest.mark.parametrize("content", [b"<html>", b"", b"\xff", b'{"a":', b"[" * 100_000])
def test_an_answer_that_is_not_json_is_none(server: Answers, content: bytes) -> None:
    server.answers = [raw(content)]
    with pytest.raises(VendorUnavailable, match="not JSON"):
        opened(patience=RetryBudget(1, 0.0, 3))[0].get(server.url)


def test_what_was_deleted_may_be_answered_with_nothing(server: Answers) -> None:
    server.answers = [raw(b"", 204)]
    assert opened()[0].delete(server.url).status_code == 204


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_with_the_credential(server: Answers, status: int) -> None:
    server.answers = [told({}, status, Location=f"{server.url}/elsewhere"), told({"stolen": True})]
    with pytest.raises(VendorRefused, match="api_url is not the address of the API"):
        opened()[0].get(server.url)
    assert len(server.asked) == 1


def test_a_connection_that_is_cut_is_tried_again(server: Answers) -> None:
    def cut(_: Request) -> ServerResponse:
        async def half() -> AsyncIterator[bytes]:
            yield b'{"a": 1'

        return StreamingResponse(half(), headers={"Content-Length": "1000"})

    server.answers = [cut, told({"whole": True})]
    assert opened()[0].get(server.url).json() == {"whole": True}


def test_nobody_listening_is_no_answer() -> None:
    with pytest.raises(
        VendorUnavailable, match=f"^{LABEL}: 127.0.0.1:9 refuses the connection: nothing listens there$"
    ):
        opened(patience=RetryBudget(1, 0.0, 1))[0].get("http://127.0.0.1:9")


def test_a_body_without_end_is_not_read_without_end(server: Answers) -> None:
    over = Event()

    def endless(_: Request) -> ServerResponse:
        async def spaces() -> AsyncIterator[bytes]:
            while not over.is_set():
                yield b" "

        return StreamingResponse(spaces(), media_type="application/json")

    server.answers = [endless]
    try:
        with pytest.raises(VendorUnavailable, match="too slow or too large"):
            opened(patience=RetryBudget(1, 0.0, 0.2))[0].get(server.url)
    finally:
        over.set()


def test_accounts_of_one_process_share_what_an_address_is_allowed(server: Answers) -> None:
    limits = Limits(address=(Rate(3, 3600),))
    sessions = [opened(limits=limits)[0] for _ in range(2)]
    for session in (*sessions, sessions[0]):
        session.get(server.url)
    fourth = Thread(target=sessions[1].get, args=(server.url,), daemon=True)
    fourth.start()
    fourth.join(0.2)
    assert fourth.is_alive()
    assert len(server.asked) == 3


def test_many_threads_may_use_one_session(server: Answers) -> None:
    session, adapter = opened()
    server.answers = [told({}, 429, Retry_After="0")] * 10 + [told({"ok": True})]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: session.get(server.url).json(), range(40)))
    assert answers == [{"ok": True}] * 40
    assert adapter.requests == len(server.asked) == 50


def test_a_credential_does_not_show_itself() -> None:
    credential = Credential({"Authorization": "Bearer a-long-enough-token"})
    assert "token" not in repr(credential)
    assert credential.redact("Bearer token a-long-enough-token is wrong") == "Bearer token … is wrong"
    assert copy.deepcopy(credential) is credential


@pytest.mark.parametrize(
    ("encoding", "packed"), [("identity", bytes), ("gzip", gzip.compress)], ids=["identity", "gzip"]
)
def test_connections_are_used_again(server: Answers, encoding: str, packed: Callable[[bytes], bytes]) -> None:
    server.answers = [raw(packed(b"[1]"), Content_Encoding=encoding)]
    session, _ = opened()
    for _ in range(3):
        assert session.get(server.url).json() == [1]
    assert len({request.client and request.client.port for request in server.asked}) == 1


def test_a_chunked_answer_is_read_and_its_connection_used_again(server: Answers) -> None:
    def chunked(_: Request) -> ServerResponse:
        async def parts() -> AsyncIterator[bytes]:
            for part in (b"[1,", b" 2", b"]"):
                yield part

        return StreamingResponse(parts())

    server.answers = [chunked]
    session, _ = opened()
    for _ in range(3):
        assert session.get(server.url).json() == [1, 2]
    assert len({request.client and request.client.port for request in server.asked}) == 1
