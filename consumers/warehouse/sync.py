"""A vendor's REST resources into the warehouse by dlt's `rest_api`: one pipeline per account, one load per resource.

A load is all or nothing, but for single records that the destination refuses, and so is the state it starts from next time, which is in the warehouse: what an attempt left in the
working folder is dropped. Each resource has a schema of its own, because dlt keeps how far a resource was read by schema
and name: a list that is read once for itself and once for what hangs on its entries must not move the other's mark.
"""

import itertools
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import dlt
import orjson
import structlog
from dlt.common.destination.client import WithStateSync
from dlt.extract import DltResource, DltSource
from dlt.sources.rest_api import rest_api_resources

from consumers.warehouse.fields import Fields
from consumers.warehouse.files import hold, turn_at
from ingest.errors import IngestError, LoadRefused, VendorUnavailable, WarehouseUnavailable
from ingest.settings import Settings
from ingest.vendors.rest import AnyRest
from ingest.warehouse.destination import destination, sync_pipeline
from ingest.warehouse.errors import causes_of, translated

log = structlog.get_logger()

_TURN_SECONDS = 60.0
_MOST_REFUSED = 20  # records of a resource; more mean that something is wrong with the table

Count = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """`rows` of a resource's table. `absent`: requests for the parts of what the vendor no longer has; `keyless`: records without a key.

    `refused`: the keys of records that the destination refuses, each with its reason.
    """

    rows: int
    absent: tuple[str, ...]
    keyless: tuple[str, ...]
    refused: tuple[str, ...] = ()


class _Kept:
    """Rows as they were made of records, in a file without a name, so that they need not be read from the vendor again."""

    def __init__(self, file: IO[bytes], key: Sequence[str]) -> None:
        """`owners`: as `Fields` has them; `key`: the columns that tell a row from the account's others, without one nothing is kept."""
        self.key = key
        self.owners: dict[str, str] = {}
        self._file = file

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        if self.key:
            pickle.dump(row, self._file)

    def rows(self) -> list[dict[str, Any]]:
        """Return all of them."""
        self._file.seek(0)
        rows = []
        with suppress(EOFError):
            while True:
                rows.append(pickle.load(self._file))  # noqa: S301 - written by `add`, and nobody else can open the file
        return rows

    def key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what tells a row from the account's others."""
        return tuple(row.get(name) for name in self.key)


