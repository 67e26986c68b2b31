"""The account's own key marks what is gone; any other key loads nothing and marks nothing."""

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from structlog.testing import capture_logs

from ingest.cli.check.checks import check_rest
from ingest.errors import ConfigurationError, VendorRefused
from ingest.readiness import State
from ingest.settings import Settings
from ingest.simulator import load_simulated_vendor
from ingest.simulator.server import Fault, RestServer
from ingest.simulator.world import World
from ingest.vendors import vendor_names
from receivers.reconcile.report import Report
from tests.receivers.reconcile.pipeline import Pipeline
from tests.support.accounts import simulated_accounts

TELL_THE_OWNER = ("bookeo", "calendly")
ABSENT = {"message": "Not found"}


class TwoAccounts(Pipeline):
    """A pipeline whose vendor has a second account, whose bookings have the same numbers."""

    def __init__(self, folder: Path, vendor: str) -> None:
        super().__init__(folder, [vendor])
        dialect = simulated_accounts("https://another.example.com")[vendor]
        world = World({vendor: dialect.capabilities}, seed=2)
        for minute in range(5):
            world.step(datetime.now(UTC) - timedelta(hours=9, minutes=minute))
        self.vendor = vendor
        self.another = load_simulated_vendor(vendor).api(dialect, world.meetings[vendor])
        self.server = RestServer({**self.rest, "another": self.another})

    def use_key(self, *, of_another: bool) -> None:
        """Set the key, and with it the address: the other account's key opens the other account."""
        tree = self.tree()
        if of_another:
            tree["accounts"][self.vendor] |= {
                **self.another.settings(),
                "api_url": self.server.api_url("another"),
            }
        self.harness.settings = Settings.model_validate(tree)

    def book(self, bookings: int) -> None:
        """Deliver bookings with numbers of which the second account has some too."""
        self.deliver(self.simulate(bookings))

    def run(self) -> Report:
        return self.reconcile()[self.vendor]

    def forget(self) -> None:
        """Let the vendor delete the first booking that is not cancelled."""
        self.world.delete(self.vendor, min(self.world.meetings[self.vendor]))

    def is_as_delivered(self, bookings: int) -> bool:
        (loaded,) = self.harness.column(
            "select count(*) from bookings where gone_at is null and last_via = 'webhook'"
        )
        (all_,) = self.harness.column("select count(*) from bookings")
        return bool(loaded == all_ == bookings)


@pytest.mark.parametrize("vendor", vendor_names())
@pytest.mark.parametrize("proven", [False, True])
def test_another_accounts_key_loads_nothing_and_marks_nothing_as_gone(
    tmp_path: Path, vendor: str, proven: bool
) -> None:
    with TwoAccounts(tmp_path, vendor).open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(1)
        bookings = pipeline.count()
        if proven:
            assert pipeline.run().failure is None
        pipeline.use_key(of_another=True)
        refused = pipeline.run()
        assert isinstance(refused.failure, ConfigurationError)
        assert "none was marked as gone" in str(refused.failure)
        assert pipeline.is_as_delivered(bookings)
        pipeline.use_key(of_another=False)
        assert pipeline.run().failure is None


@pytest.mark.parametrize("vendor", vendor_names())
def test_a_new_key_of_the_same_account_is_taken_and_marks_what_is_gone(tmp_path: Path, vendor: str) -> None:
    with TwoAccounts(tmp_path, vendor).open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(4)
        assert pipeline.run().failure is None
        key_file = tmp_path / "reconcile" / f"{vendor}.reconciled.key"
        key_file.write_text(key_file.read_text().replace('"fingerprint":"', '"fingerprint":"of a key before'))
        pipeline.forget()
        report = pipeline.run()
        assert (report.failure, report.counts.gone) == (None, 1)
        assert pipeline.differences() == []


