"""What today's code makes of a dead letter: the event it should have been, or why it is still none."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from consumers.batch import Batch, Item, Topics, candidates, plan_load, read_batch
from consumers.dead_letters.stored import StoredLetter
from consumers.rows import arrow
from consumers.versions import Candidate
from ingest.dead_letter import DeadLetter
from ingest.errors import LoadRefused, PayloadError
from ingest.event import RECEIVED_BY, RECONCILED, SENT_AT, Event
from ingest.instant import parse_instant
from ingest.log import Partition, Record, StoredRecord
from ingest.settings import Settings
from ingest.vendors import AnyAccount, Delivery, VerifiedDelivery
from ingest.vendors.delivery import Headers
from ingest.vendors.mapping import BookingMapper

# Beside the reasons for which letters are set aside: the settings no longer say how to read it; or nobody knows its bytes.
UNKNOWN_ACCOUNT = "unknown_account"
BYTES_LOST = "bytes_lost"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a letter cannot go into the log again: `reason` and `detail` as a dead letter has them."""

    reason: str
    detail: str


class Reader:
    """Reads letters as whoever set them aside would read them today: the receiver, a reconciliation, or the consumer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accounts = settings.build_accounts()
        self._mapper = BookingMapper(self._accounts)

    def identify(self, found: StoredLetter) -> Event | Trouble:
        """The event it should have been, with the identity it always had."""
        letter = found.letter
        if letter.position:
            return _tried(
                lambda: Event.from_record(Record("", letter.data, letter.headers)),
                "unreadable_record",
                "mapping_crashed",
            )
        account = self._accounts.get((found.vendor, found.account))
        if account is None:
            return Trouble(
                UNKNOWN_ACCOUNT,
                f"the settings have no account {found.account!r} of {found.vendor!r}: it cannot be read without",
            )
        if letter.reason in {"unreadable_record", "log_refused"}:
            return _tried(lambda: _observed(account, letter), "unreadable_record", "mapping_crashed")
        return _tried(lambda: _parsed(account, letter), "unreadable_payload", "parse_crashed")

    def candidates(self, event: Event) -> list[Candidate] | None:
        """Return the booking that the event tells of, in a list; None where the consumer cannot read it today."""
        batch = self._read(
            event,
            self._settings.audit_topic if event.type == RECONCILED else self._settings.topic(event.vendor),
        )
        return None if batch.dead else candidates(batch.items)

    def check(self, found: StoredLetter, event: Event) -> Trouble | None:
        """What the consumer would say of it, as far as that is known without the warehouse."""
        if not found.exact:
            return Trouble(BYTES_LOST, "neither the table nor the log has all its bytes")
        batch = self._read(event, self.topic(found, event))
        for dead in batch.dead:
            return Trouble(dead.reason, dead.detail)
        if not batch.items:
            return Trouble("unreadable_record", f"no table is for what is of the type {event.type}")
        return _unloadable(batch.items)

    def topic(self, found: StoredLetter, event: Event) -> str:
        """Where it was, if it was in the log and that is still read; else its vendor's."""
        before = found.letter.position.rsplit("/", 2)[0]
        return before if before in self._settings.topics() else self._settings.topic(event.vendor)

    def _read(self, event: Event, topic: str) -> Batch:
        """As the consumer would, from that topic."""
        stored = StoredRecord(event.to_record(), Partition(topic), 0)
        return read_batch(
            [stored],
            Topics(self._settings.dead_letter_topic, self._settings.audit_topic),
            self._mapper,
            datetime.now(UTC),
        )


def _parsed(account: AnyAccount, letter: DeadLetter) -> Event:
    delivery = Delivery(
        letter.query,
        Headers.of(letter.headers.items()),
        letter.data,
        letter.happened_at,
        _instant(letter, RECEIVED_BY),
    )
    return account.parse(VerifiedDelivery.from_log(delivery, letter.signed_by, _instant(letter, SENT_AT)))


def _instant(letter: DeadLetter, header: str) -> datetime | None:
    """Return a time that the receiver noted of its delivery; None where it knew none, and of letters from before it was kept."""
    with suppress(PayloadError):
        return parse_instant(letter.headers.get(header, ""))
    return None


def _observed(account: AnyAccount, letter: DeadLetter) -> Event:
    record = orjson.loads(letter.data)
    if not isinstance(record, dict):
        raise PayloadError("the record is not an object")
    return account.observe(record, letter.happened_at)


def _tried(read: Callable[[], Event], unreadable: str, crashed: str) -> Event | Trouble:
    try:
        return read()
    except PayloadError as error:
        return Trouble(unreadable, str(error))
    except Exception as error:  # noqa: BLE001 - our bug, and one letter's: the others are read all the same
        return Trouble(crashed, type(error).__name__)


def _unloadable(items: list[Item]) -> Trouble | None:
    try:
        for table, rows in plan_load(items, [], {}, datetime.now(UTC)).rows.items():
            arrow(table, rows)
    except LoadRefused as refusal:
        return Trouble("load_refused", str(refusal))
    return None
