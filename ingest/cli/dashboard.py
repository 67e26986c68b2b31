"""`dashboard`: pages that show how everything is, and an HTTP API, until it is stopped."""

from ingest.cli.options import Config, WithParent, WithSettings, receive_settings, stop_with_parent
from ingest.telemetry import configure_logging


def dashboard(
    config: Config = None, with_parent: WithParent = False, with_settings: WithSettings = False
) -> None:
    """Serve the dashboard: a verdict on each account, bookings, dead letters, and an HTTP API.

    It listens on http://127.0.0.1:8084 (`dashboard.host`, `dashboard.port`), for this machine only. Other
    machines may reach it once `dashboard.token` is set. `ingest up` runs it too.

    Example:
        ingest dashboard --config ingest.toml
    """
    from ingest.dashboard.app import serve

    settings = receive_settings(config, with_settings)
    configure_logging("dashboard")
    stop_with_parent(with_parent)
    serve(settings)
