"""The metric of free disk space."""

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from ingest import disks
from ingest.disks import measure_disks


def test_the_free_space_of_each_folder_is_exported_also_before_the_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def free_bytes(folder: Path) -> int:
        asked.append(folder)
        if folder.name == "gone":
            raise OSError
        return 1000 + len(asked)

    measure_disks({"real": tmp_path / "not-made-yet"})
    assert (REGISTRY.get_sample_value("ingest_disk_free_bytes", {"setting": "real"}) or 0) > 0
    monkeypatch.setattr(disks, "free_bytes", free_bytes)
    measure_disks({"first": tmp_path, "unreadable": tmp_path / "gone", "last": tmp_path})
    values = {
        name: REGISTRY.get_sample_value("ingest_disk_free_bytes", {"setting": name})
        for name in ("first", "last")
    }
    assert values == {"first": 1001, "last": 1003}, "one that cannot be asked keeps no other from its value"
