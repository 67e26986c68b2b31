"""Tests: units beside this file, one folder for each kind of suite."""
