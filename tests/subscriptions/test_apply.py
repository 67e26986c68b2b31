"""One apply ends in what the settings want, whatever there was before, and a second plan is empty."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.errors import IngestError, VendorRefused, VendorUnavailable, WarehouseUnavailable
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import secrets_path
from ingest.simulator.api import json_response
from ingest.vendors.subscriptions import fingerprint
from receivers.subscriptions.apply import Allowed
from receivers.subscriptions.check import open_registrar
from receivers.subscriptions.plan import Heard, Kind
from receivers.subscriptions.secret_store import FileKeyring
from tests.subscriptions.desk import PUBLIC_URL, SOMEBODY, Desk, opened

SIGNED = ("calendly", "oncehub")
SECRET_OF_A_PERSON = "typed-into-a-form"


def test_nothing_registered(desk: Desk) -> None:
    assert set(desk.plan()) == {Kind.CREATE}
    assert desk.counter.subscriptions.created == 0, "a plan changes nothing"
    desk.apply()
    assert desk.is_settled()
    created = desk.counter.subscriptions.created
    desk.apply()
    assert desk.counter.subscriptions.created == created, "a second apply has nothing to do"


def test_wrong_events(desk: Desk) -> None:
    if desk.counter.vendor == "bookeo":
        desk.counter.subscriptions.add(
            f"{desk.counter.url}?domain=payments&type=created", ["payments.created"]
        )
    else:
        desk.counter.subscriptions.add(desk.counter.url, [desk.counter.event("created")], SECRET_OF_A_PERSON)
    assert set(desk.plan()) & {Kind.TAKE_OVER, Kind.REMOVE}
    desk.apply(take_over=True)
    assert desk.is_settled()


def test_wrong_url(desk: Desk) -> None:
    if desk.counter.vendor == "bookeo":
        desk.counter.subscriptions.add(
            f"{desk.counter.url}?domain=bookings&type=deleted", ["bookings.created"]
        )
    else:
        desk.counter.subscriptions.add(f"{desk.counter.url}#old", [desk.counter.event("created")])
    assert {Kind.REPLACE, Kind.TAKE_OVER} & {*desk.plan()}
    desk.apply(take_over=True)
    assert desk.is_settled()


def test_another_public_url_moves_what_was_made_from_here_and_not_without_a_person(desk: Desk) -> None:
    desk.apply()
    desk.write(public_url="https://old.example.com")
    with desk.registrar() as registrar:
        assert all(step.by_hand for step in registrar.look() if step.is_change)
    desk.write(public_url="https://new.example.com")
    desk.apply()
    assert {kept.url.partition("/webhooks/")[0] for kept in desk.counter.subscriptions.all()} == {
        "https://new.example.com"
    }
    assert set(desk.plan()) == {Kind.KEEP}


@pytest.mark.parametrize("vendor", ["calendly", "bookeo"])
def test_what_was_made_in_an_answer_that_was_lost_is_remembered_as_ours_too(
    tmp_path: Path, vendor: str
) -> None:
    with opened(tmp_path, vendor) as desk:
        desk.counter.lose = 1
        desk.apply()
        desk.write(public_url="https://new.example.com")
        desk.apply(take_over=False)
        assert {kept.url.partition("/webhooks/")[0] for kept in desk.counter.subscriptions.all()} == {
            "https://new.example.com"
        }


@pytest.mark.parametrize("vendor", ["calendly", "bookeo"])
def test_disabled_or_blocked(tmp_path: Path, vendor: str) -> None:
    with opened(tmp_path, vendor) as desk:
        desk.apply()
        dead = desk.counter.ours[0]
        desk.counter.subscriptions.disable(dead.url)
        assert Kind.REPLACE in desk.plan()
        desk.apply()
        assert dead.number not in {kept.number for kept in desk.counter.ours}
        assert desk.is_settled()


def test_one_that_was_switched_off_and_does_not_tell_shows_by_what_reconciliation_had_to_repair(
    tmp_path: Path,
) -> None:
    with opened(tmp_path, "oncehub") as desk:
        desk.apply()
        later = datetime.now(UTC) + timedelta(hours=1)
        assert desk.plan(Heard(last=later, missed=later - timedelta(minutes=1))) == [Kind.KEEP]
        silent = Heard(last=None, missed=later)
        assert desk.plan(silent) == [Kind.REPLACE]
        assert desk.plan(Heard(missed=datetime.now(UTC))) == [Kind.KEEP], (
            "what changed before or while it was made says nothing"
        )


@pytest.mark.parametrize("vendor", SIGNED)
def test_duplicates(tmp_path: Path, vendor: str) -> None:
    with opened(tmp_path, vendor) as desk:
        desk.apply()
        (good,) = desk.counter.ours
        for number in range(3):
            desk.counter.subscriptions.add(
                f"{desk.counter.url}?copy={number}", good.events, f"of-somebody-{number}"
            )
        assert sorted(desk.plan()) == [Kind.KEEP, Kind.REMOVE, Kind.REMOVE, Kind.REMOVE]
        desk.apply()
        assert desk.counter.ours == [good]
        assert desk.is_settled()


def test_what_is_somebody_elses_stays(desk: Desk) -> None:
    theirs = [
        desk.counter.subscriptions.add(
            f"{desk.counter.url}2{desk.counter.query('deleted')}", ["customers.deleted"]
        ),
        desk.counter.subscriptions.add(f"{SOMEBODY}?to={desk.counter.url}", ["customers.created"]),
    ]
    if desk.counter.vendor != "bookeo":
        desk.counter.subscriptions.add(SOMEBODY, [desk.counter.event("created")])
    before = [
        kept for kept in desk.counter.subscriptions.all() if not kept.url.startswith(f"{desk.counter.url}?")
    ]
    desk.apply()
    assert [kept for kept in desk.counter.subscriptions.all() if kept in before] == before
    assert {kept.number for kept in theirs} <= {kept.number for kept in before}
    assert set(desk.plan()) == {Kind.KEEP}


def test_bookeos_only_place_is_taken_from_somebody_else_only_when_a_person_says_so(tmp_path: Path) -> None:
    with opened(tmp_path, "bookeo") as desk:
        theirs = desk.counter.subscriptions.add(SOMEBODY, ["bookings.updated"])
        outcome = desk.apply()
        assert [step.kind for step in outcome.now if step.is_change] == [Kind.TAKE_OVER]
        assert theirs in desk.counter.subscriptions.all()
        assert len(desk.counter.ours) == 2
        desk.apply(take_over=True)
        assert desk.is_settled()
        assert theirs not in desk.counter.subscriptions.all()


@pytest.mark.parametrize("hang", [False, True], ids=["answers 500", "hangs"])
def test_the_vendor_fails_after_it_has_created(desk: Desk, hang: bool) -> None:
    desk.counter.lose, desk.counter.hang = 1, hang
    desk.apply()
    assert desk.is_settled()
    expected = {"calendly": 1, "oncehub": 2, "bookeo": 3}[desk.counter.vendor]
    assert desk.counter.subscriptions.created == expected, (
        "only where the lost answer had the secret is another one made"
    )


def test_a_vendor_that_always_fails_is_given_up_and_what_it_made_is_used_or_removed_by_the_next_apply(
    desk: Desk,
) -> None:
    desk.counter.lose = 100
    if desk.counter.vendor == "oncehub":
        with pytest.raises(VendorUnavailable, match="not as wanted after 5 attempts"):
            desk.apply()
        assert len(desk.counter.ours) == 1, "each attempt clears up after the one before"
    else:
        desk.apply()
    desk.counter.lose = 0
    desk.apply()
    assert desk.is_settled()


def test_a_refusal_leaves_nothing_behind(tmp_path: Path) -> None:
    with opened(tmp_path, "calendly") as desk:
        desk.counter.server.faults.append(
            lambda _, request: json_response({"message": "no"}, 403) if request.method == "POST" else None
        )
        with pytest.raises(VendorRefused, match="403"):
            desk.apply()
        assert desk.live == ()
        desk.counter.server.faults.clear()
        desk.apply()
        assert desk.is_settled()


def test_a_secret_that_nothing_uses_yet_is_used_before_another_is_made(tmp_path: Path) -> None:
    with opened(tmp_path, "calendly") as desk:
        prepared = "p" * 43
        with desk.registrar() as registrar:
            registrar._keyring.add(prepared)
        desk.apply()
        assert desk.live == (prepared,)
        assert desk.is_settled()


def test_a_url_that_is_taken_by_what_no_list_shows_is_varied(tmp_path: Path) -> None:
    with opened(tmp_path, "calendly") as desk:
        prepared = "p" * 43
        with desk.registrar() as registrar:
            registrar._keyring.add(prepared)
        taken = f"{desk.counter.url}?v={fingerprint(prepared)}"
        desk.counter.subscriptions.add(
            taken, ["invitee.created"], scope="group", group="https://api.calendly.com/groups/G"
        )
        desk.apply()
        assert desk.live == (prepared,)
        assert [kept.secret for kept in desk.counter.ours if kept.url != taken] == [prepared]
        assert desk.plan() == [Kind.KEEP]


def conflicting(desk: Desk, times: int) -> None:
    """So many creations are answered that the URL is taken."""
    conflicts = iter([json_response({"title": "Already Exists"}, 409)] * times)
    desk.counter.server.faults.append(
        lambda _, request: next(conflicts, None) if request.method == "POST" else None
    )


def test_a_url_that_is_taken_is_not_tried_twice(tmp_path: Path) -> None:
    with opened(tmp_path, "calendly") as desk:
        conflicting(desk, 2)
        desk.apply()
        assert len(desk.live) == 1
        assert desk.is_settled()


def test_where_every_url_is_taken_no_secret_is_left_behind(tmp_path: Path) -> None:
    with opened(tmp_path, "calendly") as desk:
        conflicting(desk, 9)
        for _ in range(3):
            with pytest.raises(VendorRefused, match="409"):
                desk.apply()
            assert desk.live == ()
        desk.apply()
        assert desk.is_settled()


@pytest.mark.parametrize("vendor", SIGNED)
def test_what_another_machine_made_is_replaced_only_when_a_person_says_so(
    tmp_path: Path, vendor: str
) -> None:
    with opened(tmp_path / "production", vendor) as production:
        production.apply()
        laptop = Desk(tmp_path / "laptop", production.counter)
        for _ in range(2):
            outcome = laptop.apply()
            assert [step.kind for step in outcome.now] == [Kind.TAKE_OVER]
            assert production.is_settled()
        laptop.apply(take_over=True)
        assert laptop.is_settled()


def test_what_another_machine_made_stays_also_when_something_else_was_made_from_here(tmp_path: Path) -> None:
    events = ["invitee.created", "routing_form_submission.created"]
    with opened(tmp_path / "production", "calendly", events=events[:1], scope="user") as production:
        production.apply()
        laptop = Desk(tmp_path / "laptop", production.counter, events=events, scope="user")
        for _ in range(2):
            laptop.apply()
            assert sorted(laptop.plan()) == [Kind.KEEP, Kind.TAKE_OVER]
        assert production.counter.ours[0].secret in production.live


def test_where_the_warehouse_cannot_be_asked_the_hole_is_as_long_as_the_lookback(desk: Desk) -> None:
    def heard(_: object) -> Heard:
        raise WarehouseUnavailable("it is locked")

    registrar = open_registrar(
        desk.settings,
        desk.account,
        heard,
        FileKeyring(desk.account.settings, SecretsFile(secrets_path(desk.config))),
    )
    before = datetime.now(UTC) - desk.settings.reconcile.lookback
    registrar.apply(Allowed())
    since = registrar.state.read().hole_since
    registrar.close()
    assert since is not None
    assert before <= since
    assert desk.is_settled()


@pytest.mark.parametrize("vendor", SIGNED)
def test_a_subscription_whose_secret_left_the_settings_is_made_anew(tmp_path: Path, vendor: str) -> None:
    with opened(tmp_path, vendor) as desk:
        desk.apply()
        with desk.registrar() as registrar:
            registrar._keyring.drop(desk.live)
        assert desk.plan() == [Kind.REPLACE]
        desk.apply()
        assert desk.is_settled()


def test_where_oncehub_tells_secrets_one_that_is_not_stored_is_stored(tmp_path: Path) -> None:
    with opened(tmp_path, "oncehub") as desk:
        desk.counter.subscriptions.shows_secrets = True  # type: ignore[attr-defined]  # OnceHub's
        desk.counter.lose = 1
        desk.apply()
        assert desk.counter.subscriptions.created == 1
        assert desk.is_settled()


@pytest.mark.parametrize("name", ["secret", "signing_secret"])
def test_oncehubs_secret_is_found_under_either_of_its_names(tmp_path: Path, name: str) -> None:
    with opened(tmp_path, "oncehub") as desk:
        desk.counter.subscriptions.secret_name = name  # type: ignore[attr-defined]  # OnceHub's
        desk.apply()
        assert desk.is_settled()
        (kept,) = desk.counter.ours
        assert kept.secret in secrets_path(desk.config).read_text()


def test_a_users_account_gets_routing_forms_by_a_second_subscription(tmp_path: Path) -> None:
    events = ["invitee.created", "routing_form_submission.created"]
    with opened(tmp_path, "calendly", scope="user", events=events) as desk:
        desk.apply()
        assert {kept.about["scope"]: list(kept.events) for kept in desk.counter.ours} == {
            "user": events[:1],
            "organization": events[1:],
        }
        assert len(set(desk.live)) == 2
        assert desk.plan() == [Kind.KEEP, Kind.KEEP]


MEETING_RECAPS = [f"meeting_recap.{happened}" for happened in ("created", "updated", "deleted")]


@pytest.mark.parametrize(
    ("scope", "events", "scopes"),
    [
        ("organization", ["invitee.created", *MEETING_RECAPS], {"organization": 1, "user": 3}),
        (
            "organization",
            [*MEETING_RECAPS, "routing_form_submission.created", "contact.created"],
            {"organization": 2, "user": 3},
        ),
        ("organization", MEETING_RECAPS[:1], {"user": 1}),
        ("user", ["invitee.created", *MEETING_RECAPS], {"user": 4}),
        ("user", ["routing_form_submission.created", *MEETING_RECAPS], {"organization": 1, "user": 3}),
        ("user", ["routing_form_submission.created"], {"organization": 1}),
    ],
)
def test_each_event_is_in_a_scope_that_is_told_of_it(
    tmp_path: Path, scope: str, events: list[str], scopes: dict[str, int]
) -> None:
    with opened(tmp_path, "calendly", scope=scope, events=events) as desk:
        desk.apply()
        assert {kept.about["scope"]: len(kept.events) for kept in desk.counter.ours} == scopes
        assert {event for kept in desk.counter.ours for event in kept.events} == set(events)
        assert set(desk.plan()) == {Kind.KEEP}


def test_an_oauth_app_has_one_key_for_all(tmp_path: Path) -> None:
    with opened(tmp_path, "calendly") as desk:
        own = desk.counter.rest.oauth_settings()  # type: ignore[attr-defined]  # Calendly's
        (tmp_path / "ingest.secrets.toml").write_text(
            f'[accounts.sales]\nwebhook_secrets = ["of-the-app"]\nclient_secret = "{own["client_secret"]}"\n'
            f'refresh_token = "{own["refresh_token"]}"\n'
        )
        desk.write(client_id=own["client_id"])
        desk.apply()
        assert len(desk.counter.ours) == 1
        assert desk.live == ("of-the-app",)
        assert desk.plan() == [Kind.KEEP]
        desk.counter.subscriptions.disable(desk.counter.ours[0].url)
        desk.apply()
        assert desk.plan() == [Kind.KEEP]


def test_operators_on_two_machines_come_to_an_end_with_one_of_ours(desk: Desk) -> None:
    other = Desk(desk.folder.with_name("colleague"), desk.counter)
    failures: list[IngestError] = []

    def work(at: Desk) -> None:
        try:
            at.apply()
        except IngestError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in (desk, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) < 2
    assert desk.counter.ours
    desk.apply(take_over=True)
    assert desk.is_settled()


def test_the_hole_reaches_back_to_the_last_delivery_and_is_remembered_until_it_is_reconciled(
    desk: Desk,
) -> None:
    last = datetime(2026, 6, 1, tzinfo=UTC)
    desk.apply(Heard(last=last))
    with desk.registrar() as registrar:
        assert registrar.state.read().hole_since == last
        desk.apply()
        assert registrar.state.read().hole_since == last
        registrar.state.close_hole(last + timedelta(seconds=1))
        assert registrar.state.read().hole_since == last, "one that began later is not all of it"
        registrar.state.close_hole(last)
        assert registrar.state.read().hole_since is None


def test_without_any_delivery_the_hole_is_as_long_as_the_lookback(desk: Desk) -> None:
    before = datetime.now(UTC)
    desk.apply()
    with desk.registrar() as registrar:
        since = registrar.state.read().hole_since
    assert since is not None
    assert (
        before - desk.settings.reconcile.lookback
        <= since
        <= datetime.now(UTC) - desk.settings.reconcile.lookback
    )


def test_ours_can_be_removed_and_others_stay(desk: Desk) -> None:
    theirs = desk.counter.subscriptions.add(SOMEBODY, ["customers.deleted"])
    desk.apply()
    with desk.registrar() as registrar:
        registrar.remove(())
    assert desk.counter.subscriptions.all() == [theirs]
    assert PUBLIC_URL not in theirs.url
