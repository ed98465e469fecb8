"""
Every bound of the server: unit, default, what it protects, where the number comes from.

Operators change the ones that have a flag; the others are constants because no
workload was found that wants them different.
"""

from dataclasses import dataclass

from twisted_ingest.errors import Durability, Framing, Oversize
from twisted_ingest.networks import AllowList
from twisted_ingest.units import Rate

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

READ_SIZE = 128 * KIB
"""Bytes that are framed in Python at a time at most, and read at a time where nothing is looked through in C. What a
whole read of the dearest bytes costs is bearable still (`twisted_ingest.server.pace`)."""

WHOLE_READ = 512 * KIB
"""Bytes that are received at a time at most where they are looked through in C. A system call and what Python does for
a read are then a tenth of what the bytes cost; larger ones gain nothing, and keep others waiting."""

ROUND_BYTES = 16 * MIB
"""Bytes received in one round through the connections of a port, about: of many that send in bulk less is received at a
time, down to `READ_SIZE`, so that a round takes milliseconds."""

SLAB_SIZE = MIB
"""Bytes of one of the pieces of memory that is received into: two whole reads, and as much as a group holds."""

SLABS_SHARE = 0.125
"""Share of the budget that slabs may take together: what the batches of a few peers in bulk need. Where all are taken,
what is received is copied."""

BACKLOGS_SHARE = 0.03125
"""Bytes that were received and are yet to be framed, of peers whose bytes are dear, as a share of the budget, of which
they are no part: sixteen whole reads by default. Past it no more is received of anybody than can be framed at once."""

MAX_LENGTH = 100 * KIB
"""Bytes of one record, delimiter excluded. Protects sinks from a sender that never ends a line;
the value is the one the project was asked for, and above every known client's default."""

RELP_MAX_LENGTH = 128 * KIB
"""Bytes of one RELP record: librelp's own limit, and that of version 1 of the protocol."""

RELP_OFFERS = 4 * KIB
"""Bytes of the data of any RELP command that carries no record. Real offers take about 100."""

RELP_UNACKED_FRAMES = 16 * KIB
"""Frames of one session that may wait for their answer; their bytes are the lane's to bound. A frame of one byte costs
an answer of up to 23: this bounds what one answer to all of them takes to 376 KiB. Clients send 128 ahead."""

RELP_LAST_NUMBER = 900_000_000
"""Frames after which a session is ended in good order: librelp cannot count past 999,999,999."""

RELP_ACKS_UNREAD_TIMEOUT = 60.0
"""Seconds a peer may leave our answers unread once the kernel and we have buffered what we may. Clients of librelp
give up after 90 s themselves."""

RELP_EOF_TIMEOUT = 90.0
"""Seconds a peer that has ended its side is kept for the answers it may still read: librelp waits that long."""

RELP_DRAIN_QUIET = 0.2
"""Seconds without a byte after which a RELP session is ended at a stop: what was sent before is here by then, delayed
acknowledgements of the kernel (40 ms) included."""

MEMORY = 256 * MIB
"""Bytes the process may hold for its peers: the budget. A few seconds of a full 1 Gbit/s link."""

CONNECTION_MEMORY = 4 * MIB
"""Bytes of the budget one connection may hold, so that one greedy peer pauses alone. Nearly four of the groups that a
sink takes: with two of them a single connection waited for the writer's thread, a fifth slower."""

CROWD_SHARE = 0.0625
"""Share of the budget above which connections crowd: each may hold `CROWDED_MEMORY` then. What a few peers in bulk hold
keeps a sink busy; of many, each as much would only lie there."""

CROWDED_MEMORY = 256 * KIB
"""Bytes one connection may hold, and one read more, while many hold much: 64 of them 16 MiB."""

BUDGET_HIGH = 0.80
"""Share of the budget above which every producer pauses. The rest absorbs what is already read."""

BUDGET_LOW = 0.50
"""Share of the budget at or below which producers resume; the distance prevents flapping."""

PARTIALS_SHARE = 0.25
"""Share of the budget for unfinished records. Below the low mark: alone they can never keep producers paused."""

