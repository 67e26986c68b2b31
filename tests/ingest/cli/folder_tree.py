"""What is in a folder, to compare it with what was there before."""

from pathlib import Path


def tree(folder: Path) -> dict[str, float | None]:
    """Return every path below a folder, with the time of the last change of files."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
