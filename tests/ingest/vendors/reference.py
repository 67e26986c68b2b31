"""The program that writes the table of vendors in README.md.

`python -m tests.ingest.vendors.reference` makes it from what the vendors' folders declare.
"""

from collections.abc import Iterator
from pathlib import Path

from ingest.vendors import ranked_account_classes
from ingest.vendors.account import AnyAccount
from ingest.vendors.registry import load_module
from tests.support.generated import replace_block

ROOT = Path(__file__).parents[3]
FILE = ROOT / "README.md"
PAGES = Path("docs", "vendors")


def with_table(text: str) -> str:
    """Return the text of README.md with the table of vendors replaced."""
    return replace_block(text, "vendors", _table())


def _table() -> Iterator[str]:
    yield from ("| vendor | webhooks are made | credentials for REST |", "|---|---|---|")
    for account_class in ranked_account_classes():
        by_api = load_module(account_class.vendor, "subscriptions") is not None
        made = "by `ingest webhooks apply`" if by_api else "by hand"
        credentials = account_class.settings_model.rest_credentials
        alternatives = [", ".join(f"`{name}`" for name in names) for names in credentials]
        yield f"| {_title(account_class)} | {made} | {'; or '.join(alternatives) or '-'} |"


def _title(account_class: type[AnyAccount]) -> str:
    """Return the vendor's title, with a link where the vendor has a page."""
    page = PAGES / f"{account_class.vendor}.md"
    has_page = (ROOT / page).exists()
    return f"[{account_class.title}]({page.as_posix()})" if has_page else account_class.title


if __name__ == "__main__":
    FILE.write_text(with_table(FILE.read_text(encoding="utf-8")), encoding="utf-8")
