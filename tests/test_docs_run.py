"""The commands of the guides, run one after the other against a product with a simulated vendor.

A block that cannot be run here says why in a comment before it: `<!-- not run: it needs an account -->`.
In the pages the account is called `sales`, here it is the simulated vendor's.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.polling import PATIENCE, wait_for
from tests.support.processes import environment, ingest, start_ingest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("tutorial", "how-to", "reconcile")]
# Others do the same for docs/commands.md, which is made from the help, and the runbook, whose drills run it.
OTHER_PAGES = [
    page
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    if page not in PAGES and page.name not in {"commands.md", "RUNBOOK.md"}
]
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\s*$")


def blocks(page: Path) -> Iterator[tuple[str, bool]]:
    """Yield the shell blocks of a page, and whether they are run."""
    text = page.read_text()
    for block in re.finditer(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield block[1], not NOT_RUN.search(text[: block.start()])


def test_every_other_block_says_why_it_is_not_run() -> None:
    unmarked = [(page.name, block) for page in OTHER_PAGES for block, is_run in blocks(page) if is_run]
    assert unmarked == []


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a simulated Calendly and the product beside it, and return the folder of its settings."""
    folder = tmp_path_factory.mktemp("product")
    simulated = folder / "simulated"
    with start_ingest(folder, "simulate", "calendly", "--rate", "5", "--folder", str(simulated)):
        wait_for((simulated / "ingest.toml").exists, "the simulated vendor has written the settings")
        with start_ingest(simulated, "up"):
            wait_for(lambda: _rows(simulated) > 0, "bookings are loaded")
            yield simulated


def _rows(folder: Path) -> int:
    answer = ingest(folder, "query", "--json", "select count(*) as n from bookings")
    return int(answer.json[0]["n"]) if not answer.code else 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_guide_does_what_the_page_says(page: Path, product: Path) -> None:
    ran = 0
    for block, is_run in blocks(page):
        for line in filter(None, map(str.strip, block.splitlines() if is_run else [])):
            codes = {0, *map(int, re.findall(r"exit code (\d)", line))}
            command = re.sub(r"\bsales\b", "calendly", line)
            done = subprocess.run(
                [
                    "script",
                    "--quiet",
                    "--return",
                    "--command",
                    command,
                    "/dev/null",
                ],  # a terminal, for questions
                cwd=product,
                env=environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
                input="y\n",
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode in codes, f"{line}\n{done.stdout}{done.stderr}"
            ran += 1
    assert ran
