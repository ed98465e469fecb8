"""
What a session of RELP is answered: pure text.
"""

from typing import NamedTuple

from twisted_ingest.batch import LF
from twisted_ingest.errors import RelpError
from twisted_ingest.framing.scan import HIGHEST_NUMBER, answers_to

VERSION = 1
"""The highest version of the protocol that we speak; what is answered is the lower of both sides' versions."""

OK = b"200 OK"
SERVERCLOSE = b"0 serverclose 0\n"
"""The hint that the session is over; numbered 0, because nobody answers it."""

REFUSALS = {
    RelpError.NOT_OPEN: b"500 command before open",
    RelpError.OPEN_TWICE: b"500 session is open already",
    RelpError.VERSION: b"500 relp_version is no number",
    RelpError.COMMANDS: b"500 required command not supported by client: syslog",
}
"""What is said of a mistake before the session ends for it; nothing of others."""


class Reply(NamedTuple):
    """The same answer to ``frames`` frames, the first of them ``number``."""

    number: int
    frames: int
    text: bytes
    """May be empty."""

    @property
    def records(self) -> int:
        """See `twisted_ingest.framing.session.Answer`."""
        return self.frames if self.text == OK else 0

    def encode(self) -> bytes:
        """Write it as the wire wants it."""
        number, frames, text = self
        if text == OK:
            return answers_to(number, frames)
        end = b" rsp %d %b\n" % (len(text), text) if text else b" rsp 0\n"
        return b"".join([b"%d%b" % (next_number(number, after), end) for after in range(frames)])


def next_number(number: int, after: int = 1) -> int:
    """Give the number that comes so many frames after another."""
    return (number + after - 1) % HIGHEST_NUMBER + 1


def accept(offers: bytes) -> bytes | RelpError:
    """Give what a client's offers are answered with, or the rule that they break."""
    # A LF before the first offer is what the written protocol wants; librelp sends none.
    offered = dict(line.partition(b"=")[::2] for line in offers.strip(LF).split(LF))
    version = offered.get(b"relp_version", b"0")
    if not version.isdigit():
        return RelpError.VERSION
    if b"syslog" not in offered.get(b"commands", b"syslog").split(b","):
        return RelpError.COMMANDS
    # Its size is no concern: whatever it is beyond ours, ours is the lower.
    lower = min(VERSION, 1 if version.strip(b"0") else 0)
    return b"%b\nrelp_version=%d\nrelp_software=twisted-ingest\ncommands=syslog" % (OK, lower)
