"""Redrive dead letters: append to the log, as the record it should have been, what can be read by now."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import orjson

from consumers.batch import Batch, Topics, plan_load, read_batch
from consumers.dead_letters.letters import DeadLettersTable, LetterFilter, StoredLetter, identity_of
from consumers.message import BookingMessage
from consumers.rows import arrow_table
from consumers.version_guard import newest_wins
from ingest.dead_letter import DeadLetter
from ingest.errors import LoadRefused, PayloadError
from ingest.event import RECEIVED_BY, ROW_TYPES, SENT_AT, Event, digest
from ingest.log import APPEND_SECONDS, Partition, Producer, Record, StoredRecord, append_records
from ingest.settings import Settings
from ingest.times import format_instant, parse_instant
from ingest.vendors import AnyAccount, BookingMapper, Delivery, VerifiedDelivery
from ingest.vendors.delivery import Headers

# Reasons of rejections beside those of dead letters: the settings no longer say how to read it, or its bytes
# are lost.
UNKNOWN_ACCOUNT = "unknown_account"
BYTES_LOST = "bytes_lost"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a letter cannot go into the log again, with `reason` and `detail` as a dead letter has them."""

    reason: str
    detail: str


class LetterReader:
    """Reads letters as the program that set them aside would: receiver, reconciliation or consumer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accounts = settings.build_accounts()
        self._mapper = BookingMapper(self._accounts)

    def identify(self, stored: StoredLetter) -> Event | Rejection:
        """Return the event that the letter should have been, with the identity that it always had."""
        letter = stored.letter
        if letter.position:
            record = Record("", letter.data, letter.headers)
            return _try_to_read(lambda: Event.from_record(record), "unreadable_record", "mapping_crashed")
        account = self._accounts.get((stored.vendor, stored.account))
        if account is None:
            return Rejection(
                UNKNOWN_ACCOUNT,
                f"the settings have no account {stored.account!r} of {stored.vendor!r}: it cannot be read"
                " without",
            )
        if letter.reason in {"unreadable_record", "log_refused"}:
            return _try_to_read(
                lambda: _read_rest_record(account, letter), "unreadable_record", "mapping_crashed"
            )
        return _try_to_read(lambda: _read_delivery(account, letter), "unreadable_payload", "parse_crashed")

    def messages(self, event: Event) -> list[BookingMessage] | None:
        """Return what the event says about bookings; None where the consumer cannot read it today."""
        is_report = event.type in ROW_TYPES
        topic = self._settings.audit_topic if is_report else self._settings.topic(event.vendor)
        batch = self._read(event, topic)
        return None if batch.dead else [item.message for item in batch.items if item.message]

    def check(self, stored: StoredLetter, event: Event) -> Rejection | None:
        """Return why the consumer would reject the event, as far as that is known without the warehouse."""
        if not stored.exact:
            return Rejection(BYTES_LOST, "neither the table nor the log has all its bytes")
        batch = self._read(event, self.topic(stored, event))
        for letter in batch.dead:
            return Rejection(letter.reason, letter.detail)
        if not batch.items:
            return Rejection("unreadable_record", f"no table is for what is of the type {event.type}")
        try:
            for table, rows in plan_load(batch.to_load(), {}, datetime.now(UTC)).rows.items():
                arrow_table(table, rows)
        except LoadRefused as refusal:
            return Rejection("load_refused", str(refusal))
        return None

    def topic(self, stored: StoredLetter, event: Event) -> str:
        """Return the topic that the record was in, if it is still read; else its vendor's."""
        topic = stored.letter.position.rsplit("/", 2)[0]
        return topic if topic in self._settings.topics() else self._settings.topic(event.vendor)

    def _read(self, event: Event, topic: str) -> Batch:
        """Read an event from a topic as the consumer would."""
        record = StoredRecord(event.to_record(), Partition(topic), 0)
        topics = Topics(self._settings.dead_letter_topic, self._settings.audit_topic)
        return read_batch([record], topics, self._mapper, datetime.now(UTC))


