"""The header by which `ingest check` recognises a receiver of its own installation behind the public URL."""

from hashlib import sha256

from ingest.settings import Settings

SITE_HEADER = "x-ingest-site"


def site_of(settings: Settings) -> str:
    """Return the id of an installation, the same for all its receivers.

    It reveals nothing that the vendors' URLs do not show.
    """
    return sha256(f"{settings.public_url}\n{settings.topic_prefix}".encode()).hexdigest()[:16]
