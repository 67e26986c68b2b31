"""Dead letters' second way into the log: what can be read by now is appended as the record it should have been."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from consumers.dead_letters.closing import closed
from consumers.dead_letters.letters import Letters, identity_of
from consumers.dead_letters.reading import UNKNOWN_ACCOUNT, Reader, Trouble
from consumers.dead_letters.stored import StoredLetter
from ingest.event import Event, digest
from ingest.instant import format_instant
from ingest.log import APPEND_SECONDS, Producer, Record, append_records


class Outcome(StrEnum):
    """What became of a letter."""

    REDRIVEN = "redriven"
    READABLE = "readable"
    ALREADY_LOADED = "already_loaded"
    REPEATED = "repeated"
    STILL_BAD = "still_bad"
    UNKNOWN_ACCOUNT = "unknown_account"


@dataclass(frozen=True, slots=True)
class Redriven:
    """A letter and its outcome; `reason` and `detail` tell why it stays where it is, "" where it does not."""

    letter: StoredLetter
    outcome: Outcome
    reason: str = ""
    detail: str = ""

    @property
    def stays(self) -> bool:
        """Whether somebody has to do something about it."""
        return self.outcome in {Outcome.STILL_BAD, Outcome.UNKNOWN_ACCOUNT}


class Redrive:
    """Appends each event once, however many letters tell of it: one that is refused again and again has many."""

    def __init__(self, letters: Letters, reader: Reader, producer: Producer | None) -> None:
        """Without a producer nothing is appended, only looked at."""
        self._letters = letters
        self._reader = reader
        self._producer = producer
        self._taken: set[str] = set()

    def run(self, ids: Sequence[str]) -> Iterator[Redriven]:
        """Some at a time, once they are durable. Raises LogUnavailable, WarehouseUnavailable; what was yielded by then is done."""
        for some in self._letters.read(ids):
            yield from self._some(some)

    def _some(self, letters: Sequence[StoredLetter]) -> list[Redriven]:
        events = [self._reader.identify(found) for found in letters]
        outcomes: list[Redriven] = []
        records: dict[str, dict[str, Record]] = {}
        for found, event, is_closed in zip(
            letters, events, closed(self._letters, self._reader, events), strict=True
        ):
            outcome = self._outcome(found, event, is_closed=is_closed)
            outcomes.append(outcome)
            if outcome.outcome is Outcome.REDRIVEN and isinstance(event, Event):
                records.setdefault(self._reader.topic(found, event), {})[found.id] = event.to_record()
        refused = {
            found_id: refusal
            for topic, some in records.items()
            for found_id, refusal in self._append(topic, some)
        }
        return [
            _staying(one.letter, refused[one.letter.id]) if one.letter.id in refused else one
            for one in outcomes
        ]

    def _outcome(self, found: StoredLetter, event: Event | Trouble, *, is_closed: bool) -> Redriven:
        if isinstance(event, Trouble):
            return _staying(found, event)
        if is_closed:
            return Redriven(found, Outcome.ALREADY_LOADED)
        if trouble := self._reader.check(found, event):
            return _staying(found, trouble)
        return Redriven(found, self._first(event))

    def _first(self, event: Event) -> Outcome:
        same = digest(*identity_of(event), format_instant(event.time), event.data)
        if same in self._taken:
            return Outcome.REPEATED
        self._taken.add(same)
        return Outcome.REDRIVEN if self._producer else Outcome.READABLE

    def _append(self, topic: str, records: Mapping[str, Record]) -> Iterator[tuple[str, Trouble]]:
        """Append records, by their letters' ids; yields those that the log refuses."""
        if self._producer:
            refused = append_records(
                self._producer, topic, list(records.values()), APPEND_SECONDS, "the redriven letters"
            )
            why = {id(record): refusal for record, refusal in refused}
            yield from (
                (one, Trouble("log_refused", str(why[id(record)])))
                for one, record in records.items()
                if id(record) in why
            )


def _staying(found: StoredLetter, trouble: Trouble) -> Redriven:
    outcome = Outcome.UNKNOWN_ACCOUNT if trouble.reason == UNKNOWN_ACCOUNT else Outcome.STILL_BAD
    return Redriven(found, outcome, trouble.reason, trouble.detail)
