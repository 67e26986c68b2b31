"""Settings of Sphinx, which builds these pages as a site: `make site`."""

import re
from typing import Any

project = "bookings-ingest"
html_title = project
extensions = ["myst_parser"]
html_theme = "furo"
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md", "deploy/**.md"]
myst_heading_anchors = 4  # as GitHub has them
suppress_warnings = ["misc.highlighting_failure"]  # blocks that leave something out with …
_LINK = re.compile(r"\]\(([^)#:]+)\.md[^)]*\)")


def add_navigation(_app: Any, document: str, source: list[str]) -> None:
    """Make the navigation of the links on the first page."""
    if document == root_doc:
        pages = dict.fromkeys(_LINK.findall(source[0]))
        source[0] += "\n".join(["\n```{toctree}\n:hidden:\n", *pages, "```\n"])


def setup(app: Any) -> None:
    """Connect what the pages need besides Sphinx' own settings."""
    app.connect("source-read", add_navigation)