STANDING_SHARE = 0.25
"""Share of the budget for what connections take by being there (TLS). It is taken off above the low mark, which stays
where it is: such connections make producers pause earlier, and can never keep them paused."""

PARTIALS_KEEP = 7 / 8
"""Share of the above to which an overflow evicts, so that one scan serves many overflows."""

OPTIONAL_SHARE = 0.125
"""Share of the budget for all sinks that are not required together; past it their records are dropped and counted."""

BATCH_OVERHEAD = 512
"""Bytes charged per batch besides its bytes: the batch, the header of its bytes, a place in a list.
Measured 170 B of objects for one-byte lines on CPython 3.11 (tests/test_memory.py); the rest is the allocator's."""

GROUP_OVERHEAD = 2 * KIB
"""Bytes charged per group: its lists, a Deferred and a job per sink. Measured 1.5 KiB; counts where a trickle
of one batch a group meets a sink that stalls."""

PARTIAL_OVERHEAD = 192
"""Bytes charged for an unfinished record besides its bytes: the buffer's header, the notes kept about it.
Measured 145 B."""

GATHER_BYTES = MIB
"""Bytes after which gathered batches go to the sinks. A quarter of what one connection may hold: while the writer's
thread writes, the reactor reads on."""

GATHER_SECONDS = 0.002
"""Seconds gathered batches wait for more at most, where a sink wants groups: handing over to a thread costs 40 µs."""

RESUME_PER_TURN = 64
"""Connections resumed per reactor turn, so that a relieved budget is not filled again by one stampede."""

FILE_MODE = 0o640
"""Permissions of an output file that is made, whatever the umask: logs are for their owner, and for
a group to read."""

SPOOL_BYTES = GIB
"""Bytes of each spool's segments: a minute of a sink's absence at 16 MB/s, and looked through in seconds at a start."""

FREE_SPACE_FLOOR = 128 * MIB
"""Bytes that spools leave free on their file system, so that logs, positions and neighbours go on working."""

SPARE_INODES = 4
"""Inodes that a spool's segments leave free on their file system: without one the position cannot be replaced, and then
no segment is removed, so that none would ever be free again. More than one because neighbours take them too."""

IDLE_TIMEOUT = 300.0
"""Seconds of silence before a peer that has sent no record is closed. The value the project was asked for."""

FRAME_TIMEOUT = 30.0
"""Seconds from the first byte of a record to its end. Against drip-feeding: one byte a minute would live for ever."""

DOUBT_SECONDS = 0.9
"""Seconds that a record which is whole is held because what follows may show that it is not. With what a busy reactor
is late by, within the second that is promised; a frame under way on a bad link has that long to go on."""

DOORWAY_TIMEOUT = 10.0
"""Seconds for a stage that does not say otherwise: a TLS handshake over a bad link (three round trips, two of them lost
and sent again after one and three seconds) takes less, and who sends nothing holds a descriptor that long."""

PROXY_TIMEOUT = 5.0
"""Seconds for a PROXY header: above the three that its specification asks for at least (2.), time for one packet to be
lost and sent again. A proxy sends it with its first packet."""

DOORWAY_BYTES = 256 * KIB
"""Bytes a newcomer may send before it is admitted: above the longest chain of certificates that OpenSSL takes (100 KiB)
with a whole read of records behind it."""

DOORWAY_SHARE = 0.1
"""Share of the connections allowed that may stand in doorways besides; past it the oldest makes room. Who comes
through in a few round trips is not the oldest, unless thousands come a second. By default 1,000: with what each is
charged (`DOORWAY_OVERHEAD`) 3 MiB, a hundredth of the budget; descriptors are what they cost."""

DOORWAY_LEAST = 256
"""Newcomers that may stand in doorways in any case, so that those accepted in one turn of the reactor
(`ACCEPTS_PER_TURN`) are not each other's reason to go."""

DOORWAY_DESCRIPTORS = 0.25
"""Share of the descriptors for connections that doorways may hold at most."""

DOORWAY_MEMORY = 0.125
"""Share of the budget that all in doorways may take together; past it the oldest makes room. With the partials' below
the low mark: strangers alone can never keep producers paused."""

