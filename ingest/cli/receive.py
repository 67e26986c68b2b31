"""`receive`: the webhook receiver."""

from ingest.cli.child_process import WithParent, WithSettings, receive_settings, stop_with_parent
from ingest.cli.options import Config
from ingest.telemetry import configure_logging


def receive(
    config: Config = None, with_parent: WithParent = False, with_settings: WithSettings = False
) -> None:
    """Take webhooks and append them to the log.

    Example:
        ingest receive --config ingest.toml
    """
    from receivers.server import serve

    settings = receive_settings(config, with_settings)
    configure_logging("receiver")
    stop_with_parent(with_parent)
    serve(settings)
