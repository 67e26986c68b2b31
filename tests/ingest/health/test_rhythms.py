"""What is usual for an account, as status and the dashboard tell it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ingest.event import Cause
from ingest.health.gather import gather
from ingest.warehouse.gaps import Gap
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import TOPICS, sample

_HOURS = 9 * 7 * 24


@pytest.mark.parametrize(("hours_ago", "is_silent"), [(1, False), (48, True)])
def test_an_account_is_silent_after_a_wait_that_its_rhythm_does_not_explain(
    harness: ConsumerHarness, hours_ago: int, is_silent: bool
) -> None:
    now = datetime.now(UTC)
    times = [now - timedelta(hours=hours) for hours in range(hours_ago, _HOURS)]
    harness.load(
        *(
            replace(sample(number, f"B{number}", received_at=time), signed_by="1")
            for number, time in enumerate(times)
        )
    )
    [account] = gather(harness.settings).warehouse["accounts"]
    assert account["is_silent"] is is_silent
    assert account["usual_in_hour"] == 1
    assert (account["in_hour"] > 0) <= (hours_ago == 1)
    assert account["usual_since_delivery"] >= hours_ago / 2


def test_hours_of_a_known_outage_are_no_part_of_the_rhythm(harness: ConsumerHarness) -> None:
    now = datetime.now(UTC)
    begin, end = (now - timedelta(weeks=weeks) for weeks in (7, 1))
    times = [now - timedelta(hours=hours) for hours in range(1, _HOURS)]
    harness.load(
        *(
            replace(sample(number, f"B{number}", received_at=time), signed_by="1")
            for number, time in enumerate(times)
            if not begin <= time < end
        )
    )
    [without_gap] = gather(harness.settings).warehouse["accounts"]
    assert without_gap["usual_in_hour"] == 0
    gap = Gap("1", "oncehub", "support", begin, end, Cause.RECEIVER_DOWN, "", end, end, closed_at=end)
    harness.append_records(TOPICS.audit, gap.event().to_record())
    harness.load()
    [with_gap] = gather(harness.settings).warehouse["accounts"]
    assert with_gap["usual_in_hour"] == 1
