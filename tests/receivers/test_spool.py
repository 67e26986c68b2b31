"""The spool: what the log does not acknowledge is kept in order, within bounds, over crashes."""

import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Protocol

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ingest.errors import LogRefused, LogUnavailable
from ingest.log import Record
from ingest.log.sqlite import extent
from receivers.spool import SpoolingProducer
from receivers.spool.file import SpoolFile, count_records, is_locked
from receivers.spool.folder import claim_files, claim_left_files
from tests.receivers.controlled_log import ControlledLog
from tests.support.polling import PATIENCE, wait_for

TOPIC = "bookings.calendly"
MIB = 1024 * 1024
SOON = 0.05


class Open(Protocol):
    """Opens producers over a log and this test's folder, and closes them when the test ends."""

    def __call__(
        self, log: ControlledLog, after: float = SOON, limit: int = 64 * MIB
    ) -> SpoolingProducer: ...


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for a log that is silent for ever; Kafka's client would give up."""
    monkeypatch.setattr("receivers.spool.file._ACKNOWLEDGED_SECONDS", SOON)
    monkeypatch.setattr("receivers.spool._LONGEST_PAUSE_SECONDS", SOON)
    monkeypatch.setattr("receivers.spool._FIRST_PAUSE_SECONDS", SOON)


