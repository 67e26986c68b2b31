"""Two consumers of one dataset: one is frozen in the middle of a load, and goes on after it was replaced."""

import signal
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from consumers.warehouse import Warehouse
from ingest.destinations import Fence
from ingest.event import Event
from tests.consumers.samples import TOPIC, sample
from tests.destinations.destination import Destination
from tests.faults.faulty_ingest import ORDERS
from tests.support.polling import PATIENCE, wait_for
from tests.support.processes import IngestProcess, environment
from tests.support.settings import CommandRunner, Tree, settings_tree

_COMMAND = [sys.executable, "-m", "tests.destinations.programs.impatient_ingest", "consume"]
_BOOKING = "frozen"
_FIRST, _SECOND, _THIRD = (sample(number, _BOOKING, at=number) for number in (901, 902, 903))


class _Consumer:
    """A consumer with a log of its own, which stands for the partition that both believe to own."""

    def __init__(self, name: str, folder: Path, destination: Destination) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        tree: Tree = settings_tree(self._folder, instance=name)
        tree["warehouse"] = {**destination.warehouse, "work_dir": f"{self._folder}/dlt"}
        self.command = CommandRunner(self._folder, tree)
        self._orders = self._folder / "orders"
        self._environ = environment(**{**destination.environ, ORDERS: str(self._orders)})

    def start(self) -> IngestProcess:
        """Start the process."""
        return IngestProcess(self._folder, "consume", _COMMAND, self._environ)

    def append(self, *events: Event) -> None:
        """Append events to its log."""
        with closing(self.command.settings.build_log().producer()) as producer:
            producer.append(TOPIC, [event.to_record() for event in events]).result(PATIENCE)

    def freeze_before_load(self) -> None:
        """Have the process stop itself when it has compared its next batch, and not written it."""
        self._orders.write_text(f"{signal.SIGSTOP.name} before {Warehouse.load.__name__}", encoding="utf-8")

    def wait_until_frozen(self, process: IngestProcess) -> None:
        """Wait until the process has obeyed."""

        def is_frozen() -> bool:
            assert process.running, process.written()[-3000:]
            return not self._orders.exists()

        wait_for(is_frozen, "the consumer is frozen")

    def wait_until_loaded(self, process: IngestProcess) -> None:
        """Wait until everything in its log is loaded."""

        def is_loaded() -> bool:
            assert process.running, process.written()[-3000:]
            return self.command.lag() == 0

        wait_for(is_loaded, f"everything is loaded: {process.written()[-1000:]}")


def check_two_consumers(folder: Path, destination: Destination) -> None:
    """Check that nothing is lost, doubled, or older over newer when a consumer goes on that was replaced."""
    replaced, successor = (_Consumer(name, folder, destination) for name in ("replaced", "successor"))
    replaced.append(_FIRST)
    with replaced.start() as frozen, successor.start() as running:
        replaced.wait_until_loaded(frozen)
        replaced.freeze_before_load()
        replaced.append(_SECOND)
        replaced.wait_until_frozen(frozen)
        successor.append(_SECOND, _THIRD)
        if successor.command.settings.warehouse.kind.fence in {Fence.LEASE, Fence.COMMIT}:
            successor.wait_until_loaded(running)
        else:
            running.wait_for_event("loader.waiting")  # for the lock that the other one holds
        frozen.send_signal(signal.SIGCONT)
        for consumer, process in ((replaced, frozen), (successor, running)):
            consumer.wait_until_loaded(process)
            assert process.stop() in {0, 3}, process.written()[-3000:]
    events = [row["id"] for row in destination.read("booking_events") if row["subject"] == _BOOKING]
    assert Counter(events) == Counter([_FIRST.id, _SECOND.id, _THIRD.id])
    bookings = [row for row in destination.read("bookings") if row["booking_id"] == _BOOKING]
    assert [row["last_event_id"] for row in bookings] == [_THIRD.id]
