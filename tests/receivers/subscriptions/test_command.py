"""`ingest webhooks`, as a process, as operators run it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ingest.simulator.api import Subscription
from tests.receivers.subscriptions.installation import SOMEBODY, Installation, open_installation
from tests.support.polling import wait_for
from tests.support.ports import free_port
from tests.support.processes import Result, ingest, refused, start_ingest

SIGNED = ("calendly", "oncehub")
APPLY = ("webhooks", "apply", "--yes", "--no-reconcile")


@pytest.fixture
def oncehub(tmp_path: Path) -> Iterator[Installation]:
    """Yield an installation for what is the same with every vendor: a process takes seconds."""
    with open_installation(tmp_path / "operator", "oncehub") as installation:
        yield installation


def run(installation: Installation, *arguments: str, **environ: str) -> Result:
    return ingest(installation.folder, *arguments, **environ)


def secrets_of(installation: Installation) -> set[str]:
    """Return all that nobody may see: webhook secrets and credentials."""
    return {*installation.live, *(str(value) for value in installation.vendor.rest.settings().values())}


def assert_no_secret_in(installation: Installation, *results: Result) -> None:
    for result in results:
        assert not any(secret in result.out + result.err for secret in secrets_of(installation))


def test_from_nothing_to_as_wanted_with_exit_codes_that_say_so(installation: Installation) -> None:
    before = run(installation, "webhooks", "plan", "--json")
    assert before.code == 2
    assert {step["do"] for step in before.json[0]["steps"]} == {"create"}
    applied = run(installation, *APPLY)
    assert (applied.code, installation.is_settled()) == (0, True), applied
    assert applied.out.count(f"{installation.vendor.name}/sales: created ") == len(installation.vendor.ours)
    after = run(installation, "webhooks", "plan")
    assert after.code == 0, after
    assert "as wanted" in after.out
    listed = run(installation, "webhooks", "list", "--json")
    assert sorted(row["url"] for row in listed.json) == sorted(
        subscription.url for subscription in installation.vendor.ours
    )
    assert all(row["ours"] for row in listed.json)
    assert_no_secret_in(installation, before, applied, after, listed)


def test_others_are_shown_and_left_alone(oncehub: Installation) -> None:
    oncehub.vendor.subscriptions.add(SOMEBODY, ["customers.deleted"])
    assert run(oncehub, *APPLY).code == 0
    rows = run(oncehub, "webhooks", "list", "--json").json
    assert [row["url"] for row in rows if not row["ours"]] == [SOMEBODY]
    assert "leave alone" in run(oncehub, "webhooks", "plan").out


def test_the_last_one_of_ours_can_be_removed_by_its_id(oncehub: Installation) -> None:
    run(oncehub, *APPLY)
    rows = run(oncehub, "webhooks", "list", "--json").json
    theirs = oncehub.vendor.subscriptions.add(SOMEBODY, ["customers.deleted"])
    foreign = next(
        row["id"] for row in run(oncehub, "webhooks", "list", "--json").json if row["url"] == SOMEBODY
    )
    for wrong in ("none", foreign):
        message = refused(
            run(oncehub, "webhooks", "remove", "sales", "--yes", "--id", rows[0]["id"], "--id", wrong)
        )
        assert f"no subscription of ours has the id {wrong}" in message
    assert len(oncehub.vendor.ours) == 1
    assert run(oncehub, "webhooks", "remove", "sales", "--yes", "--id", rows[0]["id"]).code == 0
    assert oncehub.vendor.subscriptions.all() == [theirs]


def test_where_nobody_can_be_asked_nothing_is_done_without_yes(oncehub: Installation) -> None:
    result = run(oncehub, "webhooks", "apply", "--no-reconcile")
    assert result.code == 2
    assert "--yes" in result.err
    assert oncehub.vendor.subscriptions.created == 0
    assert "--yes" in refused(run(oncehub, "webhooks", "remove", "sales"))


def test_a_vendor_that_cannot_be_asked_is_exit_code_3_and_one_that_refuses_too(
    installation: Installation,
) -> None:
    names = {"calendly": ["api_token"], "bookeo": ["api_key", "secret_key"]}
    wrong = "".join(f'{name} = "wrong"\n' for name in names.get(installation.vendor.name, ["api_key"]))
    (installation.folder / "ingest.secrets.toml").write_text(f"[accounts.sales]\n{wrong}")
    result = run(installation, "webhooks", "plan", "--json")
    assert result.code == 3
    assert "account sales" in result.json[0]["error"]


@pytest.fixture(params=SIGNED)
def signed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """Yield an installation in which each subscription has a secret of its own."""
    with open_installation(tmp_path / "operator", request.param) as installation:
        yield installation


def test_the_secrets_file_stays_private_and_keeps_its_comments(signed: Installation) -> None:
    run(signed, *APPLY)
    file = signed.folder / "ingest.secrets.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().startswith("# keep this\n")
    assert {subscription.secret for subscription in signed.vendor.ours} == set(signed.live)


def test_secrets_for_a_secret_manager_are_printed_and_in_no_file(signed: Installation) -> None:
    before = (signed.folder / "ingest.secrets.toml").read_text()
    result = run(signed, *APPLY, "--print-secrets")
    assert result.code == 0, result
    (subscription,) = signed.vendor.ours
    assert f"INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS={subscription.secret}\n" in result.out
    assert subscription.secret not in result.err
    assert (signed.folder / "ingest.secrets.toml").read_text() == before
    assert run(signed, "webhooks", "plan").code == 2, "until the secret is where receivers find it"
    assert (
        run(signed, "webhooks", "plan", INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS=subscription.secret).code == 0
    )


def test_secrets_that_come_from_the_environment_cannot_be_changed_in_the_file(signed: Installation) -> None:
    result = run(signed, *APPLY, INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS="of-the-environment")
    assert result.code == 3
    assert "--print-secrets" in result.out
    assert signed.vendor.subscriptions.created == 0


def test_killed_between_creating_and_storing(signed: Installation) -> None:
    signed.vendor.lose, signed.vendor.hang = 1, True
    signed.write()
    text = signed.config.read_text().replace('timeout = "3s"', 'timeout = "120s"')
    signed.config.write_text(text)
    with start_ingest(signed.folder, *APPLY):
        wait_for(lambda: signed.vendor.subscriptions.created == 1, "the vendor has created it")
    signed.vendor.released.set()
    expected = {"calendly": 0, "oncehub": 2}[signed.vendor.name]
    assert run(signed, "webhooks", "plan").code == expected, (
        "Calendly's secret was stored before, OnceHub's nobody knows"
    )
    assert run(signed, *APPLY).code == 0
    assert signed.is_settled()
    assert run(signed, "webhooks", "plan").code == 0


def test_two_operators_at_once(oncehub: Installation) -> None:
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda _: run(oncehub, *APPLY), range(2)))
    assert [result.code for result in results] == [0, 0], results
    assert oncehub.is_settled()
    assert oncehub.vendor.subscriptions.created == len(oncehub.vendor.ours), (
        "the second one found what the first had made"
    )


def test_a_rotation_has_both_secrets_live_until_it_is_finished(signed: Installation) -> None:
    run(signed, *APPLY)
    (old,) = signed.live
    rotated = run(signed, "webhooks", "rotate", "sales", "--yes", "--no-reconcile")
    assert rotated.code == 0, rotated
    new, *rest = signed.live
    assert rest == [old]
    (subscription,) = signed.vendor.ours
    assert subscription.secret == new
    assert signed.is_settled()
    assert "--yes" in refused(run(signed, "webhooks", "rotate", "sales", "--finish", "--force"))
    assert "the vendor may send again" in refused(
        run(signed, "webhooks", "rotate", "sales", "--finish", "--yes")
    )
    assert list(signed.live) == [new, old]
    finished = run(signed, "webhooks", "rotate", "sales", "--finish", "--force", "--yes")
    assert finished.code == 0
    assert list(signed.live) == [new]
    assert signed.is_settled()
    assert_no_secret_in(signed, rotated, finished)


def test_where_the_secret_is_not_of_a_subscription_rotation_says_what_to_do(tmp_path: Path) -> None:
    with open_installation(tmp_path, "bookeo") as installation:
        run(installation, *APPLY)
        result = run(installation, "webhooks", "rotate", "sales", "--yes")
        assert result.code == 2
        assert (
            'First set accounts.sales.webhook_secrets = ["new", "old"], then change the key at the vendor.'
            in result.err
        )


def test_bookeos_place_of_somebody_else_is_a_difference_that_stays(tmp_path: Path) -> None:
    with open_installation(tmp_path, "bookeo") as installation:
        theirs: Subscription = installation.vendor.subscriptions.add(SOMEBODY, ["bookings.created"])
        result = run(installation, *APPLY)
        assert result.code == 1
        assert SOMEBODY in run(installation, "webhooks", "list").out
        assert theirs in installation.vendor.subscriptions.all()
        assert run(installation, *APPLY, "--take-over").code == 0
        assert installation.is_settled()


def test_two_accounts_with_one_key_are_told_so_and_are_never_both_as_wanted(tmp_path: Path) -> None:
    with open_installation(tmp_path, "bookeo") as installation:
        for file in (installation.config, installation.folder / "ingest.secrets.toml"):
            lines = file.read_text().partition("[accounts.sales]")[2]
            file.write_text(f"{file.read_text()}\n[accounts.again]{lines}")
        for command in (APPLY, (*APPLY, "--take-over")):
            result = run(installation, *command)
            assert result.code == 1, result
            assert "the same REST credential as again" in result.out
        assert run(installation, "webhooks", "plan").code == 2


def test_urls_and_ids_are_shown_whole_on_a_narrow_screen(tmp_path: Path) -> None:
    with open_installation(tmp_path, "calendly") as installation:
        run(installation, *APPLY)
        for command in ("plan", "list"):
            output = run(installation, "webhooks", command, COLUMNS="80").out
            assert "…" not in output
        assert "https://api" in output


def test_what_could_not_be_reconciled_is_a_failure_and_said_before_it_is_waited_for(
    oncehub: Installation,
) -> None:
    oncehub.config.write_text(
        oncehub.config.read_text().replace(f"{oncehub.folder}/log.db", "/dev/null/log.db")
    )
    result = run(oncehub, "webhooks", "apply", "--yes")
    assert result.code == 1, result
    assert result.err.index("needs a running consumer") < result.err.index("not finished")
    assert oncehub.is_settled()


def test_a_rotation_that_changed_nothing_says_so(oncehub: Installation) -> None:
    run(oncehub, *APPLY)
    oncehub.write(public_url="https://new.example.com")
    result = run(oncehub, "webhooks", "rotate", "sales", "--yes", "--no-reconcile")
    assert result.code == 1
    assert "nothing was changed" in result.out
    assert "a new secret is live" not in result.out


APPOINTEDD = """\
public_url = "https://hooks.example.com"
[accounts.salon]
vendor = "appointedd"
webhook_header = "X-Salon"
"""


@pytest.fixture
def salon(tmp_path: Path) -> Path:
    """Make the settings of an account whose vendor has no API for webhooks."""
    (tmp_path / "ingest.toml").write_text(APPOINTEDD)
    secrets = tmp_path / "ingest.secrets.toml"
    secrets.touch(0o600)
    secrets.write_text('[accounts.salon]\nwebhook_secrets = ["for-the-header"]\n')
    return tmp_path


def test_where_there_is_no_api_the_plan_is_what_to_do_by_hand(salon: Path) -> None:
    result = ingest(salon, "webhooks", "plan")
    assert result.code == 2
    for part in (
        "Booking created",
        "Booking cancelled",
        "https://hooks.example.com/webhooks/appointedd/salon",
        "X-Salon",
        "nothing has arrived",
    ):
        assert part in result.out
    assert "for-the-header" not in result.out
    assert (
        "custom header X-Salon, value for-the-header"
        in ingest(salon, "webhooks", "plan", "--print-secrets").out
    )
    assert ingest(salon, *APPLY).code == 1


def test_a_secret_of_a_header_is_rotated_by_hand(salon: Path) -> None:
    result = ingest(salon, "webhooks", "rotate", "salon", "--yes")
    assert result.code == 0
    assert "Booking updated" in result.out
    assert "first set" not in result.out
    text = (salon / "ingest.secrets.toml").read_text()
    assert 'for-the-header"]' in text
    assert text.count(",") == 1
    assert "the vendor may send again" in refused(
        ingest(salon, "webhooks", "rotate", "salon", "--finish", "--yes")
    )
    assert ingest(salon, "webhooks", "rotate", "salon", "--finish", "--yes", "--force").code == 0
    assert "for-the-header" not in (salon / "ingest.secrets.toml").read_text()


def test_an_account_without_a_rest_credential_is_told_what_to_do_by_hand(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").write_text(
        'public_url = "https://hooks.example.com"\n[accounts.sales]\nvendor = "calendly"\n'
    )
    for result in (ingest(tmp_path, "webhooks", "plan"), ingest(tmp_path, "webhooks", "plan", "sales")):
        assert result.code == 2
        for part in (
            "https://hooks.example.com/webhooks/calendly/sales",
            "api_token",
            "webhook_secrets",
            "nothing has arrived",
        ):
            assert part in result.out
    assert ingest(tmp_path, *APPLY).code == 1


def test_a_url_that_vendors_cannot_reach_is_refused_before_anything_is_asked(salon: Path) -> None:
    (salon / "ingest.toml").write_text(APPOINTEDD.partition("\n")[2])
    for command in (("webhooks", "plan"), APPLY):
        assert "public_url" in refused(ingest(salon, *command))


def test_check_tells_what_arrived_where_the_vendor_cannot_be_asked(salon: Path) -> None:
    checks = {check["check"]: check for check in ingest(salon, "check", "--json").json["checks"]}
    assert checks["webhooks salon"]["detail"].startswith("nothing has arrived yet")


@pytest.fixture
def calendly(tmp_path: Path) -> Iterator[Installation]:
    with open_installation(tmp_path / "operator", "calendly") as installation:
        yield installation


def test_a_vendor_that_is_busy_is_waited_for_in_lines_that_say_how_long(calendly: Installation) -> None:
    busy: list[str] = []

    def fault(_: str, request: Request) -> Response | None:
        busy.append(request.url.path)
        return (
            JSONResponse({"title": "Too Many Requests"}, 429, {"Retry-After": "3"})
            if len(busy) == 1
            else None
        )

    calendly.vendor.server.faults[:] = [fault]
    result = ingest(calendly.folder, "webhooks", "plan", "--json")
    assert result.json[0]["error"] is None
    asking, answer, waiting, *_ = result.err.splitlines()
    assert asking == "asking calendly/sales …"
    assert answer.startswith(
        "calendly account sales: too many requests, the next one is allowed in 3 s. 429 Too Many Requests"
    )
    assert waiting.startswith("waiting 3 s: calendly account sales ")


def test_a_vendor_that_is_down_is_told_before_it_is_tried_again(calendly: Installation) -> None:
    port = free_port()
    result = ingest(
        calendly.folder,
        "webhooks",
        "plan",
        INGEST_ACCOUNTS__SALES__API_URL=f"http://127.0.0.1:{port}",
        INGEST_RECONCILE__PATIENCE="1s",
    )
    assert result.code == 3
    lines = result.err.splitlines()
    assert (
        lines[1] == f"calendly account sales: 127.0.0.1:{port} refuses the connection: nothing listens there."
        " Trying again, for up to 1 s"
    )
