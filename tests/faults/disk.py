"""A disk that a test can fill: a small file system in memory, which only root may mount."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

_SIZE = "4g"  # memory is taken only for what is on it
_TRIES = 100


def can_mount(folder: Path) -> bool:
    """Return whether a disk can be mounted in the folder, by trying it out."""
    try:
        disk = Disk(folder / "trial")
    except (OSError, subprocess.CalledProcessError):
        return False
    disk.close()
    (folder / "trial").rmdir()
    return True


class Disk:
    """A file system in memory, mounted at `folder` until closed."""

    def __init__(self, folder: Path) -> None:
        """Mount the disk.

        Raises OSError or CalledProcessError where that is not allowed.
        """
        folder.mkdir(parents=True)
        self._folder = folder
        self._run("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "ingest-faults")

    def fill(self) -> None:
        """Leave no free space on the disk from now on."""
        for _ in range(_TRIES):
            usage = os.statvfs(self._folder)
            with suppress(subprocess.CalledProcessError):  # refused where somebody wrote in between
                self._run("mount", "-o", f"remount,size={(usage.f_blocks - usage.f_bfree) * usage.f_frsize}")
                return
        raise OSError(f"{self._folder} could not be filled")

    def empty(self) -> None:
        """Give the disk as much space as it had at first."""
        self._run("mount", "-o", f"remount,size={_SIZE}")

    def keep(self, folder: Path) -> None:
        """Copy what is on the disk, before it is gone."""
        subprocess.run(["cp", "-a", str(self._folder), str(folder)], check=True)

    def close(self) -> None:
        """Unmount the disk, also while somebody still has files open there."""
        self._run("umount", "--lazy")

    def _run(self, *command: str) -> None:
        subprocess.run([*command, str(self._folder)], check=True, capture_output=True)
