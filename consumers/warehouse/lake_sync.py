"""A sync into a lake: dlt reads and gives types, and deltalake writes.

dlt merges lists of a lake without deleting what is no longer in them, so lists and objects are JSON in their
row's column.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dlt
import orjson
import pyarrow as pa
from dlt.common import json
from dlt.common.libs.deltalake import ensure_delta_compatible_arrow_data
from dlt.extract import DltResource
from pyarrow import parquet
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from consumers.rows import arrow_schema
from consumers.warehouse.delta import (
    add_missing_columns,
    condition_of,
    create,
    replace,
    with_json_marked,
)
from consumers.warehouse.sync_store import SyncStore
from ingest.errors import LoadedMeanwhile
from ingest.settings import WarehouseSettings
from ingest.warehouse.lake import Lake, schema_of

_NOTES_TABLE = "_ingest_syncs"
_NOTES = arrow_schema(name=pa.string(), value=pa.string(), loaded_at=pa.timestamp("us", tz="UTC"))
# Another account's sync may write the same tables.
_trying_again = retry(
    retry=retry_if_exception_type(LoadedMeanwhile),
    stop=stop_after_attempt(10),
    wait=wait_random(max=0.5),
    reraise=True,
)


class LakeSyncStore(SyncStore):
    """Delta tables. A table of ours has the state of each pipeline and the schema of each resource."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self._lake = Lake(settings)

    def prepare(self, resource: DltResource) -> DltResource:
        """Have dlt write Parquet files of a resource, and make no tables of its lists."""
        resource.max_table_nesting = 0
        resource.apply_hints(table_format="delta")
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
        rows = pa.table(ensure_delta_compatible_arrow_data(rows))
        table = self._lake.open(name) or create(
            self._lake, name, with_json_marked(rows.schema, json_columns), key
        )
        add_missing_columns(table, with_json_marked(rows.schema, json_columns))
        replace(table, _fitted(rows, schema_of(table)), condition_of(key, rows))

    def _notes(self) -> dict[str, str]:
        table = self._lake.open(_NOTES_TABLE)
        rows = pa.table(table.scan().read_all()).to_pylist() if table else []
        return {row["name"]: row["value"] for row in rows}

    @_trying_again
    def _note(self, values: Mapping[str, str]) -> None:
        now = datetime.now(UTC)
        rows = pa.Table.from_pylist(
            [{"name": name, "value": value, "loaded_at": now} for name, value in values.items()],
            schema=_NOTES,
        )
        table = self._lake.open(_NOTES_TABLE) or create(self._lake, _NOTES_TABLE, _NOTES, ["name"])
        replace(table, rows, condition_of(["name"], rows))


def _state_name(pipeline: dlt.Pipeline) -> str:
    return f"state {pipeline.pipeline_name}"


def _newest(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the last row of each key: a list may change while its pages are read."""
    keys = zip(*(rows[column].to_pylist() for column in key), strict=True)
    return rows.take(sorted({values: number for number, values in enumerate(keys)}.values()))


def _fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with all columns of a table's schema, in its types."""
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
