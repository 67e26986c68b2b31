"""Tests that each column of a booking is what the newest message with the column said.

Messages come in any order and in any batches, over a warehouse of dicts that returns no more of a row than a
consumer asks for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from consumers.booking_rows import Row, column_versions
from consumers.replay import as_replay
from consumers.version_guard import DESCRIBES
from ingest.booking import Answer, Booking, BookingStatus
from ingest.event import Event
from ingest.log import Partition, StoredRecord
from ingest.vendors import GONE
from ingest.warehouse import parsed_json
from tests.consumers.replay.test_plan import Warehouse
from tests.consumers.samples import SOURCE, TOPIC, moment
from tests.consumers.test_reconciled import oncehub_account

AS_JSON = TypeAdapter(Booking)
# Columns of each kind that a row has, and what a message may say in them; the first is what it says when it
# empties one.
WORDS: dict[str, list[Any]] = {
    "status": [BookingStatus.CONFIRMED, BookingStatus.CANCELLED],
    "customer_name": [None, "Ada Example", "Bo Example"],
    "participants": [None, 1, 2],
    "starts_at": [None, moment(1), moment(2)],
    "guests": [(), ("a@example.com",), ("b@example.com", "c@example.com")],
    "tracking": [None, {"utm_source": "a"}, {"utm_source": "b"}],
}
# The same of columns that describe what another one names, and of those others.
DEPENDENT: dict[str, list[Any]] = {
    "customer_id": [None, "C1", "C2"],
    "customer_phone": [None, "+44 1", "+44 2"],
    "answers": [(), (Answer("colour?", "red"),)],
    "staff": [(), ("S1",), ("S1", "S2"), ("S2",)],
    "staff_name": [None, "Sam", "Sue"],
}
ALL = WORDS | DEPENDENT
EMPTY = Booking(booking_id="B1", version="", status=BookingStatus.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Message:
    """What one message says about each column: a value, a guess, or nothing. Its `number` is its event's."""

    number: int
    at: int
    says: dict[str, Any]
    guesses: dict[str, Any] = field(default_factory=dict)

    def booking(self) -> Booking:
        untold = frozenset(ALL.keys() - self.says.keys())
        return replace(
            EMPTY, version=self.version().partition("/")[0], untold=untold, **(self.guesses | self.says)
        )

    def event(self) -> Event:
        return Event(
            id=f"E{self.number}", source=SOURCE, type="oncehub.booking.changed", subject="B1",
            time=moment(self.at),
            received_at=moment(self.at), data=AS_JSON.dump_json(self.booking()),
        )  # fmt: skip

    def version(self) -> str:
        clock = f"{moment(self.at):%Y-%m-%dT%H:%M:%S}.000000Z"
        return f"{clock}/{clock}"


def messages(
    numbers: st.SearchStrategy[int], columns: dict[str, list[Any]] = WORDS
) -> st.SearchStrategy[list[Message]]:
    """Draw messages that have all columns and messages that have few, as new as their numbers."""
    everything = st.fixed_dictionaries({name: st.sampled_from(words) for name, words in columns.items()})
    something = st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(words) for name, words in columns.items()}
    )
    # A guess at what describes something else depends on the order of messages.
    guessable = {
        name: st.sampled_from(words[1:])
        for name, words in columns.items()
        if name not in DESCRIBES or columns is WORDS
    }
    guesses = st.fixed_dictionaries({}, optional=guessable)
    message = st.tuples(numbers, everything | something, guesses)
    content_of = st.lists(message, min_size=1, max_size=6, unique_by=lambda content: content[0]) | st.lists(
        message, min_size=1, max_size=6
    )
    return content_of.map(lambda log: [Message(number, *content) for number, content in enumerate(log)])


def newer_of_each_version(log: Sequence[Message]) -> bool:
    return len({message.at for message in log}) == len(log)