@pytest.fixture
def spooling(tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as opened:

        def open_producer(log: ControlledLog, after: float = SOON, limit: int = 64 * MIB) -> SpoolingProducer:
            return opened.enter_context(
                closing(SpoolingProducer(log, claim_files(tmp_path, [TOPIC], limit), after))
            )

        yield open_producer


def send(producer: SpoolingProducer, *numbers: int) -> None:
    for number in numbers:
        producer.append(TOPIC, [record(number)]).result(PATIENCE)


def record(number: int) -> Record:
    return Record(f"calendly/sales/{number % 3}", str(number).encode(), {"ce_id": str(number)})


def values(*numbers: int) -> list[bytes]:
    return [str(number).encode() for number in numbers]


def waiting(folder: Path) -> int:
    with closing(SpoolFile(folder / "spool-000.db", [TOPIC], MIB)) as spool:
        return spool.record_count()


def test_what_the_log_acknowledges_never_touches_the_spool(spooling: Open, tmp_path: Path) -> None:
    log = ControlledLog()
    producer = spooling(log)
    send(producer, 1, 2, 3)
    assert log.order() == values(1, 2, 3)
    producer.close()
    assert waiting(tmp_path) == 0


def test_what_the_log_fails_is_kept_and_handed_on_when_it_is_back(spooling: Open, tmp_path: Path) -> None:
    log = ControlledLog()
    log.state = "failing"
    producer = spooling(log)
    send(producer, 1, 2, 3)
    assert not log.taken
    log.state = "open"
    wait_for(lambda: log.order() == values(1, 2, 3), "the spool is emptied")
    assert log.taken[0] == record(1), "key and headers come along"
    producer.close()
    assert waiting(tmp_path) == 0


def test_what_the_log_is_silent_about_is_kept_in_time(spooling: Open) -> None:
    log = ControlledLog()
    log.state = "silent"
    producer = spooling(log)
    send(producer, 1)
    log.state = "open"
    wait_for(lambda: log.order() == values(1), "the spool is emptied")


def test_a_log_that_was_only_slow_gets_it_twice_and_in_order(spooling: Open) -> None:
    log = ControlledLog()
    log.state = "silent"
    producer = spooling(log)
    send(producer, 1, 2)
    log.take_silenced()
    log.state = "open"
    wait_for(lambda: len(log.taken) >= 3, "the spool is emptied as well")
    assert log.order() == values(1, 2)


def test_nothing_overtakes_what_waits(spooling: Open) -> None:
    log = ControlledLog()
    log.state = "silent"
    producer = spooling(log, after=30)
    first = producer.append(TOPIC, [record(1)])
    log.state = "failing"
    second = producer.append(TOPIC, [record(2)])
    log.state = "open"
    third = producer.append(TOPIC, [record(3)])
    for future in (first, second, third):
        future.result(PATIENCE)
    wait_for(
        lambda: log.order() == values(1, 2, 3), "in the order they came, though only the second had failed"
    )


def test_while_something_waits_the_log_is_not_asked_for_each_that_comes(spooling: Open) -> None:
    log = ControlledLog()
    log.state = "silent"
    producer = spooling(log, after=1)
    send(producer, 1)
    log.state = "failing"
    for number in range(2, 400):
        producer.append(TOPIC, [record(number)])
    log.state = "open"
    wait_for(lambda: log.order() == values(*range(1, 400)), "all are handed on, in order")


def test_what_waits_survives_a_restart_while_the_log_is_still_away(spooling: Open) -> None:
    log = ControlledLog()
    log.state = "failing"
    spooling(log).close()
    producer = spooling(log)
    send(producer, 1, 2)
    producer.close()
    again = spooling(log)
    send(again, 3)
    assert not log.taken
    log.state = "open"
    wait_for(lambda: log.order() == values(1, 2, 3), "what was left comes first")


def test_a_full_spool_refuses_and_goes_on_once_it_is_emptied(spooling: Open, tmp_path: Path) -> None:
    log = ControlledLog()
    log.state = "failing"
    producer = spooling(log, limit=MIB)
    large = [Record("calendly/sales/1", bytes([number]) * 100_000) for number in range(1, 30)]
    outcomes = [producer.append(TOPIC, [open_producer]).exception(PATIENCE) for open_producer in large]
    files = [
        open_producer.value for open_producer, error in zip(large, outcomes, strict=True) if error is None
    ]
    assert 3 < len(files) < 11
    assert all(isinstance(error, LogUnavailable) for error in outcomes if error)
    assert (tmp_path / "spool-000.db").stat().st_size <= MIB
    log.state = "open"
    wait_for(lambda: log.order() == files, "what it had acknowledged is handed on, and nothing else")
    wait_for(lambda: extent(tmp_path / "spool-000.db")[1] < MIB / 4, "the room is free again")
    log.state = "failing"
    send(producer, 1)


def test_a_record_that_the_log_will_never_take_holds_up_no_other(spooling: Open, tmp_path: Path) -> None:
    log = ControlledLog()
    log.state = "failing"
    producer = spooling(log)
    send(producer, 1)
    producer.append(TOPIC, [Record("calendly/sales/2", log.refused, {"ce_id": "2"})]).result(PATIENCE)
    send(producer, 3)
    log.state = "open"
    wait_for(lambda: log.order() == values(1, 3), "the others are handed on")
    [file] = (tmp_path / "refused").iterdir()
    assert orjson.loads(file.read_bytes()) == {
        "topic": TOPIC, "key": "calendly/sales/2", "headers": {"ce_id": "2"}, "value": "dG9vIGxhcmdl",
    }  # fmt: skip
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_the_log_refuses_at_once_is_not_kept(spooling: Open, tmp_path: Path) -> None:
    log = ControlledLog()
    producer = spooling(log)
    assert isinstance(
        producer.append(TOPIC, [Record("calendly/sales/2", log.refused)]).exception(PATIENCE), LogRefused
    )
    producer.close()
    assert waiting(tmp_path) == 0


def test_a_record_that_cannot_be_set_aside_is_tried_again_until_it_can(
    spooling: Open, tmp_path: Path
) -> None:
    log = ControlledLog()
    log.state = "failing"
    producer = spooling(log)
    (tmp_path / "refused").write_text("in the way")
    producer.append(TOPIC, [Record("calendly/sales/2", log.refused)]).result(PATIENCE)
    send(producer, 3)
    with capture_logs() as logged:
        log.state = "open"
        wait_for(
            lambda: any("refused" in entry.get("why", "") for entry in logged), "it says what is in the way"
        )
        (tmp_path / "refused").unlink()
        wait_for(lambda: log.order() == values(3), "the other is handed on")


def test_a_spool_that_somebody_deletes_is_not_waited_for(spooling: Open, tmp_path: Path) -> None:
    log = ControlledLog()
    log.state = "failing"
    producer = spooling(log)
    send(producer, 1)
    for file in tmp_path.glob("spool-000.db*"):
        file.unlink()
    log.state = "open"

    def arrives_at_once() -> bool:
        append = producer.append(TOPIC, [record(2)])
        return append.done() and append.exception() is None

    wait_for(arrives_at_once, "deliveries go to the log again, and past the spool")


def test_every_worker_has_a_file_of_its_own_and_takes_over_what_a_dead_one_left(tmp_path: Path) -> None:
    with ExitStack() as opened:
        first, second = (
            opened.enter_context(closing(claim_files(tmp_path, [TOPIC], MIB)[0])) for _ in range(2)
        )
        assert first.path != second.path
        second.append(TOPIC, [record(2)]).result(PATIENCE)
    [own_file, leftover] = claim_files(tmp_path, [TOPIC], MIB)
    assert (own_file.path, leftover.path) == (first.path, second.path)
    log = ControlledLog()
    with closing(SpoolingProducer(log, [own_file, leftover], SOON)) as producer:
        send(producer, 5)
        wait_for(lambda: log.order() == values(2, 5), "what was left comes first")


def test_what_a_process_leaves_that_ends_later_is_taken_over_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receivers.spool._CLAIM_SECONDS", SOON)
    other = claim_files(tmp_path, [TOPIC], MIB)[0]
    other.append(TOPIC, [record(1)]).result(PATIENCE)
    log = ControlledLog()
    files, claim = claim_files(tmp_path, [TOPIC], MIB), partial(claim_left_files, tmp_path, [TOPIC], MIB)
    assert [file.path.name for file in files] == ["spool-001.db"]
    with closing(SpoolingProducer(log, files, SOON, claim=claim)) as producer:
        send(producer, 2)
        other.close()
        wait_for(lambda: log.order() == values(2, 1), "what was left is handed on")
        wait_for(lambda: not is_locked(other.path), "the next process can have the file")
        send(producer, 3)
    assert log.order() == values(2, 1, 3)


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    [spool] = claim_files(tmp_path / "spool", [TOPIC], MIB)
    with closing(spool):
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "spool").iterdir()}
        assert modes == {0o600}
        assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


