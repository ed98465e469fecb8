"""
What the first bytes of a connection, or of a frame, are evidence of.

Pure, and decided by prefixes: whatever more bytes follow, a verdict once given stays, so that no cut of the stream
changes it.
"""

import re
from dataclasses import dataclass

from twisted_ingest.errors import RefuseReason

BOM = b"\xef\xbb\xbf"

# Evidence for a counted frame (RFC 6587 section 3.4.1) among lines: a count without leading zero, and a syslog priority
# behind it. A line that begins with a date or a status code has none.
COUNTED = re.compile(rb"([1-9][0-9]{0,6}) (?=(?:\xef\xbb\xbf)?<[0-9]{1,3}>)")
ANY_COUNTED = re.compile(rb"\n?([1-9][0-9]{0,6}) ")
"""The same where nothing but counted frames may come: the count alone, behind one LF at most."""

PADDING = re.compile(rb"\0+| {1,8}(?=<)|\xef\xbb\xbf(?=<)")
"""What stands before a frame and belongs to none: NUL behind LF (Log4j), blanks (Cisco) or a BOM before a priority."""

NUL_ENDED = re.compile(rb"<[0-9]{1,3}>|\{")
"""How records begin that some clients end with NUL: Python's `SysLogHandler`, GELF."""

RELP_HEADER = re.compile(rb"([0-9]{1,9}) ([A-Za-z]{1,32}) ([0-9]{1,9})([ \n])")
"""How a RELP frame begins: number, command, length; LF right behind the length where it is zero."""

# The beginnings of all of the above that could still go on either way.
_UNDECIDED = re.compile(
    rb" {1,8}|\xef(?:\xbb\xbf?)?|<[0-9]{0,3}|[1-9][0-9]{0,6}(?: (?:\xef(?:\xbb\xbf?)?)?(?:<[0-9]{0,3})?)?"
)
_UNDECIDED_COUNT = re.compile(rb"\n?(?:[1-9][0-9]{0,6})?")
_UNDECIDED_RELP = re.compile(rb"[0-9]{1,9}(?: (?:[A-Za-z]{1,32}(?: (?:[0-9]{1,9})?)?)?)?")
UNDECIDED_BYTES = 16
"""The longest of them: seven digits, a blank, a BOM, ``<`` and three digits."""

HEAD_BYTES = 1024
"""Bytes of a connection looked at for a wrong protocol; a longer request line is taken for a line of a log."""


def is_undecided(tail: bytes | bytearray) -> bool:
    """Whether the beginning of a frame does not show yet what kind of frame it is."""
    return len(tail) < UNDECIDED_BYTES and _UNDECIDED.fullmatch(tail) is not None


def counted_is_undecided(tail: bytes | bytearray) -> bool:
    """Whether the beginning of a counted frame does not show yet how long it is."""
    return _UNDECIDED_COUNT.fullmatch(tail) is not None


def relp_is_undecided(tail: bytes | bytearray) -> bool:
    """Whether the beginning of a RELP frame may become a header yet."""
    return _UNDECIDED_RELP.fullmatch(tail) is not None


@dataclass(frozen=True, slots=True)
class Signature:
    """A protocol's first bytes: for each position the bytes that may stand there, or a text."""

    reason: RefuseReason
    what: str
    fix: str
    first: tuple[bytes, ...]

    def matches(self, head: bytes) -> bool | None:
        """Whether a connection begins so; ``None`` while it may."""
        for position, allowed in enumerate(self.first):
            if position >= len(head):
                return None
            if head[position] not in allowed:
                return False
        return True


def _text(text: bytes) -> tuple[bytes, ...]:
    return tuple(text[at : at + 1] for at in range(len(text)))


_DIGIT = b"0123456789"
_ANY = bytes(range(256))
_RELP_FIX = "use a RELP listener (--relp), or the client's plain TCP output (omfwd)"

