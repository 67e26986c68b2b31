"""The sections of the feed of changes, and of the dashboard, which shows it."""

from pydantic import Field

from ingest.address import Host
from ingest.settings.sections import AdminToken, Hosts, Section


class FeedSettings(Section):
    """The feed of changes: each booking's new state as a record of the topic `<prefix>.changes`."""

    enabled: bool = Field(
        False,
        description="Whether the consumer publishes each booking that a load changed. It then commits only "
        "what is loaded and published. Customers' names and addresses are in the records.",
    )


class DashboardSettings(Section):
    """The dashboard: pages and an HTTP API that show the bookings and the feed of changes."""

    host: Host = Field("127.0.0.1", description="Host of the dashboard's listener.")
    port: int = Field(8084, ge=0, le=65535, description="Port of the dashboard's listener.")
    hosts: Hosts = Field(
        (),
        description="List of further host names under which the dashboard can be reached. `localhost`, IP "
        "addresses and `host` are always allowed; requests to other names are answered 421.",
    )
    token: AdminToken = Field(
        None,
        description="Token that a caller of the dashboard needs, in ASCII without blanks. Required when "
        "`host` is not a loopback address.",
    )
