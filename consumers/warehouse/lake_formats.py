"""What writes each format of tables that a lake may have."""

from consumers.warehouse.lake_writer import LakeWriter
from ingest.settings import WarehouseSettings


def lake_writer(settings: WarehouseSettings) -> LakeWriter:
    """Return what writes the tables of the settings' format. Raises ConfigurationError."""
    if settings.table_format == "iceberg":
        from consumers.warehouse.iceberg import IcebergWriter

        return IcebergWriter(settings)
    from consumers.warehouse.delta import DeltaWriter

    return DeltaWriter(settings)
