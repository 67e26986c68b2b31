"""A running receiver, as `ingest check` sees it: its site, its ports, its workers."""

from ingest import sockets
from ingest.cli.check.checks import check_listeners, judge_answer
from ingest.readiness import State
from ingest.settings import Settings
from receivers.app import SITE_HEADER
from tests.receivers.conftest import Start
from tests.receivers.running import on_linux

PUBLIC = "https://hooks.example.com"


def settings(**values: object) -> Settings:
    return Settings.model_validate({"public_url": PUBLIC, "receiver": {"port": 0}, **values})


def test_an_installation_recognises_its_own_receiver(start: Start) -> None:
    receiver = start(INGEST_PUBLIC_URL=PUBLIC)
    heard = receiver.client.get("/healthz", headers={SITE_HEADER: "?"})
    assert judge_answer(settings(), heard).state is State.OK
    other = judge_answer(settings(public_url="https://other.example.com"), heard)
    assert other.failed
    assert "another public_url" in other.detail
    assert SITE_HEADER not in receiver.client.get("/healthz").headers, "who does not ask is told nothing"


@on_linux
def test_a_port_of_our_own_is_no_trouble(start: Start) -> None:
    receiver = start()
    used = settings(
        receiver={"port": receiver.port, "admin_port": receiver.admin_port},
        consumer={"admin_port": 0},
        reconcile={"admin_port": 0},
    )
    [finding] = check_listeners(used)
    assert finding.state is State.OK
    assert f"{receiver.port} by pid {receiver.process.pid}" in finding.detail


@on_linux
def test_the_workers_of_a_receiver_are_recognised(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__WORKERS="2")
    owner = sockets.find_port_owner(receiver.port)
    assert owner is not None
    assert owner.is_ingest
    for pid in receiver.children():
        worker = sockets._process(pid)
        assert worker is not None
        assert worker.is_ingest
