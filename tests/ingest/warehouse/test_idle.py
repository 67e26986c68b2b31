"""What is kept from one query to the next."""

from ingest.warehouse.idle import Idle


def test_a_thing_is_used_by_one_at_a_time_and_only_for_its_key() -> None:
    idle = Idle[str](2)
    assert idle.take("a") is None
    idle.keep("a", "thing of a")
    assert idle.take("b") is None
    assert idle.take("a") == "thing of a"
    assert idle.take("a") is None


def test_only_the_things_used_last_are_kept() -> None:
    idle = Idle[int](2)
    for number in range(3):
        idle.keep(number, number)
    assert [idle.take(number) for number in range(3)] == [None, 1, 2]
