"""The digest of a set of bookings, each with its version. The order in which they are added does not matter.

It is the sum, modulo 2^128, of the first 16 bytes of the SHA-256 of each booking's id and version. So whoever
has the same bookings in the same versions has the same digest, and a booking can be taken out again.
"""

from hashlib import sha256

_MODULUS = 1 << 128
_BYTES = 16


def digest_of(booking_id: str, version: str) -> int:
    """Return the digest of a set with this booking alone."""
    # The length keeps apart what would be the same text together.
    text = f"{len(booking_id)}:{booking_id}{version}".encode(errors="surrogatepass")
    return int.from_bytes(sha256(text).digest()[:_BYTES], "big")


def add(digest: int, other: int) -> int:
    """Return the digest of two sets together."""
    return (digest + other) % _MODULUS


def subtract(digest: int, other: int) -> int:
    """Return the digest of a set without another set that is part of it."""
    return (digest - other) % _MODULUS


def digest_text(digest: int) -> str:
    """Return the digest as 32 hexadecimal digits, as the table `completeness` has it."""
    return f"{digest:032x}"
