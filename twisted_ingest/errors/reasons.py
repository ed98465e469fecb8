"""
Every reason something can end with, and every result: closed sets, the only values of a metric's label.

A peer's mistake is never an exception on the hot path: it is a member of one of these.
"""

from enum import StrEnum


class PauseReason(StrEnum):
    """Why a connection is not read from for now."""

    BUDGET = "budget"
    """All connections together hold what they may; the sinks must catch up."""
    CONNECTION = "connection"
    """This one holds what one connection may."""
    ANSWERS = "answers"
    """It does not read our answers, or more of its frames wait for theirs than may."""
    RATE = "rate"
    """It, or its peer, has sent faster than it may."""


class CloseReason(StrEnum):
    """Why a connection ended. Every connection ends with exactly one."""

    EOF = "eof"
    """The peer closed in good order."""
    RESET = "reset"
    """The peer reset the connection, or keepalive found it dead."""
    IDLE = "idle"
    FRAME_DEADLINE = "frame_deadline"
    """A record was begun and not ended in time."""
    OVERSIZE = "oversize"
    """A record passed ``MAX_LENGTH`` and the policy is ``close``."""
    MEMORY = "memory"
    """As oversize, because unfinished records filled their share of the budget."""
    FRAMING = "framing"
    """A frame did not begin or end as it must: there is no safe place to go on."""
    PROTOCOL = "protocol"
    """A RELP command that the rules of a session do not allow."""
    WRONG_PROTOCOL = "wrong_protocol"
    TLS = "tls"
    """It broke the rules of TLS, or what it sent was damaged on its way."""
    ACKS_UNREAD = "acks_unread"
    """The peer does not read our answers."""
    SINK_FAILED = "sink_failed"
    """A required sink will never take what this peer sent: it goes without its answer."""
    DRAIN = "drain"
    """The server is stopping."""
    INTERNAL_ERROR = "internal_error"
    LOCAL = "local"
    """Closed by code that embeds the protocol (``transport.loseConnection``)."""


class RefuseReason(StrEnum):
    """Why a connection was not admitted."""

    PER_PEER = "per_peer"
    """Its peer has as many connections as one may have."""
    CONNECTION_RATE = "connection_rate"
    """Its peer connects more often than one may."""
    NOT_ALLOWED = "not_allowed"
    """The listener does not allow its address."""
    DRAINING = "draining"
    INTERNAL_ERROR = "internal_error"
    FULL = "full"
    """The last place was taken while it stood in the doorway; whoever comes after waits in the backlog."""
    DOORWAY_TIMEOUT = "doorway_timeout"
    """It was not through the doorway in time."""
    DOORWAY_FULL = "doorway_full"
    """It had stood in the doorway for the longest, and makes room for another."""
    DOORWAY_BYTES = "doorway_bytes"
    """It has sent more than anybody needs to come through the doorway."""
    DOORWAY_LEFT = "doorway_left"
    """It has hung up in the doorway."""
    TLS_PEER = "tls_peer"
    """TLS could not be agreed upon with it, or it may not send by what its certificate says."""
    PROXY_UNTRUSTED = "proxy_untrusted"
    """Only proxies may connect, and it is none that is trusted."""
    PROXY_BAD = "proxy_bad"
    """Its PROXY header cannot be believed."""
    PROXY_MISSING = "proxy_missing"
    """It has sent something else than a PROXY header, or not sent one in time."""
    # Admitted, and turned away by its first bytes: a protocol that is not ours.
    TLS = "tls"
    HTTP = "http"
    SSH = "ssh"
    PROXY = "proxy"
    RELP = "relp"
    PICKLE = "pickle"
    PLAIN = "plain"
    """Lines or counted frames, on a RELP port."""
    JAVA = "java"
    MSGPACK = "msgpack"
    ZLIB = "zlib"
    GZIP = "gzip"
    ZSTD = "zstd"
    LZ4 = "lz4"
    SNAPPY = "snappy"
    BEATS = "beats"
    KAFKA = "kafka"
    POSTGRESQL = "postgresql"
    REDIS = "redis"
    MQTT = "mqtt"
    AMQP = "amqp"
    MEMCACHED = "memcached"
    RDP = "rdp"
    SPLUNK = "splunk"
    SMTP = "smtp"
    DOCKER = "docker"
    UTF16 = "utf16"


class HandshakeResult(StrEnum):
    """What became of a TLS handshake. Each that was begun ends with exactly one."""

    OK = "ok"
    TIMEOUT = "timeout"
    """It was not over in time, or had taken the longest of all and made room for another."""
    NO_CERTIFICATE = "no_certificate"
    UNTRUSTED = "untrusted"
    """No authority of ours vouches for the certificate."""
    EXPIRED = "expired"
    """The certificate is not valid now: any more, or yet."""
    WRONG_NAME = "wrong_name"
    """The certificate is good, and nobody of those who may send."""
    PROTOCOL = "protocol"
    """It spoke no TLS, or none that both sides take; or it did not accept our certificate."""
    RESET = "reset"
    """The connection ended before the handshake did."""


