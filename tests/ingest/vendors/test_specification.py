"""Tests of the simulated vendors and of our mappings against the vendors' published specifications."""

import copy
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest
import requests
from dlt.sources.rest_api import rest_api_resources
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingest.errors import VendorRefused, VendorUnavailable
from ingest.simulator import load_simulated_vendor
from ingest.simulator.api import SimulatedApi
from ingest.simulator.server import RestServer
from ingest.simulator.world import Change
from ingest.vendors.rest import AnyRest
from tests.ingest.vendors.specification import (
    Specification,
    load_specification,
    shapes,
    specified_vendors,
    unspecified,
)
from tests.support.accounts import ACCOUNTS, SIMULATED, advance, delivery_of, new_world
from tests.support.simulated_vendor import Side, listed, read

STEPS = 800
# How many objects of each kind are asked for one by one.
FEW = 12
ALIKE = 3
# The fields in which vendors' objects have their ids.
IDS = ("id", "bookingNumber", "uri")

every_specified_vendor = pytest.mark.parametrize("vendor", specified_vendors())


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request of this name (`GET /bookings/{id}`)."""

    name: str
    status: int
    body: Any


@dataclass
class Recorder:
    """An ASGI application that keeps what another application answers."""

    app: ASGIApp
    dialect: SimulatedApi
    answers: list[Answer] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, body = 0, b""

        async def note(message: Message) -> None:
            nonlocal status, body
            status = message.get("status", status)
            body += message.get("body", b"")
            await send(message)

        path = scope["path"].removeprefix(f"/sales{self.dialect.base_path}")
        await self.app(scope, receive, note)
        name = next((route.path for route in self.dialect.routes() if route.path_regex.match(path)), path)
        self.answers.append(Answer(f"{scope['method']} {name}", status, json.loads(body) if body else None))


@pytest.fixture(scope="module")
def changes() -> list[Change]:
    """Return the changes of some days of all vendors, in which everything happens that they tell of."""
    return advance(new_world(11), [timedelta(minutes=5, microseconds=317_011)] * STEPS)


@pytest.fixture(scope="module")
def webhooks(changes: list[Change]) -> Mapping[str, list[tuple[str, Any]]]:
    """Return what is sent, by vendor: its type, in the vendor's word, and its body."""
    webhooks_by_vendor: dict[str, list[tuple[str, Any]]] = {}
    for change in changes:
        account = ACCOUNTS[change.account]
        delivery = delivery_of(change, change.meeting.changed_at)
        kind = account.parse(account.verify(delivery, delivery.received_at)).type.removeprefix(
            f"{account.vendor}."
        )
        webhooks_by_vendor.setdefault(account.vendor, []).append((kind, json.loads(delivery.body)))
    return webhooks_by_vendor


@pytest.fixture(scope="module")
def answers(changes: list[Change], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Answer]]:
    """Return the answers of each vendor.

    The requests are all that this project makes, requests for single objects, and wrong ones.
    """
    meetings: dict[str, dict[int, Any]] = {}
    for change in changes:
        meetings.setdefault(change.account, {})[change.meeting.number] = change.meeting
    return {
        vendor: record_answers(vendor, meetings[vendor], tmp_path_factory.mktemp(vendor))
        for vendor in specified_vendors()
    }


def record_answers(vendor: str, meetings: dict[int, Any], tokens: Path) -> list[Answer]:
    dialect = load_simulated_vendor(vendor).api(SIMULATED[vendor], meetings)
    server = RestServer({"sales": dialect})
    recorder = Recorder(server.app, dialect)
    server.app = recorder  # type: ignore[assignment]
    with server.serving():
        side = Side(dialect, server, tokens)
        use_all(side.open(), [f"HOLD{number}" for number in list(meetings)[:FEW]])
        ask_for_singles(side, recorder)
        ask_wrongly(side)
    return recorder.answers


def use_all(rest: AnyRest, unlisted: list[str]) -> None:
    """Ask for everything that `reconcile`, `sync` and `webhooks` ask for.

    `unlisted` are the ids of objects that have no list.
    """
    rest.requested_ids = unlisted
    rest.ping()
    for entry in listed(rest)[:FEW]:
        rest.fetch(read(rest, rest.complete(entry)[0])["booking_id"])
    source = dlt.source(lambda: rest_api_resources(rest.config()), name="vendor")()
    for name in source.resources:
        for _ in zip(range(FEW), source.with_resources(name), strict=False):
            pass
    if subscriptions_class := rest.account.subscriptions_class:
        subscriptions = subscriptions_class(rest, 10.0)
        created = [subscriptions.create(spec, "a-key-of-ours" * 3) for spec in subscriptions.needed()]
        assert subscriptions.registered()
        for subscription in filter(None, created):
            subscriptions.delete(subscription.id)


def ask_for_singles(side: Side, recorder: Recorder) -> None:
    """Ask for some objects of each list that was answered, wherever the vendor has a path for them."""
    for path in paths(side.dialect):
        parent, _, last = path.rpartition("/")
        if last.startswith("{") and "{" not in parent:
            for name in list(
                ids(answer.body for answer in recorder.answers if answer.name == f"GET {parent}")
            )[:FEW]:
                ask(side, f"{parent}/{name}")


