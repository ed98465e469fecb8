"""
The protocols that come to a port for logs by mistake: how each begins, and what its user should do.

A stream of printable lines must match none. Where a protocol begins like text, a byte is asked for that no line holds;
those that are text altogether (HTTP, SMTP, Redis, SSH, PROXY version 1, RELP) must begin with so much of their grammar
that no log would.
"""

import re
from dataclasses import dataclass

from twisted_ingest.errors import RefuseReason
from twisted_ingest.framing.prefixes import Prefix, line, no_text, positions, text

HEAD_BYTES = 1024
"""Bytes of a connection looked at for a wrong protocol; a longer request line is taken for a line of a log."""

ZLIB_BYTES = 32
"""Bytes within which a zlib stream, two of whose first bytes are a letter of a script, shows that it is no text."""

UTF16_UNITS = 4
"""Characters, each beside a NUL, that show UTF-16 without a mark; fewer could be NUL-ended records of one character."""

_ANY = bytes(range(0x100))
_DIGIT = b"0123456789"
_LOWER = b"abcdefghijklmnopqrstuvwxyz"
_LETTER = _LOWER + _LOWER.upper()
_LENGTH = (b"\0", bytes(range(9)), _ANY, _ANY)
"""Before a pickle: half a mebibyte at most, so that NUL and LF in front of a text are no such length."""
_PRINTABLE = bytes(range(0x20, 0x7F))
_UNIT = b"\t\r\n" + _PRINTABLE
_HEX = b"0123456789abcdefABCDEF"
_SIZE = (b"\0", b"\0", _ANY, bytes(range(8, 0x100)))
"""Before a first request of Kafka's or PostgreSQL's: eight bytes to 64 KiB."""

_STRANGER = "let only your senders reach this port (--allow)"


@dataclass(frozen=True, slots=True)
class Signature:
    """A protocol by its beginnings, any of which will do."""

    reason: RefuseReason
    what: str
    """Completes "sent …"."""
    fix: str
    prefixes: tuple[Prefix, ...] = ()


_UNCOMPRESS = (
    "turn compression off at the client (rsyslog's omfwd: no compression.mode; log4j2's Gelf: compressionType=OFF)"
)

# A request line, whole: `GET ` alone may begin an honest line of a log.
_REQUEST = re.compile(
    rb"(?:[A-Z][A-Z-]{1,31} (?:[/*]|[a-z]{2,16}://)[^ \x00-\x1f]*|CONNECT [^ \x00-\x1f]+:[0-9]{1,5})"
    rb" HTTP/[0-9](?:\.[0-9])?\r?\n"
)
_REQUEST_BEGUN = re.compile(rb"[A-Z][A-Z-]{0,31}(?: (?:[^ \x00-\x1f]+(?: [A-Z0-9./]{0,8}\r?)?)?)?")
_GREETING = re.compile(
    rb"(?:[EL]HLO [0-9A-Za-z.:\[\]-]+|HELO (?:\[[0-9A-Za-z.:]+\]|localhost|[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)+))\r\n"
)
_GREETING_BEGUN = re.compile(rb"[EHL](?:[HE](?:L(?:O(?: [0-9A-Za-z.:\[\]-]*\r?)?)?)?)?")


_OBJECT_BEGINS = b"sr\0"
_OBJECT = text(_OBJECT_BEGINS, bytes(range(1, 0x100)))
_CLASS = re.compile(rb"[A-Za-z0-9_.$]*")


def _java_object(head: bytes) -> bool | None:
    """Recognise an object and its class: the class's name, eight bytes of a number, flags that are no text."""
    begins = _OBJECT(head)
    if not begins:
        return begins
    end = len(_OBJECT_BEGINS) + 1 + head[len(_OBJECT_BEGINS)]
    if not _CLASS.fullmatch(head, len(_OBJECT_BEGINS) + 1, end):
        return False
    flags = head[end + 8 : end + 9]
    return flags in (b"\x02", b"\x03", b"\x04", b"\x0c") if flags else None


