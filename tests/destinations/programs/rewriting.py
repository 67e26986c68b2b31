"""Changes requests before an emulator gets them."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]


def rewritten(app: App, rewrite: Callable[[str, Headers, bytes], bytes]) -> App:
    """Return an app whose requests are rewritten.

    `rewrite` gets the path, the headers, which it may change, and the body, and returns the new body.
    """

    async def rewriting_app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        headers = dict(scope["headers"])
        body = rewrite(scope["path"], headers, b"".join(parts))
        headers[b"content-length"] = str(len(body)).encode()

        async def receive_rewritten() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await app({**scope, "headers": list(headers.items())}, receive_rewritten, send)

    return rewriting_app
