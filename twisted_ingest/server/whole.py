"""
Whole reads: what is ready on many connections is received, and looked through, in one call that lets go of the lock.

In C where that was built (``_receive.c``); without, each connection reads for itself. What comes of a call is brought
to one connection after the other. Whoever was paused or ended meanwhile, by a neighbour, keeps what was received.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet import main

from twisted_ingest.flow.slabs import LEAST_ROOM, Slab, Slabs
from twisted_ingest.framing.scan import PURE, Look
from twisted_ingest.limits import KIB, READ_SIZE, ROUND_BYTES, SLAB_SIZE, WHOLE_READ
from twisted_ingest.server.pace import TIMED_SIZE

Request = tuple[int, bytes | bytearray, int, int, int]
"""A connection's number, its unfinished record, the bytes to receive at most, those of a record, and a `Look`."""

Answer = int | tuple[int, tuple[bytes | int, int, int], bytes]
"""
Bytes received; the ordinary records at the front, or where they stand, how many, and their bytes; what follows them.

A number alone is 0 at the end of the stream, or what went wrong (``-errno``). Records begin with the unfinished one.
Frames that are few are not told apart, and those that stand somewhere have their counts still.
"""

MOST_AT_ONCE = 256
"""Connections of one call: what it notes of them stands on the stack."""

AT_ONCE = 128 * KIB
"""Bytes after which a call asks for no other connection: what is received is copied, or written, while it is in the
processor's cache."""

VIEWS_FROM = 32 * KIB
"""Bytes of records from which a batch is a view of what was received into. Copying less costs less than a slab that is
pinned by it: a thirtieth of one."""

LONGEST_PARTIAL = SLAB_SIZE // 2
"""Bytes of an unfinished record behind which what follows is received. Behind a longer one there is little room."""

_EAGAIN = -11


def _chosen() -> Any:
    if os.environ.get(PURE):
        return None
    try:
        from twisted_ingest.server import _receive  # noqa: PLC0415 - it may not be there
    except ImportError:
        return None
    return _receive


_receive = _chosen()
IS_COMPILED = _receive is not None


def ordinary(partial: bytes | bytearray, data: memoryview, limit: int, look: Look) -> int:
    """Give how many bytes of ``data``, which follows ``partial``, are ordinary; zero where nothing was built in C."""
    return 0 if _receive is None else int(_receive.ordinary(partial, data, limit, look))


class WholeReads:
    """
    Reads from the connections of one port.

    ``watched`` are those that are read from, by number, as they change. ``attempt`` calls for a connection what it is
    given with it, and sees to what that returns or raises, as `twisted_ingest.server.readiness.Readiness` does. Memory
    is the process's; where all of it is taken, what was received is copied out of a piece that is never lent.
    """

    __slots__ = ("_attempt", "_scratch", "_slabs", "_watched")

    def __init__(self, slabs: Slabs, watched: Mapping[int, Any], attempt: Callable[..., None]) -> None:
        self._slabs = slabs
        self._watched = watched
        self._attempt = attempt
        self._scratch: Slab | None = None

    def read(self, ready: Iterable[Any]) -> None:
        """Read once from each connection that is ``ready`` and watched when its turn comes."""
        waiting = deque(ready)
        most = min(WHOLE_READ, max(READ_SIZE, ROUND_BYTES // (len(waiting) or 1)))
        while waiting:
            self._read_some(waiting, most)

    def _read_some(self, waiting: deque[Any], most: int) -> None:
        """Read from as many as one call can be expected to have room for."""
        asked: list[tuple[Any, Any]] = []
        requests: list[Request] = []
        others: list[Any] = []
        room = AT_ONCE
        if not self._slabs.has_room:
            most = 0
        while waiting and room > 0 and len(asked) < MOST_AT_ONCE:
            transport = waiting.popleft()
            try:
                request = transport.request(most) if self._is_watched(transport) else None
            except Exception as bug:  # noqa: BLE001 - its own connection's
                self._attempt(transport, _throw, bug)
                continue
            if request is None:
                others.append(transport)
            else:
                asked.append((transport, transport.protocol))
                requests.append(request)
                room -= transport.last_read + len(request[1])
        if asked:
            self._receive(asked, requests, waiting)
        for transport in others:
            if self._is_watched(transport):
                self._attempt(transport, transport.doRead)

    def _is_watched(self, transport: Any) -> bool:
        return self._watched.get(transport.fileno()) is transport

    def _receive(self, asked: list[tuple[Any, Any]], requests: list[Request], waiting: deque[Any]) -> None:
        slab = self._slabs.writable(len(requests[0][1]) + LEAST_ROOM)
        views_from = VIEWS_FROM
        if slab is None:
            slab, views_from = self._unlent(), SLAB_SIZE + 1
        try:
            answers = _receive.receive(slab.memory, slab.position, requests, LEAST_ROOM, views_from)
        except Exception as bug:  # noqa: BLE001 - what was received is lost: of none of them the rest can be read
            for transport, _ in asked:
                self._attempt(transport, _throw, bug)
            return
        waiting.extendleft(transport for transport, _ in reversed(asked[len(answers) :]))
        watched = self._watched
        for of, request, answer in zip(asked, requests, answers, strict=False):
            transport, protocol = of
            now_there: Any = watched.get(request[0])
            # Asked here what almost always holds: this runs once for each line where clients send one at a time.
            if (
                type(answer) is tuple
                and answer[0] < TIMED_SIZE
                and type(answer[1][0]) is bytes
                and not (transport.is_dear or len(answer[2]) >= transport.read_size)
                and now_there is transport
                and protocol.framer.partial is request[1]
            ):
                try:
                    transport.expect(answer[0])
                    protocol.records_received(*answer, None)
                except Exception as bug:  # noqa: BLE001 - seen to as any other
                    self._attempt(transport, _throw, bug)
            else:
                self._attempt(transport, self._bring, of, request, answer, slab)

    def _unlent(self) -> Slab:
        """Give the piece that is never lent."""
        if self._scratch is None:
            self._scratch = Slab()
        return self._scratch

    def _bring(self, of: tuple[Any, Any], request: Request, answer: Answer, slab: Slab) -> Exception | None:
        """Bring what came of a request to its connection; gives why that is over, if so."""
        if isinstance(answer, int):
            return _why(answer)
        transport, protocol = of
        got, found, rest = answer
        wire, count, size = found
        _, partial, _, limit, look = request
        if not self._is_watched(transport) or protocol.framer.partial is not partial:
            # A neighbour has changed that: paused or ended it, or had its unfinished record given up.
            whole = bytes(slab.view[wire : wire + size]) if isinstance(wire, int) else wire
            transport.hold_back(whole[len(partial) if count else 0 :] + rest, protocol)
        elif isinstance(wire, int):
            end = wire + size
            length = size
            if look >= Look.FRAMES:
                length = _receive.compact(
                    slab.memory, wire, end, wire + len(partial) + got, limit, look == Look.FRAMES_OF_MIXED
                )
            lease = self._slabs.lend(slab, length, end)
            transport.bring(got, (slab.view[wire : wire + length], count, size), rest, lease)
        else:
            transport.bring(got, found, rest, None)
        return None


def _throw(bug: Exception) -> None:
    raise bug


def _why(answer: int) -> Exception | None:
    if answer == _EAGAIN:
        return None
    return main.CONNECTION_LOST if answer else main.CONNECTION_DONE
