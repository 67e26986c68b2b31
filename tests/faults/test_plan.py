"""Tests of a run's plan: it is the same for the same seed, and leaves nothing out."""

import pkgutil
from collections import Counter

import pytest

from tests.faults.faulty_ingest import MOMENTS, STEPS
from tests.faults.plan import KINDS, Kind, draw


@pytest.mark.parametrize("log", KINDS)
def test_a_seed_is_a_plan(log: str) -> None:
    assert draw(7, KINDS[log], 200, 400.0) == draw(7, KINDS[log], 200, 400.0)
    assert draw(7, KINDS[log], 200, 400.0) != draw(8, KINDS[log], 200, 400.0)


@pytest.mark.parametrize("log", KINDS)
def test_every_kind_of_fault_comes_in_its_time(log: str) -> None:
    plan = draw(3, KINDS[log], 25, 60.0)
    assert {fault.kind for fault in plan.faults} == KINDS[log]
    assert plan.kills == 25
    assert [fault.at for fault in plan.faults] == sorted(fault.at for fault in plan.faults)
    assert all(0 < fault.at <= 60 for fault in plan.faults)


def test_kills_go_through_every_step_before_they_come_to_one_again() -> None:
    plan = draw(3, frozenset({Kind.KILL_CONSUMER_AT_STEP}), 2 * len(MOMENTS["consume"]), 60.0)
    assert Counter(fault.moment for fault in plan.faults) == dict.fromkeys(MOMENTS["consume"], 2)


@pytest.mark.parametrize("target", [target for steps in STEPS.values() for target in steps.values()])
def test_each_step_is_a_function_of_the_product(target: str) -> None:
    assert callable(pkgutil.resolve_name(target))
