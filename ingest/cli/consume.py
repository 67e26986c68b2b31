"""`consume`: the consumer, which loads the log into the warehouse."""

from ingest.cli.child_process import WithParent, WithSettings, receive_settings, stop_with_parent
from ingest.cli.options import Config
from ingest.telemetry import configure_logging


def consume(
    config: Config = None, with_parent: WithParent = False, with_settings: WithSettings = False
) -> None:
    """Load what is in the log into the warehouse.

    Example:
        ingest consume --config ingest.toml
    """
    from consumers.run import consume as run_consumer

    settings = receive_settings(config, with_settings)
    configure_logging("consumer")
    stop_with_parent(with_parent)
    run_consumer(settings)
