"""`ingest webhooks test`: a delivery of our own from the public URL to the warehouse, and where it stops."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from ingest.settings import Settings
from ingest.vendors import TEST_EVENT, load_account_class, vendor_names
from ingest.warehouse.deliveries import arrivals
from ingest.warehouse.query import query
from tests.ingest.rest.answering import Answer, Answers
from tests.ingest.rest.test_reaching import SELF_SIGNED, Serve, listening
from tests.support.polling import is_healthy, wait_for
from tests.support.ports import free_port
from tests.support.processes import Result, ingest, start_ingest
from tests.support.settings import settings_tree, write_settings

SECRET = "a-secret-of-these-tests-only"
OWN: dict[str, dict[str, Any]] = {
    "appointedd": {"webhook_header": "X-Token"},
    "bookeo": {"secret_key": SECRET, "api_key": "key"},
}


@pytest.mark.parametrize("name", vendor_names())
def test_a_trial_is_authentic_new_each_time_and_no_booking(name: str) -> None:
    vendor_class = load_account_class(name)
    account = {"name": "sales", "vendor": name, "webhook_secrets": [SECRET], **OWN.get(name, {})}
    vendor = vendor_class(vendor_class.settings_model.model_validate(account), "https://hooks.example.com")
    events = []
    for _ in range(2):
        delivery = vendor.test_delivery()
        events.append(vendor.parse(vendor.verify(delivery, delivery.received_at)))
    assert [vendor.booking(event) for event in events] == [None, None]
    assert len({event.id for event in events}) == 2
    assert {event.type for event in events} == {f"{name}.{TEST_EVENT}"}


class Deployment:
    """A folder with settings of an account of each vendor; its public URL may lead anywhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.tree = settings_tree(folder) | {"receiver": {"port": self.port, "admin_port": 0}}
        self.write(f"http://127.0.0.1:{self.port}")

    def write(self, public_url: str) -> None:
        """Write the settings, and the secrets into a file of their own."""
        headers = {"appointedd": {"webhook_header": "X-Token"}}
        accounts = {
            name: {"vendor": name, "webhook_secrets": [SECRET], **headers.get(name, {})}
            for name in vendor_names()
        }
        write_settings(self.folder, self.tree | {"public_url": public_url, "accounts": accounts})

    def run(self, account: str = "calendly", **environ: str) -> tuple[Result, dict[str, bool]]:
        """Run the command, and return its result and whether each step went well."""
        result = ingest(self.folder, "webhooks", "test", account, "--json", "--wait", "1", **environ)
        return result, {step["step"]: step["ok"] for step in result.json["steps"]}

    @contextmanager
    def running(self, command: str) -> Iterator[None]:
        """Run a command whose receiver listens."""
        with start_ingest(self.folder, command) as process:
            wait_for(lambda: is_healthy(f"http://127.0.0.1:{self.port}"), "the receiver listens")
            yield
            process.stop()


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def test_every_vendors_delivery_reaches_the_warehouse_of_a_running_product(deployment: Deployment) -> None:
    with deployment.running("up"):
        for name in vendor_names():
            result = ingest(deployment.folder, "webhooks", "test", name)
            assert result.code == 0, result
            assert [line.split()[1] for line in result.out.splitlines()] == [
                "dns:",
                "connection:",
                "answer:",
                "log:",
                "consumer:",
                "warehouse:",
            ]
    settings = Settings.model_validate(deployment.tree)
    assert query(settings, "select count(*) from bookings").rows[0][0] == 0
    assert query(settings, "select count(*) from booking_events").rows[0][0] == len(vendor_names())
    assert arrivals(settings, "calendly", "calendly").last is None, (
        "it proves nothing of what the vendor sends"
    )


def test_without_a_receiver_it_says_to_start_one(deployment: Deployment) -> None:
    result, steps = deployment.run()
    assert (result.code, steps) == (3, {"dns": True, "connection": False, "receiver": False})
    assert "ingest up" in result.json["steps"][-1]["remedy"]


def test_without_a_consumer_it_is_in_the_log(deployment: Deployment) -> None:
    with deployment.running("receive"):
        result, steps = deployment.run()
    assert (result.code, steps) == (
        3,
        {"dns": True, "connection": True, "answer": True, "log": True, "consumer": False},
    )
    assert "ingest consume" in result.json["steps"][-1]["remedy"]


def test_a_receiver_with_another_secret_is_found_beside_one_whose_proxy_is_to_blame(
    deployment: Deployment,
) -> None:
    proxy = Answers()
    with deployment.running("receive"), proxy.serving():
        result, steps = deployment.run(INGEST_ACCOUNTS__CALENDLY__WEBHOOK_SECRETS="another-one-than-there")
        assert (result.code, steps) == (
            1,
            {"dns": True, "connection": True, "answer": False, "receiver": False},
        )
        assert "another secret" in result.json["steps"][-1]["detail"]
        assert "another-one-than-there" not in result.out + result.err
        deployment.write(proxy.url)
        for answer, code in (
            (altering(proxy, deployment.port), 1),
            (status(502), 3),
            (status(301), 1),
            (status(200), 1),
            (status(404), 1),
        ):
            proxy.answers = [answer]
            result, steps = deployment.run()
            assert (result.code, steps) == (
                code,
                {"dns": True, "connection": True, "answer": False, "receiver": True},
            ), result
            assert "proxy" in result.json["steps"][-1]["remedy"]


def status(number: int) -> Answer:
    """Return the answer of a proxy that forwards nothing."""
    return lambda _: Response(status_code=number)


def altering(proxy: Answers, port: int) -> Answer:
    """Return the answer of a proxy that writes JSON anew, as some do."""

    def answer(request: Request) -> Response:
        body = json.dumps(json.loads(proxy.bodies[-1]), indent=1)
        subscription = {name: value for name, value in request.headers.items() if name != "content-length"}
        return Response(
            status_code=httpx.post(
                f"http://127.0.0.1:{port}{request.url.path}", content=body, headers=subscription
            ).status_code
        )

    return answer


def test_a_host_without_a_name_is_told_as_such(deployment: Deployment) -> None:
    deployment.write("https://no-such-host.invalid")
    result, steps = deployment.run()
    assert steps["dns"] is False
    assert "DNS" in result.json["steps"][0]["detail"]
    assert result.code in {1, 3}


def test_a_certificate_that_nobody_trusts_is_told_with_what_to_do(deployment: Deployment) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SELF_SIGNED)
    with listening(Serve(context)) as port:
        deployment.write(f"https://127.0.0.1:{port}")
        result, steps = deployment.run()
    assert steps == {"dns": True, "connection": False, "receiver": False}
    step = result.json["steps"][1]
    assert f"127.0.0.1:{port}: the server's certificate is signed by itself" in step["detail"]
    assert "certificate for this name that everybody trusts" in step["remedy"]


def test_an_account_without_a_secret_is_a_settings_error(deployment: Deployment) -> None:
    (deployment.folder / "ingest.secrets.toml").unlink()
    result = ingest(deployment.folder, "webhooks", "test", "calendly")
    assert result.code == 2
    assert "ingest webhooks apply calendly" in result.err
