"""Writes batches into the warehouse, and finds the record to blame where it refuses one."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from consumers.batch import Chunk, Item, Plan, columns_to_keep, find_incomplete, plan_load, to_dead_letter
from consumers.booking_rows import Row
from consumers.dead_letters.limit import FailureLimit
from consumers.letter_rows import dead_letter_row, former_id, is_letter_of_same_event, shortened
from consumers.message import Key
from consumers.positions import committed_loads
from consumers.reporting import report_dead_letters, report_load
from consumers.statements import evidence_loads, statement_ids, valid_statements
from consumers.traces import LoadTraces
from consumers.warehouse import Warehouse
from ingest.changes import change_record
from ingest.dead_letter import DeadLetter
from ingest.errors import LoadedMeanwhile, LoadRefused, RowsTooLarge, WarehouseUnavailable
from ingest.log import Partition, Record, StoredRecord
from ingest.log.bookmarks import Bookmarks
from ingest.settings import Settings

log = structlog.get_logger()

_ATTEMPTS = 5
_LONGEST_WAIT_SECONDS = 0.5  # between two attempts
_LARGE_SHARE = 256  # of DuckDB's memory: a record of less does not fill it, whatever is in it


def _replanning() -> Retrying:
    """Return attempts of a load, of which another one follows where somebody else loaded meanwhile."""
    return Retrying(
        retry=retry_if_exception_type(LoadedMeanwhile),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random(max=_LONGEST_WAIT_SECONDS),
        reraise=True,
    )


class WarehouseReplaced(WarehouseUnavailable):
    """Between two loads the warehouse was restored, or another one took its place."""


class BatchWriter:
    """Loads chunks of a batch, and halves what the destination refuses until the record to blame is alone."""

    def __init__(self, settings: Settings, warehouse: Warehouse, traces: LoadTraces) -> None:
        self._warehouse = warehouse
        self._traces = traces
        self._settings = settings.consumer
        self._needed_loads: frozenset[str] = frozenset()
        self.refused = FailureLimit(settings.consumer.dead_letter_limit)
        self.load_id = ""
        """The batch's newest load."""
        self._publishes = settings.feed.enabled
        self._changes: dict[Key, Record] = {}
        self._done: dict[Partition, int] = {}

    @property
    def changes(self) -> list[Record]:
        """The changes to publish of the batch, one for each booking. There are none where the feed is off."""
        return list(self._changes.values())

    def write(self, chunk: Chunk, bookmarks: Mapping[Partition, Bookmarks]) -> list[DeadLetter]:
        """Load a batch; return dead letters of the records that the destination refuses.

        `bookmarks` are those of the last commit.

        Raises WarehouseReplaced when the warehouse lacks one of their loads, which are to be read again
        first; WarehouseUnavailable; OutOfMemory, of it RowsTooLarge, when fewer records may fit;
        DeadLetterLimit.
        """
        self.load_id, self._needed_loads, self._changes = "", committed_loads(bookmarks), {}
        self._done = {partition: of_partition.done for partition, of_partition in bookmarks.items()}
        return self._write(chunk)

    def _write(self, chunk: Chunk) -> list[DeadLetter]:
        if not chunk:
            return []
        try:
            self._load(chunk)
        except LoadRefused as refusal:
            return self._write_apart(chunk, refusal)
        except RowsTooLarge as refusal:
            # For a small record the reason is elsewhere.
            large_bytes = self._settings.duckdb_bytes // _LARGE_SHARE
            if len(chunk) > 1 or chunk.records[0].record.size < large_bytes:
                raise
            return self._write_large(chunk, refusal)
        return []

    def _load(self, chunk: Chunk) -> None:
        """Load all rows of a chunk, or none. Raises as `write` and `Warehouse.load` do."""
        for attempt in _replanning():
            with attempt:
                self._load_once(chunk)

    def _load_once(self, chunk: Chunk) -> None:
        partitions = [stored.partition for stored in chunk.records]
        with ExitStack() as after_turn, self._warehouse.turn(partitions):
            if not self._warehouse.has(self._needed_loads):
                raise WarehouseReplaced("the warehouse no longer has what was loaded before")
            with self._traces.step("look up"):
                plan = self._plan(chunk)
                published = self._rows_to_publish(chunk, plan) if self._publishes else ()
            # It ends after the turn, at whose end the rows are visible.
            after_turn.enter_context(self._traces.step("write"))
            if plan.rows:
                self.load_id = self._warehouse.load(plan.rows)
        self._changes |= {_key_of(row): change_record(row) for row in published}
        self.refused.count(True for _ in chunk.items)
        report_load(chunk, plan)

    def _plan(self, chunk: Chunk) -> Plan:
        """Compare a chunk with what the warehouse has now.

        It is read for each load: another consumer may have loaded while this one was frozen, or somebody
        may have replaced the warehouse.
        """
        new = Chunk(self._valid_items(chunk.items), self._new_letters(chunk.letters))
        parts = self._warehouse.versions(new.messages, columns_to_keep(new))
        whole_rows = self._warehouse.bookings(find_incomplete(new, parts))
        return plan_load(new, {**parts, **whole_rows}, datetime.now(UTC))

    def _rows_to_publish(self, chunk: Chunk, plan: Plan) -> list[Row]:
        """Return the rows that a plan changes, and those that these records may have changed before.

        A consumer that is killed after a load and before the commit reads the same records again. Their rows
        no longer change then, and nobody has published them. Records that were committed once were published
        with that: where they are read again for a warehouse that lacks them, its rows are older states.
        """
        new = {
            item.message.key
            for item in chunk.items
            if item.message and item.stored.offset >= self._done.get(item.stored.partition, 0)
        }
        changed = [row for row in plan.rows.get("bookings", ()) if _key_of(row) in new]
        loaded_before = new.intersection(plan.loaded_before)
        return [*changed, *(self._warehouse.bookings(loaded_before).values() if loaded_before else ())]

    def _valid_items(self, items: Sequence[Item]) -> Sequence[Item]:
        """Leave out statements that are older than the stored ones, and open hours without evidence."""
        ids = statement_ids(items)
        if not ids:
            return items
        stored = {
            (table, row_id): stated_at
            for table, of_table in ids.items()
            for row_id, stated_at in self._warehouse.statements(table, of_table).items()
        }
        wanted = evidence_loads(items)
        return valid_statements(items, stored, self._warehouse.loaded(wanted) if wanted else ())

    def _new_letters(self, letters: Sequence[StoredRecord]) -> list[StoredRecord]:
        """Leave out letters that are stored already, under the id that an earlier release gave them."""
        former_ids = [former_id(letter) for letter in letters]
        wanted = [letter_id for letter_id in former_ids if letter_id]
        stored = self._warehouse.letters(wanted) if wanted else {}
        return [
            letter
            for letter, letter_id in zip(letters, former_ids, strict=True)
            if not (letter_id and letter_id in stored and is_letter_of_same_event(letter, stored[letter_id]))
        ]

    def _write_apart(self, chunk: Chunk, refusal: LoadRefused) -> list[DeadLetter]:
        if len(chunk) > 1:
            return [letter for half in chunk.halves() for letter in self._write(half)]
        if chunk.items:
            return [self._refuse(chunk.items[0], str(refusal))]
        self._load_shortened(chunk.letters[0], refusal)
        return []

    def _write_large(self, chunk: Chunk, refusal: RowsTooLarge) -> list[DeadLetter]:
        """Refuse a record that fails again for lack of DuckDB's memory, after a load without rows worked."""
        if chunk.letters:
            self._load_shortened(chunk.letters[0], refusal)
            return []
        self._warehouse.load_nothing()
        try:
            self._load(chunk)
        except RowsTooLarge:
            return [self._refuse(chunk.items[0], f"{refusal}; then redrive it")]
        return []

    def _refuse(self, item: Item, reason: str) -> DeadLetter:
        letter = to_dead_letter(item.stored, "load_refused", reason, datetime.now(UTC))
        report_dead_letters([letter])
        self.refused.count([False])
        return letter

    def _load_shortened(self, letter: StoredRecord, refusal: LoadRefused | RowsTooLarge) -> None:
        """Load as much of a dead letter as the destination takes; the log keeps the whole one.

        Raises WarehouseUnavailable where it does not even take the shortest row.
        """
        error: LoadRefused | RowsTooLarge = refusal
        for row in shortened(dead_letter_row(letter, datetime.now(UTC))):
            try:
                for attempt in _replanning():
                    with attempt, self._warehouse.turn([letter.partition]):
                        self.load_id = self._warehouse.load({"dead_letters": [row]})
            except (LoadRefused, RowsTooLarge) as newest:
                error = newest
            else:
                log.warning(
                    "dead_letter.cut",
                    position=letter.position,
                    columns=row["cut"],
                    bytes=row["data_bytes"],
                    why=str(refusal),
                )
                return
        raise WarehouseUnavailable(
            f"the table dead_letters accepts no row, not even the shortest of {letter.position}: {error}"
        )


def _key_of(row: Row) -> Key:
    return row["vendor"], row["account"], row["booking_id"]
