"""What stands before the emulator of Google Cloud Storage: uploads and lists of the XML API.

Delta tables need both. The emulator has uploads of the JSON API only, and lists from the beginning where it
is asked for what comes after a name. The arguments are the port that clients ask, and the emulator's URL.
https://cloud.google.com/storage/docs/xml-api/overview
"""

import sys
from collections.abc import Mapping
from urllib.parse import quote
from xml.etree import ElementTree as ET

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]
# Of one connection, or an empty token, which is no valid header.
_NOT_PASSED = {
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "transfer-encoding",
}


async def _answer(request: Request) -> Response:
    """Let the emulator answer, an upload of the XML API as one of the JSON API."""
    path = request.scope["raw_path"].decode()
    url = f"{path}?{request.url.query}" if request.url.query else path
    bucket, _, name = request.url.path.removeprefix("/").partition("/")
    if request.method == "PUT" and name and bucket not in {"storage", "upload"}:
        return await _upload(request, bucket, name)
    answer = await _client.request(
        request.method, url, headers=_passed(request.headers), content=await request.body()
    )
    content = answer.content
    if after := request.query_params.get("start-after"):
        listing = ET.fromstring(content)  # noqa: S314 - the emulator is ours
        for entry in listing.findall("Contents"):
            if entry.findtext("Key", "") <= after:
                listing.remove(entry)
        content = ET.tostring(listing)
    return Response(content, answer.status_code, _passed(answer.headers))


async def _upload(request: Request, bucket: str, name: str) -> Response:
    url = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
    if generation := request.headers.get("x-goog-if-generation-match"):
        url += f"&ifGenerationMatch={generation}"
    answer = await _client.post(url, headers=_passed(request.headers), content=await request.body())
    if answer.is_error:
        return Response(answer.content, answer.status_code)
    stored = answer.json()
    return Response(headers={"etag": stored["etag"], "x-goog-generation": stored["generation"]})


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_PASSED}


_client = httpx.AsyncClient(base_url=sys.argv[2], timeout=60)
app = Starlette(routes=[Route("/{path:path}", _answer, methods=_METHODS)])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
