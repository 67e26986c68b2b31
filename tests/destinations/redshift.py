"""Redshift by PostgreSQL with Redshift's types, and their limit of 65,535 bytes.

It cannot show: COPY and staging in S3, the real SUPER (here it is JSON, so that `data.payload.uri` does not
work as a path), distribution and sort keys, the queue of commits, and that PostgreSQL of today has functions
that Redshift lacks.
"""

from pathlib import Path
from uuid import uuid4

import psycopg2

from tests.consumers.postgres import PostgresServer
from tests.destinations.databases import read_postgres
from tests.destinations.destination import Destination
from tests.support.processes import ROOT

TYPES = """
DO $$ BEGIN
    CREATE DOMAIN super AS jsonb CHECK (octet_length(value::text) <= 16777216);
    CREATE DOMAIN varchar_max AS text CHECK (octet_length(value) <= 65535);
    CREATE FUNCTION json_parse(varchar_max) RETURNS super LANGUAGE sql AS 'SELECT $1::jsonb::super';
EXCEPTION WHEN duplicate_object OR duplicate_function THEN NULL; END $$
"""
# As in Redshift, a backslash in a text escapes what follows.
OPTIONS = "?options=-cstandard_conforming_strings%3Doff"


def redshift_types(server: PostgresServer) -> Destination:
    """Return a dataset of its own at a PostgreSQL with these types."""
    with psycopg2.connect(server.url) as connection, connection.cursor() as cursor:
        cursor.execute(TYPES)
    dataset = f"t{uuid4().hex[:12]}"
    return Destination(
        {"destination": "redshift", "dataset": dataset},
        lambda table: read_postgres(server, f"{dataset}.{table}"),
        {
            "INGEST_WAREHOUSE__CREDENTIALS": server.url + OPTIONS,
            "PYTHONPATH": f"{Path(__file__).parent / 'redshift_types'}:{ROOT}",
        },
        longest_text=65_535,
        longest_json=65_535,
    )