def ask_wrongly(side: Side) -> None:
    """Ask without a key, and for objects that are not there."""
    for path in paths(side.dialect):
        missing = path.replace("{", "no-such-").replace("}", "")
        ask(side, missing)
        requests.get(address(side, missing), timeout=10)


def ask(side: Side, path: str) -> None:
    with suppress(VendorRefused, VendorUnavailable):
        side.open().client.session.get(address(side, path))


def address(side: Side, path: str) -> str:
    return f"http://127.0.0.1:{side.server.port}/sales{side.dialect.base_path}{path}"


def paths(dialect: SimulatedApi) -> list[str]:
    """Return the paths that can be read."""
    return [route.path for route in dialect.routes() if "GET" in (route.methods or ())]


def ids(bodies: Iterable[Any]) -> Iterator[str]:
    for body in bodies:
        for part in body.values() if isinstance(body, dict) else ():
            for entry in part if isinstance(part, list) else ():
                yield from (
                    str(entry[name]).rpartition("/")[2]
                    for name in IDS
                    if isinstance(entry, dict) and name in entry
                )


def typed(body: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Return the path of each field with the type of its value.

    Entries of a list are not told apart.
    """
    for path in fields(body):
        value = body
        for step in path:
            value = value[step]
        yield tuple(step for step in path if isinstance(step, str)), type(value).__name__


def renamed(body: Any, path: tuple[str | int, ...]) -> Any:
    """Return a copy in which the field at this path has another name."""
    changed = copy.deepcopy(body)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[f"{path[-1]}_by_another_name"] = holder.pop(path[-1])
    return changed


def fields(body: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Return the paths of all fields, nested ones too."""
    if isinstance(body, dict):
        for name, value in body.items():
            yield (*path, name)
            yield from fields(value, (*path, name))
    elif isinstance(body, list):
        for index, value in enumerate(body):
            yield from fields(value, (*path, index))


@every_specified_vendor
def test_every_webhook_is_as_specified(vendor: str, webhooks: Mapping[str, list[tuple[str, Any]]]) -> None:
    """Only the first few webhooks of each form are validated, since validation is slow.

    Webhooks have one form when they have the same fields with values of the same types.
    """
    specification = load_specification(vendor)
    counts = Counter[Any]()
    faults: set[str] = set()
    for kind, body in webhooks[vendor]:
        form = kind, frozenset(typed(body))
        counts[form] += 1
        if counts[form] <= ALIKE:
            faults.update(specification.faults(f"webhook {kind}", body))
    assert not faults, "\n".join(sorted(faults)[:20])


@every_specified_vendor
def test_every_answer_is_as_specified(vendor: str, answers: Mapping[str, list[Answer]]) -> None:
    specification = load_specification(vendor)
    faults = {fault for answer in answers[vendor] for fault in faults_of(specification, answer)}
    assert not faults, "\n".join(sorted(faults)[:20])


def faults_of(specification: Specification, answer: Answer) -> list[str]:
    """Return where the answer is not as specified.

    An error has the schema `error`, unless the file has one for that request alone (`error POST
    /oauth/token`).
    """
    if answer.body is None or answer.name in specification.left_out:
        return []
    error_name = f"error {answer.name}"
    name = (
        answer.name if answer.status < 400 else error_name if error_name in specification.names else "error"
    )
    if name not in specification.names:
        return [f"{name}: neither a schema nor left out"]
    return specification.faults(name, answer.body)


@every_specified_vendor
def test_every_schema_has_something_to_say(
    vendor: str, webhooks: Mapping[str, list[tuple[str, Any]]], answers: Mapping[str, list[Answer]]
) -> None:
    names = {f"webhook {kind}" for kind, _ in webhooks[vendor]} | {
        answer.name for answer in answers[vendor] if answer.body is not None
    }
    specification = load_specification(vendor)
    assert {name for name in specification.names if not name.startswith("error")} <= names | set(
        specification.not_simulated
    )


@every_specified_vendor
def test_a_field_of_another_name_is_noticed(
    vendor: str, webhooks: Mapping[str, list[tuple[str, Any]]]
) -> None:
    specification, locations = load_specification(vendor), set()
    for kind, body in webhooks[vendor]:
        for path in fields(body):
            location = (kind, *(step for step in path if isinstance(step, str)))
            if location not in locations:
                locations.add(location)
                assert specification.faults(f"webhook {kind}", renamed(body, path)), (
                    f"{kind}: {path} may have any name"
                )
    assert len(locations) > len(specification.names)


@every_specified_vendor
def test_every_field_that_a_mapping_reads_is_in_the_specification(vendor: str) -> None:
    specification, reached, missing = load_specification(vendor), set(), set()
    for name, schemas in specification.reads.items():
        shape_missing, shape_reached = unspecified(
            specification, shapes(vendor)[name], [specification.schema(schema) for schema in schemas]
        )
        missing |= set(shape_missing)
        reached |= shape_reached
    assert missing == set()
    names = {base.__name__ for shape in reached for base in shape.__mro__}  # with those whose fields it has
    assert set(shapes(vendor)) <= names, "shapes that `reads` does not lead to"
