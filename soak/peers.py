"""The peers of a soak: good ones, whose every line is verified afterwards, and bad ones of many kinds."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Awaitable, Callable

RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER`` on, zero seconds: closing sends RST."""
WRONG = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x00\xc8\x01",
    b"SSH-2.0-x\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
)
KIB = 1024


class Peers:
    """Everybody who talks to one server. ``random`` is seeded: two soaks do the same, as far as time lets them."""

    def __init__(self, port: int, over: asyncio.Event, seed: int) -> None:
        self.port = port
        self.over = over
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.sent: dict[str, int] = {}
        """How many lines each good sender has handed to the kernel."""
        self.problems: list[str] = []

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        """Give everybody, to be run until ``over``."""
        good = [
            lambda: self.good("lf", lambda line: line + b"\n"),
            lambda: self.good("crlf", lambda line: line + b"\r\n"),
            lambda: self.good("counted", lambda line: b"%d <13>%s" % (len(line) + 4, line)),
            lambda: self.good("nul", lambda line: b"<13>" + line + b"\0"),
            lambda: self.good("reconnecting", lambda line: line + b"\n", bursts=20),
        ]
        bad = [self.endless, self.drip, self.storm, self.resets, self.wrong_protocols, self.silent]
        return [*good, *bad, *[self.flooder] * 8, *[self.half_line] * 60]

    # Good ones.

    async def good(self, name: str, frame: Callable[[bytes], bytes], bursts: int | None = None) -> None:
        """Send numbered lines without an end, on a new connection every so many bursts; a reset is a problem."""
        while not self.over.is_set():
            try:
                await self._session(name, frame, bursts)
            except OSError as error:
                self.problems.append(f"{name}: {error}")
                return

    async def _session(self, name: str, frame: Callable[[bytes], bytes], bursts: int | None) -> None:
        reader, writer = await self.connect()
        while not self.over.is_set() and bursts != 0:
            number = self.sent.get(name, 0)
            count = self.random.randrange(1, 40)
            lines = (
                b"good %s %d " % (name.encode(), number + step) + b"." * (step * 7 % 200) + b";"
                for step in range(count)
            )
            writer.write(b"".join(map(frame, lines)))
            self.sent[name] = number + count
            await writer.drain()
            await self.pause(0.05)
            bursts = None if bursts is None else bursts - 1
        writer.write_eof()
        # The server closes once it has read everything: only then may the next connection's lines follow.
        while await reader.read(KIB):
            pass
        writer.close()

    # Bad ones; what becomes of their connections is the server's decision.

    async def flooder(self) -> None:
        """Send megabytes at once, then rest."""
        await self.repeat(lambda: self.send(b"flood " + b"x" * 93 + b"\n", 4 * KIB, rest=0.02, times=3), rest=6)

    async def endless(self) -> None:
        """Send a line that does not end for twenty seconds."""
        await self.repeat(lambda: self.send(b"e" * 16 * KIB, 1, rest=0.2, times=100), rest=2)

    async def drip(self) -> None:
        """Send a byte every half second."""
        await self.repeat(lambda: self.send(b"d", 1, rest=0.5, times=60), rest=1)

    async def half_line(self) -> None:
        """Send a long half line and keep still, then leave in one way or another."""
        await self.pause(self.random.uniform(0, 20))
        await self.repeat(lambda: self.send(b"h" * 90 * KIB, 1, rest=self.random.uniform(3, 15), times=1), rest=5)

    async def silent(self) -> None:
        """Connect and say nothing."""
        await self.repeat(lambda: self.send(b"", 1, rest=30, times=1), rest=1)

    async def wrong_protocols(self) -> None:
        """Speak another protocol."""
        await self.repeat(lambda: self.send(self.random.choice(WRONG), 1, rest=0.1, times=1), rest=0.5)

    async def resets(self) -> None:
        """Reset in the middle of a line."""
        await self.repeat(lambda: self.send(b"one\nhalf", 1, rest=0.01, times=1, reset=True), rest=0.2)

    async def storm(self) -> None:
        """Connect a hundred times at once."""

        async def burst() -> None:
            await asyncio.gather(*(self.send(b"storm\n", 1, rest=0, times=1) for _ in range(100)))

        await self.repeat(burst, rest=7)

    # What they have in common.

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, data: bytes, count: int, *, rest: float, times: int, reset: bool | None = None) -> None:
        """Connect, send ``count`` times ``data`` so many times with rests, leave in good order or not."""
        with contextlib.suppress(OSError):
            _, writer = await self.connect()
            try:
                for _ in range(times):
                    writer.write(data * count)
                    await writer.drain()
                    await self.pause(rest)
                if reset if reset is not None else self.random.random() < 0.3:
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            finally:
                writer.close()

    async def repeat(self, once: Callable[[], Awaitable[None]], rest: float) -> None:
        """Do something until the soak is over."""
        while not self.over.is_set():
            await once()
            await self.pause(rest * self.random.uniform(0.5, 1.5))

    async def pause(self, seconds: float) -> None:
        """Wait, but not past the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)