def expected(log: Sequence[Message]) -> dict[str, Any]:
    """Return what the row has to say, written without looking at how the consumer does it."""
    newest_first = sorted(
        log, key=lambda message: -message.at
    )  # of equally new ones the first in the log stays the first
    columns: dict[str, tuple[Any, str]] = {}
    for name in ALL:
        outdated = last_named_other(name, newest_first)
        values = [
            (message.says[name], message.version())
            for message in newest_first
            if name in message.says and message.at > outdated
        ]
        guessed = [
            (message.guesses[name], f"(guess) {message.version()}")
            for message in newest_first
            if name in message.guesses
        ]
        since = next((message.version() for message in newest_first if message.at == outdated), "")
        columns[name] = [*values, *guessed, (getattr(EMPTY, name), since)][0]
    untold = ALL.keys() - newest_first[0].says.keys()
    return {name: value for name, (value, _) in columns.items()} | {
        "version": newest_first[0].version(),
        "last_event_id": f"E{newest_first[0].number}",
        "column_versions": {name: columns[name][1] for name in untold},
    }


def last_named_other(name: str, newest_first: Sequence[Message]) -> int:
    """Return when a message last named another customer (staff) than the newest message that names any.

    What was said by then describes that other one.
    """
    identities = [
        (identity(message.says[column]), message.at)
        for message in newest_first
        for column in [DESCRIBES.get(name)]
        if column in message.says
    ]
    return next((at for value, at in identities if value != identities[0][0]), -1)


def identity(value: Any) -> Any:
    return value[:1] if isinstance(value, tuple) else value


def content_of(row: Row) -> dict[str, Any]:
    """Return what a row says, in the same form."""
    values = {
        name: parsed_json(row[name]) if name in {"guests", "tracking", "staff", "answers"} else row[name]
        for name in ALL
    }
    values |= {
        "status": BookingStatus(values["status"]),
        "guests": tuple(values["guests"]),
        "staff": tuple(values["staff"]),
    }
    values["answers"] = tuple(Answer(**answer) for answer in values["answers"])
    return values | {
        "version": row["version"],
        "last_event_id": row["last_event_id"],
        "column_versions": column_versions(row),
    }


def read(event: Event) -> Booking | None:
    """Return the booking that the test put into the event."""
    return oncehub_account().booking(event) if event.type == GONE else AS_JSON.validate_json(event.data)


def stored(*events: Event) -> list[StoredRecord]:
    return [StoredRecord(event.to_record(), Partition(TOPIC), offset) for offset, event in enumerate(events)]


def load_batches(batches: Sequence[Sequence[StoredRecord]], warehouse: Warehouse | None = None) -> Warehouse:
    warehouse = warehouse or Warehouse(mapper=read)
    for batch in batches:
        warehouse.load(batch)
    return warehouse


def the_row(warehouse: Warehouse) -> Row:
    [row] = warehouse.bookings.values()
    return row


def cut(
    draw: Callable[[st.SearchStrategy[Any]], Any], records: Sequence[StoredRecord]
) -> list[Sequence[StoredRecord]]:
    """Draw batches of the records, of any sizes."""
    batches = []
    while records:
        size = draw(st.integers(1, len(records)))
        batches.append(records[:size])
        records = records[size:]
    return batches


@settings(deadline=None)
@given(messages(st.integers(0, 5)), st.data())
def test_any_order_repetition_and_batches_make_the_row_that_the_newest_teller_of_each_column_makes(
    log: list[Message], data: st.DataObject
) -> None:
    log = data.draw(st.permutations(log))
    repeated = data.draw(st.lists(st.sampled_from(log), max_size=4))
    warehouse = load_batches(cut(data.draw, stored(*(message.event() for message in [*log, *repeated]))))
    assert content_of(the_row(warehouse)) == expected(log)


@settings(deadline=None)
@given(messages(st.integers(0, 9), DEPENDENT).filter(newer_of_each_version), st.data())
def test_in_any_order_a_column_never_describes_what_another_column_named_before(
    log: list[Message], data: st.DataObject
) -> None:
    repeated = data.draw(st.lists(st.sampled_from(log), max_size=4))
    warehouse = load_batches(
        cut(
            data.draw, stored(*(message.event() for message in data.draw(st.permutations([*log, *repeated]))))
        )
    )
    assert content_of(the_row(warehouse)) == expected(log)


