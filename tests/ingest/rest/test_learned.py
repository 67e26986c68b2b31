"""Tests of what runs have learned of a vendor's API."""

import os
import time
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError
from ingest.rest.learned import Learned


def test_what_was_learned_is_known_later_with_the_same_key_until_it_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "sales.learned.json"
    Learned(file, "key").note("lists_cancelled", value=True)
    assert Learned(file, "key").get("lists_cancelled") is True
    assert Learned(file, "other key").get("lists_cancelled") is None
    Learned(file, "key").forget()
    assert Learned(file, "key").get("lists_cancelled") is None


def test_what_was_learned_long_ago_is_asked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "sales.learned.json"
    Learned(file, "key").note("organization", "O1")
    for days in (-2, 2):  # a clock that was ahead may have written it
        os.utime(file, (time.time() + days * 86400,) * 2)
        assert Learned(file, "key").get("organization") is None


def test_a_file_that_cannot_be_used_costs_nothing_but_requests(tmp_path: Path) -> None:
    file = tmp_path / "sales.learned.json"
    for content in (b"", b"[]", b'{"identity": "key"}', b'{"identity": "key", "facts": 1}', b"\xff"):
        file.write_bytes(content)
        assert Learned(file, "key").get("organization") is None
    learned = Learned(tmp_path / "no such folder" / "sales.learned.json", "key")
    learned.note("organization", "O1")
    assert learned.get("organization") == "O1"
    assert not (tmp_path / "no such folder").exists()


def test_a_file_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConfigurationError("it belongs to root")

    monkeypatch.setattr("ingest.rest.learned.replace_private", refuse)
    learned = Learned(tmp_path / "sales.learned.json", "key")
    learned.note("organization", "O1")
    assert learned.get("organization") == "O1"
