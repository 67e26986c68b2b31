"""Tests that a long run does not fill the disk."""

import resource
from pathlib import Path

import pytest

from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import sample

_KIBIBYTES_IN_MEBIBYTE = 1024


def files(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*"))


def test_the_files_of_thirty_loads_are_no_more_than_those_of_three(
    harness: ConsumerHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    found, peaks = [], []
    for number in range(30):
        harness.load(sample(number, f"B{number}"))
        found.append(files(Path(harness.settings.warehouse.work_dir)))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _KIBIBYTES_IN_MEBIBYTE)
    with capsys.disabled():
        print(
            f"\nafter 3 and after 30 loads: {found[2]} and {found[-1]} files, at most {peaks[2]} and"
            f" {peaks[-1]} MiB of memory"
        )
    assert set(found[2:]) == {found[2]}
