"""Exit codes of the command line."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the end of a command tells a script. A command whose codes mean more says so in its help."""

    OK = 0
    FAILED = 1  # something failed, differs from what it should be, or needs a person
    REFUSED = 2  # a setting or an argument is wrong
    UNAVAILABLE = 3  # something that the command needs cannot be reached right now
    DEAD_LETTER_LIMIT = 4  # the consumer stopped itself
    INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended
    # What a shell reports of a program that SIGPIPE ended:
    # https://www.gnu.org/software/bash/manual/html_node/Exit-Status.html
    READER_GONE = 141
