"""
One request to the admin endpoint.
"""

import io
import re
from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.web.server import Request

from twisted_ingest.admin.clients import PROBES

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
"""The begin of a request target in the form that proxies are sent (RFC 9112, 3.2.2), which servers take as well."""


class RequestOwner(Protocol):
    """What a request needs of its channel."""

    def wait_turn(self, act: Callable[[], None], *, is_probe: bool = False) -> None:
        """Call when its turn has come, unless the client has gone by then."""

    def written(self) -> None:
        """Wait for the client to take what was written."""


class AdminRequest(Request):
    """
    A request whose body is let fall, and which waits for its turn.

    ``authority`` is that of its target, where this is a whole URL.
    """

    channel: RequestOwner  # type: ignore[assignment]
    authority: bytes | None = None
    pieces: Iterator[bytes] = iter(())

    def gotLength(self, length: int | None) -> None:
        """Make room for nothing: Twisted would store any amount of body."""
        self.content = io.BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Let it fall."""

    def parseCookies(self) -> None:
        """Keep none."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Take a whole request: its query means nothing to us, and is let fall too."""
        absolute = _ABSOLUTE.match(path)
        if absolute:
            self.authority = absolute[1]
            path = path[absolute.end() :]
        path = re.split(rb"[?#]", path, maxsplit=1)[0] or b"/"
        # Twisted drops the first byte, whatever it is, and has an answer of its own to "*": no page begins with two.
        super().requestReceived(command, path if path.startswith(b"/") else b"//" + path, version)

    def authorities(self) -> list[str]:
        """Say whom it was meant for: what its target says, else each ``Host``, of which there should be one."""
        found = self.requestHeaders.getRawHeaders(b"Host", []) if self.authority is None else [self.authority]
        return [authority.decode("latin-1") for authority in found]

    def process(self) -> None:
        """Wait for a turn, then answer."""
        self.channel.wait_turn(super().process, is_probe=self.path.decode("latin-1") in PROBES)

    def stream(self, pieces: Iterator[bytes]) -> None:
        """Answer with pieces, none of them empty: each is asked for when the client has taken the one before."""
        self.pieces = pieces
        self.write_piece()

    def write_piece(self) -> None:
        """Write the next piece, or the end."""
        piece = next(self.pieces, b"")
        if piece:
            self.write(piece)
            self.channel.written()
        else:
            self.finish()
