"""A sync into a lake: dlt reads and gives types, and a library of the format writes.

dlt merges lists of a lake without deleting what is no longer in them, so lists and objects are JSON in their
row's column.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dlt
import orjson
import pyarrow as pa
from dlt.common import json
from dlt.extract import DltResource
from pyarrow import parquet
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from consumers.rows import arrow_schema
from consumers.warehouse.lake_formats import lake_writer
from consumers.warehouse.lake_writer import fitted, with_json_marked
from consumers.warehouse.sync_store import SyncStore
from ingest.errors import LoadedMeanwhile
from ingest.settings import WarehouseSettings

_NOTES = arrow_schema(name=pa.string(), value=pa.string(), loaded_at=pa.timestamp("us", tz="UTC"))
# Another account's sync may write the same tables.
_trying_again = retry(
    retry=retry_if_exception_type(LoadedMeanwhile),
    stop=stop_after_attempt(10),
    wait=wait_random(max=0.5),
    reraise=True,
)


class LakeSyncStore(SyncStore):
    """The tables of a lake. One of ours has the state of each pipeline and the schema of each resource."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self._writer = lake_writer(settings)
        self._format = settings.table_format
        self._notes_table = f"{self._writer.lake.notes_prefix}syncs"

    def prepare(self, resource: DltResource) -> DltResource:
        """Have dlt write Parquet files of a resource, and make no tables of its lists."""
        resource.max_table_nesting = 0
        resource.apply_hints(table_format=self._format)  # type: ignore[arg-type] # it is one of dlt's words
        return resource

    def restore(self, pipeline: dlt.Pipeline) -> None:
        """Give a new pipeline the state of the last load that succeeded."""
        if text := self._notes().get(_state_name(pipeline)):
            with pipeline.managed_state() as state:
                state["sources"] = json.typed_loads(text)

    def schema(self, pipeline: dlt.Pipeline, name: str) -> dlt.Schema:  # noqa: ARG002 - it is the same for all
        """Return the newest schema of this name; an empty one where there is none."""
        text = self._notes().get(f"schema {name}")
        return dlt.Schema.from_dict(orjson.loads(text)) if text else dlt.Schema(name)

    def load(self, pipeline: dlt.Pipeline, table: str, key: Sequence[str]) -> dlt.Pipeline | None:
        """Write the rows that the pipeline has normalized, and then how far it has read.

        Dying in between is harmless: the same rows are read and written again.
        """
        schema = pipeline.default_schema
        packages = map(pipeline.get_load_package_info, pipeline.list_normalized_load_packages())
        files = [
            parquet.read_table(job.file_path)
            for package in packages
            for job in package.jobs["new_jobs"]
            if job.job_file_info.table_name == table
        ]
        if files:
            rows = pa.concat_tables(files, promote_options="permissive")
            columns = schema.get_table(table)["columns"]
            json_columns = [name for name, column in columns.items() if column.get("data_type") == "json"]
            self._write(table, _newest(rows, key) if key else rows, ["account", *key], json_columns)
        state = json.typed_dumps(pipeline.state.get("sources", {}))
        schema_text = orjson.dumps(schema.to_dict()).decode()
        self._note({_state_name(pipeline): state, f"schema {schema.name}": schema_text})
        return None

    @_trying_again
    def _write(self, name: str, rows: pa.Table, key: Sequence[str], json_columns: Sequence[str]) -> None:
        """Write rows in place of those with the same key."""
        rows = self._writer.storable(rows)
        schema = with_json_marked(rows.schema, json_columns)
        table = self._writer.lake.open(name) or self._writer.create(name, schema, key)
        self._writer.add_missing_columns(table, schema)
        self._writer.replace(table, fitted(rows, self._writer.lake.schema_of(table)), key)

    def _notes(self) -> dict[str, str]:
        table = self._writer.lake.open(self._notes_table)
        rows = self._writer.lake.dataset_of(table).to_table().to_pylist() if table else []
        return {row["name"]: row["value"] for row in rows}

    @_trying_again
    def _note(self, values: Mapping[str, str]) -> None:
        now = datetime.now(UTC)
        rows = pa.Table.from_pylist(
            [{"name": name, "value": value, "loaded_at": now} for name, value in values.items()],
            schema=_NOTES,
        )
        table = self._writer.lake.open(self._notes_table) or self._writer.create(
            self._notes_table, _NOTES, ["name"]
        )
        self._writer.replace(table, rows, ["name"])


def _state_name(pipeline: dlt.Pipeline) -> str:
    return f"state {pipeline.pipeline_name}"


def _newest(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the last row of each key: a list may change while its pages are read."""
    keys = zip(*(rows[column].to_pylist() for column in key), strict=True)
    return rows.take(sorted({values: number for number, values in enumerate(keys)}.values()))
