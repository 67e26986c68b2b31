"""Tests of the command line in processes of its own, by output and exit codes."""
