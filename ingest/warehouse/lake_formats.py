"""The formats of tables that a lake may have. Each needs libraries, which only its own extra installs."""

from ingest.settings import WarehouseSettings
from ingest.warehouse.errors import translated
from ingest.warehouse.lake import Lake


def open_lake(settings: WarehouseSettings) -> Lake:
    """Return the lake of the settings, in its format. Raises ConfigurationError."""
    with translated():
        if settings.table_format == "iceberg":
            from ingest.warehouse.iceberg import IcebergLake

            return IcebergLake(settings)
        from ingest.warehouse.delta import DeltaLake

        return DeltaLake(settings)
