"""HMAC signatures over raw bytes, and comparisons with the values of all live secrets in constant time."""

import hmac
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ingest.errors import VerificationError

_LONGEST_UNIX_TIME = 11  # digits, until the year 5138


def hmac_sha256_hex(secret: str, *parts: bytes) -> str:
    """Return the HMAC-SHA256 over the concatenated parts, in lower-case hex.

    The key is the secret in UTF-8.
    """
    message = parts[0] if len(parts) == 1 else b"".join(parts)
    return hmac.digest(secret.encode(), message, "sha256").hex()


def which_matches(signatures: Iterable[str], expected: Sequence[str]) -> str:
    """Return the position of the expected value that any of the signatures equals; "1" is the first.

    All pairs are compared, so that the duration does not reveal where a match was. Raises VerificationError
    when no pair is equal.
    """
    match_position = 0
    for signature in signatures:
        raw = signature.encode()
        for position, value in enumerate(expected, start=1):
            if hmac.compare_digest(raw, value.encode()) and not match_position:
                match_position = position
    if not match_position:
        problem = (
            "the account's webhook secret does not fit"
            if len(expected) == 1
            else f"none of the account's {len(expected)} webhook secrets fits"
        )
        raise VerificationError(problem)
    return str(match_position)


def timestamped_header(secret: str, key: str, body: bytes, at: datetime) -> str:
    """Return the header `t=<unix seconds>,<key>=<hex>` of a body that is sent at this time.

    The signature is the HMAC over the digits of t, a full stop and the raw body.
    """
    timestamp = str(int(at.timestamp()))
    return f"t={timestamp},{key}={hmac_sha256_hex(secret, timestamp.encode(), b'.', body)}"


def timestamped_candidates(
    header: str, key: str, body: bytes, secrets: Iterable[str]
) -> tuple[datetime, list[str], list[str]]:
    """Return the time t of a header for `timestamped_signature`, its signatures, and that of each secret.

    Raises VerificationError when the header has another form.
    """
    timestamp, signatures = timestamped_signature(header, key)
    signed = b"%b.%b" % (timestamp.encode(), body)
    expected = [hmac_sha256_hex(secret, signed) for secret in secrets]
    return datetime.fromtimestamp(int(timestamp), UTC), signatures, expected


def timestamped_signature(header: str, key: str) -> tuple[str, list[str]]:
    """Return the digits of t and all signatures of a header `t=<unix seconds>,<key>=<hex>[,…]`.

    Parts may be in any order, and those of other schemes are ignored. Blanks around a part are ignored too: a
    proxy that joins or rewrites a list may put one after each comma
    (https://www.rfc-editor.org/rfc/rfc9110#section-5.6.1). No blank is signed. Raises VerificationError when
    the header has another form.
    """
    times, signatures = [], []
    for part in header.split(","):
        name, is_pair, value = part.strip(" \t").partition("=")
        if not is_pair:
            raise VerificationError("the signature header is not a list of name=value")
        if name == key:
            signatures.append(value)
        elif name == "t":
            times.append(value)
    if len(times) != 1 or not signatures or not _is_unix_time(times[0]):
        raise VerificationError(f"the signature header needs one t and at least one {key}")
    return times[0], signatures


def _is_unix_time(text: str) -> bool:
    return len(text) <= _LONGEST_UNIX_TIME and text.isascii() and text.isdigit()
