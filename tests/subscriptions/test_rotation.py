"""Rotations: always another secret, and the old one goes only when it is known that nothing is signed with it any more."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError
from receivers.subscriptions.apply import changed
from receivers.subscriptions.plan import Heard, Kind
from receivers.subscriptions.rotation import obstacle
from tests.subscriptions.desk import SECRET, Desk, opened

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
    ("by_new", "by_old", "now", "said"), [case[1:] for case in WAITS], ids=[case[0] for case in WAITS]
)
def test_the_old_secret_stays_as_long_as_the_vendor_may_send_what_it_signed(
    by_new: datetime | None, by_old: datetime | None, now: datetime, said: str
) -> None:
    found = obstacle(MAY, by_new, by_old, DAYS, now)
    assert found.startswith(said)
    assert bool(found) == bool(said)


@pytest.fixture(params=["calendly", "oncehub"])
def signed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """Where each subscription has a secret of its own."""
    with opened(tmp_path / "operator", request.param) as found:
        yield found


def rotate(desk: Desk) -> bool:
    """Whether something was made anew."""
    with desk.registrar() as registrar:
        return changed(registrar.rotate())


def finish(desk: Desk, *, force: bool = True) -> list[str]:
    """The secrets that went, as if deliveries of the newest came all the time."""
    with desk.registrar() as registrar:
        return registrar.finish(lambda *_: (datetime.now(UTC), None), force=force)


def forget(desk: Desk) -> None:
    """The state is lost."""
    (desk.folder / "state" / "sales.subscriptions.json").unlink()


def test_a_rotation_after_all_was_removed_makes_another_secret(signed: Desk) -> None:
    signed.apply()
    before = signed.live
    with signed.registrar() as registrar:
        registrar.remove(())
    assert rotate(signed)
    assert signed.counter.ours[0].secret not in before


def test_a_rotation_that_may_change_nothing_is_known_as_one(signed: Desk) -> None:
    signed.apply()
    signed.write(public_url="https://new.example.com")
    assert not rotate(signed)


def test_after_an_apply_that_made_a_new_secret_the_old_one_waits_too(tmp_path: Path) -> None:
    with opened(tmp_path, "calendly") as desk:
        desk.apply()
        desk.counter.subscriptions.disable(desk.counter.ours[0].url)
        desk.apply()
        before = desk.live
        with pytest.raises(ConfigurationError, match="the vendor may send again"):
            finish(desk, force=False)
        assert desk.live == before
        assert finish(desk) == list(before[1:])


def test_where_it_is_not_known_since_when_the_secret_is_the_first_that_counts_from_then_on(
    tmp_path: Path,
) -> None:
    with opened(tmp_path, "calendly") as desk:
        desk.apply()
        rotate(desk)
        new, old = desk.live
        forget(desk)
        with pytest.raises(ConfigurationError, match="it was not known since when"):
            finish(desk)
        assert desk.live == (new, old)
        with pytest.raises(ConfigurationError, match="until"):
            finish(desk, force=False)
        assert finish(desk) == [old]


def test_what_signs_another_subscription_stays_when_the_state_is_lost(tmp_path: Path) -> None:
    events = ["invitee.created", "routing_form_submission.created"]
    with opened(tmp_path, "calendly", scope="user", events=events) as desk:
        desk.apply()
        forget(desk)
        assert finish(desk) == []
        assert all(kept.secret in desk.live for kept in desk.counter.ours)


def test_only_what_the_old_secrets_sign_is_waited_for(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def came(_: datetime, old: Sequence[str]) -> tuple[None, None]:
        asked.append(old)
        return None, None

    events = ["invitee.created", "routing_form_submission.created"]
    with opened(tmp_path, "calendly", scope="user", events=events) as desk:
        desk.apply()
        rotate(desk)
        with desk.registrar() as registrar, pytest.raises(ConfigurationError):
            registrar.finish(came, force=False)
        assert asked == [["3", "4"]]
        assert len(finish(desk)) == 2
        assert {kept.secret for kept in desk.counter.ours} == {*desk.live}


def test_while_nobody_knows_what_signs_a_subscription_nothing_goes(tmp_path: Path) -> None:
    with opened(tmp_path, "oncehub") as desk:
        desk.apply()
        rotate(desk)
        before = desk.live
        forget(desk)
        with pytest.raises(ConfigurationError, match="no secret is safe to drop"):
            finish(desk)
        assert desk.live == before
        assert desk.plan() == [Kind.TAKE_OVER]


def test_what_was_made_by_hand_and_delivers_keeps_all_secrets_until_it_is_made_anew(tmp_path: Path) -> None:
    with opened(tmp_path / "operator", "calendly") as desk:
        desk.believe(ANOTHER, SECRET)
        made = desk.counter.subscriptions.add(desk.counter.url, desk.account.settings.events, SECRET)  # type: ignore[attr-defined]
        heard = Heard(last=made.created_at + timedelta(seconds=1))
        with desk.registrar(heard) as registrar, pytest.raises(ConfigurationError, match="made by hand"):
            registrar.finish(lambda *_: (datetime.now(UTC), None), force=True)
        assert set(desk.live) == {ANOTHER, SECRET}
        with desk.registrar(heard) as registrar:
            assert changed(registrar.rotate())
        assert made not in desk.counter.ours
        assert desk.is_settled()
        assert set(finish(desk)) == {ANOTHER, SECRET}


def test_a_rotation_of_a_time_that_has_not_come_begins_now(signed: Desk) -> None:
    """The clock was a year ahead when the newest secret became that."""
    signed.apply()
    rotate(signed)
    with signed.registrar() as registrar:
        state = registrar.state.read()
        registrar.state.write(replace(state, rotated_at=datetime.now(UTC) + timedelta(days=365)))
    with pytest.raises(ConfigurationError, match="from now on it is"):
        finish(signed)
    with signed.registrar() as registrar:
        since = registrar.state.read().rotated_at
    assert since is not None
    assert since < datetime.now(UTC) + timedelta(minutes=1)
