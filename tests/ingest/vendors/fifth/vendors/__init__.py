"""The vendor's folder of `ingest/vendors`."""
