"""Tests of choosing and showing letters."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from ingest.dead_letter import DeadLetter
from ingest.log import Record
from ingest.times import format_instant
from tests.consumers.dead_letters.product import Product
from tests.consumers.samples import moment
from tests.support.polling import PATIENCE
from tests.support.processes import COMMAND, environment, ingest, refused

DEAD = "bookings.dead-letters"


def letter(
    number: int, source: str = "/calendly/sales", reason: str = "unreadable_payload", **parts: object
) -> DeadLetter:
    """Return the letter with this number, set aside an hour after the one before."""
    fields = {
        "detail": f"detail {number}",
        "happened_at": moment(3600 * number),
        "data": f"body {number}".encode(),
        "headers": {},
    }
    return DeadLetter(source=source, reason=reason, **{**fields, **parts})  # type: ignore[arg-type] # parts by name


SEVERAL = [
    letter(0),
    letter(1, "/oncehub/support", "load_refused", position="bookings.oncehub/0/7"),
    letter(2),
    letter(3, "/bookeo/closed"),
]


def load(product: Product, *letters: DeadLetter) -> None:
    product.harness.append_records(DEAD, *(letter.to_record() for letter in letters))
    product.harness.load()


@pytest.fixture(scope="module")
def product_with_letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Return a product with several letters, for tests that change nothing."""
    with closing(Product(tmp_path_factory.mktemp("several"), pytest.MonkeyPatch())) as product:
        load(product, *SEVERAL)
        yield product


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ([], [3, 2, 1, 0]),
        (["--account", "sales"], [2, 0]),
        (["--account", "closed", "--account", "support"], [3, 1]),
        (["--account", "tours"], []),
        (["--reason", "load_refused"], [1]),
        (["--reason", "unreadable_payload", "--account", "support"], []),
        (["--since", format_instant(moment(3600)), "--until", format_instant(moment(2 * 3600))], [1]),
        (["--since", "2026-05-02"], []),
        (["--limit", "2"], [3, 2]),
        (["--open"], [3, 2, 1, 0]),
    ],
)
def test_letters_are_chosen_and_the_newest_is_first(
    product_with_letters: Product, options: list[str], numbers: list[int]
) -> None:
    assert [entry["id"] for entry in product_with_letters.listed(*options)] == [
        SEVERAL[number].id for number in numbers
    ]


def test_people_see_how_many_there_are_of_each_kind_and_how_many_are_not_shown(
    product_with_letters: Product,
) -> None:
    result = product_with_letters.run("list", "--limit", "3")
    assert (
        "4 dead letters, 4 open: bookeo/closed unreadable_payload 1 (1 open), calendly/sales"
        " unreadable_payload 2 (2 open)" in result.out
    )
    assert SEVERAL[3].id[:12] in result.out
    assert SEVERAL[0].id[:12] not in result.out
    assert result.err == "1 older ones are not shown: --limit 4 shows all\n"


@pytest.mark.parametrize(
    "which",
    [["list", "--account", "tours"], ["list", "--since", "2026-05-02"], ["redrive", "--account", "tours"]],
)
def test_where_none_is_meant_it_is_said_that_there_are_others(
    product_with_letters: Product, which: list[str]
) -> None:
    result = product_with_letters.run(*which)
    assert (result.code, result.out) == (
        0,
        "no dead letter matches these options; without them there are 4\n",
    )


@pytest.mark.parametrize(("options", "dry"), [([], False), (["--dry-run"], True)])
def test_a_script_is_told_whether_it_was_only_looked(
    product_with_letters: Product, options: list[str], dry: bool
) -> None:
    outcomes = product_with_letters.run("redrive", SEVERAL[0].id, "--json", *options).json
    assert [(outcome["outcome"], outcome["dry_run"]) for outcome in outcomes] == [("still_bad", dry)]


