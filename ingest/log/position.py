"""The position in a topic as text: `0:12,1:7` is the next offset of each partition."""

import re
from collections.abc import Mapping

_POSITION = re.compile(r"\d{1,9}:\d{1,18}(,\d{1,9}:\d{1,18})*")


def encode_position(position: Mapping[int, int]) -> str:
    """Return a position as text; "" for none."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(position.items()))


def decode_position(text: str) -> dict[int, int]:
    """Return the position of a text. Raises ValueError for another text."""
    if text and not _POSITION.fullmatch(text):
        raise ValueError("a position is written 0:12,1:7: the next offset of each partition")
    return {int(part.partition(":")[0]): int(part.partition(":")[2]) for part in text.split(",") if part}
