"""
The two ends of one TLS session in memory: what the peer has sent goes in, what is to be sent comes out.

Knows OpenSSL through the standard library, and no socket.
"""

import contextlib
import ssl
from enum import Enum
from typing import Any, NamedTuple

from twisted_ingest.limits import KIB

RECORD_SIZE = 16 * KIB
"""Bytes of one TLS record at most (RFC 8446, 5.1). OpenSSL gives one a call: with less room the rest of it would stay
inside, where nobody sees it."""


SLICE_SIZE = RECORD_SIZE + 256
"""Bytes that are put into a session at once: a record with all that is around it (RFC 8446, 5.2). OpenSSL keeps the
room that it once needed for what has come, for as long as the session lives: for whole reads 150 KiB a connection."""


class Next(Enum):
    """What can be decrypted next."""

    NOTHING = "nothing"
    """It wants more to come first."""
    MORE = "more"
    """There may be more, and there was no room."""
    GOODBYE = "goodbye"
    """The peer has said that it will send no more."""
    CUT = "cut"
    """Nothing: what carries it has ended without that."""


class Session(NamedTuple):
    """One TLS session: OpenSSL's object, and what has come for it and is to be sent by it."""

    object: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO

    @classmethod
    def accept(cls, context: ssl.SSLContext) -> "Session":
        """Begin one as the server."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        return cls(context.wrap_bio(incoming, outgoing, server_side=True), incoming, outgoing)

    def decrypt(self, wire: memoryview, at: int, view: memoryview) -> tuple[int, int, Next]:
        """
        Take ``wire`` from ``at`` on, and decrypt into ``view`` while a whole record has room there.

        Gives how many bytes were decrypted, up to where ``wire`` was taken, and what is next. Raises ``ssl.SSLError``
        where what has come is no TLS; what was decrypted before it is given first.
        """
        filled = 0
        if not self.incoming.pending:
            at = self._take(wire, at)
        while True:
            try:
                size, found = self._read(view[filled:])
            except ssl.SSLError:
                if filled:
                    # Told again by the next call: OpenSSL does not get over it.
                    return filled, at, Next.MORE
                raise
            filled += size
            if found is not Next.NOTHING or at == len(wire):
                return filled, at, found
            at = self._take(wire, at)

    def _read(self, view: memoryview) -> tuple[int, Next]:
        """Decrypt what has been taken. Raises as `decrypt` does."""
        read, filled, most = self.object.read, 0, len(view) - RECORD_SIZE
        try:
            while filled <= most:
                size: int = read(RECORD_SIZE, view[filled:])  # type: ignore[assignment]
                if not size:
                    return filled, Next.GOODBYE
                filled += size
        except ssl.SSLWantReadError:
            return filled, Next.NOTHING
        except ssl.SSLZeroReturnError:  # what it is where we have said goodbye before
            return filled, Next.GOODBYE
        except ssl.SSLError:
            if not filled:
                raise
        return filled, Next.MORE

    def _take(self, wire: memoryview, at: int) -> int:
        """Take a slice; gives where the next begins."""
        end = min(len(wire), at + SLICE_SIZE)
        if end > at:
            self.incoming.write(wire[at:end])
        return end

    def encrypt(self, data: bytes) -> None:
        """Encrypt what is to be sent. Raises ``ssl.SSLError`` where nothing can be any more."""
        if data:
            self.object.write(data)

    def say_goodbye(self) -> None:
        """Say that we send no more; the peer still may. To be called once."""
        # OpenSSL would look for the peer's own goodbye, and throw away the record that it finds in its place.
        waiting = self.incoming.read()
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()
        if waiting:
            self.incoming.write(waiting)

    def flush(self, transport: Any) -> None:
        """Give what is to be sent to a transport."""
        if self.outgoing.pending:
            transport.write(self.outgoing.read())
