"""Runs `ingest` commands in children of a process that has imported what they need.

Importing is most of what a short command does.
"""

import importlib
import json
import os
import sys

from ingest.cli import main


def serve() -> None:
    """Run the commands that standard input has, each a line of JSON, and print their exit codes.

    A command is a list: its folder, the files for its standard output and standard error, its arguments. The
    arguments of the process are names of modules to import first.
    """
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(*json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(folder: str, out: str, err: str, *arguments: str) -> None:
    """Run a command in this process, and leave it with the exit code."""
    os.chdir(folder)
    os.umask(0)  # as the other commands of tests have it
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = ["ingest", *arguments]
    main()
