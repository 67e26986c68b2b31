"""Letters whole again: what a destination could not hold, or the dead-letter topic could not take, is read from the log."""

from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from hashlib import sha256

from consumers.batch import headers_of
from consumers.dead_letters.stored import StoredLetter, stored_letter
from consumers.letter_rows import dead_letter_row
from ingest.clock import CLOCK_SKEW
from ingest.errors import LogUnavailable
from ingest.log import StoredRecord
from ingest.settings import Settings


def made_whole(settings: Settings, letters: Sequence[StoredLetter]) -> list[StoredLetter]:
    """Return the letters with those that are not exact as the log has them; what the log no longer has, or cannot be asked for, stays cut."""
    cut = [one for one in letters if not one.exact and one.kept_at]
    since = min((one.letter.happened_at for one in cut), default=None)
    own = _records_at(settings, {one.kept_at for one in cut}, since and since - CLOCK_SKEW)
    as_kept = [one if one.exact else _as_kept(one, own.get(one.kept_at)) for one in letters]
    first = _records_at(
        settings, {one.letter.position for one in as_kept if not one.exact and one.data_sha256}, None
    )
    return [one if one.exact else _as_it_came(one, first.get(one.letter.position)) for one in as_kept]


def _as_kept(found: StoredLetter, stored: StoredRecord | None) -> StoredLetter:
    """As its own record on the dead-letter topic has it."""
    if stored is None or stored.record.headers.get("ce_id") != found.id:
        return found
    return stored_letter(dead_letter_row(stored, found.letter.happened_at))


def _as_it_came(found: StoredLetter, stored: StoredRecord | None) -> StoredLetter:
    """As the record that was set aside has it."""
    if stored is None or sha256(stored.record.value).hexdigest() != found.data_sha256:
        return found
    return replace(
        found,
        letter=replace(found.letter, data=stored.record.value, headers=headers_of(stored.record)),
        exact=True,
    )


def _records_at(
    settings: Settings, places: Collection[str], since: datetime | None
) -> dict[str, StoredRecord]:
    """Return those records at these places (`topic/partition/offset`) that were appended since then."""
    found: dict[str, StoredRecord] = {}
    named = {place.rsplit("/", 2)[0] for place in places}
    topics = [topic for topic in settings.topics() if topic in named]
    if not topics:
        return found
    with suppress(LogUnavailable), closing(settings.build_log().reader(since, topics)) as reader:
        for stored in reader.records():
            if stored.position in places:
                found[stored.position] = stored
                if len(found) == len(places):
                    break
    return found
