"""Lets every process that finds this on PYTHONPATH call Redshift's `varchar(max)` as PostgreSQL can."""

from dlt.destinations.impl.redshift.factory import RedshiftTypeMapper

RedshiftTypeMapper.sct_to_unbound_dbt["text"] = "varchar_max"
