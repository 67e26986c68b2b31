"""Lets every process that finds this on PYTHONPATH write Redshift's tables as PostgreSQL can.

PostgreSQL knows neither `varchar(max)` nor sort keys.
"""

from dlt.destinations.impl.redshift.factory import RedshiftTypeMapper
from dlt.destinations.impl.redshift.redshift import HINT_TO_REDSHIFT_ATTR

RedshiftTypeMapper.sct_to_unbound_dbt["text"] = "varchar_max"
HINT_TO_REDSHIFT_ATTR.clear()
