"""Rotations: there is another secret, and the old one goes when it signs nothing any more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import ConfigurationError
from ingest.warehouse.deliveries import Arrivals
from receivers.subscriptions.plan import Action
from receivers.subscriptions.webhook_secrets import reason_to_wait
from tests.receivers.subscriptions.installation import Installation, open_installation
from tests.support.accounts import SECRET

MAY = datetime(2026, 5, 1, tzinfo=UTC)
ANOTHER = "another-that-only-these-tests-use"
DAY, DAYS = timedelta(days=1), timedelta(days=3)

WAITS = [
    ("all quiet", MAY + DAYS, None, MAY + DAYS, ""),
    ("tried again for three days", MAY + DAY, None, MAY + DAYS - DAY / 24, "until 2026-05-04 00:00 UTC"),
    ("an old one came", MAY + DAYS, MAY + DAY, MAY + DAYS, "until 2026-05-05 00:00 UTC"),
    ("it came long ago", MAY + DAYS, MAY + DAY, MAY + DAYS + DAY, ""),
    ("nothing came", None, None, MAY + DAYS, "no delivery signed with the new secret"),
]


@pytest.mark.parametrize(
    ("by_new", "by_old", "now", "expected"), [case[1:] for case in WAITS], ids=[case[0] for case in WAITS]
)
def test_the_old_secret_stays_as_long_as_the_vendor_may_send_what_it_signed(
    by_new: datetime | None, by_old: datetime | None, now: datetime, expected: str
) -> None:
    reason = reason_to_wait(MAY, by_new, by_old, DAYS, now)
    assert reason.startswith(expected)
    assert bool(reason) == bool(expected)


@pytest.fixture(params=["calendly", "oncehub"])
def signed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """Yield an installation in which each subscription has a secret of its own."""
    with open_installation(tmp_path / "operator", request.param) as installation:
        yield installation


def rotate(installation: Installation) -> bool:
    """Return whether something was made anew."""
    with installation.manager() as manager:
        return manager.rotate().created


@contextmanager
def signing(last_signed: Callable[..., tuple[datetime | None, datetime | None]]) -> Iterator[None]:
    """Let the warehouse say this of which secrets signed the last deliveries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("receivers.subscriptions.webhook_secrets.last_signed", last_signed)
        yield


def finish(installation: Installation, *, force: bool = True) -> list[str]:
    """Finish as if deliveries of the newest secret came all the time; return the dropped ones."""
    with installation.manager() as manager, signing(lambda *_: (datetime.now(UTC), None)):
        return manager.finish_rotation(force=force)


def forget(installation: Installation) -> None:
    """Lose the state."""
    (installation.folder / "state" / "sales.subscriptions.json").unlink()


def test_a_rotation_after_all_was_removed_makes_another_secret(signed: Installation) -> None:
    signed.apply()
    before = signed.live
    with signed.manager() as manager:
        manager.remove(())
    assert rotate(signed)
    assert signed.vendor.ours[0].secret not in before


def test_a_rotation_that_may_change_nothing_is_known_as_one(signed: Installation) -> None:
    signed.apply()
    signed.write(public_url="https://new.example.com")
    assert not rotate(signed)


def test_after_an_apply_that_made_a_new_secret_the_old_one_waits_too(tmp_path: Path) -> None:
    with open_installation(tmp_path, "calendly") as installation:
        installation.apply()
        installation.vendor.subscriptions.disable(installation.vendor.ours[0].url)
        installation.apply()
        before = installation.live
        with pytest.raises(ConfigurationError, match="the vendor may send again"):
            finish(installation, force=False)
        assert installation.live == before
        assert finish(installation) == list(before[1:])


def test_where_it_is_not_known_since_when_the_secret_is_the_first_that_counts_from_then_on(
    tmp_path: Path,
) -> None:
    with open_installation(tmp_path, "calendly") as installation:
        installation.apply()
        rotate(installation)
        new, old = installation.live
        forget(installation)
        with pytest.raises(ConfigurationError, match="it was not known since when"):
            finish(installation)
        assert installation.live == (new, old)
        with pytest.raises(ConfigurationError, match="until"):
            finish(installation, force=False)
        assert finish(installation) == [old]


def test_what_signs_another_subscription_stays_when_the_state_is_lost(tmp_path: Path) -> None:
    events = ["invitee.created", "routing_form_submission.created"]
    with open_installation(tmp_path, "calendly", scope="user", events=events) as installation:
        installation.apply()
        forget(installation)
        assert finish(installation) == []
        assert all(subscription.secret in installation.live for subscription in installation.vendor.ours)


def test_only_what_the_old_secrets_sign_is_waited_for(tmp_path: Path) -> None:
    questions: list[Sequence[str]] = []

    def came(*arguments: Any) -> tuple[None, None]:
        questions.append(arguments[-1])
        return None, None

    events = ["invitee.created", "routing_form_submission.created"]
    with open_installation(tmp_path, "calendly", scope="user", events=events) as installation:
        installation.apply()
        rotate(installation)
        with installation.manager() as manager, signing(came), pytest.raises(ConfigurationError):
            manager.finish_rotation(force=False)
        assert questions == [["3", "4"]]
        assert len(finish(installation)) == 2
        assert {subscription.secret for subscription in installation.vendor.ours} == {*installation.live}


def test_while_nobody_knows_what_signs_a_subscription_nothing_goes(tmp_path: Path) -> None:
    with open_installation(tmp_path, "oncehub") as installation:
        installation.apply()
        rotate(installation)
        before = installation.live
        forget(installation)
        with pytest.raises(ConfigurationError, match="no secret can be removed safely"):
            finish(installation)
        assert installation.live == before
        assert installation.plan() == [Action.TAKE_OVER]


def test_what_was_made_by_hand_and_delivers_keeps_all_secrets_until_it_is_made_anew(tmp_path: Path) -> None:
    with open_installation(tmp_path / "operator", "calendly") as installation:
        installation.believe(ANOTHER, SECRET)
        subscription = installation.vendor.subscriptions.add(
            installation.vendor.url, installation.events, SECRET
        )
        arrivals = Arrivals(last=subscription.created_at + timedelta(seconds=1))
        with (
            installation.manager(arrivals) as manager,
            pytest.raises(ConfigurationError, match="made by hand"),
        ):
            manager.finish_rotation(force=True)
        assert set(installation.live) == {ANOTHER, SECRET}
        with installation.manager(arrivals) as manager:
            assert manager.rotate().created
        assert subscription not in installation.vendor.ours
        assert installation.is_settled()
        assert set(finish(installation)) == {ANOTHER, SECRET}


def test_a_rotation_of_a_time_that_has_not_come_begins_now(signed: Installation) -> None:
    """The clock was a year ahead when the newest secret became that."""
    signed.apply()
    rotate(signed)
    with signed.manager() as manager:
        state = manager.state.read()
        manager.state.write(replace(state, rotated_at=datetime.now(UTC) + timedelta(days=365)))
    with pytest.raises(ConfigurationError, match="It is recorded now"):
        finish(signed)
    with signed.manager() as manager:
        since = manager.state.read().rotated_at
    assert since is not None
    assert since < datetime.now(UTC) + timedelta(minutes=1)
