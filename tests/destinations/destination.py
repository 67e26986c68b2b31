"""A destination that runs: how the product is told of it, and how its own client reads it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingest.simulator.account import Row


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination of one black box.

    `warehouse` is the section of the settings, `environ` what the product's processes find in their
    environment. `read` returns the rows of a table by the destination's own client, with the columns' names
    in lower case. `longest_text` and `longest_json` are the bytes that a column holds, where a body may have
    more. `client_modules` are those of the destination's client that take long to import, and start no
    threads: they may be imported before a fork.
    """

    warehouse: Mapping[str, Any]
    read: Callable[[str], list[Row]]
    environ: Mapping[str, str] = field(default_factory=dict)
    longest_text: int | None = None
    longest_json: int | None = None
    client_modules: Sequence[str] = ()
