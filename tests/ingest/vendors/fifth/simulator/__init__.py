"""The vendor's folder of `ingest/simulator`."""
