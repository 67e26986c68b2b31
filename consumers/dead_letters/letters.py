"""Dead letters as the warehouse has them, and which of their events were loaded since.

They are read from the table and not from the log, because the log forgets and the table does not. What a
destination could not hold is read from the log, as long as that has it.
"""

import re
from base64 import b64decode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson

from consumers.batch import letter_headers
from consumers.booking_rows import Row, stored_booking_row
from consumers.letter_rows import dead_letter_row
from consumers.message import Key
from consumers.rows import SCHEMAS
from ingest.clock import CLOCK_SKEW
from ingest.dead_letter import REASONS, DeadLetter
from ingest.errors import ConfigurationError, LogUnavailable
from ingest.event import RECONCILED, ROW_TYPES, Event, vendor_and_account
from ingest.log import StoredRecord
from ingest.settings import Settings
from ingest.times import parse_stored_instant
from ingest.warehouse.query import query_or_empty

_IDS_PER_QUERY = 500
_BYTES_PER_QUERY = 8 * 1024 * 1024
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPED_BYTE = re.compile(rb"\\x([0-9a-f]{2})")

Identity = tuple[str, str, str, str]
"""Source, id, type and subject of an event."""


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter, and the id that it had when it was set aside.

    `exact` says that its bytes are known. `data_sha256` is the digest of all its bytes, "" where that was not
    stored. `letter_position` is the position of its own record in the log. `cut` names the columns that the
    row has only the beginning of.
    """

    id: str
    letter: DeadLetter
    exact: bool
    data_sha256: str = ""
    data_bytes: int = 0
    letter_position: str = ""
    cut: str = ""

    @property
    def vendor(self) -> str:
        """The vendor's name, "" where the record did not say it."""
        return vendor_and_account(self.letter.source)[0]

    @property
    def account(self) -> str:
        """The account's name, "" where the record did not say it."""
        return vendor_and_account(self.letter.source)[1]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "StoredLetter":
        """Make a letter of its row.

        Earlier releases stored no digest, and text in place of bytes that it could not hold: where the id
        proves which bytes these were, they are restored.
        """
        encoded, text = row.get("data_base64"), (row["data"] or "").encode()
        letter = DeadLetter(
            source=row["source"] or "",
            reason=row["reason"] or "",
            detail=row["detail"] or "",
            happened_at=parse_stored_instant(row["happened_at"]) if row["happened_at"] else _UNKNOWN_TIME,
            data=_decoded(encoded) if encoded else text,
            headers=_parsed_headers(row["headers"]),
            query=row["query"] or "",
            position=row["position"] or "",
            signed_by=row.get("signed_by") or "",
        )
        if data_sha256 := row.get("data_sha256"):
            cut = row.get("cut") or ""
            exact = not cut and data_sha256 == sha256(letter.data).hexdigest()
            size, position = row.get("data_bytes") or 0, row.get("letter_position") or ""
            return cls(row["id"], letter, exact, data_sha256, size, position, cut)
        unescaped = _ESCAPED_BYTE.sub(lambda byte: bytes.fromhex(byte[1].decode()), letter.data)
        variants = (replace(letter, data=unescaped), letter)
        proven = next((variant for variant in variants if variant.former_id == row["id"]), None)
        return cls(row["id"], proven or letter, proven is not None)


def _decoded(text: str) -> bytes:
    """Decode base64.

    What somebody has changed stays as it is: its digest shows that it is not what was stored.
    """
    try:
        return b64decode(text)
    except ValueError:
        return text.encode()


