"""The process that nobody looks at: compares the vendors with the warehouse, and their subscriptions with the settings, again and again."""

import random
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from ingest.errors import ConfigurationError
from ingest.instant import format_instant
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from receivers.reconcile.losses import Losses
from receivers.reconcile.run import Reconciler, choose_accounts
from receivers.subscriptions.check import HeardFrom, recheck, settled

log = structlog.get_logger()

_LOSS_SECONDS = 5.0


class Watch:
    """What fails is logged, counted, and tried again the next time."""

    def __init__(
        self,
        settings: Settings,
        current: Callable[[], Settings],
        accounts: Sequence[str],
        reconciler: Reconciler,
        heard: HeardFrom,
    ) -> None:
        """`current` tells the accounts of now, with the keys of now; the rest stays as in `settings`. `accounts`: only these, or all."""
        self._started_with = settings
        self._current = current
        self._names = accounts
        self._reconciler = reconciler
        self._heard = heard
        self._losses = Losses(settings)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; the first look at once, the first comparison soon."""
        jitter = self._settings.reconcile.jitter.total_seconds()
        every = self._settings.reconcile.every.total_seconds()
        looks = self._settings.webhooks.every.total_seconds()
        # Irregular, so that the accounts of many installations do not come at once.
        duties: list[tuple[Callable[[], None], Callable[[], float]]] = [
            (self._look, lambda: looks),
            (self._compare, lambda: every + random.uniform(-jitter, jitter) / 2),  # noqa: S311 - as above
            (self._look_for_losses, lambda: _LOSS_SECONDS),
        ]
        now = time.monotonic()
        due = [now, now + random.uniform(0, min(jitter, every)), now]  # noqa: S311 - as above
        while not stop.wait(max(0.0, min(due) - time.monotonic())):
            first = due.index(min(due))
            duty, pause = duties[first]
            duty()
            due[first] = time.monotonic() + pause()

    @property
    def _settings(self) -> Settings:
        """With the accounts of now, and the address that vendors sign for."""
        current = self._current()
        return self._started_with.model_copy(
            update={"accounts": current.accounts, "public_url": current.public_url}
        )

    @property
    def _accounts(self) -> Sequence[AnyAccount]:
        """Those of now that can be compared."""
        try:
            return choose_accounts(self._settings, self._names)
        except ConfigurationError as error:
            log.warning("reconcile.no_account", why=str(error))
            return []

    def _compare(self) -> None:
        for report in self._reconciler.run(self._accounts):
            log.info("reconcile.finished", **report.columns())

    def _look_for_losses(self) -> None:
        """What a vendor says it gave up is looked for at once."""
        for loss in self._losses.due(self._accounts):
            log.info(
                "reconcile.loss_reported",
                source=loss.account.source,
                reported_at=format_instant(loss.reported_at),
            )
            reports = self._reconciler.run([loss.account], loss.since)
            for report in reports:
                log.info("reconcile.finished", **report.columns())
            self._losses.answer(
                loss, next((report.started_at for report in reports if report.failure is None), None)
            )

    def _look(self) -> None:
        """A subscription that was made anew leaves a hole before it."""
        for hole in recheck(self._settings, self._heard):
            for report in self._reconciler.run([hole.account], hole.since):
                log.info("reconcile.finished", **report.columns())
                if report.settled:
                    settled(self._settings, hole)
