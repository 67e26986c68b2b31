"""Tests of dead letters: set aside by code that is broken for a while, shown and redriven by the command."""
