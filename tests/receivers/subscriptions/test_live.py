"""A running receiver takes a new secret soon, and a mistake in the file stops nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from ingest.settings.secrets_file import SecretsFile
from ingest.vendors.calendly import sign
from tests.receivers.requests import booking
from tests.receivers.running import Receiver
from tests.support.polling import wait_for
from tests.support.processes import COMMAND

OLD, NEW = "the-old-one-of-these-tests", "the-new-one-of-these-tests"
CONFIG = """\
[receiver]
port = 0
admin_port = 0
[accounts.sales]
vendor = "calendly"
"""


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    """Yield a receiver with its secrets in a file, and none in the environment."""
    (tmp_path / "ingest.toml").write_text(CONFIG)
    SecretsFile(tmp_path / "ingest.secrets.toml").add("sales", OLD, ())
    command = ["env", "-u", "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS", *COMMAND, "receive"]
    receiver = Receiver(tmp_path, command, INGEST_RECEIVER__WORKERS=request.param)
    yield receiver
    receiver.close()


def delivered(receiver: Receiver, secret: str) -> int:
    """Return the status of a delivery signed with this, over a new connection, so to any worker."""
    body = booking(1).body
    url = f"http://127.0.0.1:{receiver.port}/webhooks/calendly/sales"
    return httpx.post(
        url, content=body, headers=sign(secret, body, datetime.now(UTC)), timeout=30
    ).status_code


def wait_for_status(receiver: Receiver, secret: str, status: int) -> None:
    """Wait until every worker answers deliveries signed with this so; each looks at the file itself."""
    wait_for(
        lambda: [delivered(receiver, secret) for _ in range(6)] == [status] * 6,
        f"deliveries are answered {status}",
    )


def test_a_new_secret_is_soon_live_beside_the_old_and_a_dropped_one_is_not(
    receiver: Receiver, tmp_path: Path
) -> None:
    file = SecretsFile(tmp_path / "ingest.secrets.toml")
    assert (delivered(receiver, OLD), delivered(receiver, NEW)) == (202, 401)
    file.add("sales", NEW, ())
    wait_for_status(receiver, NEW, 202)
    assert [delivered(receiver, OLD) for _ in range(6)] == [202] * 6
    file.drop("sales", [OLD])
    wait_for_status(receiver, OLD, 401)
    assert [delivered(receiver, NEW) for _ in range(6)] == [202] * 6


def test_a_mounted_secret_that_is_swapped_is_soon_live(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").write_text(CONFIG)
    mounted, variable = tmp_path / "mounted", "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS"
    for number, secrets in (("..1", OLD), ("..2", f"{NEW},{OLD}")):
        (mounted / number).mkdir(parents=True)
        (mounted / number / variable).write_text(f"{secrets}\n")
    (mounted / "..data").symlink_to("..1")
    (mounted / variable).symlink_to(f"..data/{variable}")
    receiver = Receiver(
        tmp_path, ["env", "-u", variable, *COMMAND, "receive"], INGEST_SECRETS_DIR=str(mounted)
    )
    try:
        assert (delivered(receiver, OLD), delivered(receiver, NEW)) == (202, 401)
        (mounted / "..data_tmp").symlink_to("..2")
        (mounted / "..data_tmp").rename(mounted / "..data")
        wait_for_status(receiver, NEW, 202)
        assert delivered(receiver, OLD) == 202
    finally:
        receiver.close()


def test_a_file_that_cannot_be_read_leaves_everything_as_it_is_until_it_can(
    receiver: Receiver, tmp_path: Path
) -> None:
    path = tmp_path / "ingest.secrets.toml"
    text = path.read_text()
    path.write_text("[accounts.sales")
    assert [delivered(receiver, OLD) for _ in range(4)] == [202] * 4
    receiver.wait_for_event("secrets.not_reloaded")
    path.write_text(text.replace(OLD, NEW))
    path.chmod(0o644)
    assert delivered(receiver, OLD) == 202
    path.chmod(0o600)
    wait_for_status(receiver, NEW, 202)
    assert not any(secret in receiver.written() for secret in (OLD, NEW))


def test_an_account_without_a_secret_is_not_left_open(receiver: Receiver, tmp_path: Path) -> None:
    SecretsFile(tmp_path / "ingest.secrets.toml").drop("sales", [OLD])
    assert delivered(receiver, OLD) == 202, "as before: a file that would not let us start does not stop us"
    assert delivered(receiver, "") == 401