def _read_delivery(account: AnyAccount, letter: DeadLetter) -> Event:
    delivery = Delivery(
        letter.query,
        Headers.of(letter.headers.items()),
        letter.data,
        letter.happened_at,
        _header_instant(letter, RECEIVED_BY),
    )
    verified = VerifiedDelivery.from_log(delivery, letter.signed_by, _header_instant(letter, SENT_AT))
    return account.parse(verified)


def _header_instant(letter: DeadLetter, name: str) -> datetime | None:
    """Return a time that the receiver noted in a header; None where it knew none, or did not note it yet."""
    with suppress(PayloadError):
        return parse_instant(letter.headers.get(name, ""))
    return None


def _read_rest_record(account: AnyAccount, letter: DeadLetter) -> Event:
    record = orjson.loads(letter.data)
    if not isinstance(record, dict):
        raise PayloadError("the record is not an object")
    return account.observe(record, letter.happened_at)


def _try_to_read(read: Callable[[], Event], unreadable: str, crashed: str) -> Event | Rejection:
    """Return the event, or a rejection because the payload is unreadable or our code crashed."""
    try:
        return read()
    except PayloadError as error:
        return Rejection(unreadable, str(error))
    except Exception as error:  # noqa: BLE001 - our bug, and one letter's: the others are read all the same
        return Rejection(crashed, type(error).__name__)


def find_closed(
    table: DeadLettersTable, reader: LetterReader, events: Sequence[Event | Rejection]
) -> list[bool]:
    """Return for each letter's event whether it is closed: the warehouse has all that the event must change.

    Its row is there, and loading it again would leave its booking unchanged. The row alone does not prove
    that: a load writes one table after the other, and may have been refused after the first.
    """
    loaded = table.loaded(event for event in events if isinstance(event, Event))
    messages_by_event = [
        reader.messages(event) if isinstance(event, Event) and identity_of(event) in loaded else None
        for event in events
    ]
    rows = table.bookings(message.key for messages in messages_by_event for message in messages or ())
    now = datetime.now(UTC)
    return [
        messages is not None
        and all(newest_wins([message], rows.get(message.key), now).row is None for message in messages)
        for messages in messages_by_event
    ]


_LETTERS_READ = 5_000  # of the newest letters; each has to be read to know whether it is still open


@dataclass(frozen=True, slots=True)
class LetterSummary:
    """A letter in short.

    `loaded` says whether the warehouse has its event now, and its booking at least at that version.
    """

    id: str
    happened_at: datetime
    vendor: str
    account: str
    reason: str
    detail: str
    position: str
    loaded: bool


def summarize(table: DeadLettersTable, reader: LetterReader, ids: Sequence[str]) -> Iterator[LetterSummary]:
    """Yield summaries of letters in the order of the ids.

    One that cannot be read today cannot have been loaded.
    """
    for letters in table.read(ids):
        closed = find_closed(table, reader, [reader.identify(stored) for stored in letters])
        for stored, loaded in zip(letters, closed, strict=True):
            yield LetterSummary(
                stored.id,
                stored.letter.happened_at,
                stored.vendor,
                stored.account,
                stored.letter.reason,
                stored.letter.detail,
                stored.letter.position,
                loaded,
            )


def open_letters(settings: Settings) -> list[LetterSummary]:
    """Return those of the newest dead letters whose events are not loaded. Raises WarehouseUnavailable."""
    table = DeadLettersTable(settings)
    newest = table.ids(LetterFilter())[-_LETTERS_READ:]
    return [letter for letter in summarize(table, LetterReader(settings), newest) if not letter.loaded]


def open_letter_times(settings: Settings) -> dict[tuple[str, str], list[datetime]]:
    """Return when the open dead letters of each account arrived, by vendor and account."""
    arrivals: dict[tuple[str, str], list[datetime]] = {}
    for letter in open_letters(settings):
        arrivals.setdefault((letter.vendor, letter.account), []).append(letter.happened_at)
    return arrivals


