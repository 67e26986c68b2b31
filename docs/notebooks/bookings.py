# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "altair>=6,<7",
#   "dlt[duckdb]>=1.31,<1.32",
#   "duckdb>=2.0,<2.1",
#   "marimo>=0.25,<1",
#   "pandas>=2.2",
#   "sqlglot>=25,<30.22",
# ]
# ///
"""Plots of the bookings in a warehouse, as a marimo notebook."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="Bookings")


@app.cell
def _():
    from pathlib import Path
    from tempfile import mkdtemp

    import altair as alt
    import dlt
    import marimo as mo

    return Path, alt, dlt, mkdtemp, mo


@app.cell
def _(mo):
    mo.md("""
    # Bookings

    Bookings that were replaced by others are left out, and those that the vendor no longer has. Days and
    months are in UTC.
    """)


@app.cell
def _(Path, dlt, mkdtemp, mo):
    _file = Path(mo.cli_args().get("warehouse") or "data/warehouse.duckdb")
    if not _file.exists():
        raise FileNotFoundError(f"there is no warehouse {_file}: name it by --warehouse")
    pipeline = dlt.pipeline(
        "ingest",
        pipelines_dir=mkdtemp(),  # the consumer's own is not touched
        destination=dlt.destinations.duckdb(str(_file)),  # or dlt.destinations.postgres()
        dataset_name=mo.cli_args().get("dataset") or "ingest",
    )
    bookings = pipeline.dataset()("""
        select vendor, account, booking_id, status, starts_at, created_at, service_name, staff_name, price,
          currency, cancelled_by, cancel_reason
        from bookings where status <> 'rescheduled' and gone_at is null
    """).df()
    return (bookings,)


@app.cell
def _(alt, bookings):
    _planned = bookings.dropna(subset="starts_at")
    _days = _planned.assign(day=_planned.starts_at.dt.strftime("%Y-%m-%d"))
    _counts = _days.groupby(["day", "status"]).size().reset_index(name="bookings")
    per_day = (
        alt.Chart(_counts, title="Bookings per day and status")
        .mark_bar()
        .encode(x="day:T", y="bookings:Q", color="status:N", tooltip=["day", "status", "bookings"])
    )
    per_day
    return (per_day,)


@app.cell
def _(alt, bookings, mo):
    from datetime import UTC, datetime

    # A vendor may not tell that a meeting was held: it stays confirmed.
    _held = bookings[
        bookings.status.isin(["confirmed", "completed", "no_show"]) & (bookings.starts_at < datetime.now(UTC))
    ].assign(no_show=lambda rows: rows.status == "no_show")

    def _rates(column, title):
        rates = _held.fillna({column: "not told"}).groupby(column).no_show.agg(["mean", "size"]).reset_index()
        return (
            alt.Chart(rates.rename(columns={"mean": "rate", "size": "meetings"}), title=title)
            .mark_bar()
            .encode(
                x=alt.X("rate:Q").axis(format="%"),
                y=alt.Y(f"{column}:N").sort("-x").title(None),
                tooltip=[column, "meetings", alt.Tooltip("rate:Q", format=".1%")],
            )
        )

    no_shows_by_staff = _rates("staff_name", "No-show rate by staff")
    no_shows_by_service = _rates("service_name", "No-show rate by service")
    mo.vstack([no_shows_by_staff, no_shows_by_service])
    return no_shows_by_service, no_shows_by_staff


@app.cell
def _(alt, bookings):
    _ahead = bookings[bookings.created_at <= bookings.starts_at]
    _days = (_ahead.starts_at - _ahead.created_at).dt.days
    _counts = _days.value_counts().rename_axis("days").reset_index(name="bookings")
    lead_times = (
        alt.Chart(_counts, title="Whole days between booking and meeting")
        .mark_bar()
        .encode(x="days:Q", y="bookings:Q", tooltip=["days", "bookings"])
    )
    lead_times
    return (lead_times,)


@app.cell
def _(alt, bookings):
    _paid = bookings[bookings.status.isin(["confirmed", "completed", "no_show"])].dropna(
        subset=["starts_at", "price"]
    )
    _sums = (
        _paid.fillna({"service_name": "not told", "currency": "not told"})
        .assign(price=_paid.price.astype(float), month=_paid.starts_at.dt.strftime("%Y-%m-01"))
        .groupby(["month", "service_name", "currency"], as_index=False)
        .price.sum()
        .rename(columns={"price": "revenue"})
    )
    revenue = (
        alt.Chart(_sums, title="Revenue by service and month")
        .mark_bar()
        .encode(x="yearmonth(month):T", y="revenue:Q", color="service_name:N", row="currency:N")
    )
    revenue
    return (revenue,)


@app.cell
def _(alt, bookings):
    _reasons = bookings[bookings.status == "cancelled"].fillna(
        {"cancel_reason": "not told", "cancelled_by": "not told"}
    )
    _counts = _reasons.groupby(["cancelled_by", "cancel_reason"]).size().reset_index(name="bookings")
    cancellations = (
        alt.Chart(_counts, title="Cancellations by reason")
        .mark_bar()
        .encode(x="bookings:Q", y=alt.Y("cancel_reason:N").sort("-x").title(None), color="cancelled_by:N")
    )
    cancellations
    return (cancellations,)


if __name__ == "__main__":
    app.run()
