"""By what `ingest check` recognises its own installation's receiver behind the public URL."""

from hashlib import sha256

from ingest.settings import Settings

SITE_HEADER = "x-ingest-site"


def site_of(settings: Settings) -> str:
    """The same for all receivers of one installation; it holds nothing that the vendors' URLs do not show."""
    return sha256(f"{settings.public_url}\n{settings.topic_prefix}".encode()).hexdigest()[:16]