SIGNATURES = (
    Signature(
        RefuseReason.TLS,
        "a TLS handshake",
        "this port speaks plain TCP: turn TLS off at the client, or put a TLS front before it",
        (b"\x16", b"\x03", bytes(range(5))),
    ),
    Signature(RefuseReason.SSH, "an SSH banner", "an SSH client came to the wrong port", _text(b"SSH-")),
    Signature(
        RefuseReason.PROXY,
        "a PROXY protocol header",
        "turn send-proxy off for this backend",
        (*_text(b"PROXY "), b"TU", b"CN", b"PK"),
    ),
    Signature(
        RefuseReason.PROXY,
        "a PROXY protocol header",
        "turn send-proxy-v2 off for this backend",
        _text(b"\r\n\r\n\0\r\nQUIT\n"),
    ),
    Signature(RefuseReason.RELP, "a RELP session", _RELP_FIX, (*_text(b"1 open "), _DIGIT)),
    Signature(
        RefuseReason.PICKLE,
        "a Python pickle",
        "use a handler that sends text (SysLogHandler), not SocketHandler",
        (b"\0", bytes(range(17)), _ANY, _ANY, b"\x80", b"\x02\x03\x04\x05"),
    ),
    Signature(
        RefuseReason.JAVA,
        "Java serialisation",
        "use an appender that sends text (such as LogstashTcpSocketAppender), not SocketAppender",
        _text(b"\xac\xed\0\x05"),
    ),
    Signature(
        RefuseReason.MSGPACK,
        "MessagePack",
        "set the format of the output to json_lines (Fluent Bit's tcp output: format json_lines)",
        (b"\x92\x93\x94\xdc\xdd", bytes([*range(0x90, 0xC0), 0xC7, 0xCB, 0xCE, 0xCF, 0xD7, 0xD9])),
    ),
    Signature(
        RefuseReason.ZLIB,
        "a compressed stream",
        "turn compression off at the client (rsyslog omfwd: no compression.mode)",
        (b"x", b"\x01\x9c\xda"),
    ),
)

_PLAIN = Signature(
    RefuseReason.PLAIN,
    "what is no RELP frame (plain syslog?)",
    "use a lines listener (--listen), or a client that speaks RELP (rsyslog's omrelp)",
    (),
)
_HTTP = Signature(RefuseReason.HTTP, "an HTTP request", "the admin endpoint is another port (--admin)", ())
_VERBS = tuple(
    _text(verb + b" ")
    for verb in (b"GET", b"PUT", b"HEAD", b"POST", b"PATCH", b"TRACE", b"DELETE", b"OPTIONS", b"CONNECT", b"PRI")
)
# A request line, whole: `GET ` alone may begin an honest line of a log.
_REQUEST = re.compile(rb"[A-Z]+ [^ \n]+ HTTP/[0-9](?:\.[0-9])?\r?\n")


def _is_http(head: bytes) -> bool | None:
    if not any(Signature(RefuseReason.HTTP, "", "", verb).matches(head) is not False for verb in _VERBS):
        return False
    if b"\n" in head:
        return _REQUEST.match(head) is not None
    return None if len(head) < HEAD_BYTES else False


def diagnose(data: bytes) -> tuple[Signature | None, bool]:
    """
    Say which protocol that is not ours a connection begins with, if any, and whether that is certain.

    ``(None, False)`` asks for more bytes; it is never asked past ``HEAD_BYTES``.
    """
    head = data[:HEAD_BYTES]
    is_certain = True
    for signature in (*SIGNATURES, _HTTP):
        verdict = _is_http(head) if signature is _HTTP else signature.matches(head)
        if verdict:
            return signature, True
        is_certain = is_certain and verdict is not None
    return None, is_certain


def diagnose_relp(data: bytes) -> tuple[Signature | None, bool]:
    """Do the same for a connection that ought to begin with a RELP frame: whatever does not is named something."""
    if RELP_HEADER.match(data) is not None:
        return None, True
    if relp_is_undecided(data):
        return None, False
    found, is_certain = diagnose(data)
    return (found or _PLAIN, True) if is_certain else (None, False)
