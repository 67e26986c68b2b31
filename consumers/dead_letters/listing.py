"""Dead letters in short, each with whether all that it tells was loaded after all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from consumers.dead_letters.closing import closed
from consumers.dead_letters.letters import Letters
from consumers.dead_letters.reading import Reader
from consumers.dead_letters.stored import StoredLetter


@dataclass(frozen=True, slots=True)
class Listed:
    """One letter; `loaded` is whether the warehouse has its event now, and its booking at that version or a newer one."""

    id: str
    happened_at: datetime
    vendor: str
    account: str
    reason: str
    detail: str
    position: str
    loaded: bool


def listed(letters: Letters, reader: Reader, ids: Sequence[str]) -> Iterator[Listed]:
    """In the order of the ids. What cannot be read as an event today cannot have been loaded as one."""
    for some in letters.read(ids):
        for found, is_closed in zip(
            some, closed(letters, reader, [reader.identify(one) for one in some]), strict=True
        ):
            yield _listed(found, is_closed)


def _listed(found: StoredLetter, loaded: bool) -> Listed:
    letter = found.letter
    return Listed(
        found.id,
        letter.happened_at,
        found.vendor,
        found.account,
        letter.reason,
        letter.detail,
        letter.position,
        loaded,
    )
