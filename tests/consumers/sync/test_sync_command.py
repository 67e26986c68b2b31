"""Tests of `ingest sync` as users and scripts see it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.sync import SyncResult
from ingest.cli.sync import _exit_code
from ingest.errors import IngestError, LoadRefused, VendorRefused, VendorUnavailable, WarehouseUnavailable
from tests.consumers.harness import Command, Tree
from tests.consumers.sync.rig import SyncRig, syncing
from tests.consumers.sync.test_sync import FORBIDDEN


@pytest.fixture
def rig(tree: Tree, tmp_path: Path) -> Iterator[SyncRig]:
    with syncing("oncehub", tree, tmp_path) as rig:
        yield rig


def command(rig: SyncRig, folder: Path, **environ: str) -> Command:
    """Return the command, with the secrets in the environment, as the settings demand."""
    account = dict(rig.tree["accounts"]["sales"])
    key = account.pop("api_key")
    return Command(
        folder, rig.tree | {"accounts": {"sales": account}}, INGEST_ACCOUNTS__SALES__API_KEY=key, **environ
    )


def test_json_is_one_array_of_what_became_of_each_resource(rig: SyncRig, tmp_path: Path) -> None:
    process = command(rig, tmp_path).run("sync", "sales", "users", "teams", "--json")
    assert (process.returncode, process.stderr) == (0, "")
    results = json.loads(process.stdout)
    assert [result.pop("seconds") > 0 for result in results] == [True, True]
    users, teams = len(rig.rows("oncehub__users")), len(rig.rows("oncehub__teams"))
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


def test_a_warning_is_no_part_of_the_json(rig: SyncRig, tmp_path: Path) -> None:
    process = command(rig, tmp_path).run("sync", "sales", "webhook_events", "--json")
    assert [result["rows"] for result in json.loads(process.stdout)] == [0]
    assert "sync.no_such_resource" in process.stderr


def test_a_refusal_is_a_line_a_row_and_exit_code_2(rig: SyncRig, tmp_path: Path) -> None:
    rig.answer("/users", FORBIDDEN)
    process = command(rig, tmp_path).run("sync", "sales", "users", "teams")
    assert process.returncode == 2
    lines = process.stderr.splitlines()
    assert [lines[0], lines[2]] == ["sales users: reading", "sales teams: reading"]
    assert lines[1].startswith("sales users: failed: oncehub account sales: 403")
    assert lines[3].startswith("sales teams: 1 row in ")
    assert {"oncehub__users", "oncehub__teams"} <= set(process.stdout.split())


def test_nothing_is_cut_where_it_is_narrow(rig: SyncRig, tmp_path: Path) -> None:
    rig.answer("/users", FORBIDDEN)
    process = command(rig, tmp_path, COLUMNS="40").run(
        "sync", "sales", "users", "booking_calendar_time_slots"
    )
    assert re.search(
        r"^sales users: oncehub account sales: 403 .*, or the key may not read this$",
        process.stdout,
        re.MULTILINE,
    )
    columns = [
        line.replace(" ", "").split("│") for line in process.stdout.splitlines() if line.startswith("│")
    ]
    assert "oncehub__booking_calendar_time_slots" in "".join(column[3] for column in columns)
    assert "…" not in process.stdout


def test_the_one_resource_that_was_wanted_is_named_though_the_account_cannot_be_asked(
    tree: Tree, tmp_path: Path
) -> None:
    with syncing("calendly", tree, tmp_path) as rig:
        rig.answer("/users/me", FORBIDDEN)
        assert rig.sync("users_me")["users_me"].rows == 0
        assert rig.sync("users_me", "groups").keys() == {None}


def test_an_unknown_account_is_exit_code_2_and_one_line(rig: SyncRig, tmp_path: Path) -> None:
    process = command(rig, tmp_path).run("sync", "sails", "--json")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("error: no account is called sails; the settings have sales")


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