@pytest.mark.parametrize("vendor", TELL_THE_OWNER)
def test_check_tells_that_the_key_belongs_to_another_account(tmp_path: Path, vendor: str) -> None:
    with TwoAccounts(tmp_path, vendor).open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(2)
        assert pipeline.run().failure is None
        (known,) = pipeline.harness.settings.choose_accounts([vendor])
        assert [finding.state for finding in check_rest(pipeline.harness.settings, known)] == [State.OK]
        key_file = tmp_path / "reconcile" / f"{vendor}.reconciled.key"
        noted = orjson.loads(key_file.read_bytes())
        key_file.write_bytes(orjson.dumps(noted | {"owner": "of-another-account"}))
        with pytest.raises(ConfigurationError, match=f"the key belongs to {re.escape(noted['owner'])}"):
            check_rest(pipeline.harness.settings, known)


def answering(path_part: str, status: int) -> Fault:
    """Answer this wherever the path has these words."""

    def fault(_: str, request: Request) -> Response | None:
        return JSONResponse(ABSENT, status) if path_part in request.url.path else None

    return fault


@pytest.mark.parametrize("vendor", vendor_names())
@pytest.mark.parametrize("status", [401, 404])
def test_a_vendor_that_answers_the_same_to_everything_proves_nothing(
    tmp_path: Path, vendor: str, status: int
) -> None:
    with TwoAccounts(tmp_path, vendor).open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(3)
        bookings = pipeline.count()
        assert pipeline.run().failure is None
        pipeline.server.faults.append(answering("", status))
        assert isinstance(pipeline.run().failure, VendorRefused)
        assert pipeline.is_as_delivered(bookings)


def empty_lists(_: str, request: Request) -> Response | None:
    """Answer as a proxy may: with empty lists, and without any single booking."""
    if request.url.path.endswith(("/bookings", "/scheduled_events")):
        body = {
            "object": "list",
            "data": [],
            "collection": [],
            "has_more": False,
            "pagination": {},
            "info": {"totalPages": 1, "currentPage": 1},
        }
        return JSONResponse(body)
    single = any(part in request.url.path for part in ("/bookings/", "/scheduled_events/"))
    return JSONResponse(ABSENT, 404) if single else None


@pytest.mark.parametrize("vendor", vendor_names())
def test_empty_lists_and_404_for_every_booking_prove_nothing_while_another_booking_is_known(
    tmp_path: Path, vendor: str
) -> None:
    """In the window there are too few for a share of them to say anything; the others are outside of it."""
    with TwoAccounts(tmp_path, vendor).open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(6)
        bookings = pipeline.count()
        assert pipeline.run().failure is None
        pipeline.server.faults.append(empty_lists)
        column = "starts_at" if vendor == "calendly" else "updated_at"
        (newest,) = pipeline.harness.column(f"select max({column}) from bookings")
        report = pipeline.reconcile(
            start=newest - timedelta(seconds=90), until=newest + timedelta(seconds=90)
        )[vendor]
        assert isinstance(report.failure, ConfigurationError)
        assert pipeline.is_as_delivered(bookings)


@pytest.mark.parametrize("vendor", vendor_names())
def test_the_only_booking_is_gone_where_the_vendor_tells_whose_key_it_is(tmp_path: Path, vendor: str) -> None:
    with TwoAccounts(tmp_path, vendor).open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(1)
        if pipeline.count() > 1:
            pytest.skip("the first booking was moved at once")
        assert pipeline.run().failure is None
        pipeline.forget()
        report = pipeline.run()
        assert (report.failure, report.counts.gone) == (None, int(vendor in TELL_THE_OWNER))


def test_a_key_that_sees_less_than_half_of_what_is_known_is_refused(tmp_path: Path) -> None:
    with TwoAccounts(tmp_path, "oncehub").open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(9)
        bookings = pipeline.count()
        for _ in range(6):
            pipeline.forget()  # from this key's view
        refused = pipeline.run()
        assert isinstance(refused.failure, ConfigurationError)
        assert pipeline.is_as_delivered(bookings)


def forget_all(pipeline: TwoAccounts, numbers: Collection[int]) -> None:
    for number in numbers:
        pipeline.world.delete(pipeline.vendor, number)