class ReloadResult(StrEnum):
    """What became of reading a certificate anew."""

    OK = "ok"
    ERROR = "error"
    """The one before is kept."""


class AcceptError(StrEnum):
    """Why the kernel, or we, could not take a connection in. Whoever waits in the backlog is tried again."""

    DESCRIPTORS = "descriptors"
    """``EMFILE``, ``ENFILE``: the process or the machine has as many as it may."""
    MEMORY = "memory"
    """``ENOBUFS``, ``ENOMEM``."""
    WATCHES = "watches"
    """``ENOSPC`` from ``epoll_ctl``: /proc/sys/fs/epoll/max_user_watches is used up."""
    ABORTED = "aborted"
    """The peer was gone before we came to accept it, or a packet filter said no."""
    OTHER = "other"


class DropReason(StrEnum):
    """Why a record that was framed is not delivered."""

    OVERSIZE = "oversize"
    MEMORY = "memory"
    OVERFLOW = "overflow"
    """The bounded queue of a sink that is not required was full."""
    SINK_FAILED = "sink_failed"
    """The sink has failed for good, or on account of a bug."""
    REJECTED = "rejected"
    """The sink takes others, and will never take this one."""
    SHUTDOWN = "shutdown"
    """Still undelivered when the drain deadline passed."""
    SPOOL_FULL = "spool_full"
    """Taken by a spool that was told to drop its oldest when it is full."""


class DiscardReason(StrEnum):
    """Why bytes never became (part of) a delivered record."""

    OVERSIZE = "oversize"
    MEMORY = "memory"
    RESET = "reset"
    FRAMING = "framing"
    PROTOCOL = "protocol"
    UNANSWERED = "unanswered"
    """A RELP frame cut off, or sent to a session that has ended: its sender has no answer and sends it again."""
    WRONG_PROTOCOL = "wrong_protocol"
    UNFINISHED = "unfinished"
    """The beginning of a record in a polled body that was not read to its end: the body is asked for again."""
    DOORWAY = "doorway"
    """Sent by one that was not admitted: a PROXY header, a handshake, or whatever it was."""
    INTERNAL_ERROR = "internal_error"


class Resync(StrEnum):
    """Why ``auto`` framing has given up a reading, and found its way back."""

    COUNT = "count"
    """A counted frame did not end where another begins, and those inside it or behind it did."""
    JUNK = "junk"
    """Bytes between counted frames belong to none: a count before them was too small, or something was put between."""
    NUL = "nul"
    """NUL had seemed to end records, and then lines did."""


class PollResult(StrEnum):
    """What became of a poll. Every poll ends with exactly one."""

    OK = "ok"
    """The whole body was read, or there is none (204)."""
    NOT_MODIFIED = "not_modified"
    """304: what we have is the latest."""
    CONNECT = "connect"
    """No connection: the name is unknown, or nobody listens there."""
    TLS = "tls"
    """No secure connection: a certificate that is not trusted, mostly."""
    PROTOCOL = "protocol"
    """What came is no answer in HTTP, or its headers are too long."""
    TIMEOUT = "timeout"
    """Not done in time."""
    REDIRECT = "redirect"
    """A redirect that is not followed."""
    THROTTLED = "throttled"
    """429."""
    CLIENT_ERROR = "client_error"
    """Any other 4xx."""
    SERVER_ERROR = "server_error"
    """5xx."""
    STATUS = "status"
    """A status that answers no GET of ours."""
    ENCODING = "encoding"
    """The body is compressed, which we have not asked for."""
    TOO_LONG = "too_long"
    """The body is longer than ``max_bytes``."""
    OVERSIZE = "oversize"
    """A record was too long, and the policy is ``close``."""
    UNFINISHED = "unfinished"
    """The connection ended before the body did."""
    STOPPED = "stopped"
    """Cut off by a stop of ours."""
    INTERNAL_ERROR = "internal_error"

    @property
    def is_good(self) -> bool:
        """Whether all went well."""
        return self in (PollResult.OK, PollResult.NOT_MODIFIED)


class RelpCommand(StrEnum):
    """What a RELP frame asks for, as far as we tell frames apart."""

    OPEN = "open"
    SYSLOG = "syslog"
    CLOSE = "close"
    OTHER = "other"


class RelpError(StrEnum):
    """Which rule of RELP a peer has broken. Each ends its session."""

    HEADER = "header"
    """No number, command and length where a frame must begin with them."""
    LENGTH = "length"
    """Data where none may be, or longer than the command allows."""
    TRAILER = "trailer"
    """No LF behind the declared length."""
    NUMBER = "number"
    """Not the number that follows the last frame's."""
    NOT_OPEN = "not_open"
    """A record before ``open``."""
    OPEN_TWICE = "open_twice"
    VERSION = "version"
    """A ``relp_version`` that is no number."""
    COMMANDS = "commands"
    """A client that does not offer ``syslog``."""
    COMMAND = "command"
    """A command that a client has no business to send."""
