"""The short form of the referee: no hour of some days of simulated life is called complete falsely.

The long form is `make prove`. Without a part of the rule the referee has to find false verdicts.
"""

from pathlib import Path
from typing import Any

import pytest

from ingest.warehouse.completeness import HOUR, hour_of
from tests.referee.clock import START
from tests.referee.life import Life, Plan
from tests.referee.truth import Judgement, judge_ledger

_CALM = Plan(
    hours=30, kills=0, rest_down=0, rest_errors=0, consumer_down=0, receiver_down=0, skewed=0, spooling=0,
    without_date=0, log_restored=0, warehouse_restored=0, dead_lettered=0,
)  # fmt: skip


def judge_life(folder: Path, plan: Plan, seed: int) -> tuple[Life, Judgement]:
    """Live by a plan, judge it every hour, and return what was false at any time."""
    life, false = Life(folder, plan, seed), []
    with life.installed():
        for _ in life.run():
            false += judge_ledger(life).false
        life.calm()
        judgement = judge_ledger(life)
    judgement.false += false
    return life, judgement


@pytest.mark.parametrize("seed", [1, 2])
def test_no_hour_is_called_complete_that_is_not_and_all_are_in_the_end(tmp_path: Path, seed: int) -> None:
    plan = Plan(hours=48, warehouse_restored=0.02, log_restored=0.02, consumer_down=0.02)
    life, judgement = judge_life(tmp_path, plan, seed)
    assert judgement.false == []
    assert life.tally.faults["kill"] > 0
    last = hour_of(life.clock.now) - HOUR
    for name, account in life.accounts.items():
        verdicts = life.product.verdicts(account.vendor, name)
        unproven = [
            verdict for verdict in verdicts.values() if START <= verdict.hour < last and not verdict.proven_at
        ]
        assert len(unproven) <= 1, unproven


@pytest.mark.parametrize(
    ("part", "plan"),
    [
        ("consumers.statements._lacks_evidence", {"hours": 96, "warehouse_restored": 0.2, "retention": 0.9}),
        ("receivers.completeness.verdicts._why_open", {"webhooks_lost": 0.5, "bookings_an_hour": 10}),
    ],
)
def test_the_referee_finds_what_a_weaker_rule_calls_complete(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    plan: dict[str, Any],
) -> None:
    monkeypatch.setattr(part, lambda *_: None)
    _, judgement = judge_life(tmp_path, Plan(**{**_fields(_CALM), **plan}), 1)
    assert judgement.false


def _fields(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__dataclass_fields__}
