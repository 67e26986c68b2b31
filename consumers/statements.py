"""Which statements of a batch hold: the latest ones, and verdicts whose evidence the warehouse has.

Pure. A verdict that an hour is complete is about the warehouse in which the bookings were seen. It names the
newest load that was there then. A warehouse without that load was restored from a backup, or is another one,
and may lack these bookings: there the hour is open again.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from consumers.batch import Item
from consumers.rows import TABLES_BY_NAME

StatementKey = tuple[str, str]
"""A table of statements, and the id of a row in it."""

_PROVEN = frozenset({"complete", "unprovable"})
_NO_EVIDENCE = "the warehouse lacks the loads that proved the hour: it was restored, or is another one"


def statement_ids(items: Iterable[Item]) -> dict[str, set[str]]:
    """Return the ids of the statements among these items, by table."""
    ids: dict[str, set[str]] = {}
    for item in items:
        if TABLES_BY_NAME[item.table].statements:
            ids.setdefault(item.table, set()).add(item.row["id"])
    return ids


def evidence_loads(items: Iterable[Item]) -> set[str]:
    """Return the loads on which verdicts among these items depend."""
    return {item.row["evidence_load"] for item in items if _needs_evidence(item)} - {None}


def valid_statements(
    items: Iterable[Item], stored: Mapping[StatementKey, datetime], loads: Collection[str]
) -> list[Item]:
    """Leave out statements that are not later than the stored ones, and open the hours without evidence.

    `stored` is when the stored statements were made, and `loads` are those that the warehouse has. All other
    items stay as they are.
    """
    valid = []
    for item in items:
        stated_before = stored.get((item.table, item.row.get("id", "")))
        if not TABLES_BY_NAME[item.table].statements:
            valid.append(item)
        elif stated_before is None or item.row["stated_at"] > stated_before:
            valid.append(_opened(item) if _lacks_evidence(item, loads) else item)
    return valid


def _needs_evidence(item: Item) -> bool:
    return item.table == "completeness" and item.row["verdict"] in _PROVEN


def _lacks_evidence(item: Item, loads: Collection[str]) -> bool:
    return _needs_evidence(item) and item.row["evidence_load"] not in loads


def _opened(item: Item) -> Item:
    unproven = {"verdict": "open", "reason": _NO_EVIDENCE, "proven_at": None, "digest": None}
    return replace(item, row=item.row | unproven)
