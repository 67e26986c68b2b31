"""Whose spool it is: what waits there was accepted for one log, and belongs into no other product's."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import structlog

from ingest.errors import ConfigurationError, LogUnavailable
from ingest.private_file import replace_private
from ingest.settings import Settings
from ingest.settings.sources import current_config_path
from receivers.spool.file import is_held, spool_files, waiting_topics

log = structlog.get_logger()

_FILE = "owner.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """The receiver that a spool belongs to, by its log, its topics and its settings file ("" where it has none)."""

    log: str
    topic_prefix: str
    config: str

    @classmethod
    def of(cls, settings: Settings) -> "Owner":
        """The receiver with these settings."""
        config = current_config_path()
        return cls(settings.log, settings.topic_prefix, str(config.absolute()) if config.exists() else "")

    def is_same(self, other: "Owner") -> bool:
        """Return whether both are one product: brokers come and go, the log may become an embedded one, and a folder may be moved, but not all at once."""
        if self.topic_prefix == other.topic_prefix and _places(self.log) & _places(other.log):
            return True
        return bool(self.config) and self.config == other.config


def require_own_spool(settings: Settings) -> None:
    """Raise ConfigurationError when the folder is another receiver's, which waits there, or left deliveries there."""
    folder, own = Path(settings.receiver.spool_dir), Owner.of(settings)
    files = spool_files(folder)
    waiting, owner = _waiting(files), _read(folder)
    if owner is None:
        foreign = [topic for topic in waiting if not topic.startswith(f"{settings.topic_prefix}.")]
        whose = f"topic {foreign[0]}" if foreign else ""
    else:
        whose = (
            ""
            if owner.is_same(own)
            else f"log {owner.log}, topics {owner.topic_prefix}.*, settings {owner.config or 'of the environment'}"
        )
    if whose and (waiting or any(map(is_held, files))):
        raise ConfigurationError(
            f"receiver.spool_dir {folder} has deliveries of another receiver ({whose}), which would get into the log of this one: set another"
            f" folder. If they are this receiver's own, and its log and its settings file are others now, delete {folder / _FILE} and set"
            " topic_prefix as it was"
        )


def mark_spool(settings: Settings) -> None:
    """Note whose spool it is, in the folder, which is made. A folder that cannot be written to holds no spool either."""
    folder = Path(settings.receiver.spool_dir)
    own = Owner.of(settings)
    if _read(folder) == own:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_private(folder / _FILE, orjson.dumps(asdict(own)))
    except (OSError, ConfigurationError) as error:
        log.warning("spool.not_marked", folder=str(folder), why=str(error))


def _read(folder: Path) -> Owner | None:
    try:
        return Owner(**orjson.loads((folder / _FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _waiting(files: Sequence[Path]) -> list[str]:
    """The topics of what waits; a file that nobody can read is passed over by receivers too."""
    topics: list[str] = []
    for file in files:
        with suppress(LogUnavailable):
            topics += waiting_topics(file)
    return topics


def _places(log_: str) -> set[str]:
    """The brokers, or the file."""
    return set(log_.removeprefix("kafka://").split(",")) if log_.startswith("kafka://") else {log_}
