"""Dead letters as the warehouse has them: which there are, each one whole, and which of them were loaded after all.

They are read from the table and not from the log, because the log forgets and the table does not.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from consumers.dead_letters.originals import made_whole
from consumers.dead_letters.stored import StoredLetter, stored_letter
from consumers.rows import SCHEMAS, Row, stored_booking_row
from consumers.versions import Key
from ingest.dead_letter import REASONS
from ingest.errors import ConfigurationError
from ingest.event import RECONCILED, Event, whose
from ingest.settings import Settings
from ingest.warehouse.query import query_or_empty
from ingest.warehouse.values import QueryResult

_PART = 500  # letters at most that are read at a time
_PART_BYTES = 8 * 1024 * 1024

Identity = tuple[str, str, str, str]
"""Source, id, type and subject of an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which letters are meant; what is left empty does not matter. `until` itself is not included."""

    reasons: Sequence[str] = ()
    accounts: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None


class Letters:
    """Reads the warehouse, which has no letters where nothing was loaded yet. Every call raises WarehouseUnavailable."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def ids(self, chosen: Chosen) -> list[str]:
        """The oldest first. Raises ConfigurationError for a reason or an account that there is not."""
        sources = self._checked(chosen)
        if chosen.accounts and not sources:
            return []
        where, parameters = _condition(chosen, sources)
        sql = f"SELECT id FROM dead_letters WHERE {where} ORDER BY happened_at, id"  # noqa: S608 - our own names
        return [row[0] for row in self._ask(sql, parameters).rows]

    def resolve(self, beginnings: Sequence[str]) -> list[str]:
        """The ids that begin so, each once. Raises ConfigurationError where none or several do."""
        where = " OR ".join(f"substr(id, 1, {len(one)}) = %s" for one in beginnings)
        found = [row[0] for row in self._ask(f"SELECT id FROM dead_letters WHERE {where}", beginnings).rows]  # noqa: S608 - numbers
        return list(dict.fromkeys(_only(one, found) for one in beginnings))

    def read(self, ids: Sequence[str]) -> Iterator[list[StoredLetter]]:
        """In this order, some at a time."""
        for some in self._fitting_parts(ids):
            answer = self._ask(f"SELECT * FROM dead_letters WHERE id IN ({_marks(some)})", some)  # noqa: S608 - marks
            found = {row["id"]: stored_letter(row) for row in answer.dicts()}
            yield made_whole(self._settings, [found[one] for one in some if one in found])

    def loaded(self, events: Iterable[Event]) -> set[Identity]:
        """Return the identities of those events that have a row, of `booking_events` or `reconciliations`."""
        wanted = list(events)
        found: set[Identity] = set()
        for some in _parts([event.id for event in wanted if event.type != RECONCILED]):
            sql = f"SELECT source, id, type, subject FROM booking_events WHERE id IN ({_marks(some)})"  # noqa: S608 - marks
            found |= {
                (source, one, type_, subject) for source, one, type_, subject in self._ask(sql, some).rows
            }
        for some in _parts([event.id for event in wanted if event.type == RECONCILED]):
            sql = f"SELECT id FROM reconciliations WHERE id IN ({_marks(some)})"  # noqa: S608 - marks
            ids = {row[0] for row in self._ask(sql, some).rows}
            found |= {identity_of(event) for event in wanted if event.type == RECONCILED and event.id in ids}
        return found

    def _fitting_parts(self, ids: Sequence[str]) -> Iterator[Sequence[str]]:
        """Parts of the ids, in their order, whose letters are small enough together to be held in memory."""
        for some in _parts(ids):
            sizes_of = f"SELECT id, length(data) FROM dead_letters WHERE id IN ({_marks(some)})"  # noqa: S608 - marks
            sizes = dict(self._ask(sizes_of, some).rows)
            begin = size = 0
            for at, one in enumerate(some):
                size += sizes.get(one) or 0
                if size > _PART_BYTES and at > begin:
                    yield some[begin:at]
                    begin, size = at, sizes.get(one) or 0
            yield some[begin:]

    def bookings(self, keys: Iterable[Key]) -> Mapping[Key, Row]:
        """Return these bookings' rows, whole."""
        wanted, columns = set(keys), SCHEMAS["bookings"].names
        found: dict[Key, Row] = {}
        for some in _parts(sorted({booking_id for _, _, booking_id in wanted})):
            answer = self._ask(f"SELECT * FROM bookings WHERE booking_id IN ({_marks(some)})", some)  # noqa: S608 - marks
            for there in answer.dicts():
                row = stored_booking_row(columns, (there.get(column) for column in columns))
                found[row["vendor"], row["account"], row["booking_id"]] = row
        return {key: row for key, row in found.items() if key in wanted}

    def _checked(self, chosen: Chosen) -> list[str]:
        """The sources of the accounts: also of one that is no longer in the settings."""
        kinds = self._ask("SELECT DISTINCT source, reason FROM dead_letters").rows
        _refuse_unknown("reason", chosen.reasons, {*REASONS, *(reason for _, reason in kinds)})
        sources = {source for source, _ in kinds if source}
        _refuse_unknown(
            "account", chosen.accounts, {*self._settings.accounts, *(whose(source)[1] for source in sources)}
        )
        return sorted(source for source in sources if whose(source)[1] in chosen.accounts)

    def _ask(self, sql: str, parameters: Sequence[Any] = ()) -> QueryResult:
        return query_or_empty(self._settings, sql, parameters)


def identity_of(event: Event) -> Identity:
    """Return what tells the event from all others."""
    return event.source, event.id, event.type, event.subject


def _condition(chosen: Chosen, sources: Sequence[str]) -> tuple[str, list[Any]]:
    """Of a WHERE, with its parameters."""
    given: list[tuple[str, Sequence[Any]]] = [
        (f"reason IN ({_marks(chosen.reasons)})", chosen.reasons),
        (f"source IN ({_marks(sources)})", sources),
        ("happened_at >= %s", [chosen.since] if chosen.since else []),
        ("happened_at < %s", [chosen.until] if chosen.until else []),
    ]
    asked = [(part, values) for part, values in given if values]
    return " AND ".join(part for part, _ in asked) or "1 = 1", [
        value for _, values in asked for value in values
    ]


def _only(beginning: str, found: Iterable[str]) -> str:
    matching = [one for one in found if one.startswith(beginning)]
    if len(matching) == 1 or beginning in matching:
        return beginning if beginning in matching else matching[0]
    if matching:
        raise ConfigurationError(
            f"{len(matching)} dead letters have an id that begins with {beginning!r}: write more of it"
        )
    raise ConfigurationError(
        f"no dead letter has an id that begins with {beginning!r}; `ingest dead-letters list` shows those there are"
    )


def _refuse_unknown(what: str, named: Iterable[str], known: Iterable[str]) -> None:
    there = sorted(set(known))
    if unknown := [name for name in named if name not in there]:
        raise ConfigurationError(
            f"no {what} is called {unknown[0]!r}; there are {', '.join(there) or 'none'}"
        )


def _marks(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[at : at + _PART] for at in range(0, len(values), _PART))
