"""Tests of the recipes of docs/tables.md and the joins of docs/vendors in a loaded and synced warehouse."""

import re
from collections.abc import Iterator

import pytest

from consumers.sync import sync
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import sample
from tests.receivers.reconcile.pipeline import Pipeline
from tests.support.processes import ROOT

DOCUMENT = (ROOT / "docs" / "tables.md").read_text()
RECIPES = re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)
PAGES = sorted((ROOT / "docs" / "vendors").glob("*.md"))
BY_REST_ONLY = {("oncehub", "customer_id")}


def joins() -> Iterator[tuple[str, str, str, str]]:
    """Return vendor, column of bookings, table and its column of each join."""
    for page in PAGES:
        for line in page.read_text().partition("## Joins")[2].strip().splitlines()[2:]:
            column, joined = (cell.strip() for cell in line.strip("|").split("|"))
            table, _, key = joined.strip("`").partition(".")
            yield page.stem, column.split()[-1], table, key


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Return a warehouse with the vendors' bookings by webhook, and everything else by REST."""
    pipeline = Pipeline(tmp_path_factory.mktemp("recipes"), [page.stem for page in PAGES])
    with pipeline.open():
        pipeline.deliver(pipeline.simulate(120))
        done = list(sync(pipeline.harness.settings, None, [], lambda *_: None))
        assert [result.problem for result in done if result.problem] == []
        yield pipeline


def test_there_are_five_recipes() -> None:
    assert len(RECIPES) == 5


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_answers_from_a_loaded_warehouse(pipeline: Pipeline, recipe: str) -> None:
    assert pipeline.harness.rows(recipe)


@pytest.mark.postgres
@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if "__" not in recipe])
def test_a_recipe_runs_in_postgresql_too(postgres_harness: ConsumerHarness, recipe: str) -> None:
    postgres_harness.load(
        sample(
            1,
            starting_time="2026-05-09T10:00:00+02:00",
            payment_information={"amount_charged": 1250, "currency": "EUR"},
        ),
    )
    assert len(postgres_harness.rows(recipe)) == 1


@pytest.mark.parametrize(("vendor", "column", "table", "key"), list(joins()))
def test_every_booking_finds_what_it_is_joined_with(
    pipeline: Pipeline, vendor: str, column: str, table: str, key: str
) -> None:
    value = "unnest(staff::text[])" if column == "staff" else column
    ours = f"(select account, {value} as id from bookings where vendor = '{vendor}') as ours"
    (row,) = pipeline.harness.rows(
        f"select count(*) as ids, count(theirs.{key}) as joined from {ours}"
        f" left join (select distinct account, {key} from {table}) as theirs on theirs.{key} = ours.id and"
        " theirs.account = ours.account"
        " where ours.id is not null"
    )
    assert row["ids"] > 0 or (vendor, column) in BY_REST_ONLY
    assert row["joined"] == row["ids"]
