"""Views of the table `bookings` for analysts, in SQL that DuckDB and PostgreSQL have.

Bookings that were replaced by others, and those that the vendor no longer has, are left out of all.
"""

from collections.abc import Mapping

_PARTS = {
    "counted": "status <> 'rescheduled' AND gone_at IS NULL",
    "took_place": "status IN ('confirmed', 'completed', 'no_show') AND gone_at IS NULL",
    "days": "CAST(extract(epoch FROM starts_at - created_at) AS double precision) / 86400",
}
# A vendor may not tell that a meeting was held: it stays `confirmed`.
_NO_SHOWS = """
SELECT vendor, account, {who}, count(*) AS meetings,
  sum(CASE WHEN status = 'no_show' THEN 1 ELSE 0 END) AS no_shows,
  CAST(avg(CASE WHEN status = 'no_show' THEN 1.0 ELSE 0.0 END) AS double precision) AS no_show_rate
FROM {{bookings}} WHERE {{took_place}} AND starts_at < now() GROUP BY vendor, account, {who}
"""
_QUERIES = {
    "bookings_per_day": """
SELECT vendor, account, CAST(starts_at AT TIME ZONE 'UTC' AS date) AS day, status, count(*) AS bookings
FROM {bookings} WHERE {counted} GROUP BY 1, 2, 3, 4
""",
    "no_show_rate_by_staff": _NO_SHOWS.format(who="staff_name"),
    "no_show_rate_by_service": _NO_SHOWS.format(who="service_name"),
    "lead_time_by_service": """
SELECT vendor, account, service_name, count(*) AS bookings, avg({days}) AS mean_days,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY {days}) AS median_days
FROM {bookings} WHERE {counted} AND created_at <= starts_at GROUP BY 1, 2, 3
""",
    "revenue_by_service": """
SELECT vendor, account, service_name,
  CAST(date_trunc('month', starts_at AT TIME ZONE 'UTC') AS date) AS month, currency,
  count(*) AS bookings, sum(price) AS revenue
FROM {bookings} WHERE {took_place} AND price > 0 GROUP BY 1, 2, 3, 4, 5
""",
    "cancellations_by_reason": """
SELECT vendor, account, cancelled_by, cancel_reason, count(*) AS bookings
FROM {bookings} WHERE status = 'cancelled' AND gone_at IS NULL GROUP BY 1, 2, 3, 4
""",
}
VIEW_NAMES = tuple(_QUERIES)


def view_queries(bookings: str) -> Mapping[str, str]:
    """Return the query of each view by name, for the qualified name of the table."""
    return {name: query.strip().format(bookings=bookings, **_PARTS) for name, query in _QUERIES.items()}