def test_a_broken_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "spool-000.db").write_bytes(b"no database at all " * 300)
    [spool] = claim_files(tmp_path, [TOPIC], MIB)
    with closing(spool):
        assert spool.path.name == "spool-001.db"


def leave_nine(folder: Path) -> None:
    """Leave nine records in a spool, as a process whose log was away and that has ended."""
    log = ControlledLog()
    log.state = "failing"
    with closing(SpoolingProducer(log, claim_files(folder, [TOPIC], MIB), SOON)) as producer:
        send(producer, *range(9))


class Flickering(ControlledLog):
    """A log that fails the first of a booking's records, and works again at once."""

    def __init__(self) -> None:
        super().__init__()
        self._failed: set[str] = set()

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        new = {record.key for record in records} - self._failed
        self._failed |= new
        self.state = "failing" if new else "open"
        return super().append(topic, records)


def test_a_log_that_comes_back_between_two_records_of_a_booking_gets_them_in_order(tmp_path: Path) -> None:
    leave_nine(tmp_path)
    back = Flickering()
    with closing(SpoolingProducer(back, claim_files(tmp_path, [TOPIC], MIB), SOON)):
        wait_for(lambda: len(back.order()) == 9, "the spool is emptied")
    for booking in range(3):
        assert [
            open_producer.value for open_producer in back.taken if open_producer.key.endswith(str(booking))
        ] == values(booking, booking + 3, booking + 6)


class Crashing(ControlledLog):
    """A log that raises an unexpected error at first."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 2

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        self.left -= 1
        if self.left >= 0:
            raise RuntimeError("what nobody thought of")
        return super().append(topic, records)


def test_an_error_that_nobody_thought_of_loses_nothing(tmp_path: Path) -> None:
    leave_nine(tmp_path)
    back = Crashing()
    with closing(SpoolingProducer(back, claim_files(tmp_path, [TOPIC], MIB), SOON)) as producer:
        wait_for(lambda: back.left < 2, "the first attempt")
        send(producer, 9)  # were it passed over, what comes after would be committed with it
        wait_for(lambda: count_records(tmp_path / "spool-000.db") == 0, "the spool is emptied")
    assert back.order() == values(*range(10))


STATES = st.sampled_from(["open", "failing", "silent"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=st.lists(st.one_of(STATES, st.integers(1, 4), st.just("restart")), max_size=14))
def test_whatever_happens_nothing_acknowledged_is_lost_and_bookings_keep_their_order(
    story: list[str | int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, log, sent = tmp_path_factory.mktemp("spool"), ControlledLog(), 0
    producer = SpoolingProducer(log, claim_files(folder, [TOPIC], MIB), SOON)
    try:
        for step in story:
            if isinstance(step, int):
                numbers = range(sent, sent := sent + step)
                for future in [producer.append(TOPIC, [record(number)]) for number in numbers]:
                    future.result(PATIENCE)
            elif step == "restart":
                producer.close()
                producer = SpoolingProducer(log, claim_files(folder, [TOPIC], MIB), SOON)
            else:
                log.state = step  # type: ignore[assignment]  # the list's words are the gate's
        log.state = "open"
        wait_for(lambda: set(log.order()) == set(values(*range(sent))), "all arrives")
    finally:
        producer.close()
    for booking in range(3):
        own_file = [
            int(open_producer.value)
            for open_producer in log.taken
            if open_producer.key.endswith(str(booking))
        ]
        assert list(dict.fromkeys(own_file)) == sorted(set(own_file)), "first occurrences are in order"
