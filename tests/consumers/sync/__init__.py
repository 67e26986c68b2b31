"""Tests of `ingest sync` and of the dlt sources."""
