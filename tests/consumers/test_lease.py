"""Tests of the lease of destinations with transactions and without locks, for which PostgreSQL stands in."""

import re
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dlt.destinations.impl.postgres.factory import postgres
from dlt.destinations.sql_client import SqlClientBase
from hypothesis import given
from hypothesis import strategies as st

from consumers.warehouse import Warehouse
from consumers.warehouse.lease import Lease
from ingest.destinations import DESTINATIONS, POSTGRES, Fence, Transactions
from ingest.errors import ConfigurationError, WarehouseUnavailable
from ingest.settings import Settings
from ingest.warehouse.query import query
from tests.consumers.harness import open_consumer
from tests.consumers.samples import TOPIC, sample
from tests.support.polling import PATIENCE, wait_for
from tests.support.processes import IngestProcess, environment
from tests.support.settings import CommandRunner, Tree, with_section

_CONSUME = """
from dataclasses import replace
from ingest.cli import main
from ingest.destinations import DESTINATIONS, POSTGRES, Fence
DESTINATIONS["postgres"] = replace(POSTGRES, fence=Fence.LEASE)
main()
"""


@pytest.fixture
def leased_tree(postgres_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Return settings of a PostgreSQL whose locks are not used."""
    monkeypatch.setitem(DESTINATIONS, "postgres", replace(POSTGRES, fence=Fence.LEASE))
    return postgres_tree


def second_consumer(tree: Tree, folder: Path) -> Tree:
    """Return settings of another consumer, which has a log of its own, and loads into the same dataset."""
    return with_section(tree, "consumer", instance="other") | {"log": f"sqlite:///{folder}/other.db"}


@pytest.mark.postgres
def test_two_consumers_take_turns(leased_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.warehouse._TURN_SECONDS", 0.0)
    with (
        open_consumer(leased_tree) as first,
        open_consumer(second_consumer(leased_tree, tmp_path)) as second,
    ):
        first.load(sample(1))
        second.load(sample(2, "B2"))
        second.append(sample(3, "B2", at=3))
        with first.warehouse.turn(), pytest.raises(WarehouseUnavailable, match=r"ingest/\w+ is loading"):
            second.loader.step()
        second.loader._start_over()
        second.load()
        first.load(sample(4, at=4))
        assert sorted(first.column("select last_event_id from bookings")) == ["E3", "E4"]
        assert first.column("select count(*) from booking_events") == [4]


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("transactions", "ddl_transactions"),
    [(Transactions.SESSION, True), (Transactions.SESSION, False), (Transactions.STATEMENT, True)],
    ids=["transactions for DDL too", "transactions, not for DDL", "statements"],
)
def test_a_consumer_that_was_frozen_in_its_load_writes_nothing_once_another_took_over(
    leased_tree: Tree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    transactions: Transactions,
    *,
    ddl_transactions: bool,
) -> None:
    leased = replace(POSTGRES, fence=Fence.LEASE, transactions=transactions)
    monkeypatch.setitem(DESTINATIONS, "postgres", leased)
    capabilities = postgres._raw_capabilities

    def changed_capabilities(destination: postgres) -> Any:
        changed = capabilities(destination)
        changed.supports_ddl_transactions = ddl_transactions
        return changed

    monkeypatch.setattr(postgres, "_raw_capabilities", changed_capabilities)
    with (
        open_consumer(leased_tree) as frozen,
        open_consumer(second_consumer(leased_tree, tmp_path)) as other,
    ):
        frozen.load(sample(1))
        load = Warehouse.load

        def load_late(warehouse: Warehouse, rows: Any) -> str:
            with monkeypatch.context() as meanwhile:
                meanwhile.setattr(Warehouse, "load", load)
                meanwhile.setattr("consumers.warehouse.lease._ABANDONED_SECONDS", 0.0)
                other.load(sample(3, at=3))
            return load(warehouse, rows)

        frozen.append(sample(2, at=2))
        with monkeypatch.context() as freezing:
            freezing.setattr(Warehouse, "load", load_late)
            with pytest.raises(WarehouseUnavailable, match="another consumer has taken over"):
                frozen.loader.step()
        assert frozen.column("select last_event_id from bookings") == ["E3"]
        assert sorted(frozen.column("select id from booking_events")) == ["E1", "E3"]
        frozen.loader._start_over()
        frozen.load()
        assert frozen.column("select last_event_id from bookings") == ["E3"]
        assert sorted(frozen.column("select id from booking_events")) == ["E1", "E2", "E3"]


@pytest.mark.postgres
def test_two_consumers_lose_and_double_nothing_when_one_is_killed_again_and_again(
    leased_tree: Tree, tmp_path: Path
) -> None:
    """Each event of a booking is in another log than the one before."""
    consumers = []
    for name, tree in {"first": leased_tree, "second": second_consumer(leased_tree, tmp_path)}.items():
        (tmp_path / name).mkdir()
        without = with_section(tree, "warehouse")
        url = without["warehouse"].pop("credentials")
        environ = environment(INGEST_WAREHOUSE__CREDENTIALS=url)
        consumers.append(CommandRunner(tmp_path / name, without))

    def start(consumer: CommandRunner) -> IngestProcess:
        command = [sys.executable, "-c", _CONSUME, "consume"]
        return stack.enter_context(IngestProcess(consumer.folder, "consume", command, environ))

    with ExitStack() as stack:
        producers = [
            stack.enter_context(closing(consumer.settings.build_log().producer())) for consumer in consumers
        ]
        first, _ = map(start, consumers)
        for number in range(60):
            event = sample(number, f"B{number % 3}", at=number)
            producers[number % 2].append(TOPIC, [event.to_record()]).result(PATIENCE)
            if number % 20 == 19:
                wait_for(lambda: consumers[0].lag() < 10, "something is loaded")
                first.kill()
                first = start(consumers[0])
        wait_for(lambda: not any(consumer.lag() for consumer in consumers), "everything is loaded")
    settings = Settings.model_validate(leased_tree)
    newest = query(settings, "select booking_id, last_event_id from bookings order by booking_id").rows
    assert newest == [("B0", "E57"), ("B1", "E58"), ("B2", "E59")]
    assert query(settings, "select count(*), count(distinct id) from booking_events").rows == [(60, 60)]


class Database:
    """A database in memory, with as much of dlt's client as the lease uses."""

    capabilities = SimpleNamespace(sqlglot_dialect="sqlite")

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)

    def open_connection(self) -> None:
        """Do nothing: it is open."""

    close_connection = open_connection

    def has_dataset(self) -> bool:
        return True

    def make_qualified_table_name(self, name: str) -> str:
        return name

    def execute_many(self, statements: Sequence[str]) -> None:
        """Raise WarehouseUnavailable unless the condition of a script, or of a merge's rows, is true.

        What is written is not looked at.
        """
        [condition] = re.findall(r"IF (.+) THEN |SELECT \* FROM rows WHERE (.+)\) s ", "\n".join(statements))
        if not self.execute_sql(f"SELECT {''.join(condition)}")[0][0]:
            raise WarehouseUnavailable(str(condition))

    def execute_sql(self, sql: str) -> Sequence[Any]:
        return self._connection.execute(sql).fetchall()

    @contextmanager
    def begin_transaction(self) -> Iterator[None]:
        yield


