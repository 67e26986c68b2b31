"""One apply ends in what the settings want, whatever there was before, and a second plan is empty."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.errors import IngestError, VendorRefused, VendorUnavailable, WarehouseUnavailable
from ingest.settings.sources import secrets_path
from ingest.simulator.api import json_response
from ingest.vendors.subscriptions import fingerprint
from ingest.warehouse.deliveries import Arrivals
from receivers.subscriptions.apply import Permissions
from receivers.subscriptions.plan import Action
from tests.receivers.subscriptions.installation import SOMEBODY, Installation, open_installation
from tests.support.accounts import PUBLIC_URL

SIGNED = ("calendly", "oncehub")
SECRET_OF_A_PERSON = "typed-into-a-form"


def test_nothing_registered(installation: Installation) -> None:
    assert set(installation.plan()) == {Action.CREATE}
    assert installation.vendor.subscriptions.created == 0, "a plan changes nothing"
    installation.apply()
    assert installation.is_settled()
    created = installation.vendor.subscriptions.created
    installation.apply()
    assert installation.vendor.subscriptions.created == created, "a second apply has nothing to do"


def test_wrong_events(installation: Installation) -> None:
    if installation.vendor.name == "bookeo":
        installation.vendor.subscriptions.add(
            f"{installation.vendor.url}?domain=payments&type=created", ["payments.created"]
        )
    else:
        installation.vendor.subscriptions.add(
            installation.vendor.url, [installation.vendor.event("created")], SECRET_OF_A_PERSON
        )
    assert set(installation.plan()) & {Action.TAKE_OVER, Action.REMOVE}
    installation.apply(take_over=True)
    assert installation.is_settled()


def test_wrong_url(installation: Installation) -> None:
    if installation.vendor.name == "bookeo":
        installation.vendor.subscriptions.add(
            f"{installation.vendor.url}?domain=bookings&type=deleted", ["bookings.created"]
        )
    else:
        installation.vendor.subscriptions.add(
            f"{installation.vendor.url}#old", [installation.vendor.event("created")]
        )
    assert {Action.REPLACE, Action.TAKE_OVER} & {*installation.plan()}
    installation.apply(take_over=True)
    assert installation.is_settled()


def test_another_public_url_moves_what_was_made_from_here_and_not_without_a_person(
    installation: Installation,
) -> None:
    installation.apply()
    installation.write(public_url="https://old.example.com")
    with installation.manager() as manager:
        assert all(step.by_hand for step in manager.plan() if step.is_change)
    installation.write(public_url="https://new.example.com")
    installation.apply()
    assert {
        subscription.url.partition("/webhooks/")[0]
        for subscription in installation.vendor.subscriptions.all()
    } == {"https://new.example.com"}
    assert set(installation.plan()) == {Action.KEEP}


@pytest.mark.parametrize("vendor", ["calendly", "bookeo"])
def test_what_was_made_in_an_answer_that_was_lost_is_remembered_as_ours_too(
    tmp_path: Path, vendor: str
) -> None:
    with open_installation(tmp_path, vendor) as installation:
        installation.vendor.lose = 1
        installation.apply()
        installation.write(public_url="https://new.example.com")
        installation.apply(take_over=False)
        assert {
            subscription.url.partition("/webhooks/")[0]
            for subscription in installation.vendor.subscriptions.all()
        } == {"https://new.example.com"}


@pytest.mark.parametrize("vendor", ["calendly", "bookeo"])
def test_disabled_or_blocked(tmp_path: Path, vendor: str) -> None:
    with open_installation(tmp_path, vendor) as installation:
        installation.apply()
        dead = installation.vendor.ours[0]
        installation.vendor.subscriptions.disable(dead.url)
        assert Action.REPLACE in installation.plan()
        installation.apply()
        assert dead.number not in {subscription.number for subscription in installation.vendor.ours}
        assert installation.is_settled()


def test_one_that_was_switched_off_and_does_not_tell_shows_by_what_reconciliation_had_to_repair(
    tmp_path: Path,
) -> None:
    with open_installation(tmp_path, "oncehub") as installation:
        installation.apply()
        later = datetime.now(UTC) + timedelta(hours=1)
        assert installation.plan(Arrivals(last=later, missed=later - timedelta(minutes=1))) == [Action.KEEP]
        silent = Arrivals(last=None, missed=later)
        assert installation.plan(silent) == [Action.REPLACE]
        assert installation.plan(Arrivals(missed=datetime.now(UTC))) == [Action.KEEP], (
            "what changed before or while it was made says nothing"
        )


@pytest.mark.parametrize("vendor", SIGNED)
def test_duplicates(tmp_path: Path, vendor: str) -> None:
    with open_installation(tmp_path, vendor) as installation:
        installation.apply()
        (good,) = installation.vendor.ours
        for number in range(3):
            installation.vendor.subscriptions.add(
                f"{installation.vendor.url}?copy={number}", good.events, f"of-somebody-{number}"
            )
        assert sorted(installation.plan()) == [Action.KEEP, Action.REMOVE, Action.REMOVE, Action.REMOVE]
        installation.apply()
        assert installation.vendor.ours == [good]
        assert installation.is_settled()


def test_what_is_somebody_elses_stays(installation: Installation) -> None:
    theirs = [
        installation.vendor.subscriptions.add(
            f"{installation.vendor.url}2{installation.vendor.query('deleted')}", ["customers.deleted"]
        ),
        installation.vendor.subscriptions.add(
            f"{SOMEBODY}?to={installation.vendor.url}", ["customers.created"]
        ),
    ]
    if installation.vendor.name != "bookeo":
        installation.vendor.subscriptions.add(SOMEBODY, [installation.vendor.event("created")])
    before = [
        subscription
        for subscription in installation.vendor.subscriptions.all()
        if not subscription.url.startswith(f"{installation.vendor.url}?")
    ]
    installation.apply()
    assert [
        subscription for subscription in installation.vendor.subscriptions.all() if subscription in before
    ] == before
    assert {subscription.number for subscription in theirs} <= {
        subscription.number for subscription in before
    }
    assert set(installation.plan()) == {Action.KEEP}


def test_bookeos_only_place_is_taken_from_somebody_else_only_when_a_person_says_so(tmp_path: Path) -> None:
    with open_installation(tmp_path, "bookeo") as installation:
        theirs = installation.vendor.subscriptions.add(SOMEBODY, ["bookings.updated"])
        applied = installation.apply()
        assert [step.action for step in applied.plan if step.is_change] == [Action.TAKE_OVER]
        assert theirs in installation.vendor.subscriptions.all()
        assert len(installation.vendor.ours) == 2
        installation.apply(take_over=True)
        assert installation.is_settled()
        assert theirs not in installation.vendor.subscriptions.all()


@pytest.mark.parametrize("hang", [False, True], ids=["answers 500", "hangs"])
def test_the_vendor_fails_after_it_has_created(installation: Installation, hang: bool) -> None:
    installation.vendor.lose, installation.vendor.hang = 1, hang
    installation.apply()
    assert installation.is_settled()
    expected = {"calendly": 1, "oncehub": 2, "bookeo": 3}[installation.vendor.name]
    assert installation.vendor.subscriptions.created == expected, (
        "only where the lost answer had the secret is another one made"
    )


def test_a_vendor_that_always_fails_is_given_up_and_what_it_made_is_used_or_removed_by_the_next_apply(
    installation: Installation,
) -> None:
    installation.vendor.lose = 100
    if installation.vendor.name == "oncehub":
        with pytest.raises(VendorUnavailable, match="not as wanted after 5 attempts"):
            installation.apply()
        assert len(installation.vendor.ours) == 1, "each attempt clears up after the one before"
    else:
        installation.apply()
    installation.vendor.lose = 0
    installation.apply()
    assert installation.is_settled()


def test_a_refusal_leaves_nothing_behind(tmp_path: Path) -> None:
    with open_installation(tmp_path, "calendly") as installation:
        installation.vendor.server.faults.append(
            lambda _, request: json_response({"message": "no"}, 403) if request.method == "POST" else None
        )
        with pytest.raises(VendorRefused, match="403"):
            installation.apply()
        assert installation.live == ()
        installation.vendor.server.faults.clear()
        installation.apply()
        assert installation.is_settled()


def test_a_secret_that_nothing_uses_yet_is_used_before_another_is_made(tmp_path: Path) -> None:
    with open_installation(tmp_path, "calendly") as installation:
        prepared = "p" * 43
        with installation.manager() as manager:
            manager._store.add(prepared)
        installation.apply()
        assert installation.live == (prepared,)
        assert installation.is_settled()


def test_a_url_that_is_taken_by_what_no_list_shows_is_varied(tmp_path: Path) -> None:
    with open_installation(tmp_path, "calendly") as installation:
        prepared = "p" * 43
        with installation.manager() as manager:
            manager._store.add(prepared)
        url = f"{installation.vendor.url}?v={fingerprint(prepared)}"
        installation.vendor.subscriptions.add(
            url, ["invitee.created"], scope="group", group="https://api.calendly.com/groups/G"
        )
        installation.apply()
        assert installation.live == (prepared,)
        assert [
            subscription.secret for subscription in installation.vendor.ours if subscription.url != url
        ] == [prepared]
        assert installation.plan() == [Action.KEEP]


def conflicting(installation: Installation, times: int) -> None:
    """Answer so many creations that the URL is taken."""
    conflicts = iter([json_response({"title": "Already Exists"}, 409)] * times)
    installation.vendor.server.faults.append(
        lambda _, request: next(conflicts, None) if request.method == "POST" else None
    )


def test_a_url_that_is_taken_is_not_tried_twice(tmp_path: Path) -> None:
    with open_installation(tmp_path, "calendly") as installation:
        conflicting(installation, 2)
        installation.apply()
        assert len(installation.live) == 1
        assert installation.is_settled()


def test_where_every_url_is_taken_no_secret_is_left_behind(tmp_path: Path) -> None:
    with open_installation(tmp_path, "calendly") as installation:
        conflicting(installation, 9)
        for _ in range(3):
            with pytest.raises(VendorRefused, match="409"):
                installation.apply()
            assert installation.live == ()
        installation.apply()
        assert installation.is_settled()


@pytest.mark.parametrize("vendor", SIGNED)
def test_what_another_machine_made_is_replaced_only_when_a_person_says_so(
    tmp_path: Path, vendor: str
) -> None:
    with open_installation(tmp_path / "production", vendor) as production:
        production.apply()
        laptop = Installation(tmp_path / "laptop", production.vendor)
        for _ in range(2):
            applied = laptop.apply()
            assert [step.action for step in applied.plan] == [Action.TAKE_OVER]
            assert production.is_settled()
        laptop.apply(take_over=True)
        assert laptop.is_settled()


def test_what_another_machine_made_stays_also_when_something_else_was_made_from_here(tmp_path: Path) -> None:
    events = ["invitee.created", "routing_form_submission.created"]
    with open_installation(
        tmp_path / "production", "calendly", events=events[:1], scope="user"
    ) as production:
        production.apply()
        laptop = Installation(tmp_path / "laptop", production.vendor, events=events, scope="user")
        for _ in range(2):
            laptop.apply()
            assert sorted(laptop.plan()) == [Action.KEEP, Action.TAKE_OVER]
        assert production.vendor.ours[0].secret in production.live


def test_where_the_warehouse_cannot_be_asked_the_gap_is_as_long_as_the_lookback(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> Arrivals:
        raise WarehouseUnavailable("it is locked")

    before = datetime.now(UTC) - installation.settings.reconcile.lookback
    with installation.manager(asks_warehouse=True) as manager:
        with monkeypatch.context() as patch:
            patch.setattr("receivers.subscriptions.apply.arrivals", locked)
            manager.apply(Permissions())
        since = manager.state.read().unchecked_since
    assert since is not None
    assert before <= since
    assert installation.is_settled()


@pytest.mark.parametrize("vendor", SIGNED)
def test_a_subscription_whose_secret_left_the_settings_is_made_anew(tmp_path: Path, vendor: str) -> None:
    with open_installation(tmp_path, vendor) as installation:
        installation.apply()
        with installation.manager() as manager:
            manager._store.drop(installation.live)
        assert installation.plan() == [Action.REPLACE]
        installation.apply()
        assert installation.is_settled()


def test_where_oncehub_tells_secrets_one_that_is_not_stored_is_stored(tmp_path: Path) -> None:
    with open_installation(tmp_path, "oncehub") as installation:
        installation.vendor.subscriptions.shows_secrets = True  # type: ignore[attr-defined]  # OnceHub's
        installation.vendor.lose = 1
        installation.apply()
        assert installation.vendor.subscriptions.created == 1
        assert installation.is_settled()


@pytest.mark.parametrize("name", ["secret", "signing_secret"])
def test_oncehubs_secret_is_found_under_either_of_its_names(tmp_path: Path, name: str) -> None:
    with open_installation(tmp_path, "oncehub") as installation:
        installation.vendor.subscriptions.secret_name = name  # type: ignore[attr-defined]  # OnceHub's
        installation.apply()
        assert installation.is_settled()
        (subscription,) = installation.vendor.ours
        assert subscription.secret in secrets_path(installation.config).read_text()


def test_a_users_account_gets_routing_forms_by_a_second_subscription(tmp_path: Path) -> None:
    events = ["invitee.created", "routing_form_submission.created"]
    with open_installation(tmp_path, "calendly", scope="user", events=events) as installation:
        installation.apply()
        assert {
            subscription.about["scope"]: list(subscription.events)
            for subscription in installation.vendor.ours
        } == {
            "user": events[:1],
            "organization": events[1:],
        }
        assert len(set(installation.live)) == 2
        assert installation.plan() == [Action.KEEP, Action.KEEP]


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
    with open_installation(tmp_path, "calendly", scope=scope, events=events) as installation:
        installation.apply()
        assert {
            subscription.about["scope"]: len(subscription.events) for subscription in installation.vendor.ours
        } == scopes
        assert {event for subscription in installation.vendor.ours for event in subscription.events} == set(
            events
        )
        assert set(installation.plan()) == {Action.KEEP}


def test_an_oauth_app_has_one_key_for_all(tmp_path: Path) -> None:
    with open_installation(tmp_path, "calendly") as installation:
        credentials = installation.vendor.rest.oauth_settings()  # type: ignore[attr-defined]  # Calendly's
        (tmp_path / "ingest.secrets.toml").write_text(
            f'[accounts.sales]\nwebhook_secrets = ["of-the-app"]\n'
            f'client_secret = "{credentials["client_secret"]}"\n'
            f'refresh_token = "{credentials["refresh_token"]}"\n'
        )
        installation.write(client_id=credentials["client_id"])
        installation.apply()
        assert len(installation.vendor.ours) == 1
        assert installation.live == ("of-the-app",)
        assert installation.plan() == [Action.KEEP]
        installation.vendor.subscriptions.disable(installation.vendor.ours[0].url)
        installation.apply()
        assert installation.plan() == [Action.KEEP]


def test_operators_on_two_machines_come_to_an_end_with_one_of_ours(installation: Installation) -> None:
    other = Installation(installation.folder.with_name("colleague"), installation.vendor)
    failures: list[IngestError] = []

    def work(at: Installation) -> None:
        try:
            at.apply()
        except IngestError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in (installation, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) < 2
    assert installation.vendor.ours
    installation.apply(take_over=True)
    assert installation.is_settled()


def test_the_gap_reaches_back_to_the_last_delivery_and_is_remembered_until_it_is_reconciled(
    installation: Installation,
) -> None:
    last = datetime(2026, 6, 1, tzinfo=UTC)
    installation.apply(Arrivals(last=last))
    with installation.manager() as manager:
        assert manager.state.read().unchecked_since == last
        installation.apply()
        assert manager.state.read().unchecked_since == last
        manager.state.note_checked(last + timedelta(seconds=1))
        assert manager.state.read().unchecked_since == last, "one that began later is not all of it"
        manager.state.note_checked(last)
        assert manager.state.read().unchecked_since is None


def test_without_any_delivery_the_gap_is_as_long_as_the_lookback(installation: Installation) -> None:
    before = datetime.now(UTC)
    installation.apply()
    with installation.manager() as manager:
        since = manager.state.read().unchecked_since
    assert since is not None
    assert (
        before - installation.settings.reconcile.lookback
        <= since
        <= datetime.now(UTC) - installation.settings.reconcile.lookback
    )


def test_ours_can_be_removed_and_others_stay(installation: Installation) -> None:
    theirs = installation.vendor.subscriptions.add(SOMEBODY, ["customers.deleted"])
    installation.apply()
    with installation.manager() as manager:
        manager.remove(())
    assert installation.vendor.subscriptions.all() == [theirs]
    assert PUBLIC_URL not in theirs.url
