"""Tests of the proxy that stands for the network in front of a broker, and of how it fails."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.faults.proxy import Proxy
from tests.support.ports import free_port

PATIENCE = 60.0
SOON = 0.3


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(line)
    await close(writer)


async def close(writer: StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxy]:
    port, echoes = free_port(), list[asyncio.Task[None]]()
    proxy = Proxy(free_port(), port)
    async with await asyncio.start_server(
        lambda *streams: echoes.append(asyncio.create_task(echo(*streams))), "127.0.0.1", port
    ):
        await proxy.start()
        try:
            yield proxy
        finally:
            await proxy.stop()
            await asyncio.gather(*echoes)


async def ask(reader: StreamReader, writer: StreamWriter, line: bytes = b"hello\n") -> bytes:
    """Send a line and return the answer; b"" from a connection that has ended."""
    try:
        writer.write(line)
        return await asyncio.wait_for(reader.readline(), PATIENCE)
    except ConnectionError:
        return b""


def test_what_is_said_comes_through_and_back() -> None:
    async def main() -> None:
        async with proxied() as proxy:
            connection = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await ask(*connection) == b"hello\n"
            await close(connection[1])

    asyncio.run(main())


def test_a_cut_ends_connections_old_and_new_until_it_is_healed() -> None:
    async def main() -> None:
        async with proxied() as proxy:
            old = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await ask(*old) == b"hello\n"
            proxy.cut()
            assert await ask(*old) == b""
            new = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await ask(*new) == b""
            proxy.heal()
            healed = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await ask(*healed) == b"hello\n"
            for _, writer in (old, new, healed):
                await close(writer)

    asyncio.run(main())


def test_a_silent_network_holds_back_and_then_delivers() -> None:
    async def main() -> None:
        async with proxied() as proxy:
            connection = await asyncio.open_connection("127.0.0.1", proxy.port)
            proxy.silence()
            answer = asyncio.create_task(ask(*connection))
            assert await asyncio.wait([answer], timeout=SOON) == (set(), {answer})
            proxy.heal()
            assert await answer == b"hello\n"
            await close(connection[1])

    asyncio.run(main())
