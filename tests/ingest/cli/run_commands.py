"""Runs commands one after the other in one process, because starting Python for each would take too long.

`python -m tests.ingest.cli.run_commands` takes a JSON list of argument lists on standard input. It prints,
as JSON, the exit code of each and what it left in the working folder.
"""

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from ingest.cli.commands import run


def tree(folder: Path) -> dict[str, float | None]:
    """Return every path below a folder, with the time of the last change of files."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def main() -> None:
    """Run the commands, without what they print on standard output."""
    answers = []
    for arguments in json.load(sys.stdin):
        sys.argv = ["ingest", *arguments]
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            code = run()
        answers.append({"code": code, "tree": tree(Path.cwd())})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