class Member:
    """A consumer of a database, which may be killed and started again."""

    def __init__(self, name: str, database: Database, folder: Path) -> None:
        self._name, self._database, self._note = name, database, folder / name
        self.restart()

    @property
    def client(self) -> SqlClientBase[Any]:
        return cast("SqlClientBase[Any]", self._database)

    def restart(self) -> None:
        """Forget everything, and give nothing back."""
        self.lease, self._turn = Lease(self._name, self._note), ExitStack()

    def take(self) -> bool:
        """Begin a turn, and return whether that was possible at once."""
        self._turn = ExitStack()
        try:
            self._turn.enter_context(self.lease.held(self.client, 0.0))
        except WarehouseUnavailable:
            return False
        return True

    def give_back(self) -> bool:
        """End the turn, and return whether the lease was held until then."""
        try:
            self._turn.close()
        except WarehouseUnavailable:
            return False
        return True

    def may_write(self, transactions: Transactions) -> bool:
        """Return whether a change of rows takes effect now."""
        destination = SimpleNamespace(client=lambda: SimpleNamespace(sql_client=copy(self._database)))
        self.lease.guard(destination, transactions)
        client = destination.client().sql_client
        try:
            if transactions is Transactions.SESSION:
                with client.begin_transaction():
                    return True
            client.execute_many(["MERGE INTO bookings d USING rows s ON d.id = s.id"])
        except WarehouseUnavailable:
            return False
        return True


