"""The `ingest` command that obeys orders as in `tests.faults`, and soon takes a lease for abandoned."""

import runpy

import consumers.warehouse
from consumers.warehouse import lease

lease._ABANDONED_SECONDS = consumers.warehouse._TURN_SECONDS = 3.0
runpy.run_module("tests.faults.faulty_ingest", run_name="__main__", alter_sys=True)