@settings(deadline=None)
@given(messages(st.integers(0, 9), ALL).filter(newer_of_each_version), st.data())
def test_a_replay_of_any_part_in_any_batches_leaves_a_right_row_as_it_is(
    log: list[Message], data: st.DataObject
) -> None:
    records = stored(*(message.event() for message in data.draw(st.permutations(log))))
    warehouse = load_batches(cut(data.draw, records))
    before = the_row(warehouse)
    part = data.draw(st.lists(st.sampled_from(records), unique_by=lambda stored_record: stored_record.offset))
    load_batches(
        cut(data.draw, [replace(stored_record, record=as_replay(stored_record)) for stored_record in part]),
        warehouse,
    )
    assert the_row(warehouse) == before


@settings(deadline=None)
@given(messages(st.integers(0, 9)).filter(newer_of_each_version), st.data())
def test_what_an_older_mapping_read_otherwise_is_right_once_all_was_replayed_twice(
    log: list[Message], data: st.DataObject
) -> None:
    """Twice, because columns that a message no longer has are known only after older messages were read."""
    assert misread_and_replayed(log, WORDS, data, times=2) == expected(log)


@settings(deadline=None)
@given(messages(st.integers(0, 9), DEPENDENT).filter(newer_of_each_version), st.data())
def test_what_an_older_mapping_read_of_customer_and_staff_is_right_once_all_was_replayed_four_times(
    log: list[Message], data: st.DataObject
) -> None:
    """Twice until the ids are right, and twice more for the columns that describe them."""
    assert misread_and_replayed(log, DEPENDENT, data, times=4) == expected(log)


def misread_and_replayed(
    log: list[Message], columns: dict[str, list[Any]], data: st.DataObject, times: int
) -> dict[str, Any]:
    """Return what the row says after the whole log is replayed with a corrected mapping."""
    everything = {f"E{message.number}": message for message in log}
    wrong = {name: data.draw(messages(st.just(0), columns))[0] for name in everything}

    def misread(event: Event) -> Booking:
        return replace(
            everything[event.id], says=wrong[event.id].says, guesses=wrong[event.id].guesses
        ).booking()

    records = stored(*(message.event() for message in data.draw(st.permutations(log))))
    warehouse = load_batches(cut(data.draw, records), Warehouse(mapper=misread))
    warehouse.mapper = read
    for _ in range(times):
        load_batches(
            cut(
                data.draw,
                [replace(stored_record, record=as_replay(stored_record)) for stored_record in records],
            ),
            warehouse,
        )
    return content_of(the_row(warehouse))


@settings(deadline=None)
@given(messages(st.integers(0, 5)), messages(st.integers(0, 9)), st.data())
def test_a_booking_that_is_gone_keeps_every_column_and_takes_late_messages_as_if_it_were_there(
    before: list[Message], late: list[Message], data: st.DataObject
) -> None:
    late = [replace(message, number=message.number + 10) for message in late]
    warehouse = load_batches(cut(data.draw, stored(*(message.event() for message in before))))
    row = the_row(warehouse)
    event = oncehub_account().gone(as_stored(row), moment(20))
    load_batches([stored(event)], warehouse)
    marked = the_row(warehouse)
    its_own = {"gone_at", "version", "last_event_id", "last_via", "loaded_at"}
    assert {name: marked[name] for name in row.keys() - its_own} == {
        name: row[name] for name in row.keys() - its_own
    }
    assert marked["gone_at"] == moment(20)
    load_batches(cut(data.draw, stored(*(message.event() for message in late))), warehouse)
    assert {name: content_of(the_row(warehouse))[name] for name in WORDS} == {
        name: value for name, value in expected_after(before, late).items() if name in WORDS
    }
    alone = load_batches([stored(event)])
    assert {name: content_of(the_row(alone))[name] for name in WORDS} == {
        name: content_of(row)[name] for name in WORDS
    }, "nothing else tells of it any more"


