"""Connections that are kept while they can be, each with its part of the exchanges."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

from tests.fuzz.tally import NO_ANSWER, Tally
from tests.fuzz.traffic import Exchange, exchanges

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_END = b"\r\n\r\n"
_FIRST_FINAL = 200
PATIENCE = 120.0  # for an answer that must come; long, for a slow machine


class Connection(asyncio.Protocol):
    """A connection that parses the status of each answer."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._has_data = asyncio.Event()
        self.ended = False
        self.closes = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        """Buffer the data for `answer`."""
        self._received += data
        self._has_data.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it ended is all one
        """Note that nothing more comes."""
        self.ended = True
        self._has_data.set()

    def write(self, data: bytes) -> None:
        """Write the data, unless the connection has ended."""
        if self._transport and not self.ended and data:
            self._transport.write(data)

    async def answer(self, *, head: bool = False) -> int:
        """Return the status of the next answer; NO_ANSWER where the connection ends before."""
        while (parsed := self._parsed(head=head)) is None:
            if self.ended:
                return NO_ANSWER
            self._has_data.clear()
            await self._has_data.wait()
        return parsed

    def close(self) -> None:
        """Close the connection at once, after what was written."""
        if self._transport:
            self._transport.close()

    def _parsed(self, *, head: bool) -> int | None:
        end = self._received.find(_END)
        if end < 0:
            return None
        head_bytes = bytes(self._received[: end + 2])
        status, length = int(head_bytes[9:12]), _LENGTH.search(head_bytes)
        closes = _CLOSES.search(head_bytes) is not None
        if status < _FIRST_FINAL:
            del self._received[: end + len(_END)]
            return self._parsed(head=head)
        if length is None and not head and not self.ended:
            return None  # its body ends where the connection does
        end_of_body = end + len(_END) + (int(length[1]) if length and not head else 0)
        if len(self._received) < end_of_body:
            return None
        del self._received[:end_of_body]
        self.closes |= closes
        return status


class Client:
    """A client that runs one exchange after the other, on one connection at a time."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._port, self._tally = port, tally
        self._connection: Connection | None = None

    async def run(self, seed: str, requests: int) -> None:
        """Run all exchanges of a seed."""
        for exchange in exchanges(seed, requests):
            await self._run_exchange(exchange)
        self._disconnect()

    async def _run_exchange(self, exchange: Exchange) -> None:
        connection = await self._connect()
        for message in exchange.messages:
            for part in message.parts:
                connection.write(part)
                if len(message.parts) > 1:
                    await asyncio.sleep(0)
        if exchange.disconnects:
            for message in exchange.messages:
                self._tally.count_abandoned(exchange, message)
            self._disconnect()
            return
        async with asyncio.timeout(PATIENCE):
            await self._read_answers(exchange, connection)
        if exchange.tail is not None:
            await self._send_tail(exchange, connection)
        elif connection.closes or connection.ended:
            self._disconnect()

    async def _read_answers(self, exchange: Exchange, connection: Connection) -> None:
        for message in exchange.messages:
            if connection.closes:
                self._tally.count_abandoned(exchange, message)  # it was told that there is no more
            else:
                self._tally.count_answer(exchange, message, await connection.answer(head=message.head))

    async def _send_tail(self, exchange: Exchange, connection: Connection) -> None:
        connection.write(exchange.tail or b"")
        statuses: list[int] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(exchange.patience):
                while not connection.closes and (status := await connection.answer()) != NO_ANSWER:
                    statuses.append(status)
                    if exchange.possible_digest is None and len(statuses) == 1:
                        break
        self._tally.count_tail(exchange, statuses)
        self._disconnect()

    async def _connect(self) -> Connection:
        if self._connection is None or self._connection.ended or self._connection.closes:
            self._disconnect()
            _, self._connection = await asyncio.get_running_loop().create_connection(
                Connection, "127.0.0.1", self._port
            )
            self._tally.connections += 1
        return self._connection

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def parts(seed: int, requests: int, connections: int) -> Iterator[tuple[str, int]]:
    """Yield each connection's seed and number of requests."""
    for number in range(connections):
        yield f"{seed}/{number}", requests // connections + (number < requests % connections)


async def send_all(port: int, tally: Tally, shares: list[tuple[str, int]]) -> None:
    """Run all clients at once."""
    async with asyncio.TaskGroup() as group:
        for seed, requests in shares:
            group.create_task(Client(port, tally).run(seed, requests))
