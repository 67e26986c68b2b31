"""The emulator of BigQuery.

It takes empty files, and bare names in queries that are answered at once. Such a query that fails is answered
by an error, and not by no rows: https://cloud.google.com/bigquery/docs/error-messages
"""

import json

import bqemulator.server
from bqemulator.cli import main
from bqemulator.sql.rewriter.default_dataset import qualify_unqualified_tables

from tests.destinations.programs.rewriting import App, Headers, Message, Receive, Send, rewritten

_QUERIES = "/queries"


def _rewrite(path: str, headers: Headers, body: bytes) -> bytes:
    # Google's client sends this with an empty file, and the emulator takes it for the question how much has
    # arrived. An empty line has no rows either.
    if headers.get(b"content-range") == b"bytes */0":
        headers[b"content-range"] = b"bytes 0-0/1"
        return b"\n"
    if not path.endswith(_QUERIES):
        return body
    request = json.loads(body)
    dataset = request.get("defaultDataset")
    # What is rewritten loses the way in which the emulator knows its own schema.
    if dataset and "INFORMATION_SCHEMA" not in request["query"]:
        request["query"] = qualify_unqualified_tables(
            request["query"], default_project=dataset["projectId"], default_dataset=dataset["datasetId"]
        )
    return json.dumps(request).encode()


def _failing(app: App) -> App:
    """Return an app that answers by an error where a query failed."""

    async def failing_app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(_QUERIES):
            await app(scope, receive, send)
            return
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await app(scope, receive, collect)
        start, *parts = messages
        body = b"".join(part.get("body", b"") for part in parts)
        if errors := json.loads(body).get("errors"):
            code = 404 if errors[0]["reason"] == "notFound" else 400
            error = {"code": code, "message": errors[0]["message"], "errors": errors}
            body = json.dumps({"error": error}).encode()
            headers = {**dict(start["headers"]), b"content-length": str(len(body)).encode()}
            start = {**start, "status": code, "headers": list(headers.items())}
        await send(start)
        await send({"type": "http.response.body", "body": body})

    return failing_app


create_app = bqemulator.server.create_app
bqemulator.server.create_app = lambda context: rewritten(_failing(create_app(context)), _rewrite)
main()
