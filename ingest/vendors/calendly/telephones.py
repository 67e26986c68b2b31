"""The telephone number among the answers to a booking form."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from ingest.booking import Answer

# E.164 allows 15 digits. The shortest national numbers that people enter have 7.
_MOST_DIGITS = 15
_FEWEST_DIGITS = 7
# With fewer digits there would be too few after the country code.
_FEWEST_INTERNATIONAL = 8
_INTERNATIONAL_PREFIXES = ("+", "(+", "tel:+")

_NUMBER = re.compile(
    r"(?:tel:)?(?P<plus>\(?\+?)(?P<number>[\d\s().\-/\u2010-\u2015]+)(?:;?(?:ext\.?=?|extension|x|#)\s*\d{1,6})?",
    re.IGNORECASE,
)
_TELEPHONE = re.compile(
    r"phone|\bmobil|\bcell|\bcelular|\btel\b|t[eé]l[eéè]f|\btelem[oó]vel|\bm[oó]vil|\bportable\b|\bhandy"
    r"|\bgsm\b|\bsms\b|whatsapp|rufnummer|\bcontact n(?:umber|o)\b|\bnumber\b.*\b(?:reach|call)\b"
    r"|puhelin|телефон|мобильн|τηλ[εέ]φ|電話|电话|手机|携帯|전화|هاتف|טלפון|โทร",
    re.IGNORECASE,
)


def answered_phone(answers: Iterable[Answer]) -> str | None:
    """Return the first answer that is a telephone number and nothing else, or None.

    An answer has no type: only event types say that a question is of type `phone_number`. Calendly writes
    numbers from its telephone field in international form (`+1 234-567-8910`), so a number in that form
    counts under any question. Numbers of other kinds may look like national telephone numbers, so these only
    count where the question asks for a telephone number, and are preferred there.
    https://developer.calendly.com/api-docs/calendly-api/scheduled-events
    """
    texts = [(answer.question or "", answer.answer) for answer in answers if answer.answer]
    requested_numbers = (
        text for question, text in texts if _asks_for_telephone(question) and _is_number(text, _FEWEST_DIGITS)
    )
    international_numbers = (
        text
        for _, text in texts
        if _plain(text).startswith(_INTERNATIONAL_PREFIXES) and _is_number(text, _FEWEST_INTERNATIONAL)
    )
    return next(requested_numbers, None) or next(international_numbers, None)


@lru_cache(1000)  # a booking form asks everybody the same
def _asks_for_telephone(question: str) -> bool:
    return bool(_TELEPHONE.search(question))


def _is_number(text: str, fewest: int) -> bool:
    match = _NUMBER.fullmatch(_plain(text))
    return match is not None and fewest <= sum(map(str.isdecimal, match["number"])) <= _MOST_DIGITS


def _plain(text: str) -> str:
    """Return text in lower case, with full-width characters as ordinary ones and without invisible ones.

    Numbers that are copied from address books may contain invisible characters.
    """
    if text.isascii():
        return text.strip().lower()
    visible = (char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    return "".join(visible).strip().lower()