DOORWAY_OVERHEAD = 3 * KIB
"""Bytes charged for one in a doorway besides what it sent and what its stage takes. Measured 2.1 KiB, by tracemalloc
and by resident memory, of each of 1,000 on sockets that had begun a PROXY header (tests/test_memory.py)."""

CLOSE_TIMEOUT = 5.0
"""Seconds a graceful close may take before the connection is reset; a peer that does not read would hold it open."""

SWEEP_SECONDS = 1.0
"""Seconds between two looks at frame and close deadlines; they may be late by that much."""

OVERSLEPT = 1.0
"""Seconds by which a timer may be late before we take ourselves to have slept (SIGSTOP, a frozen container, a paused
machine), and not the peer. Above what a busy reactor is late by."""

DRAIN_TIMEOUT = 5.0
"""Seconds for reading on and flushing at a stop. With the grace below inside the ten of container runtimes."""

DRAIN_QUIET = 1.0
"""Seconds without a byte, kernel queue empty, after which a draining connection counts as finished."""

FLUSH_GRACE = 1.5
"""Seconds the sinks have, after the drain deadline, to take what was read."""

STOP_GRACE = 3.0
"""Seconds after the drain deadline at which the process ends itself whatever is stuck."""

DESCRIPTOR_SHARE = 0.8
"""Share of the descriptor limit that connections may use: at the limit itself innocent clients are reset."""

ADMIN_CONNECTIONS = 32
"""Connections to the admin endpoint: a handful of scrapers and probes, with room. Each may hold a page, 64 KiB or two
that it sent ahead, and what the kernel buffers; those on their way out hold as many descriptors again."""

ADMIN_SEND_BUFFER = 64 * KIB
"""Bytes (``SO_SNDBUF``) of an admin connection's unread answers that the kernel holds; its own tuning goes to 4 MiB. A
page of metrics fits."""

MAX_CONNECTIONS = 10_000
"""Connections by default, where the descriptor limit allows them: idle ones take about 3 KiB each."""

PEER_PREFIX_IPV6 = 64
"""Bits of an IPv6 address that tell peers apart for limits per peer: whoever has one address of a network of 64 bits
has all of them (RFC 7421; RFC 6177 gives sites more than one such network)."""

BACKLOG = 1024
"""Handshakes the kernel completes before we accept: a fleet reconnecting after a restart."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 60, 10, 6
"""Seconds, seconds, probes: a peer whose host vanished is found dead after two minutes."""

USER_TIMEOUT_MS = 120_000
"""Milliseconds that sent data may stay unacknowledged; the same two minutes."""

ACCEPTS_PER_TURN = 100
"""Connections accepted per reactor turn, so that a connect flood leaves turns for the peers we have."""

PREVIEW = 64
"""Bytes of a peer's data that may reach our own log, escaped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerLimits:
    """The bounds of one listener's connections. Replaced as a whole when they change."""

    protocol: str = "lines"
    durability: Durability = Durability.WRITTEN
    """What the listener's records must have reached before a sink counts them as taken (and RELP answers)."""
    framing: Framing | None = Framing.AUTO
    """Of lines; ``None`` for a protocol that has its own."""
    max_record_bytes: int = MAX_LENGTH
    """Inclusive, delimiter excluded."""
    oversize: Oversize = Oversize.TRUNCATE
    idle_timeout_seconds: float | None = IDLE_TIMEOUT
    """``None``: silence never ends a connection."""
    idle_until_first_record: bool = True
    """The idle timeout ends with a peer's first record; after that keepalive alone finds it dead."""
    frame_timeout_seconds: float | None = FRAME_TIMEOUT
    allow: AllowList | None = None
    """Whose connections are admitted; ``None`` for everybody's."""
    proxies: AllowList | None = None
    """Who alone may connect, with a PROXY header in front; ``None``: no header is expected."""
    rate: Rate | None = None
    """How fast one connection may send; ``None`` for as fast as it can."""
    rate_per_peer: Rate | None = None
    """How fast all connections of one peer together may send."""
    receive_buffer_bytes: int | None = None
    """``SO_RCVBUF``; ``None`` leaves the kernel's own tuning on."""
