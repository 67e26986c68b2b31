"""A TCP proxy in front of one broker that can cut, silence or slow what goes through it."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_CHUNK = 64 * 1024


class Proxy:
    """Listens on a port of its own once started. Runs on the event loop that starts it."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._heard = asyncio.Event()
        self._heard.set()
        self._accepts = True
        self._delay = 0.0

    async def start(self) -> None:
        """Returns when it listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Every connection ends, and new ones end at once."""
        self._accepts = False
        for writer in list(self._open):
            writer.transport.abort()

    def silence(self) -> None:
        """Connections stay, nothing comes through."""
        self._heard.clear()

    def slow(self, seconds: float) -> None:
        """Everything takes so much longer, each way."""
        self._delay = seconds

    def heal(self) -> None:
        """As at first; what was held back goes through."""
        self._accepts, self._delay = True, 0.0
        self._heard.set()

    async def stop(self) -> None:
        """For good; returns when every connection has ended."""
        if self._server is not None:
            self._server.close()
        self.cut()
        self._heard.set()
        while self._serving:
            await asyncio.wait(self._serving)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.ensure_future(self._between(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        await task

    async def _between(self, reader: StreamReader, writer: StreamWriter) -> None:
        async with self._ended(writer):
            if self._accepts:
                await self._connect(reader, writer)

    async def _connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            there, answers = await asyncio.open_connection("127.0.0.1", self._target)
            async with self._ended(answers):
                ways = [
                    asyncio.create_task(self._pass(reader, answers)),
                    asyncio.create_task(self._pass(there, writer)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()

    @asynccontextmanager
    async def _ended(self, writer: StreamWriter) -> AsyncIterator[None]:
        """The connection, afterwards; by `cut` before."""
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _pass(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self._heard.wait()
                await asyncio.sleep(self._delay)
                writer.write(chunk)
                await writer.drain()