def test_where_nothing_was_loaded_yet_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").touch()
    assert ingest(tmp_path, "dead-letters", "list").out == "no dead letters\n"
    assert ingest(tmp_path, "dead-letters", "list", "--json").json == []
    assert ingest(tmp_path, "dead-letters", "redrive", "--all").out == "no dead letters\n"
    assert "no dead letter has an id" in refused(ingest(tmp_path, "dead-letters", "show", "3f9a"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["list", "--account", "salse"],
            "no account is called 'salse'; there are clinic, closed, sales, support, tours",
        ),
        (
            ["list", "--reason", "boredom"],
            "no reason is called 'boredom'; there are load_refused, log_refused, mapping_crashed",
        ),
        (["list", "--since", "yesterday"], "--since yesterday: write a date"),
        (["list", "--since", "2026-05-02", "--until", "2026-05-01"], "--since must be before --until"),
        (["show", "", "--raw"], "4 dead letters have an id that begins with ''"),
        (["show", "nothing"], "no dead letter has an id that begins with 'nothing'"),
        (["show", SEVERAL[0].id, "--raw", "--json"], "Use either --raw or --json"),
        (["redrive"], "Choose the dead letters"),
        (["redrive", "--dry-run"], "Choose the dead letters"),
        (["redrive", "--all", "--account", "sales"], "Use only one way to choose"),
        (["redrive", SEVERAL[0].id, "--all"], "Use only one way to choose"),
        (["redrive", SEVERAL[0].id, "nothing"], "no dead letter has an id that begins with 'nothing'"),
        (["redrive", "--account", "salse"], "no account is called 'salse'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_appended(
    product_with_letters: Product, arguments: list[str], expected: str
) -> None:
    assert expected in refused(product_with_letters.run(*arguments))
    assert sum(
        product_with_letters.harness.written(topic)
        for topic in product_with_letters.harness.settings.topics()
    ) == len(SEVERAL)


def test_a_beginning_of_an_id_that_no_other_has_is_enough(product_with_letters: Product) -> None:
    shown_letter = product_with_letters.run("show", SEVERAL[1].id[:8], "--json").json
    assert (shown_letter["id"], shown_letter["data"], shown_letter["position"]) == (
        SEVERAL[1].id,
        "body 1",
        "bookings.oncehub/0/7",
    )
    assert product_with_letters.redriven(SEVERAL[1].id[:8], SEVERAL[1].id, code=1) == {
        SEVERAL[1].id: "still_bad"
    }


def test_all_that_is_known_of_a_letter_is_shown(product: Product) -> None:
    dead_letter = letter(
        1, query="a=b", headers={"x-sent-by": "them"}, data=b'{"b":[1,"\xe2\x98\x83"]}', signed_by="2"
    )
    load(product, dead_letter)
    out = product.run("show", dead_letter.id).out
    for line in (
        f"id         {dead_letter.id}",
        "from       calendly/sales",
        "reason     unreadable_payload: detail 1",
        "signed by  secret 2",
    ):
        assert line in out
    assert "query      a=b\n" in out
    assert "header     x-sent-by: them\n" in out
    assert "now        it still cannot be read: unreadable_payload: " in out
    assert out.endswith('{\n  "b": [\n    1,\n    "☃"\n  ]\n}\n')


@pytest.mark.parametrize("body", [b"\xff\x00\r\n", b"", b"[1]\n"], ids=repr)
def test_the_very_bytes_go_to_standard_output(product: Product, body: bytes) -> None:
    dead_letter = letter(1, data=body)
    load(product, dead_letter)
    done = subprocess.run(
        [*COMMAND, "dead-letters", "show", dead_letter.id, "--raw"],
        cwd=product.folder,
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == body


def test_what_would_drive_a_terminal_is_written_out(product: Product) -> None:
    dead_letter = letter(
        1, data=b'{"name": "\\u001b[2J"}', detail="\x1b]0;title\x07 [bold]", headers={"x-odd": "\x9b2J"}
    )
    load(product, dead_letter)
    out = (
        product.run("show", dead_letter.id).out
        + product.run("list").out
        + product.run("redrive", "--all").out
    )
    assert not {"\x1b", "\x07", "\x9b"} & set(out)
    assert "\\x1b]0;title\\x07 [bold]" in out


def test_what_somebody_else_wrote_to_the_topic_is_listed_and_never_redriven(product: Product) -> None:
    product.harness.append_records(
        DEAD, Record("key", b"anything", {"dl_headers": "[1]", "dl_reason": "theirs"})
    )
    product.harness.load()
    (entry,) = product.listed("--reason", "theirs")
    assert (entry["id"], entry["vendor"]) == (f"{DEAD}/0/0", "")
    assert list(product.redriven("--all", code=1).values()) == ["unknown_account"]


def test_more_letters_than_are_read_at_once_are_all_found(product: Product) -> None:
    load(product, *(letter(0, happened_at=moment(number), data=b"%d" % number) for number in range(450)))
    assert len(product.listed("--limit", "1000")) == 450
    assert len(product.redriven("--all", code=1)) == 450


def test_a_log_that_cannot_be_reached_is_said_and_nothing_is_lost(product_with_letters: Product) -> None:
    result = product_with_letters.run(
        "redrive", "--all", INGEST_LOG=f"sqlite:///{product_with_letters.folder}/ingest.toml/log.db"
    )
    assert result.code == 3
    assert result.err.startswith("error: ")
    assert len(product_with_letters.listed("--open")) == len(SEVERAL)


def test_a_letter_counts_from_its_very_moment(product_with_letters: Product) -> None:
    just_after = format_instant(SEVERAL[3].happened_at + timedelta(microseconds=1))
    assert product_with_letters.listed(
        "--since", format_instant(SEVERAL[3].happened_at)
    ) == product_with_letters.listed("--limit", "1")
    assert product_with_letters.listed("--since", just_after) == []
