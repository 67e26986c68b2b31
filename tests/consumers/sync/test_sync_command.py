"""Tests of `ingest sync` as users and scripts see it."""

import json
import re
from pathlib import Path

import pytest

from consumers.sync import SyncResult
from ingest.cli.sync import _exit_code
from ingest.errors import IngestError, LoadRefused, VendorRefused, VendorUnavailable, WarehouseUnavailable
from tests.consumers.sync.harness import SyncHarness, syncing
from tests.consumers.sync.test_sync import FORBIDDEN
from tests.support.settings import CommandRunner, Tree


def command(sync_harness: SyncHarness, folder: Path, **environ: str) -> CommandRunner:
    """Return the command, with the secrets in the environment, as the settings demand."""
    account = dict(sync_harness.tree["accounts"]["sales"])
    key = account.pop("api_key")
    return CommandRunner(
        folder,
        sync_harness.tree | {"accounts": {"sales": account}},
        INGEST_ACCOUNTS__SALES__API_KEY=key,
        **environ,
    )


def test_json_is_one_array_of_what_became_of_each_resource(oncehub: SyncHarness, tmp_path: Path) -> None:
    result = command(oncehub, tmp_path).run("sync", "sales", "users", "teams", "--json")
    assert (result.code, result.err) == (0, "")
    results = json.loads(result.out)
    assert [result.pop("seconds") > 0 for result in results] == [True, True]
    users, teams = len(oncehub.rows("oncehub__users")), len(oncehub.rows("oncehub__teams"))
    assert results == [
        {
            "account": "sales",
            "vendor": "oncehub",
            "resource": name,
            "table": f"oncehub__{name}",
            "rows": rows,
            "problem": None,
            "absent": [],
            "keyless": [],
            "refused": [],
        }
        for name, rows in (("users", users), ("teams", teams))
    ]


def test_a_warning_is_no_part_of_the_json(oncehub: SyncHarness, tmp_path: Path) -> None:
    result = command(oncehub, tmp_path).run("sync", "sales", "webhook_events", "--json")
    assert [result["rows"] for result in json.loads(result.out)] == [0]
    assert "sync.no_such_resource" in result.err


def test_a_refusal_is_a_line_a_row_and_exit_code_2(oncehub: SyncHarness, tmp_path: Path) -> None:
    oncehub.answer("/users", FORBIDDEN)
    result = command(oncehub, tmp_path).run("sync", "sales", "users", "teams")
    assert result.code == 2
    lines = result.err.splitlines()
    assert [lines[0], lines[2]] == ["sales users: reading", "sales teams: reading"]
    assert lines[1].startswith("sales users: failed: oncehub account sales: 403")
    assert lines[3].startswith("sales teams: 1 row in ")
    assert {"oncehub__users", "oncehub__teams"} <= set(result.out.split())


def test_nothing_is_cut_where_it_is_narrow(oncehub: SyncHarness, tmp_path: Path) -> None:
    oncehub.answer("/users", FORBIDDEN)
    result = command(oncehub, tmp_path, COLUMNS="40").run(
        "sync", "sales", "users", "booking_calendar_time_slots"
    )
    assert re.search(
        r"^sales users: oncehub account sales: 403 .*, or the key may not read this$",
        result.out,
        re.MULTILINE,
    )
    columns = [line.replace(" ", "").split("│") for line in result.out.splitlines() if line.startswith("│")]
    assert "oncehub__booking_calendar_time_slots" in "".join(column[3] for column in columns)
    assert "…" not in result.out


def test_the_one_resource_that_was_wanted_is_named_though_the_account_cannot_be_asked(
    tree: Tree, tmp_path: Path
) -> None:
    with syncing("calendly", tree, tmp_path) as sync_harness:
        sync_harness.answer("/users/me", FORBIDDEN)
        assert sync_harness.sync("users_me")["users_me"].rows == 0
        assert sync_harness.sync("users_me", "groups").keys() == {None}


def test_an_unknown_account_is_exit_code_2_and_one_line(oncehub: SyncHarness, tmp_path: Path) -> None:
    result = command(oncehub, tmp_path).run("sync", "sails", "--json")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: no account is called sails; the settings have sales")


@pytest.mark.parametrize(
    ("problems", "code"),
    [
        ([None], 0),
        ([None, VendorUnavailable("")], 3),
        ([WarehouseUnavailable("")], 3),
        ([VendorUnavailable(""), VendorRefused("", 403)], 2),
        ([LoadRefused(""), None], 2),
    ],
)
def test_exit_codes_tell_what_waiting_cannot_mend_first(
    problems: list[IngestError | None], code: int
) -> None:
    assert (
        _exit_code(
            [
                SyncResult("sales", "oncehub", "users", "oncehub__users", 0, 0.0, problem)
                for problem in problems
            ]
        )
        == code
    )
