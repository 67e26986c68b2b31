"""The short form of the referee: no hour of some days of simulated life is called complete falsely.

The long form is `make prove`. Without a part of the rule the referee has to find false verdicts.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.referee.life import Life
from tests.referee.plan import Plan
from tests.referee.truth import Judge, Judgement

_CALM = Plan(
    hours=30, kills=0, rest_down=0, rest_errors=0, rest_busy=0, consumer_down=0, receiver_down=0, skewed=0,
    spooling=0, subscription_off=0, without_date=0, log_restored=0, warehouse_restored=0, dead_lettered=0,
)  # fmt: skip


def judge_life(folder: Path, plan: Plan, seed: int) -> tuple[Life, dict[str, Judgement]]:
    """Live by a plan, judge it every hour, and return the judgements with what was false at any time."""
    life = Life(folder, plan, seed)
    judge = Judge(life)
    with life.installed():
        false = [judge.find_false() for _ in life.run()]
        life.calm()
        judgements = judge.judge()
    for name, judgement in judgements.items():
        judgement.false += [line for at_that_time in false for line in at_that_time[name]]
    return life, judgements


@pytest.mark.parametrize("seed", [1, 2])
def test_no_hour_is_called_complete_that_is_not_and_all_are_in_the_end(tmp_path: Path, seed: int) -> None:
    plan = Plan(hours=48, warehouse_restored=0.02, log_restored=0.02, consumer_down=0.02)
    life, judgements = judge_life(tmp_path, plan, seed)
    assert [line for judgement in judgements.values() for line in judgement.false] == []
    assert life.tally.faults["kill"] > 0
    hours = sum(judgement.hours for judgement in judgements.values())
    proven = sum(judgement.proven for judgement in judgements.values())
    assert hours >= 48 * len(life.accounts)
    assert proven >= 0.999 * hours, [line for judgement in judgements.values() for line in judgement.waiting]


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_stay_right_where_the_clock_is_wrong_and_answers_have_no_date(tmp_path: Path, seed: int) -> None:
    plan = replace(_CALM, hours=36, skewed=0.3, without_date=0.3, bookings_an_hour=3, page=20)
    _, judgements = judge_life(tmp_path, plan, seed)
    assert [line for judgement in judgements.values() for line in judgement.false] == []


def test_runs_send_hardly_more_requests_than_the_fewest_that_could_prove_as_much(tmp_path: Path) -> None:
    life, _ = judge_life(tmp_path, replace(_CALM, page=100), 3)
    for name, cost in life.tally.costs.items():
        assert cost.fewest >= cost.runs > 0, name
    requests = sum(cost.requests for cost in life.tally.costs.values())
    assert requests <= 1.3 * sum(cost.fewest for cost in life.tally.costs.values())


def test_the_referee_finds_what_a_weaker_rule_calls_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receivers.completeness.verdicts._why_open", lambda *_: None)
    _, judgements = judge_life(tmp_path, replace(_CALM, webhooks_lost=0.5, bookings_an_hour=10), 1)
    assert any(judgement.false for judgement in judgements.values())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_referee_finds_verdicts_whose_evidence_a_restored_warehouse_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    assert judge_restored(tmp_path / "strict", seed) == []
    monkeypatch.setattr("consumers.statements._lacks_evidence", lambda *_: False)
    assert judge_restored(tmp_path / "weak", seed)


def judge_restored(folder: Path, seed: int) -> list[str]:
    """Restore a warehouse while the log has newer verdicts and no events any more; return what is false."""
    life = Life(folder, replace(_CALM, hours=10, bookings_an_hour=3, page=20), seed)
    judge, product, false = Judge(life), life.product, []
    with life.installed():
        for hour in life.run():
            if hour == 4:
                backup = product.warehouse.contents.copy()
        for topic in product.log:
            if topic != life.settings.audit_topic:
                product.first[topic] = product.read[topic]
        product.restore(backup)
        product.consume()
        false += [line for lines in judge.find_false().values() for line in lines]
    return false
