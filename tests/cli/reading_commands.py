"""Runs commands one after the other in one process: starting Python for each would be most of a test's time.

`python -m tests.cli.reading_commands`, with a JSON list of argument lists on standard input; prints, as JSON, each one's exit code and
what it left in the working folder.
"""

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from ingest.cli.commands import run
from tests.cli.trees import tree


def main() -> None:
    """Whatever the commands print on standard output is dropped."""
    answers = []
    for arguments in json.load(sys.stdin):
        sys.argv = ["ingest", *arguments]
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            code = run()
        answers.append({"code": code, "tree": tree(Path.cwd())})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