class RedriveOutcome(StrEnum):
    """What became of a letter."""

    REDRIVEN = "redriven"
    READABLE = "readable"
    ALREADY_LOADED = "already_loaded"
    REPEATED = "repeated"
    STILL_BAD = "still_bad"
    UNKNOWN_ACCOUNT = "unknown_account"


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """A letter and its outcome; `reason` and `detail` say why it stays a dead letter, if it does."""

    letter: StoredLetter
    outcome: RedriveOutcome
    reason: str = ""
    detail: str = ""

    @classmethod
    def rejected(cls, stored: StoredLetter, rejection: Rejection) -> "RedriveResult":
        """Make the result of a letter that stays where it is."""
        is_unknown = rejection.reason == UNKNOWN_ACCOUNT
        outcome = RedriveOutcome.UNKNOWN_ACCOUNT if is_unknown else RedriveOutcome.STILL_BAD
        return cls(stored, outcome, rejection.reason, rejection.detail)

    @property
    def stays(self) -> bool:
        """Whether it stays a dead letter until somebody does something about it."""
        return self.outcome in {RedriveOutcome.STILL_BAD, RedriveOutcome.UNKNOWN_ACCOUNT}


class Redrive:
    """Appends each event once, although an event that was refused again and again has many letters."""

    def __init__(self, table: DeadLettersTable, reader: LetterReader, producer: Producer | None) -> None:
        """Without a producer nothing is appended, and readable letters are only named."""
        self._table = table
        self._reader = reader
        self._producer = producer
        self._digests: set[str] = set()

    def run(self, ids: Sequence[str]) -> Iterator[RedriveResult]:
        """Redrive letters, and yield the results of each part once it is durable.

        Raises LogUnavailable and WarehouseUnavailable; what was yielded by then is done.
        """
        for letters in self._table.read(ids):
            yield from self._redrive(letters)

    def _redrive(self, letters: Sequence[StoredLetter]) -> list[RedriveResult]:
        events = [self._reader.identify(stored) for stored in letters]
        closed = find_closed(self._table, self._reader, events)
        results: list[RedriveResult] = []
        records: dict[str, dict[str, Record]] = {}
        for stored, event, is_closed in zip(letters, events, closed, strict=True):
            result = self._decide(stored, event, is_closed=is_closed)
            results.append(result)
            if result.outcome is RedriveOutcome.REDRIVEN and isinstance(event, Event):
                records.setdefault(self._reader.topic(stored, event), {})[stored.id] = event.to_record()
        refused: dict[str, Rejection] = {}
        for topic, records_by_id in records.items():
            refused |= self._append(topic, records_by_id)
        return [
            RedriveResult.rejected(result.letter, refused[result.letter.id])
            if result.letter.id in refused
            else result
            for result in results
        ]

    def _decide(self, stored: StoredLetter, event: Event | Rejection, *, is_closed: bool) -> RedriveResult:
        if isinstance(event, Rejection):
            return RedriveResult.rejected(stored, event)
        if is_closed:
            return RedriveResult(stored, RedriveOutcome.ALREADY_LOADED)
        if rejection := self._reader.check(stored, event):
            return RedriveResult.rejected(stored, rejection)
        event_digest = digest(*identity_of(event), format_instant(event.time), event.data)
        if event_digest in self._digests:
            return RedriveResult(stored, RedriveOutcome.REPEATED)
        self._digests.add(event_digest)
        return RedriveResult(stored, RedriveOutcome.REDRIVEN if self._producer else RedriveOutcome.READABLE)

    def _append(self, topic: str, records: Mapping[str, Record]) -> dict[str, Rejection]:
        """Append records by their letters' ids, and return the log's rejections."""
        if not self._producer:
            return {}
        refusals = {
            id(record): refusal
            for record, refusal in append_records(
                self._producer, topic, list(records.values()), APPEND_SECONDS, "the redriven letters"
            )
        }
        return {
            letter_id: Rejection("log_refused", str(refusals[id(record)]))
            for letter_id, record in records.items()
            if id(record) in refusals
        }
