"""A disk of one's own that can be filled: a small file system in memory, which only root may mount."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

_SIZE = "4g"  # memory is taken only for what is on it
_TRIES = 100


def can_mount(folder: Path) -> bool:
    """Tries it out."""
    try:
        disk = Disk(folder / "trial")
    except (OSError, subprocess.CalledProcessError):
        return False
    disk.close()
    (folder / "trial").rmdir()
    return True


class Disk:
    """Mounted at `folder` until closed."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError or CalledProcessError where that is not allowed."""
        folder.mkdir(parents=True)
        self._folder = folder
        self._run("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "ingest-faults")

    def fill(self) -> None:
        """From now on there is no space left."""
        for _ in range(_TRIES):
            found = os.statvfs(self._folder)
            with suppress(subprocess.CalledProcessError):  # refused where somebody wrote in between
                self._run("mount", "-o", f"remount,size={(found.f_blocks - found.f_bfree) * found.f_frsize}")
                return
        raise OSError(f"{self._folder} could not be filled")

    def empty(self) -> None:
        """As much as at first."""
        self._run("mount", "-o", f"remount,size={_SIZE}")

    def keep(self, folder: Path) -> None:
        """Copies what is on it, before it is gone."""
        subprocess.run(["cp", "-a", str(self._folder), str(folder)], check=True)

    def close(self) -> None:
        """Also while somebody still has files open there."""
        self._run("umount", "--lazy")

    def _run(self, *command: str) -> None:
        subprocess.run([*command, str(self._folder)], check=True, capture_output=True)
