"""Tests of how often single objects that are looked up by id are read."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest.errors import VendorUnavailable
from ingest.rest import Record, RecordCache


def test_threads_that_ask_at_the_same_time_share_one_read() -> None:
    reads: Counter[str] = Counter()
    all_ask = threading.Barrier(4)
    may_answer = threading.Event()

    def read(name: str) -> Record:
        reads[name] += 1
        may_answer.wait(10)
        return {"id": name}

    lookup = RecordCache(read, 10)

    def ask(_: int) -> Record | None:
        all_ask.wait(10)
        return lookup.find("a")

    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(ask, range(4))
        time.sleep(0.05)  # lets any thread begin that would read a second time
        may_answer.set()
    assert list(answers) == [{"id": "a"}] * 4
    assert reads == {"a": 1}


def test_what_is_not_there_is_asked_for_once() -> None:
    reads: list[str] = []
    lookup = RecordCache(reads.append, 10)
    assert [lookup.find("a"), lookup.find("a")] == [None, None]
    assert reads == ["a"]


def test_a_read_that_failed_is_tried_again() -> None:
    failures = [VendorUnavailable("busy")]

    def read(name: str) -> Record | None:
        if failures:
            raise failures.pop()
        return {"id": name}

    lookup = RecordCache(read, 10)
    with pytest.raises(VendorUnavailable):
        lookup.find("a")
    assert lookup.find("a") == {"id": "a"}


def test_those_asked_for_longest_ago_are_forgotten_first() -> None:
    reads: list[str] = []
    lookup = RecordCache(reads.append, 2)
    for name in "abaca":
        lookup.find(name)
    assert reads == ["a", "b", "c"]
    lookup.find("b")
    assert reads == ["a", "b", "c", "b"]
