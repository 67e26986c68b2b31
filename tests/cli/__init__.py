"""The command line as a user meets it: in a process of its own, by its output and exit codes."""
