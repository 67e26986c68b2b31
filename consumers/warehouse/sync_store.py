"""Where the rows of a sync are written, and how far it has read."""

from collections.abc import Sequence

import dlt
import orjson
from dlt.common.destination.client import WithStateSync
from dlt.extract import DltResource

from ingest.errors import WarehouseUnavailable


class SyncStore:
    """Tables that dlt's load packages write, with dlt's notes beside them."""

    def prepare(self, resource: DltResource) -> DltResource:
        """Return a resource with the hints that its tables need here."""
        return resource

    def restore(self, pipeline: dlt.Pipeline) -> None:
        """Give a new pipeline the state of the last load that succeeded."""
        pipeline.sync_destination()

    def schema(self, pipeline: dlt.Pipeline, name: str) -> dlt.Schema:
        """Return the newest schema of this name; an empty one where there is none."""
        with pipeline.destination_client() as client:
            stored = None
            if isinstance(client, WithStateSync) and client.is_storage_initialized():
                stored = client.get_stored_schema(name)
        return dlt.Schema.from_dict(orjson.loads(stored.schema)) if stored else dlt.Schema(name)

    def load(self, pipeline: dlt.Pipeline, table: str, key: Sequence[str]) -> dlt.Pipeline | None:  # noqa: ARG002 - dlt's hints have them
        """Load what the pipeline has normalized, all or nothing.

        A row of `table` replaces the account's row with the same `key`; without a key all rows of the account
        are replaced. Returns the pipeline for the next load; None where a new one is needed. Raises
        WarehouseUnavailable.
        """
        info = pipeline.load()
        if pipeline.has_pending_data or any(package.state != "loaded" for package in info.load_packages):
            raise WarehouseUnavailable("dlt did not load the package it was given; sync it again")
        return pipeline
