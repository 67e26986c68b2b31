"""Files that only their owner reads, written whole or not at all, whenever the power goes."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile


def replace_private(file: Path, content: bytes) -> None:
    """As 0600, as temporary files are. Raises OSError."""
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as new:
        new.write(content)
        new.flush()
        os.fsync(new.fileno())
    Path(new.name).replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