@pytest.mark.parametrize("vendor", ["appointedd", "oncehub"])
def test_a_new_key_that_finds_none_of_the_newest_bookings_is_proven_by_older_ones(
    tmp_path: Path, vendor: str
) -> None:
    with TwoAccounts(tmp_path, vendor).open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(30)
        older = set(pipeline.world.meetings[vendor])
        pipeline.book(14)
        forget_all(pipeline, set(pipeline.world.meetings[vendor]) - older)
        report = pipeline.run()
        assert report.failure is None
        assert report.counts.gone >= 14
        assert pipeline.differences() == []


@pytest.mark.parametrize("vendor", vendor_names())
def test_a_key_none_of_whose_bookings_are_left_marks_them_once_somebody_confirms_it(
    tmp_path: Path, vendor: str
) -> None:
    with TwoAccounts(tmp_path, vendor).open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(6)
        bookings = pipeline.count()
        forget_all(pipeline, list(pipeline.world.meetings[vendor]))
        refused = pipeline.run()
        assert isinstance(refused.failure, ConfigurationError)
        assert f"ingest reconcile --account {vendor} --confirm-key" in str(refused.failure)
        looked_at = pipeline.reconcile(vendor, confirm_key=True, dry_run=True)[vendor]
        assert (looked_at.failure, looked_at.counts.gone) == (None, bookings)
        assert pipeline.is_as_delivered(bookings)
        assert isinstance(pipeline.run().failure, ConfigurationError)
        confirmed = pipeline.reconcile(vendor, confirm_key=True)[vendor]
        assert (confirmed.failure, confirmed.counts.gone) == (None, bookings)
        assert pipeline.harness.column("select count(*) from bookings where gone_at is null") == [0]
        key_file = (tmp_path / "reconcile" / f"{vendor}.reconciled.key").read_text()
        assert orjson.loads(key_file)["proven"]
        assert not [secret for secret in pipeline.rest[vendor].settings().values() if secret in key_file]
        again = pipeline.run()
        assert (again.failure, again.unproven, again.counts.gone) == (None, None, 0)


def test_nobody_confirms_a_key_of_which_the_vendor_says_that_it_is_anothers(tmp_path: Path) -> None:
    with TwoAccounts(tmp_path, "bookeo").open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(2)
        bookings = pipeline.count()
        assert pipeline.run().failure is None
        pipeline.use_key(of_another=True)
        refused = pipeline.reconcile("bookeo", confirm_key=True)["bookeo"]
        assert isinstance(refused.failure, ConfigurationError)
        assert pipeline.is_as_delivered(bookings)


def test_a_key_that_the_vendor_refuses_is_not_kept_as_confirmed(tmp_path: Path) -> None:
    with TwoAccounts(tmp_path, "oncehub").open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(2)
        pipeline.server.faults.append(answering("", 401))
        assert isinstance(pipeline.reconcile("oncehub", confirm_key=True)["oncehub"].failure, VendorRefused)
        assert not (tmp_path / "reconcile" / "oncehub.reconciled.key").exists()


@pytest.mark.parametrize("vendor", ["appointedd", "oncehub"])
def test_a_booking_that_is_not_marked_because_nothing_proves_the_key_is_told_in_the_report(
    tmp_path: Path, vendor: str
) -> None:
    with TwoAccounts(tmp_path, vendor).open() as pipeline:
        assert isinstance(pipeline, TwoAccounts)
        pipeline.book(1)
        assert pipeline.run().failure is None
        forget_all(pipeline, list(pipeline.world.meetings[vendor]))
        with capture_logs() as lines:
            report = pipeline.run()
        assert report.failure is None
        assert not report.settled
        assert f"ingest reconcile --account {vendor} --confirm-key" in str(report.unproven)
        assert [line["why"] for line in lines if line["event"] == "reconcile.gone_unproven"] == [
            report.unproven
        ]
        pipeline.settle()
        sql = "select outcome, error from reconciliations order by finished_at desc limit 1"
        assert pipeline.harness.rows(sql) == [{"outcome": "complete", "error": report.unproven}]
        confirmed = pipeline.reconcile(vendor, confirm_key=True)[vendor]
        assert (confirmed.failure, confirmed.unproven) == (None, None)
        assert pipeline.harness.column("select count(*) from bookings where gone_at is null") == [0]