STEPS = st.tuples(
    st.integers(0, 2), st.sampled_from(["take", "write", "give back", "restart"]), st.floats(0, 400)
)


@given(st.lists(STEPS, max_size=40), st.sampled_from(Transactions))
def test_only_who_took_the_lease_last_writes_whenever_others_believe_that_it_was_abandoned(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, float]], transactions: Transactions
) -> None:
    folder, database, now = tmp_path_factory.mktemp("lease"), Database(), 0.0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("consumers.warehouse.lease.time.monotonic", lambda: now)
        members = [Member(f"m{number}", database, folder) for number in range(3)]
        holder: Member | None = None
        in_turn: set[Member] = set()
        for number, action, seconds in steps:
            member, now = members[number], now + seconds
            if action == "take" and member not in in_turn:
                if member.take():
                    holder = member
                    in_turn.add(member)
                else:
                    assert holder not in {None, member}
            elif action == "write" and member in in_turn:
                assert member.may_write(transactions) == (member is holder)
            elif action == "give back" and member in in_turn:
                assert member.give_back() == (member is holder)
                in_turn.discard(member)
                holder = None if member is holder else holder
            elif action == "restart":
                member.restart()
                in_turn.discard(member)


@pytest.mark.postgres
def test_a_second_consumer_is_refused_where_nothing_keeps_it_apart(
    leased_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DESTINATIONS, "postgres", replace(POSTGRES, fence=Fence.NONE))
    monkeypatch.setattr("consumers.warehouse._TURN_SECONDS", 0.0)
    with open_consumer(second_consumer(leased_tree, tmp_path)) as second:
        with open_consumer(leased_tree) as first:
            first.load(sample(1))
            second.append(sample(2, "B2"))
            with pytest.raises(WarehouseUnavailable, match="if it was killed"):
                second.loader.step()
            first.warehouse.maintain()  # nothing is due
            with pytest.raises(WarehouseUnavailable, match="if it was killed"):
                second.loader.step()
            monkeypatch.setattr("consumers.warehouse.lease._RENEWAL_SECONDS", 0.0)
            first.warehouse.maintain()
            with pytest.raises(ConfigurationError, match="is running"):
                second.loader.step()
            first.load(sample(3, at=3))
        second.loader._start_over()
        second.load()
        assert sorted(second.column("select last_event_id from bookings")) == ["E2", "E3"]


@pytest.mark.postgres
def test_a_consumer_that_kept_the_lease_and_was_frozen_for_long_starts_over(
    leased_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DESTINATIONS, "postgres", replace(POSTGRES, fence=Fence.NONE))
    monkeypatch.setattr("consumers.warehouse._TURN_SECONDS", 0.0)
    with open_consumer(leased_tree) as frozen:
        frozen.load(sample(1))
        with (
            monkeypatch.context() as abandoned,
            open_consumer(second_consumer(leased_tree, tmp_path)) as other,
        ):
            abandoned.setattr("consumers.warehouse.lease._ABANDONED_SECONDS", -1.0)
            other.load(sample(2, at=2))
        frozen.append(sample(3, at=3))
        with pytest.raises(WarehouseUnavailable, match="another consumer has taken over"):
            frozen.loader.step()
        frozen.loader._start_over()
        frozen.load()
        assert frozen.column("select last_event_id from bookings") == ["E3"]