class SyncPipeline:
    """One account's, held by one process at a time. `usual` are the `resources` that are loaded when none is named."""

    def __init__(self, settings: Settings, rest: AnyRest) -> None:
        """Asks the vendor where its lists depend on who asks. Raises VendorUnavailable, VendorRefused, ConfigurationError, WarehouseUnavailable."""
        self._settings = settings
        self._account = rest.account.name
        self._vendor = rest.account.vendor
        self._label = rest.label
        self._name = f"ingest_sync_{self._account}"
        self._folder = Path(settings.warehouse.work_dir) / self._name
        self._pipeline: dlt.Pipeline | None = None
        self._held = hold(
            self._folder, f"another sync of account {self._account} is running: wait for its end"
        )
        try:
            with self._reading("its resources"):
                self._config = rest.config()
                self._absent = rest.parts.absent
                declared = self._declared()
                self.resources = list(declared)
                self.usual = [name for name, resource in declared.items() if resource.selected]
        except BaseException:
            self._held.release()
            raise

    def table(self, resource: str) -> str:
        """Where a resource goes."""
        return f"{self._vendor}__{resource}"

    def load(self, name: str, count: Count) -> Loaded:
        """What came of a resource; `count` is told of records as they are read.

        Raises VendorUnavailable, VendorRefused, WarehouseUnavailable, LoadRefused; its tables are then as they were.
        """
        self._absent.clear()
        keyless: list[str] = []
        refused: dict[tuple[Any, ...], str] = {}
        with TemporaryFile() as file:
            kept = _Kept(file, _key(self._declared()[name]))
            pipeline, self._pipeline = self._pipeline or self._restored(), None  # until all went well
            try:
                rows = self._load(pipeline, self._named(name, count, keyless, kept))
                self._pipeline = pipeline
            except LoadRefused as refusal:
                if not kept.key:  # a part of it would replace the others
                    raise
                rows = self._load_apart(name, kept, refusal, refused)
        for key, why in refused.items():
            log.warning("sync.record_refused", account=self._label, resource=name, key=key, why=why)
        named = (f"{', '.join(map(str, key))} ({why})" for key, why in refused.items())
        return Loaded(rows, tuple(self._absent), tuple(keyless), tuple(named))

    def _load_apart(
        self, name: str, kept: _Kept, refusal: LoadRefused, refused: dict[tuple[Any, ...], str]
    ) -> int:
        """Load the rows in parts that are halved until the records to blame are alone; return how many were loaded.

        How far the vendor's list was read is not noted, so that the next sync reads the refused ones again. Raises the refusal where too many
        are refused; what was loaded by then is right.
        """
        rows, loaded = kept.rows(), 0
        pipeline: dlt.Pipeline | None = None
        parts = _halves(rows)
        while parts:
            part = parts.pop()
            pipeline = pipeline or self._restored()
            try:
                loaded += self._load(pipeline, self._as_read(name, part, kept.owners))
            except LoadRefused as why:
                pipeline = None
                if len(part) > 1:
                    parts += _halves(part)
                    continue
                refused[kept.key_of(part[0])] = str(why)
                if len(refused) > _MOST_REFUSED:
                    raise refusal from None
        return loaded

    def _as_read(self, name: str, rows: list[dict[str, Any]], owners: dict[str, str]) -> DltResource:
        """Rows that were read already, as the resource that they are of, with the owners of its columns."""

        def noting_owners(row: dict[str, Any]) -> dict[str, Any]:
            dlt.current.resource_state(name)["columns"] = owners
            return row

        declared = self._declared()[name]
        columns = declared.compute_table_schema().get("columns", {})
        resource: DltResource = dlt.resource(rows, name=name, columns=columns)
        resource.add_map(noting_owners)
        return self._hinted(resource, name, _key(declared))

    def close(self) -> None:
        """Gives the pipeline up, and what is in its folder."""
        if self._pipeline and self._pipeline.is_active:
            self._pipeline.deactivate()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._held.release()

    def _load(self, pipeline: dlt.Pipeline, resource: DltResource) -> int:
        source = DltSource(self._schema(pipeline, resource.name), self._vendor, [resource])
        with self._reading(resource.name):
            pipeline.extract(source)
            counts = pipeline.normalize().row_counts
        with turn_at(self._settings, _TURN_SECONDS), translated():
            info = pipeline.load()
            if pipeline.has_pending_data or any(package.state != "loaded" for package in info.load_packages):
                raise WarehouseUnavailable("dlt did not load the package it was given; sync it again")
        return counts.get(self.table(resource.name), 0)

    def _restored(self) -> dlt.Pipeline:
        """With the state of the last load that succeeded."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with turn_at(self._settings, _TURN_SECONDS), translated():
            pipeline = dlt.pipeline(
                self._name,
                pipelines_dir=self._settings.warehouse.work_dir,
                destination=destination(self._settings, sync_pipeline(self._account)),
                dataset_name=self._settings.warehouse.dataset,
            )
            pipeline.sync_destination()
        return pipeline

    def _schema(self, pipeline: dlt.Pipeline, resource: str) -> dlt.Schema:
        """The warehouse's newest, which another account of the vendor may have made; so that types agree."""
        name = f"{self._vendor}_{resource}"
        with turn_at(self._settings, _TURN_SECONDS), translated(), pipeline.destination_client() as client:
            stored = None
            if isinstance(client, WithStateSync) and client.is_storage_initialized():
                stored = client.get_stored_schema(name)
        return dlt.Schema.from_dict(orjson.loads(stored.schema)) if stored else dlt.Schema(name)

    def _declared(self) -> dict[str, DltResource]:
        return {resource.name: resource for resource in rest_api_resources(self._config)}

    def _named(self, name: str, count: Count, keyless: list[str], kept: _Kept) -> DltResource:
        """With its account in every row and key. Without a key of its own, what comes replaces what the account had."""
        resource = self._declared()[name]
        key = _key(resource)
        resource.selected = True
        resource.add_filter(_having(key, keyless))
        resource.add_map(self._tagging(name, count, kept))
        return self._hinted(resource, name, key)

    def _hinted(self, resource: DltResource, name: str, key: Sequence[str]) -> DltResource:
        keys: dict[str, Any] = {"primary_key": ["account", *key]} if key else {"merge_key": "account"}
        resource.apply_hints(table_name=self.table(name), write_disposition="merge", **keys)
        return resource

    def _tagging(self, name: str, count: Count, kept: _Kept) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Makes rows of records. Which field owns which column is kept in dlt's state, with the account's marks."""
        fields: Fields | None = None

        def tagged(record: dict[str, Any]) -> dict[str, Any]:
            nonlocal fields
            if fields is None:
                kept.owners = dlt.current.resource_state(name).setdefault("columns", {})
                fields = Fields(kept.owners, partial(self._tell_renamed, name))
            count(1)
            row = fields.of(record) | {"account": self._account}
            kept.add(row)
            return row

        return tagged

    def _tell_renamed(self, resource: str, field: str, column: str) -> None:
        log.warning("sync.field_renamed", account=self._label, resource=resource, field=field, column=column)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Our errors as they are; any other is an answer that cannot be read."""
        try:
            yield
        except Exception as error:
            causes = list(causes_of(error))
            for cause in causes:
                if isinstance(cause, IngestError):
                    raise cause from None
            fault = type(causes[-1]).__name__
            raise VendorUnavailable(
                f"{self._label}: {what} cannot be read as the vendor describes it ({fault})"
            ) from error


def _key(resource: DltResource) -> list[str]:
    columns = resource.compute_table_schema().get("columns", {})
    return [column for column, hints in columns.items() if hints.get("primary_key")]


def _halves(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    middle = len(rows) // 2
    return [part for part in (rows[middle:], rows[:middle]) if part]


def _having(key: Sequence[str], keyless: list[str]) -> Callable[[dict[str, Any]], bool]:
    """A record without its key cannot be a row; the others can. A plain function, because dlt copies a resource's steps."""
    numbers = itertools.count(1)

    def has_key(record: dict[str, Any]) -> bool:
        number = next(numbers)
        lacking = [name for name in key if not isinstance(record.get(name), str | int | float)]
        if lacking:
            keyless.append(f"record {number} has no {' and no '.join(lacking)}")
        return not lacking

    return has_key