def as_stored(row: Row) -> Booking:
    """Return a booking as the warehouse has it, by which it is reported as gone."""
    values = content_of(row)
    return replace(
        EMPTY,
        **{name: values[name] for name in WORDS},
        version=row["version"].rpartition("/")[0],
        column_versions=values["column_versions"] or None,
    )


def expected_after(before: Sequence[Message], late: Sequence[Message]) -> dict[str, Any]:
    """Return the row after it was marked as gone.

    The mark counts as newer than all that the vendor had said by then, and older than a newer version.
    """
    newest = max(message.at for message in before)
    untold = expected(before)["column_versions"]
    counts = [
        replace(
            message,
            says={
                name: value for name, value in message.says.items() if message.at > newest or name in untold
            },
            guesses={
                name: value
                for name, value in message.guesses.items()
                if message.at > newest or name in untold
            },
        )
        for message in late
    ]
    return expected([*before, *counts])


def test_a_value_that_was_cleared_never_comes_back() -> None:
    full = Message(1, 1, {"customer_name": "Ada Example", "participants": 2})
    cleared = Message(2, 2, {"customer_name": None})
    for batches in ([[full], [cleared]], [[cleared], [full]], [[full, cleared]], [[cleared, full]]):
        row = the_row(load_batches([stored(*(message.event() for message in batch)) for batch in batches]))
        assert (row["customer_name"], row["participants"]) == (None, 2)


def test_an_older_message_that_fills_a_column_is_not_stale_and_moves_no_version() -> None:
    sparse, older, oldest = (
        Message(3, 3, {"status": BookingStatus.CANCELLED}),
        Message(2, 2, {"participants": 2}),
        Message(1, 1, {"participants": 1}),
    )
    warehouse = load_batches([stored(sparse.event())])
    before = the_row(warehouse)
    load_batches([stored(older.event())], warehouse)
    after = the_row(warehouse)
    assert (after["participants"], warehouse.stale) == (2, 0)
    assert {name for name in before if after[name] != before[name]} == {
        "participants",
        "loaded_at",
        "column_versions",
    }
    load_batches([stored(oldest.event())], warehouse)
    assert (the_row(warehouse), warehouse.stale) == (after, 1)


@pytest.mark.parametrize(
    ("names", "describes", "before", "after"),
    [
        ("customer_id", "customer_phone", ("C1", "+44 1"), "C2"),
        ("customer_id", "answers", ("C1", (Answer("colour?", "red"),)), "C2"),
        ("customer_id", "timezone", ("C1", "Europe/London"), "C2"),
        ("staff", "staff_name", (("S1", "S2"), "Sam"), ("S2", "S1")),
        ("service_id", "service_name", ("P1", "Massage"), "P2"),
        ("price", "currency", (Decimal("12.5"), "EUR"), Decimal(20)),
        ("starts_at", "ends_at", (moment(1), moment(2)), moment(5)),
    ],
)
def test_what_describes_the_former_one_goes_and_what_describes_the_same_one_stays(
    names: str, describes: str, before: Any, after: Any
) -> None:
    value = before[1]
    assert describing_column(before, {names: after}, describes) == getattr(EMPTY, describes)
    assert describing_column(before, {names: before[0]}, describes) == value
    assert describing_column(before, {}, describes) == value
    assert describing_column(before, {names: after, describes: value}, describes) == value


def describing_column(before: tuple[Any, Any], says: dict[str, Any], name: str) -> Any:
    """Return the column after a message that has it with what it describes, and a newer message."""
    first = replace(EMPTY, version="1", **{DESCRIBES[name]: before[0], name: before[1]})
    columns = frozenset({*DESCRIBES, *DESCRIBES.values()})
    second = replace(EMPTY, version="2", untold=frozenset(columns - says.keys()), **says)
    events = [
        replace(Message(number, number, {}).event(), data=AS_JSON.dump_json(booking))
        for number, booking in enumerate([first, second])
    ]
    one_way, other_way = (
        the_row(load_batches([stored(event) for event in order])) for order in (events, events[::-1])
    )
    assert one_way[name] == other_way[name]
    if name == "answers":
        return tuple(Answer(**answer) for answer in parsed_json(one_way[name]))
    return one_way[name]
