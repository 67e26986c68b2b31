"""A TCP proxy in front of one broker that can cut, silence or slow the connections through it."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_CHUNK = 64 * 1024


class Proxy:
    """A proxy that listens on a port of its own once it is started.

    It runs on the event loop that starts it.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._audible = asyncio.Event()
        self._audible.set()
        self._accepts = True
        self._delay = 0.0

    async def start(self) -> None:
        """Start the proxy, and return when it listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def cut(self) -> None:
        """End every connection, and end new ones at once."""
        self._accepts = False
        for writer in list(self._open):
            writer.transport.abort()

    def silence(self) -> None:
        """Keep connections open, and let nothing through."""
        self._audible.clear()

    def slow(self, seconds: float) -> None:
        """Delay everything by these seconds, each way."""
        self._delay = seconds

    def heal(self) -> None:
        """Undo all faults; what was held back goes through."""
        self._accepts, self._delay = True, 0.0
        self._audible.set()

    async def stop(self) -> None:
        """Stop the proxy for good, and return when every connection has ended."""
        if self._server is not None:
            self._server.close()
        self.cut()
        self._audible.set()
        while self._serving:
            await asyncio.wait(self._serving)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.ensure_future(self._relay(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        await task

    async def _relay(self, reader: StreamReader, writer: StreamWriter) -> None:
        async with self._closing(writer):
            if self._accepts:
                await self._connect(reader, writer)

    async def _connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError):
            broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._target)
            async with self._closing(broker_writer):
                directions = [
                    asyncio.create_task(self._pass(reader, broker_writer)),
                    asyncio.create_task(self._pass(broker_reader, writer)),
                ]
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                for direction in directions:
                    direction.cancel()

    @asynccontextmanager
    async def _closing(self, writer: StreamWriter) -> AsyncIterator[None]:
        """End the connection when the context is left, or earlier by `cut`."""
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
                await self._audible.wait()
                await asyncio.sleep(self._delay)
                writer.write(chunk)
                await writer.drain()
