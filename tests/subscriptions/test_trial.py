"""`ingest webhooks test`: a delivery of our own from the public URL to the warehouse, and where it stops."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from consumers.arrivals import arrivals
from consumers.query import query
from ingest.settings import Settings
from ingest.vendors import load_vendor, vendor_names
from ingest.vendors.trial import is_trial, trial_delivery
from tests.cli.command import COMMAND, PATIENCE, Result, environment, ingest
from tests.consumers.rig import tree_for
from tests.e2e.processes import eventually
from tests.kafka.broker import free_port
from tests.rest.answering import Answers

SECRET = "a-secret-of-these-tests-only"
OWN: dict[str, dict[str, Any]] = {"appointedd": {"webhook_header": "X-Token"}, "bookeo": {"secret_key": SECRET, "api_key": "key"}}


@pytest.mark.parametrize("name", vendor_names())
def test_a_trial_is_authentic_new_each_time_and_no_booking(name: str) -> None:
    vendor_class = load_vendor(name)
    account = {"name": "sales", "vendor": name, "webhook_secrets": [SECRET], **OWN.get(name, {})}
    vendor = vendor_class(vendor_class.Account.model_validate(account), "https://hooks.example.com")
    events = []
    for _ in range(2):
        delivery = trial_delivery(vendor)
        events.append(vendor.parse(vendor.verify(delivery, delivery.received_at)))
    assert [vendor.booking(event) for event in events] == [None, None]
    assert len({event.id for event in events}) == 2
    assert all(is_trial(event.type) for event in events)


class Place:
    """A folder with settings of one account of each vendor, whose public URL may lead through a proxy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.tree = tree_for(folder) | {"receiver": {"port": self.port, "admin_port": 0}}
        self.public(f"http://127.0.0.1:{self.port}")

    def public(self, url: str, secret: str = SECRET) -> None:
        """Writes the settings anew."""
        accounts = {
            name: {"vendor": name, **{key: value for key, value in OWN.get(name, {}).items() if key == "webhook_header"}}
            for name in vendor_names()
        }
        lines = [f'public_url = "{url}"', f'log = "{self.tree["log"]}"']
        for section in ("warehouse", "receiver", "consumer"):
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in self.tree.get(section, {}).items())]
        for name, table in accounts.items():
            lines += [f"[accounts.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        (self.folder / "ingest.toml").write_text("\n".join(lines))
        secrets = self.folder / "ingest.secrets.toml"
        secrets.write_text("".join(f'[accounts.{name}]\nwebhook_secrets = ["{secret}"]\n' for name in accounts))
        secrets.chmod(0o600)

    def run(self, account: str = "calendly") -> tuple[Result, dict[str, Any]]:
        """The command, and the steps that it tells: whether each went well."""
        result = ingest(self.folder, "webhooks", "test", account, "--json")
        return result, {step["step"]: step["ok"] for step in result.json["steps"]}

    @contextmanager
    def running(self, *command: str) -> Iterator[None]:
        """A process of ours."""
        with (self.folder / f"{command[0]}.log").open("wb") as lines:
            process = subprocess.Popen(
                [*COMMAND, *command], cwd=self.folder, env=environment(), stdin=subprocess.DEVNULL, stdout=lines, stderr=lines
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)

    def answers(self) -> bool:
        """Whether the receiver is up."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def handing_on(port: int, change: Callable[[bytes], bytes]) -> Callable[[Request], Response]:
    """A proxy's way with a request; the body is the last that the proxy was sent."""

    def answer(request: Request) -> Response:
        path = request.url.path
        answered = httpx.post(
            f"http://127.0.0.1:{port}{path}",
            content=change(proxy.bodies[-1]),
            headers=dict(request.headers.items()) | {"content-length": str(len(change(proxy.bodies[-1])))},
        )
        return Response(answered.content, answered.status_code)

    return answer


proxy = Answers()


def test_every_vendors_delivery_reaches_the_warehouse_of_a_running_product(place: Place) -> None:
    with place.running("up"):
        eventually(place.answers, "the receiver listens")
        for name in vendor_names():
            result, steps = place.run(name)
            assert (result.code, all(steps.values())) == (0, True), result
            assert [*steps] == ["dns", "connection", "answer", "log", "consumer", "warehouse"]
        plain = ingest(place.folder, "webhooks", "test", "calendly")
        assert plain.code == 0
        assert "warehouse: booking_events has it" in plain.out
    settings = Settings.model_validate(place.tree)
    assert query(settings, "select count(*) from bookings").rows[0][0] == 0
    assert arrivals(settings, "calendly", "calendly").last is None, "it proves nothing of what the vendor sends"


def test_without_a_receiver_it_says_to_start_one(place: Place) -> None:
    result, steps = place.run()
    assert (result.code, steps) == (3, {"dns": True, "connection": False, "receiver": False})
    assert "ingest up" in result.json["steps"][-1]["remedy"]


def test_without_a_consumer_it_is_in_the_log_and_waits(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_TEST_NOTHING", "")
    with place.running("receive"):
        eventually(place.answers, "the receiver listens")
        result, steps = place.run()
    assert (result.code, steps) == (3, {"dns": True, "connection": True, "answer": True, "log": True, "consumer": False})


def test_a_receiver_with_another_secret_is_to_blame_itself(place: Place) -> None:
    with place.running("receive"):
        eventually(place.answers, "the receiver listens")
        result = ingest(place.folder, "webhooks", "test", "calendly", "--json", INGEST_ACCOUNTS__CALENDLY__WEBHOOK_SECRETS="another-secret")
    assert result.code == 1
    assert [step["step"] for step in result.json["steps"] if not step["ok"]] == ["answer", "receiver"]
    assert "another secret" in result.json["steps"][-1]["detail"]
    assert "another-secret" not in result.out + result.err


@pytest.mark.parametrize(
    ("change", "answer"),
    [(lambda body: body + b" ", None), (None, 502), (None, 301), (None, 200), (None, 404)],
    ids=["body", "502", "301", "200", "404"],
)
def test_a_proxy_that_does_not_hand_on_what_came_is_to_blame(
    place: Place, change: Callable[[bytes], bytes] | None, answer: int | None
) -> None:
    proxy.answers = [handing_on(place.port, change) if change else lambda _: Response(status_code=answer or 200)]
    with proxy.serving(), place.running("receive"):
        eventually(place.answers, "the receiver listens")
        place.public(proxy.url)
        result, steps = place.run()
    assert result.code == (3 if answer == 502 else 1)
    assert (steps["answer"], steps["receiver"]) == (False, result.code in {1, 3} and steps["receiver"])
    assert "proxy" in json.dumps(result.json["steps"])


def test_a_host_without_a_name_is_told_as_such(place: Place) -> None:
    place.public("https://no-such-host.invalid")
    result, steps = place.run()
    assert steps["dns"] is False
    assert "DNS" in result.json["steps"][0]["detail"]


def test_an_account_without_a_secret_is_a_settings_error(place: Place) -> None:
    (place.folder / "ingest.secrets.toml").unlink()
    result = ingest(place.folder, "webhooks", "test", "calendly")
    assert result.code == 2
    assert "ingest webhooks apply calendly" in result.err
