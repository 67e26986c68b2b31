"""Connections that are kept while they can be, each with its own part of the plays."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

from tests.fuzz.tally import NO_ANSWER, Tally
from tests.fuzz.traffic import Play, plays

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_END = b"\r\n\r\n"
_FIRST_FINAL = 200
PATIENCE = 120.0  # for an answer that must come; long, for a slow machine


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._came = bytearray()
        self._more = asyncio.Event()
        self.ended = False
        self.closes = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Kept."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        """Read by `answer`."""
        self._came += data
        self._more.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it ended is all one
        """Nothing more comes."""
        self.ended = True
        self._more.set()

    def write(self, data: bytes) -> None:
        """Nothing, where nobody is there any more."""
        if self._transport and not self.ended and data:
            self._transport.write(data)

    async def answer(self, *, head: bool = False) -> int:
        """The status of the next one; NO_ANSWER where the connection ends before it has one."""
        while (found := self._parsed(head=head)) is None:
            if self.ended:
                return NO_ANSWER
            self._more.clear()
            await self._more.wait()
        return found

    def leave(self) -> None:
        """At once, with whatever was written on its way."""
        if self._transport:
            self._transport.close()

    def _parsed(self, *, head: bool) -> int | None:
        end = self._came.find(_END)
        if end < 0:
            return None
        top = bytes(self._came[: end + 2])
        status, length = int(top[9:12]), _LENGTH.search(top)
        closes = _CLOSES.search(top) is not None
        if status < _FIRST_FINAL:
            del self._came[: end + len(_END)]
            return self._parsed(head=head)
        if length is None and not head and not self.ended:
            return None  # its body ends where the connection does
        whole = end + len(_END) + (int(length[1]) if length and not head else 0)
        if len(self._came) < whole:
            return None
        del self._came[:whole]
        self.closes |= closes
        return status


class Client:
    """One after the other of a part of all plays."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._port, self._tally = port, tally
        self._line: Line | None = None

    async def run(self, seed: str, requests: int) -> None:
        """All of them."""
        for play in plays(seed, requests):
            await self._play(play)
        self._drop()

    async def _play(self, play: Play) -> None:
        line = await self._connected()
        for shot in play.shots:
            for part in shot.parts:
                line.write(part)
                if len(shot.parts) > 1:
                    await asyncio.sleep(0)
        if play.leaves:
            for shot in play.shots:
                self._tally.let_go(play, shot)
            self._drop()
            return
        async with asyncio.timeout(PATIENCE):
            await self._answered(play, line)
        if play.tail is not None:
            await self._tailed(play, line)
        elif line.closes or line.ended:
            self._drop()

    async def _answered(self, play: Play, line: Line) -> None:
        for shot in play.shots:
            if line.closes:
                self._tally.let_go(play, shot)  # it was told that there is no more
            else:
                self._tally.answered(play, shot, await line.answer(head=shot.head))

    async def _tailed(self, play: Play, line: Line) -> None:
        line.write(play.tail or b"")
        statuses: list[int] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(play.patience):
                while not line.closes and (status := await line.answer()) != NO_ANSWER:
                    statuses.append(status)
                    if play.may_be_kept is None and len(statuses) == 1:
                        break
        self._tally.tailed(play, statuses)
        self._drop()

    async def _connected(self) -> Line:
        if self._line is None or self._line.ended or self._line.closes:
            self._drop()
            _, self._line = await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", self._port)
            self._tally.connections += 1
        return self._line

    def _drop(self) -> None:
        if self._line:
            self._line.leave()
        self._line = None


def parts(seed: int, requests: int, connections: int) -> Iterator[tuple[str, int]]:
    """Each connection's seed, and how many requests are its own."""
    for number in range(connections):
        yield f"{seed}/{number}", requests // connections + (number < requests % connections)


async def shoot(port: int, tally: Tally, shares: list[tuple[str, int]]) -> None:
    """All connections at once."""
    async with asyncio.TaskGroup() as group:
        for seed, requests in shares:
            group.create_task(Client(port, tally).run(seed, requests))
