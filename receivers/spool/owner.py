"""The owner of a spool: its records were accepted for one log, and must not get into another one."""

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
from receivers.spool.file import is_locked, record_topics, spool_files

log = structlog.get_logger()

_FILE = "owner.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """A receiver, by its log, its topics and its settings file ("" where it has none)."""

    log: str
    topic_prefix: str
    config: str

    @classmethod
    def of(cls, settings: Settings) -> "Owner":
        """Return the receiver with these settings."""
        config = current_config_path()
        return cls(settings.log, settings.topic_prefix, str(config.absolute()) if config.exists() else "")

    def is_same(self, other: "Owner") -> bool:
        """Return whether both are the same receiver.

        Brokers come and go, the log may become an embedded one, and a folder may be moved, but not all at
        once.
        """
        if self.topic_prefix == other.topic_prefix and _addresses(self.log) & _addresses(other.log):
            return True
        return bool(self.config) and self.config == other.config


def require_own_spool(settings: Settings) -> None:
    """Raise ConfigurationError when another receiver uses the folder, or has left deliveries there."""
    folder, own = Path(settings.receiver.spool_dir), Owner.of(settings)
    files = spool_files(folder)
    topics, owner = _topics(files), _read(folder)
    other = ""  # a description of the other receiver
    if owner is None:
        foreign = [topic for topic in topics if not topic.startswith(f"{settings.topic_prefix}.")]
        other = f"topic {foreign[0]}" if foreign else ""
    elif not owner.is_same(own):
        config = owner.config or "of the environment"
        other = f"log {owner.log}, topics {owner.topic_prefix}.*, settings {config}"
    if other and (topics or any(map(is_locked, files))):
        raise ConfigurationError(
            f"receiver.spool_dir {folder} has deliveries of another "
            f"receiver ({other}), which would get into the log of this "
            "one: set another folder. If they are this receiver's "
            "own, and only its log and its settings file have changed, "
            f"delete {folder / _FILE} and set topic_prefix as it was"
        )


def mark_spool(settings: Settings) -> None:
    """Write down whose spool it is, in the folder, which is made where needed."""
    folder = Path(settings.receiver.spool_dir)
    own = Owner.of(settings)
    if _read(folder) == own:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_private(folder / _FILE, orjson.dumps(asdict(own)))
    except (OSError, ConfigurationError) as error:  # a folder that cannot be written to holds no spool either
        log.warning("spool.not_marked", folder=str(folder), why=str(error))


def _read(folder: Path) -> Owner | None:
    try:
        return Owner(**orjson.loads((folder / _FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _topics(files: Sequence[Path]) -> list[str]:
    """Return the topics of the records in the files."""
    topics: list[str] = []
    for file in files:
        with suppress(LogUnavailable):  # receivers pass over a file that nobody can read, too
            topics += record_topics(file)
    return topics


def _addresses(log_url: str) -> set[str]:
    """Return the brokers, or the file."""
    return set(log_url.removeprefix("kafka://").split(",")) if log_url.startswith("kafka://") else {log_url}
