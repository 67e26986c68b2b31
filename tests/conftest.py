"""What tests of several folders share: a real Kafka, a real PostgreSQL, and that no test hurries."""

import gc
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.consumers.postgres import missing_programs
from tests.kafka.broker import missing_tools, running_broker

# Here, so that a PostgreSQL is started once for all folders.
pytest_plugins = ["tests.consumers.fixtures"]

# A shell that runs the tests in the background has them ignore interrupts, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing about it while other tests run beside it.
settings.register_profile("beside others", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("beside others")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore, in tests of failed connections, the sockets that kafka-python leaves open."""
    for item in items:
        if item.get_closest_marker("kafka"):
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning"))


@pytest.fixture(autouse=True)
def collected(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what kafka-python leaves open, while its warnings are ignored."""
    yield
    if request.node.get_closest_marker("kafka"):
        gc.collect()


def _need(missing: list[str], message: str, required: str) -> None:
    """Skips where something is missing; with the variable `required` set to 1 that is a failure."""
    if missing and os.environ.get(required) == "1":
        pytest.fail(message)
    if missing:
        pytest.skip(message)


@pytest.fixture(scope="session")
def kafka_tools() -> None:
    missing = missing_tools()
    programs = " and ".join(missing)
    message = (
        f"no Kafka to test with: install {programs}, or name a running one in INGEST_TEST_KAFKA=host:port"
    )
    _need(missing, message, "INGEST_TEST_REQUIRE_KAFKA")


@pytest.fixture(scope="session")
def postgres_programs() -> None:
    missing = missing_programs()
    message = f"no PostgreSQL to test with: install its server, which has {' and '.join(missing)}"
    _need(missing, message, "INGEST_TEST_REQUIRE_POSTGRES")


@pytest.fixture(scope="session")
def kafka_servers(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Return the brokers in INGEST_TEST_KAFKA, or one that is started for this run."""
    if servers := os.environ.get("INGEST_TEST_KAFKA"):
        yield servers.split(",")
        return
    request.getfixturevalue("kafka_tools")
    with running_broker() as broker:
        yield broker.servers


@pytest.fixture
def files_checked_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let settings look at their files whenever they are asked, however long that takes."""
    monkeypatch.setattr("ingest.settings.sources._LOOK_SECONDS", 0.0)
    monkeypatch.setattr("ingest.settings.sources._LOOK_SHARE", 0)
