"""The state of subscriptions on disk."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from receivers.subscriptions.state import StateFile, SubscriptionState

MAY, JUNE = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
STATE = SubscriptionState(
    {"https://api.example/1": "0123456789ab", "W2": ""}, MAY, JUNE, "0123456789ab", ("W3",)
)
OF_EARLIER_RELEASES = b"""\
{
  "made": {"https://api.example/1": "0123456789ab", "W2": ""},
  "hole_since": "2026-05-01T00:00:00.000000Z",
  "rotated_at": "2026-06-01T00:00:00.000000Z",
  "first": "0123456789ab",
  "strange": ["W3"]
}"""
BEFORE_SECRETS_WERE_DATED = b'{"made":{"W2":""},"hole_since":null,"rotated_at":null}'


def test_files_of_earlier_releases_are_read(tmp_path: Path) -> None:
    file = tmp_path / "sales.subscriptions.json"
    file.write_bytes(OF_EARLIER_RELEASES)
    assert StateFile(tmp_path, "sales").read() == STATE
    file.write_bytes(BEFORE_SECRETS_WERE_DATED)
    assert StateFile(tmp_path, "sales").read() == SubscriptionState({"W2": ""})


def test_what_is_written_has_the_form_of_earlier_releases_and_is_read_again(tmp_path: Path) -> None:
    file = StateFile(tmp_path, "sales")
    assert not file.exists()
    file.write(STATE)
    assert file.exists()
    assert file.read() == STATE
    written = orjson.loads((tmp_path / "sales.subscriptions.json").read_bytes())
    assert written.keys() == orjson.loads(OF_EARLIER_RELEASES).keys()


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"made": 3}', b'{"made":{},"hole_since":"x"}'])
def test_what_makes_no_sense_is_no_state(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "sales.subscriptions.json").write_bytes(garbage)
    file = StateFile(tmp_path, "sales")
    assert not file.exists()
    assert file.read() == SubscriptionState()


def test_a_gap_that_reaches_farther_back_by_now_stays_open(tmp_path: Path) -> None:
    file = StateFile(tmp_path, "sales")
    file.write(STATE)
    file.note_checked(JUNE)
    assert file.read() == STATE
    file.note_checked(MAY)
    assert file.read() == replace(STATE, unchecked_since=None)