def _forwarded() -> tuple[Prefix, ...]:
    """
    Recognise what Fluentd and Fluent Bit begin with: an array of a tag and of a time or entries, or of a time.

    In other encodings than UTF-8 its first two bytes may be text, so that what comes behind the tag must fit too.
    """
    arrays, few = b"\x92\x93\x94", bytes(range(0x80, 0x90))
    seconds = (bytes(range(0x40, 0x80)), *[_ANY] * 3)  # of this century
    real = (b"\x41", bytes(range(0xD0, 0xE0)), *[_ANY] * 6, few + b"\xde")  # the same as a float, and a map
    behind = bytes([*range(0x90, 0xA0), *b"\xc4\xc5\xc6\xc7\xcb\xce\xcf\xd2\xd3\xd7\xd9\xda\xdb\xdc\xdd"])
    return (
        *(positions(arrays, bytes((0xA0 + size,)), *[_PRINTABLE] * size, behind) for size in range(1, 32)),
        positions(arrays, b"\xd9", bytes(range(0x20, 0x100)), *[_PRINTABLE] * 0x20),
        positions(arrays, b"\xd7", b"\0"),
        positions(arrays, b"\xc7", b"\x08", b"\0"),
        positions(arrays, b"\xce", *seconds, few + b"\xde"),
        positions(arrays, b"\xcb", *real),
        positions(arrays, b"\xcf", *[b"\0"] * 4, *seconds),
        positions(arrays, arrays, b"\xd7", b"\0"),
        positions(arrays, arrays, b"\xcb", *real),
    )


def _mqtt(length: int) -> tuple[Prefix, Prefix]:
    """Recognise the connect packet of each version of MQTT behind so many bytes of remaining length."""
    opening = (b"\x10", *[bytes(range(0x80, 0x100))] * (length - 1), bytes(range(1, 0x80)), b"\0")
    names = ((b"\x04", b"M", b"Q", b"T", b"T", b"\x04\x05"), (b"\x06", b"M", b"Q", b"I", b"s", b"d", b"p", b"\x03"))
    return positions(*opening, *names[0]), positions(*opening, *names[1])


def _redis(count: int, size: int) -> Prefix:
    """Recognise an array whose count and whose first element's size have so many digits: `*1`, `$4`, `PING`."""
    first, end = b"123456789", (b"\r", b"\n")
    number, length = (first, *[_DIGIT] * (count - 1)), (first, *[_DIGIT] * (size - 1))
    return positions(b"*", *number, *end, b"$", *length, *end, _LETTER)


