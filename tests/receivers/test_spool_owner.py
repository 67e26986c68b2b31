"""The owner of a spool: no other receiver's log gets what is in it."""

from contextlib import closing
from pathlib import Path

import pytest

from ingest.errors import ConfigurationError
from ingest.log import Record
from ingest.settings import ReceiverSettings, Settings
from receivers.spool.folder import (
    claim_files,
    drain_leftovers,
    mark_spool,
    present_spool,
    require_own_spool,
    spool_id,
    spool_states,
)
from tests.receivers.in_process import stored
from tests.receivers.running import TOPIC
from tests.support.polling import PATIENCE

MIB = 1024 * 1024
KAFKA = "kafka://one:9092,two:9092"


def settings_of(folder: Path, log: str = "", **other: str) -> Settings:
    """Return settings of a product; all of them share the folder of the spool."""
    spool = ReceiverSettings(spool_dir=str(folder / "spool"))
    return Settings(log=log or f"sqlite:///{folder / 'log.db'}", receiver=spool, **other)


def leave(folder: Path, topic: str = TOPIC) -> None:
    """Leave one delivery in the spool."""
    (spool,) = claim_files(folder / "spool", [topic], MIB)
    spool.append(topic, [Record("calendly/sales/1", b"{}", {"ce_id": "1", "ce_subject": "left"})]).result(
        PATIENCE
    )
    spool.close()


@pytest.fixture(autouse=True)
def without_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_CONFIG", str(tmp_path / "ingest.toml"))


def test_a_receiver_of_another_log_does_not_take_what_waits(tmp_path: Path) -> None:
    mark_spool(settings_of(tmp_path, KAFKA))
    leave(tmp_path)
    other = settings_of(tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"deliveries of another receiver \(log kafka://one:9092,two:9092"
    ):
        drain_leftovers(other)
    assert [state.records for state in spool_states(other)] == [1]
    assert not (tmp_path / "log.db").exists()


def test_the_same_settings_file_takes_it_over_to_another_log(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").touch()
    mark_spool(settings_of(tmp_path, KAFKA))
    leave(tmp_path)
    drain_leftovers(settings_of(tmp_path))
    assert len(stored(tmp_path / "log.db", TOPIC)) == 1


@pytest.mark.parametrize("log", [KAFKA, "kafka://two:9092,three:9092"])
def test_a_folder_that_was_moved_and_a_broker_that_was_added_change_nothing(tmp_path: Path, log: str) -> None:
    (tmp_path / "ingest.toml").touch()
    mark_spool(settings_of(tmp_path, KAFKA))
    leave(tmp_path)
    (tmp_path / "ingest.toml").unlink()
    require_own_spool(settings_of(tmp_path, log))


def test_without_a_mark_the_topics_tell_whose_it_is(tmp_path: Path) -> None:
    leave(tmp_path, "others.calendly")
    with pytest.raises(ConfigurationError, match=r"topic others\.calendly"):
        drain_leftovers(settings_of(tmp_path))
    drain_leftovers(settings_of(tmp_path, topic_prefix="others"))


def test_a_spool_in_which_nothing_waits_is_taken_unless_its_receiver_runs(tmp_path: Path) -> None:
    mark_spool(settings_of(tmp_path, KAFKA))
    other = settings_of(tmp_path, "kafka://elsewhere:9092")
    with (
        closing(claim_files(tmp_path / "spool", [TOPIC], MIB)[0]),
        pytest.raises(ConfigurationError, match="set another folder"),
    ):
        require_own_spool(other)
    require_own_spool(other)
    mark_spool(other)
    with pytest.raises(ConfigurationError), closing(claim_files(tmp_path / "spool", [TOPIC], MIB)[0]):
        require_own_spool(settings_of(tmp_path, KAFKA))


def test_a_spool_is_present_where_its_files_are_and_can_be_read(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, KAFKA)
    assert present_spool(settings) == ""
    assert not (tmp_path / "spool").exists(), "looking makes nothing"
    identity = spool_id(settings)
    assert present_spool(settings) == "", "its files were taken away"
    leave(tmp_path)
    assert present_spool(settings) == identity != ""
    (file,) = (tmp_path / "spool").glob("spool-*.db")
    file.write_bytes(b"not a database, but of some length" * 100)
    for kind in ("wal", "shm"):
        file.with_name(f"{file.name}-{kind}").unlink(missing_ok=True)
    assert present_spool(settings) == ""
