"""The REST side of Appointedd with API v2, a beta that uses JSON:API and OAuth.

The form of its bookings is not public, so bookings are synced unchanged and are not compared.
https://developers.appointedd.com/v2.0/reference/introduction-1
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from requests import Request, Response

from ingest.errors import ConfigurationError
from ingest.rest import Credential, Limits, Rate, Record
from ingest.rest.oauth import ClientCredentials, OAuthApp
from ingest.vendors.appointedd import AppointeddSettings
from ingest.vendors.paginators import VendorPaginator
from ingest.vendors.rest import Resource, Rest, Window

_LISTS = ("accounts", "bookings", "customers", "services", "staff", "locations", "availability", "webhooks")


class _Paginator(VendorPaginator):
    """The paginator of pages that link to the next one by a URL with all of its parameters.

    https://jsonapi.org/format/#fetching-pagination
    """

    def next_params(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:  # noqa: ARG002 - the page tells
        links = response.json().get("links")
        link = links.get("next") if isinstance(links, dict) else None
        link = link.get("href") if isinstance(link, dict) else link
        if not link:
            return None
        url = urljoin(response.url, str(link))
        if urlsplit(url)[:2] != urlsplit(self._rest.base_url)[:2]:
            # The request would send the token to that host too.
            raise self.error("links.next leads to another host")
        return {"url": url}

    def update_request(self, request: Request) -> None:
        if self._next:
            request.url, request.params = self._next["url"], {}


class AppointeddV2(Rest[AppointeddSettings]):
    """The REST side of an account with API v2.

    Appointedd publishes no limits. The limits here are ours.
    """

    url = "https://json-api.appointedd.com/v2"
    limits: ClassVar[Limits] = Limits(account=(Rate(10, 1),))

    def credential(self) -> Credential:
        secrets = (self.secret("client_id"), self.secret("client_secret"))
        return ClientCredentials(
            OAuthApp(
                self.label,
                f"{self.base_url}oauth/tokens",
                *secrets,
                self.describe_error,
                self.retry_after,
                self._budget,
            )
        )

    def paginator(self) -> BasePaginator:
        return _Paginator(self)

    def ping(self) -> None:
        self.get("accounts")

    def bookings(self, window: Window) -> Iterator[list[Record]]:  # noqa: ARG002 - not possible
        raise self._only_v1()

    def key(self, entry: Record) -> str:  # noqa: ARG002 - not possible
        raise self._only_v1()

    def fetch(self, booking_id: str) -> Record | None:  # noqa: ARG002 - not possible
        raise self._only_v1()

    def error_message(self, body: Record) -> str:
        """Return title and detail of the first error in a response.

        Errors of token requests have OAuth's form.
        https://jsonapi.org/format/#errors
        """
        errors = body.get("errors")
        error = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        words = (error.get("title"), error.get("detail"), body.get("error"), body.get("error_description"))
        return ": ".join(str(word) for word in words if word) or super().error_message(body)

    def resources(self) -> Sequence[Resource]:
        """Return all lists, whose pages have the vendor's default size.

        The parameter that would change the size is not public.
        """
        return [
            {"name": name, "primary_key": "id", "endpoint": {"path": name, "data_selector": "data"}}
            for name in _LISTS
        ]

    def _only_v1(self) -> ConfigurationError:
        name = self.settings.name
        return ConfigurationError(
            f"{self.label}: bookings can be compared by API v1 only; "
            f'set accounts.{name}.api = "v1" and accounts.{name}.api_key'
        )


REST = AppointeddV2