SIGNATURES = (
    Signature(
        RefuseReason.TLS,
        "a TLS handshake",
        "this port speaks plain TCP: send to one that speaks TLS (--listen-tls, --relp-tls), or turn TLS off at the "
        "client",
        (positions(b"\x16", b"\x03", bytes(range(5))),),
    ),
    Signature(
        RefuseReason.HTTP,
        "an HTTP request",
        "this port takes lines, not HTTP: choose a TCP or syslog output at the client; metrics and health are on "
        "another port (--admin)",
        (line(_REQUEST, _REQUEST_BEGUN, HEAD_BYTES),),
    ),
    Signature(
        RefuseReason.SSH,
        "an SSH banner",
        "an SSH client came to the wrong port: " + _STRANGER,
        (text(b"SSH-2.0-"), text(b"SSH-1.", _DIGIT, b"-"), text(b"SSH-1.", _DIGIT, _DIGIT, b"-")),
    ),
    Signature(
        RefuseReason.PROXY,
        "a PROXY protocol header",
        "say on this listener whose it may be (proxy_protocol_from, or --proxy-protocol-from NETWORK), or turn the "
        "PROXY protocol off where connections are passed on to this port (a load balancer's target group: "
        "proxy_protocol_v2.enabled=false; nginx: proxy_protocol off; HAProxy: no send-proxy, no send-proxy-v2); behind "
        "two proxies, let one send it",
        (
            text(b"PROXY TCP4 ", _DIGIT),
            text(b"PROXY TCP6 ", _HEX + b":"),
            text(b"PROXY UNKNOWN\r\n"),
            *(text(b"PROXY UNKNOWN ", *[_HEX] * digits, b":.") for digits in range(1, 5)),
            text(b"\r\n\r\n\0\r\nQUIT\n"),
        ),
    ),
    Signature(
        RefuseReason.RELP,
        "a RELP session",
        "use a RELP listener (--relp), or the client's plain TCP output (omfwd)",
        tuple(text(b"1 open ", *[_DIGIT] * digits, b" ", b"r", b"e", b"l", b"p", b"_") for digits in range(1, 5)),
    ),
    Signature(
        RefuseReason.PICKLE,
        "a Python pickle",
        "use twisted_ingest.logging_handler.IngestHandler, which sends lines, not logging's SocketHandler",
        (
            positions(*_LENGTH, b"\x80", b"\x02\x03\x04\x05"),
            positions(*_LENGTH, b"}]", b"q", b"\0\x01", b"("),
            positions(*_LENGTH, b"(", b"dl", b"p", _DIGIT, b"\n"),
            positions(b"\x80", b"\x02\x03\x04\x05", b"\x95" + bytes(range(0x28, 0x7F))),
        ),
    ),
    Signature(
        RefuseReason.JAVA,
        "Java serialisation",
        "use an appender that sends text: log4j2's Socket appender with PatternLayout (%m%n) or JsonLayout (compact, "
        "eventEol), not SerializedLayout; logback's LogstashTcpSocketAppender, not SocketAppender",
        (
            text(b"\xac\xed\0\x05"),
            # An object and its class without the header of a stream: so log4j2 begins when it has connected again.
            _java_object,
        ),
    ),
    Signature(
        RefuseReason.MSGPACK,
        "MessagePack",
        "let the client send JSON lines (Fluent Bit: output tcp with format json_lines, not forward; Docker: the "
        "syslog or gelf driver, not fluentd)",
        _forwarded(),
    ),
    Signature(
        RefuseReason.ZLIB,
        "a compressed stream (zlib)",
        _UNCOMPRESS,
        (positions(b"x", b"\x01\x9c"), no_text(b"x\xda", ZLIB_BYTES)),
    ),
    Signature(RefuseReason.GZIP, "a compressed stream (gzip)", _UNCOMPRESS, (text(b"\x1f\x8b\x08"),)),
    Signature(
        RefuseReason.ZSTD,
        "a compressed stream (zstd)",
        _UNCOMPRESS,
        (text(b"\x28\xb5\x2f\xfd"), positions(bytes(range(0x50, 0x60)), b"*", b"M", b"\x18")),
    ),
    Signature(
        RefuseReason.LZ4, "a compressed stream (lz4)", _UNCOMPRESS, (text(b"\x04\x22M\x18"), text(b"\x02\x21L\x18"))
    ),
    Signature(RefuseReason.SNAPPY, "a compressed stream (snappy)", _UNCOMPRESS, (text(b"\xff\x06\0\0sNaPpY"),)),
    Signature(
        RefuseReason.BEATS,
        "Beats (Lumberjack)",
        "Beats send no lines: let rsyslog (imfile), Fluent Bit or Vector send the file, or give Beats a Logstash whose "
        "tcp output has the codec json_lines",
        # The number behind the letter is below 589,824. No text goes on as it does; with more it could be a tab.
        (positions(b"12", b"WJDC", b"\0", bytes(range(9))),),
    ),
    Signature(
        RefuseReason.KAFKA,
        "a Kafka request",
        "this port is no Kafka broker: correct bootstrap.servers, or choose a TCP or syslog output at the client",
        # A length; Metadata, SaslHandshake or ApiVersions; its version; the number of the request, from either end.
        (positions(*_SIZE, b"\0", b"\x03\x11\x12", b"\0", bytes(range(32)), b"\0\x7f"),),
    ),
    Signature(
        RefuseReason.POSTGRESQL,
        "a PostgreSQL client's first message",
        "this port is no PostgreSQL server: correct the client's host and port; " + _STRANGER,
        (
            # A length and a version, behind which a start has the name of a parameter; or a code that asks for more.
            positions(*_SIZE, b"\0", b"\x03", _ANY, _ANY, _LOWER + b"_"),
            positions(*_SIZE, b"\x04", b"\xd2", b"\x16", b"\x2e\x2f\x30"),
        ),
    ),
    Signature(
        RefuseReason.REDIS,
        "a Redis command",
        "this port is no Redis server: choose a TCP output with JSON lines at the client, not its Redis output",
        tuple(_redis(count, size) for count in range(1, 5) for size in range(1, 4)),
    ),
    Signature(
        RefuseReason.MQTT,
        "an MQTT connection",
        "this port is no MQTT broker: choose a TCP or syslog output at the client",
        (*_mqtt(1), *_mqtt(2), *_mqtt(3)),
    ),
    Signature(
        RefuseReason.AMQP,
        "an AMQP connection",
        "this port is no AMQP broker: choose a TCP or syslog output at the client",
        (text(b"AMQP\0", b"\0\x01"), text(b"AMQP\x01"), text(b"AMQP\x03")),
    ),
    Signature(
        RefuseReason.MEMCACHED,
        "memcached's binary protocol",
        "this port is no memcached server: correct the client's host and port; " + _STRANGER,
        (positions(b"\x80", bytes(range(0x40)), b"\0", _ANY, bytes(range(0x21)), b"\0"),),
    ),
    Signature(
        RefuseReason.RDP,
        "a remote desktop connection (TPKT)",
        "a remote desktop client or a scanner came to the wrong port: " + _STRANGER,
        (positions(b"\x03", b"\0", _ANY, _ANY, _ANY, b"\xe0", b"\0", b"\0"),),
    ),
    Signature(
        RefuseReason.SPLUNK,
        "Splunk's cooked data",
        "let the forwarder send raw lines: sendCookedData = false in its outputs.conf",
        (text(b"--splunk-cooked-mode-v", _DIGIT, b"-", b"-", b"\0", b"\0"),),
    ),
    Signature(
        RefuseReason.SMTP,
        "an SMTP greeting",
        "a mail client or a scanner came to the wrong port: " + _STRANGER,
        (line(_GREETING, _GREETING_BEGUN, HEAD_BYTES),),
    ),
    Signature(
        RefuseReason.DOCKER,
        "Docker's multiplexed stream",
        "take its 8-byte headers off (docker logs does), or use the syslog or gelf log driver",
        (positions(b"\x01\x02", b"\0", b"\0", b"\0", b"\0\x01"),),
    ),
    Signature(
        RefuseReason.UTF16,
        "text in UTF-16",
        "let the sender encode in UTF-8 (PowerShell and .NET: UTF8Encoding, not Encoding.Unicode)",
        (
            positions(b"\xff", b"\xfe"),
            positions(b"\xfe", b"\xff"),
            positions(*[_PRINTABLE, b"\0"] * 2, *[_UNIT, b"\0"] * (UTF16_UNITS - 2)),
            positions(*[b"\0", _PRINTABLE] * 2, *[b"\0", _UNIT] * (UTF16_UNITS - 2)),
        ),
    ),
)

PLAIN = Signature(
    RefuseReason.PLAIN,
    "what is no RELP frame (plain syslog?)",
    "use a lines listener (--listen), or a client that speaks RELP (rsyslog's omrelp)",
)
