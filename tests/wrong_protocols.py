"""What clients of other protocols send first, and text that resembles it."""

import gzip
import pickle
import re
import zlib
from logging import makeLogRecord
from logging.handlers import SocketHandler

from twisted_ingest.errors import RefuseReason

RECORD = makeLogRecord({"name": "app", "msg": "hello %s", "args": ("x",), "levelno": 20})
LINES = "<13>Nov 26 05:00:00 host app: text\r\n"


def counted_pickle(content: object, protocol: int) -> bytes:
    """Give a pickle behind its length, as `SocketHandler` and Carbon's clients send it."""
    data = pickle.dumps(content, protocol)
    return len(data).to_bytes(4, "big") + data


# What the clients named send first, as it was on the wire.
WRONG: tuple[tuple[RefuseReason, bytes], ...] = (
    (RefuseReason.TLS, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    (RefuseReason.HTTP, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    (RefuseReason.HTTP, b"POST /loki/api/v1/push HTTP/1.0\r\n\r\n"),
    (RefuseReason.HTTP, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04"),
    *((RefuseReason.HTTP, b"%b / HTTP/1.1\r\nHost: x\r\n" % verb) for verb in (b"PROPFIND", b"M-SEARCH", b"PURGE")),
    (RefuseReason.HTTP, b"VERSION-CONTROL /a?b=%20 HTTP/1.1\nHost: x\n"),
    (RefuseReason.HTTP, b"GET http://192.0.2.1/ HTTP/1.1\r\n\r\n"),
    (RefuseReason.HTTP, b"CONNECT example.org:443 HTTP/1.1\r\n\r\n"),
    (RefuseReason.SSH, b"SSH-2.0-OpenSSH_9.2\r\n"),
    (RefuseReason.SSH, b"SSH-1.99-Cisco-1.25\n"),
    (RefuseReason.PROXY, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n<13>x\n"),
    (RefuseReason.PROXY, b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n<13>x\n"),
    (RefuseReason.PROXY, b"PROXY UNKNOWN\r\n"),
    (RefuseReason.PROXY, b"PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n"),
    (RefuseReason.PROXY, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
    (RefuseReason.RELP, b"1 open 86 relp_version=0\nrelp_software=librelp"),
    *((RefuseReason.PICKLE, counted_pickle(RECORD.__dict__, version)) for version in range(6)),
    *((RefuseReason.PICKLE, counted_pickle([("a.b", (1, 2.0))], version)) for version in range(6)),
    (RefuseReason.PICKLE, b"\0\0\1\x2c}q\1(U\4nameq\2U\3app"),  # Python 2
    (RefuseReason.PICKLE, SocketHandler("192.0.2.1", 1).makePickle(RECORD)),
    *((RefuseReason.PICKLE, pickle.dumps(RECORD.__dict__, version)) for version in range(2, 6)),
    (RefuseReason.JAVA, b"\xac\xed\0\x05sr\0"),
    (RefuseReason.JAVA, b"sr\0\x11java.util.HashMap\5\7\xda\xc1\xc3\x16\x60\xd1\3\0\2F\0\nload"),
    (
        RefuseReason.JAVA,
        b"sr\0>org.apache.logging.log4j.core.impl.Log4jLogEvent$LogEventProxy\x88\xd5\xdd\x1a\x6b\x45\x30\xa9\2",
    ),
    (RefuseReason.MSGPACK, b"\x92\xd7\0\x65\x5f\x00\x00\x00\x00\x00\x00\x81\xa3log\xa1x"),
    # Fluent Bit's tcp output; with metadata; forward, with the entries packed and not; Docker's driver.
    (RefuseReason.MSGPACK, b"\x92\x92\xd7\0\x65\x5f\0\0\0\0\0\0\x80\x81\xa3log\xa1x"),
    (RefuseReason.MSGPACK, b"\x92\xcb\x41\xd9\x57\xc0\0\0\0\0\x81\xa3log\xa1x"),
    (RefuseReason.MSGPACK, b"\x93\xa3tag\xc4\x10\x92\xd7\0\x65\x5f\0\0\0\0\0\0\x81\xa1a\xa1b\x81\xa4size\1"),
    (RefuseReason.MSGPACK, b"\x92\xa3tag\x91\x92\xce\x65\x5f\0\0\x81\xa1a\xa1b"),
    (RefuseReason.MSGPACK, b"\x94\xac0123456789ab\xd2\x65\x5f\0\0\x81\xa3log\xa1x\xc0"),
    (RefuseReason.MSGPACK, b"\x93\xd9\x28" + b"a-long-tag.of.forty.bytes" * 2 + b"\xce\x65\x5f\0\0\x81\xa3log\xa1x"),
    (RefuseReason.MSGPACK, b"\x93\xa5a.tag\xce\x65\x5f\0\0\x81\xa3log\xa1x"),
    *((RefuseReason.ZLIB, zlib.compress(LINES.encode() * 9, level)) for level in (0, 1, 6, 9)),
    *((RefuseReason.ZLIB, zlib.compress(b"<13>host app: %d" % number, 9)) for number in range(9)),
    (RefuseReason.GZIP, gzip.compress(b'{"version":"1.1"}') + b"\0"),
    (RefuseReason.ZSTD, b"\x28\xb5\x2f\xfd\x04X\x85\0\0P<13>hello\n"),
    (RefuseReason.ZSTD, b"P*M\x18\x04\0\0\0\x10\0\0\0\x28\xb5\x2f\xfd"),
    (RefuseReason.LZ4, b"\x04\x22M\x18d@\xa7\x13\0\0\0\xab<13>hello\n"),
    (RefuseReason.LZ4, b"\x02\x21L\x18\x13\0\0\0\xab<13>hello\n"),
    (RefuseReason.SNAPPY, b"\xff\x06\0\0sNaPpY\x01\t\0\0\xbb\x1f\x1c\x19hello"),
    (RefuseReason.BEATS, b"2W\0\0\0\x012C\0\0\0!x\x9c3\xf2b"),  # pylogbeat
    (RefuseReason.BEATS, b"2W\0\0\x08\0"),  # Filebeat's window, before anything else
    (RefuseReason.BEATS, b"1W\0\0\x13\x88"),  # Logstash's lumberjack output
    (RefuseReason.BEATS, b"1D\0\0\0\1\0\0\0\1"),
    (RefuseReason.BEATS, b"2J\0\0\0\1\0\0\0\x10{}"),
    (RefuseReason.KAFKA, b"\0\0\0@\0\x12\0\3\0\0\0\1\0\x07rdkafka\0\x17confluent-kafka-python"),
    *((RefuseReason.KAFKA, b"\0\0\0\x18\0\x12\0%c\0\0\0\0\0\nproducer-1" % version) for version in range(5)),
    *((RefuseReason.KAFKA, b"\0\0\0\x1c\0\3\0%c\0\0\0\1\0\x06sarama" % version) for version in range(14)),
    (RefuseReason.KAFKA, b"\0\0\0\x18\0\x12\0\3\x7f\xff\xff\xf8\0\nproducer-1"),  # Java, with SASL
    (RefuseReason.POSTGRESQL, b"\0\0\0\x08\x04\xd2\x16\x2f"),
    (RefuseReason.POSTGRESQL, b"\0\0\0\x08\x04\xd2\x16\x30"),
    (RefuseReason.POSTGRESQL, b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1\0\0\0\2"),
    (RefuseReason.POSTGRESQL, b"\0\0\x002\0\3\0\0user\0u\0database\0db\0application_name\0psql\0\0"),
    (RefuseReason.POSTGRESQL, b"\0\0\x002\0\3\0\2database\0db\0user\0u\0\0"),
    (RefuseReason.REDIS, b"*1\r\n$4\r\nPING\r\n"),
    (RefuseReason.REDIS, b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"),
    (RefuseReason.REDIS, b"*14\r\n$10\r\nPSUBSCRIBE\r\n"),
    (RefuseReason.MQTT, b"\x10$\0\6MQIsdp\3\2\0<\0\x166CXtxRPme7SARhHoWgrli3"),
    (RefuseReason.MQTT, b"\x10\x0c\0\4MQTT\4\2\0<\0\0"),
    (RefuseReason.MQTT, b"\x10\r\0\4MQTT\5\2\0<\0\0\0"),
    (RefuseReason.MQTT, b"\x10\xc8\1\0\4MQTT\5\2\0<"),
    (RefuseReason.MQTT, b"\x10\xc8\x81\1\0\4MQTT\4\2\0<"),
    (RefuseReason.AMQP, b"AMQP\0\0\t\1"),
    (RefuseReason.AMQP, b"AMQP\0\1\0\0"),
    (RefuseReason.MEMCACHED, b"\x80\1\0\1\x08\0\0\0\0\0\0\n" + bytes(20) + b"ab"),
    (RefuseReason.MEMCACHED, b"\x80\x0b" + bytes(22)),
    (RefuseReason.RDP, b"\3\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0"),
    (RefuseReason.RDP, b"\3\0\0\x2a\x25\xe0\0\0\0\0\0Cookie: mstshash=user\r\n"),
    (RefuseReason.SPLUNK, b"--splunk-cooked-mode-v3--" + bytes(103) + b"host" + bytes(252) + b"8089"),
    (RefuseReason.SMTP, b"EHLO mail.example.org\r\n"),
    (RefuseReason.SMTP, b"EHLO x\r\n"),
    (RefuseReason.SMTP, b"EHLO [127.0.0.1]\r\n"),
    (RefuseReason.SMTP, b"HELO localhost\r\n"),
    (RefuseReason.DOCKER, b"\1\0\0\0\0\0\0\x0chello world\n"),
    (RefuseReason.DOCKER, b"\2\0\0\0\0\0\x40\0hello world\n"),
    *(
        (RefuseReason.UTF16, mark + LINES.encode(code))
        for code, mark in (
            ("utf-16-le", b"\xff\xfe"),
            ("utf-16-be", b"\xfe\xff"),
            ("utf-16-le", b""),
            ("utf-16-be", b""),
        )
    ),
    (RefuseReason.UTF16, "\ufeffÄrger\r\n".encode("utf-16-le")),
    (RefuseReason.UTF16, "ok\r\n".encode("utf-16-le")),
    (RefuseReason.UTF16, '{"version":"1.1"}\0'.encode("utf-16-be")),
)

# Text altogether, and refused although it is: with so much of a grammar that no log begins so. Said in operations.md.
TEXT_LIKE = re.compile(
    rb"[A-Z-]+ [^ \n]+ HTTP/[0-9.]+\r?\n|SSH-[12]\.|PROXY (?:TCP[46]|UNKNOWN)[ \r]|1 open [0-9]+ relp_"
    rb"|(?:EHLO|HELO|LHLO) [^ \n]+\r\n|\*[0-9]+\r\n\$[0-9]+\r\n"
)

# Text that resembles a protocol for as long as it can.
LURES = (
    "2W", "1W", "2D", "1J", "2C", "2Way mirror", "--splunk-cooked-mode-v3--", "sr", "srjava.util.HashMap", "x", "x^",
    "x\u06c5", "x\u06b5\u06c5", "(dp0", "}q", "]q(", "GET ", "GET / HTTP/1.1 200", "PROPFIND /x", "INFO / HTTP/",
    "EHLO ", "EHLO failed: 500", "HELO there", "LHLO", "*1", "*Mar 1",
    "$4", "SSH-", "SSH-2", "PROXY ", "PROXY UNKNOWN peer", "1 open ",
    "1 open 3 files",
    "P*M", "AMQP", "AMQP0091", "MQTT", "PRI * ", "CONNECT a:1", "BZh91AY&SY", "STLS", "(\u00b5/\u00fd", "\ufeff<13>",
    "\u0719", "\u0751", "\u0712\u0713", "sNaPpY", "\u201cquoted\u201d", "\u0100\u0101", "\t", "   ", "8=FIX.4.4",
)  # fmt: skip

TOGETHER = (
    b"<14>a<14>b",
    b"<14>1 - h a - - - a <b> x<14>1 - h a - - - b",
    b'{"a":0}{"a":1}',
    b'{"a":{"b":0}} {"a":1}',
    b'{"a":0}__LOG4JS__{"a":1}__LOG4JS__',
)
"""Records that their sender ends with nothing."""
