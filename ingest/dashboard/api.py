"""The routes of the HTTP API: bookings as the warehouse has them, and the feed of their changes."""

from starlette.routing import Route

from ingest.settings import Settings


def routes(settings: Settings) -> list[Route]:
    """Return the routes of the API, whose paths begin with `/api/`.

    Who may call them is checked by the application that has them.
    """
    del settings
    return []
