"""Appends that the log refuses or does not take in time.

A record that the log refuses holds up no other: those of a redrive, a replay and a reconciliation.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from consumers.replay import Replay, ReplayFilter
from ingest.errors import LogRefused, LogUnavailable
from ingest.log import Record, append_records, wait_until_durable
from ingest.settings import Settings
from receivers.reconcile.repairs import append_events
from tests.consumers.samples import SOURCE, TOPIC, sample
from tests.ingest.log.harness import SmallLog
from tests.support.settings import settings_tree


def test_those_that_are_refused_are_returned_and_the_others_appended() -> None:
    log = SmallLog(100)
    records = [Record("", bytes(size)) for size in (1, 200, 2, 300, 3)]
    refused = append_records(log, "topic", records, 1.0, "what was found")
    assert [len(record.value) for record, _ in refused] == [200, 300]
    assert [len(record.value) for record in log.taken["topic"]] == [1, 2, 3]


def test_nothing_is_appended_where_nothing_is_to_be() -> None:
    log = SmallLog(100)
    assert append_records(log, "topic", [], 1.0, "what was found") == []


def test_what_a_reconciliation_found_and_the_log_refuses_becomes_a_dead_letter_once(tmp_path: Path) -> None:
    log, settings = SmallLog(90_000), Settings.model_validate(settings_tree(tmp_path))
    large = sample(2, "B2", note=os.urandom(100_000).hex())
    for _ in range(2):
        append_events(settings, log, TOPIC, [sample(1, "B1"), large, sample(3, "B3")])
    assert [record.headers["ce_subject"] for record in log.taken[TOPIC]] == ["B1", "B3"] * 2
    letters = log.taken[settings.dead_letter_topic]
    assert len({letter.headers["ce_id"] for letter in letters}) == 1
    assert (letters[0].headers["dl_reason"], letters[0].headers["dl_bytes"]) == (
        "log_refused",
        str(len(large.data)),
    )
    assert large.data.startswith(letters[0].value)
    assert letters[0].headers["ce_source"] == SOURCE


class AwayLog(SmallLog):
    """Takes nothing."""

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        del topic, records
        future: Future[None] = Future()
        future.set_exception(LogUnavailable("away"))
        return future


def test_a_log_that_is_away_is_no_refusal() -> None:
    with pytest.raises(LogUnavailable, match="away"):
        append_records(AwayLog(1), "topic", [Record("", b"")], 1.0, "what was found")


def test_what_a_replay_cannot_append_again_is_counted_and_the_rest_is_replayed(tmp_path: Path) -> None:
    settings = Settings.model_validate(settings_tree(tmp_path))
    with closing(settings.build_log().producer()) as producer:
        producer.append(
            TOPIC, [sample(1, "B1").to_record(), sample(2, "B2", note="n" * 9000).to_record()]
        ).result(10)
    with closing(settings.build_log().reader(None)) as reader:
        log, replay = SmallLog(5000), Replay(settings, reader, None, ReplayFilter())
        replay._append(log, list(reader.records()))
    assert [record.headers["ce_subject"] for record in log.taken[TOPIC]] == ["B1"]
    assert replay.report.columns()["skipped"]["refused"] == 1


def test_what_is_durable_is_waited_for_no_longer() -> None:
    future: Future[None] = Future()
    future.set_result(None)
    wait_until_durable(future, 0, "it")


def test_a_log_that_needs_too_long_did_not_take_it() -> None:
    with pytest.raises(LogUnavailable, match="did not take the letters within 0 seconds"):
        wait_until_durable(Future(), 0.01, "the letters")


def test_what_the_log_says_itself_is_left_as_it_is() -> None:
    future: Future[None] = Future()
    future.set_exception(LogRefused("too large"))
    with pytest.raises(LogRefused, match="too large"):
        wait_until_durable(future, 0, "it")
