"""Tables that do not fit the terminal become lists, so that no word and no URL is broken."""

import pytest

from ingest.cli.output import counted, print_table, styled

URL = "http://127.0.0.1:8080/webhooks/bookeo/tours?domain=bookings&type=created"
ROWS = [{"account": "bookeo/tours", "do": styled("as wanted", "green"), "what": URL, "why": ""}]


@pytest.mark.parametrize(("columns", "listed"), [("200", False), ("100", True), ("80", True)])
def test_a_table_that_is_too_wide_becomes_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str, listed: bool
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_table(ROWS)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert any(URL in line and "as wanted" not in line for line in lines) == listed
    assert ("bookeo/tours" in lines) == listed
    assert any(URL in line for line in lines)


def test_no_rows_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([], "title")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("number", "text"), [(0, "0 bookings"), (1, "1 booking"), (1200, "1,200 bookings")])
def test_a_number_agrees_with_its_noun(number: int, text: str) -> None:
    assert counted(number, "booking") == text