def _parsed_headers(text: str | None) -> dict[str, str]:
    """Parse headers, of which there are none where somebody else wrote the letter."""
    try:
        headers = orjson.loads(text or "{}")
    except ValueError:
        return {}
    return {name: str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters are wanted. An empty field does not restrict them, and `until` itself is not included."""

    reasons: Sequence[str] = ()
    accounts: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None


class DeadLettersTable:
    """The table `dead_letters`, empty where nothing was loaded yet.

    Every call raises WarehouseUnavailable.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def ids(self, wanted: LetterFilter) -> list[str]:
        """Return ids, the oldest letter first. Raises ConfigurationError for an unknown reason or account."""
        sources = self._sources(wanted)
        if wanted.accounts and not sources:
            return []
        conditions: list[tuple[str, Sequence[Any]]] = [
            (f"reason IN ({_marks(wanted.reasons)})", wanted.reasons),
            (f"source IN ({_marks(sources)})", sources),
            ("happened_at >= %s", [wanted.since] if wanted.since else []),
            ("happened_at < %s", [wanted.until] if wanted.until else []),
        ]
        where = " AND ".join(condition for condition, values in conditions if values) or "1 = 1"
        parameters = [value for _, values in conditions for value in values]
        sql = f"SELECT id FROM dead_letters WHERE {where} ORDER BY happened_at, id"  # noqa: S608 - our own names
        return self._first_column(sql, parameters)

    def resolve(self, prefixes: Sequence[str]) -> list[str]:
        """Return the ids that begin with these prefixes, each id once.

        Raises ConfigurationError for a prefix of no id or of several.
        """
        where = " OR ".join(f"substr(id, 1, {len(prefix)}) = %s" for prefix in prefixes)
        ids = self._first_column(f"SELECT id FROM dead_letters WHERE {where}", prefixes)  # noqa: S608 - numbers
        return list(dict.fromkeys(_unique_id(prefix, ids) for prefix in prefixes))

    def read(self, ids: Sequence[str]) -> Iterator[list[StoredLetter]]:
        """Yield the letters in the order of the ids, in lists that fit into memory."""
        for part in self._parts_by_size(ids):
            sql = f"SELECT * FROM dead_letters WHERE id IN ({_marks(part)})"  # noqa: S608 - marks
            rows = query_or_empty(self._settings, sql, part).dicts()
            letters = {row["id"]: StoredLetter.from_row(row) for row in rows}
            yield complete_from_log(
                self._settings, [letters[letter_id] for letter_id in part if letter_id in letters]
            )

    def _parts_by_size(self, ids: Sequence[str]) -> Iterator[Sequence[str]]:
        """Split the ids into parts whose letters fit into memory together."""
        for part in _parts(ids):
            sql = f"SELECT id, length(data) FROM dead_letters WHERE id IN ({_marks(part)})"  # noqa: S608 - marks
            sizes = dict(query_or_empty(self._settings, sql, part).rows)
            start = total = 0
            for position, letter_id in enumerate(part):
                size = sizes.get(letter_id) or 0
                total += size
                if total > _BYTES_PER_QUERY and position > start:
                    yield part[start:position]
                    start, total = position, size
            yield part[start:]

    def loaded(self, events: Iterable[Event]) -> set[Identity]:
        """Return the identities of those events whose row is in its table.

        For a statement, that is its row or a later one of the same id.
        """
        wanted = list(events)
        identities: set[Identity] = set()
        for part in _parts([event.id for event in wanted if event.type not in ROW_TYPES]):
            sql = f"SELECT source, id, type, subject FROM booking_events WHERE id IN ({_marks(part)})"  # noqa: S608 - marks
            rows = query_or_empty(self._settings, sql, part).rows
            identities |= {(source, event_id, type_, subject) for source, event_id, type_, subject in rows}
        for type_, table in ROW_TYPES.items():
            row_ids = {
                event: event.id if type_ == RECONCILED else event.subject
                for event in wanted
                if event.type == type_
            }
            for part in _parts(sorted(set(row_ids.values()))):
                sql = f"SELECT id FROM {table} WHERE id IN ({_marks(part)})"  # noqa: S608 - our own names, and marks
                stored = set(self._first_column(sql, part))
                identities |= {identity_of(event) for event, row_id in row_ids.items() if row_id in stored}
        return identities

    def bookings(self, keys: Iterable[Key]) -> Mapping[Key, Row]:
        """Return these bookings' whole rows."""
        wanted, columns = set(keys), SCHEMAS["bookings"].names
        bookings: dict[Key, Row] = {}
        for part in _parts(sorted({booking_id for _, _, booking_id in wanted})):
            sql = f"SELECT * FROM bookings WHERE booking_id IN ({_marks(part)})"  # noqa: S608 - marks
            for values in query_or_empty(self._settings, sql, part).dicts():
                row = stored_booking_row(columns, (values.get(column) for column in columns))
                bookings[row["vendor"], row["account"], row["booking_id"]] = row
        return {key: row for key, row in bookings.items() if key in wanted}

    def _sources(self, wanted: LetterFilter) -> list[str]:
        """Return the sources of the wanted accounts, also of one that is no longer in the settings."""
        kinds = query_or_empty(self._settings, "SELECT DISTINCT source, reason FROM dead_letters").rows
        _require_known("reason", wanted.reasons, {*REASONS, *(reason for _, reason in kinds)})
        sources = {source for source, _ in kinds if source}
        known_accounts = {*self._settings.accounts, *(vendor_and_account(source)[1] for source in sources)}
        _require_known("account", wanted.accounts, known_accounts)
        return sorted(source for source in sources if vendor_and_account(source)[1] in wanted.accounts)

    def _first_column(self, sql: str, parameters: Sequence[Any]) -> list[str]:
        return [row[0] for row in query_or_empty(self._settings, sql, parameters).rows]


def identity_of(event: Event) -> Identity:
    """Return what distinguishes an event from all others."""
    return event.source, event.id, event.type, event.subject


def _unique_id(prefix: str, ids: Sequence[str]) -> str:
    matching = [letter_id for letter_id in ids if letter_id.startswith(prefix)]
    if prefix in matching:
        return prefix
    if not matching:
        raise ConfigurationError(
            f"no dead letter has an id that begins with {prefix!r}; `ingest dead-letters list` shows them all"
        )
    if len(matching) > 1:
        raise ConfigurationError(
            f"{len(matching)} dead letters have an id that begins with {prefix!r}: write more of it"
        )
    return matching[0]


def _require_known(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise ConfigurationError(
            f"no {kind} is called {unknown!r}; there are {', '.join(sorted(known)) or 'none'}"
        )


def _marks(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _IDS_PER_QUERY] for start in range(0, len(ids), _IDS_PER_QUERY))


def complete_from_log(settings: Settings, letters: Sequence[StoredLetter]) -> list[StoredLetter]:
    """Replace letters that are not exact by what the log still has of them, if it can be read."""
    inexact = [letter for letter in letters if not letter.exact and letter.letter_position]
    since = min((letter.letter.happened_at for letter in inexact), default=None)
    own_records = _records_at(
        settings, {letter.letter_position for letter in inexact}, since and since - CLOCK_SKEW
    )
    from_own = [
        letter if letter.exact else _from_own_record(letter, own_records.get(letter.letter_position))
        for letter in letters
    ]
    positions = {letter.letter.position for letter in from_own if not letter.exact and letter.data_sha256}
    originals = _records_at(settings, positions, None)
    return [
        letter if letter.exact else _from_original(letter, originals.get(letter.letter.position))
        for letter in from_own
    ]


def _from_own_record(letter: StoredLetter, stored: StoredRecord | None) -> StoredLetter:
    """Return the letter as its own record on the dead-letter topic has it."""
    if stored is None or stored.record.headers.get("ce_id") != letter.id:
        return letter
    return StoredLetter.from_row(dead_letter_row(stored, letter.letter.happened_at))


def _from_original(letter: StoredLetter, stored: StoredRecord | None) -> StoredLetter:
    """Return the letter with the contents of the record that was set aside."""
    if stored is None or sha256(stored.record.value).hexdigest() != letter.data_sha256:
        return letter
    contents = replace(letter.letter, data=stored.record.value, headers=letter_headers(stored.record))
    return replace(letter, letter=contents, exact=True)


def _records_at(
    settings: Settings, positions: Collection[str], since: datetime | None
) -> dict[str, StoredRecord]:
    """Return the records at these positions (`topic/partition/offset`) that were appended since then."""
    records: dict[str, StoredRecord] = {}
    wanted_topics = {position.rsplit("/", 2)[0] for position in positions}
    topics = [topic for topic in settings.topics() if topic in wanted_topics]
    if not topics:
        return records
    with suppress(LogUnavailable), closing(settings.build_log().reader(since, topics)) as reader:
        for stored in reader.records():
            if stored.position in positions:
                records[stored.position] = stored
                if len(records) == len(positions):
                    break
    return records
