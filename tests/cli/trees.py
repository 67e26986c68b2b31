"""What is in a folder, to be compared with what was there before."""

from pathlib import Path


def tree(folder: Path) -> dict[str, float | None]:
    """Every path below a folder, and when a file there was changed."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
