"""The program that writes the table of resources in docs/sources.md.

`python -m tests.consumers.sync.reference` asks the simulated vendors for their resources.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from dlt.extract import DltResource

from ingest.vendors import ranked_account_classes
from ingest.vendors.rest import AnyRest
from tests.support.generated import read_block, replace_block
from tests.support.simulated_vendor import simulated, vendors_with_rest

FILE = Path(__file__).parents[3] / "docs" / "sources.md"


def with_table(text: str) -> str:
    """Return the text of docs/sources.md with the table between its two comments replaced."""
    return replace_block(text, "resources", _table())


def documented_resources() -> dict[str, set[str]]:
    """Return the resources that docs/sources.md lists, by vendor."""
    titles = {account_class.title: account_class.vendor for account_class in ranked_account_classes()}
    table = read_block(FILE.read_text(encoding="utf-8"), "resources")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {titles[title]: set(names.split(", ")) for title, names in rows}


def _table() -> Iterator[str]:
    yield from ("| vendor | resources |", "|---|---|")
    for account_class in ranked_account_classes():
        if account_class.vendor in vendors_with_rest():
            with TemporaryDirectory() as folder, simulated(account_class.vendor, Path(folder)) as side:
                yield f"| {account_class.title} | {', '.join(_names(side.open()))} |"


def _names(rest: AnyRest) -> list[str]:
    return [
        resource.name if isinstance(resource, DltResource) else str(resource["name"])
        for resource in rest.resources()
    ]


if __name__ == "__main__":
    FILE.write_text(with_table(FILE.read_text(encoding="utf-8")), encoding="utf-8")
