"""
Fault: what a container's limits do to a process: little memory, five hundredths of a processor, a freeze.

Cost to a naive receiver: it is killed for the memory that a flood takes, or throws peers out for time that it did not
get itself. Bound proven: the budget holds below the limit; nobody is closed, and nothing is missing.
"""

import os
import re
import resource
import socket
import threading

from tests.attacks.cgroups import CgroupCase, Controller
from tests.attacks.report import Group, Scenario
from tests.attacks.sleep import TIMEOUTS, oversleep
from tests.relp_client import RelpClient
from tests.server import PATIENCE, Server, numbered, wait_until
from twisted_ingest.limits import MIB

ROOM = 48 * MIB
"""What a limit leaves above what the process takes at rest: the budget of 32 MiB, and what comes on top of a small one.
The flood is more than twice as much."""

PEERS, LINES = 16, 40_000
SESSIONS, FRAMES = 8, 5_000
SHARE = 0.05
"""Of one processor."""

COMERS = 800
"""Peers that each come, send a line and go: fewer than the backlog holds."""

CONFIG = """
[limits]
memory = "32MiB"

[listeners.first]
endpoint = "tcp:0:interface=127.0.0.1"
receive_buffer = "64KiB"

[listeners.second]
endpoint = "tcp:0:interface=127.0.0.1"
receive_buffer = "64KiB"

[listeners.answered]
endpoint = "tcp:0:interface=127.0.0.1"
protocol = "relp"
durability = "written"
receive_buffer = "64KiB"

[sinks.stdout]
type = "stdout"
"""

LITTLE = Scenario(
    Group.PRESSURE,
    "Little memory",
    "a limit on the memory of a control group (or on the address space), the sink takes nothing, and three listeners "
    "are flooded with twice the limit",
    "reading stops below the limit, nothing is killed or fails for want of memory; when the sink goes on every record "
    "is delivered, and answered over RELP",
    ("ingest_paused_connections", "ingest_budget_used_bytes", "ingest_internal_errors_total"),
)
FROZEN = Scenario(
    Group.PROCESS,
    "A frozen container",
    "the process's control group is frozen for longer than every timeout, and thawed",
    "as after SIGSTOP: lines that arrived meanwhile are read, and nobody is closed for our sleep",
    ('ingest_connections_closed_total{reason="idle"}', 'ingest_connections_closed_total{reason="frame_deadline"}'),
)
STARVED = Scenario(
    Group.PROCESS,
    "A twentieth of a processor",
    "the process's control group gets 5 % of one processor, while peers come, send a line and go",
    "everything is slow and nothing is wrong: every line is delivered, no live peer is closed",
    ("ingest_event_loop_lag_seconds", 'ingest_connections_closed_total{reason="frame_deadline"}'),
)


class MemoryTests(CgroupCase):
    def start(self, prefix: tuple[str, ...] = ()) -> Server:
        """Start a server whose sink takes nothing until it is read."""
        path = os.path.join(self.folder(), "ingest.toml")
        with open(path, "w") as stream:
            stream.write(CONFIG)
        return self.server("--config", path, prefix=prefix)

    def test_control_group(self) -> None:
        """A flood of three listeners under a limit on memory fills the budget, not the group, and loses nothing."""
        group = self.cgroup(Controller.MEMORY)
        server = self.start(group.prefix)
        limit = group.usage() + ROOM
        group.limit_memory(limit)
        told = self.flood(server)
        self.assertEqual(group.oom_kills(), 0)
        self.assertLess(group.peak(), limit)
        LITTLE.measured(f"control group of {limit // MIB} MiB: {group.peak() // MIB} MiB at the peak; {told}")

    def test_address_space(self) -> None:
        """The same under a limit on the address space, where an allocation past it fails at once."""
        server = self.start()
        limit = server.address_space() + ROOM
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, limit))
        LITTLE.measured(f"address space limited to {ROOM // MIB} MiB more than at rest: {self.flood(server)}")

    def flood(self, server: Server) -> str:
        """Send everything, see all held back, take it, and see that nothing is missing; gives that in words."""
        first, second, answered = server.ports
        lines = [
            threading.Thread(target=_send_lines, args=(port, f"{index}-{peer}"), daemon=True)
            for index, port in enumerate((first, second))
            for peer in range(PEERS)
        ]
        settled: list[int] = []
        frames = [
            threading.Thread(target=_send_frames, args=(answered, f"2-{peer}", settled), daemon=True)
            for peer in range(SESSIONS)
        ]
        senders = lines + frames
        for sender in senders:
            sender.start()
        wait_until(lambda: _total(server, "ingest_paused_connections") == len(senders), "all of them held back")
        held = _total(server, "ingest_budget_used_bytes")
        count = 2 * PEERS * LINES + SESSIONS * FRAMES
        expected = {f"{index}-{peer}": LINES for index in range(2) for peer in range(PEERS)}
        expected |= {f"2-{peer}": FRAMES for peer in range(SESSIONS)}
        self.assertEqual(self.take(server, count), expected)
        for sender in senders:
            sender.join(PATIENCE)
        self.assertEqual(settled, [FRAMES] * SESSIONS)
        wait_until(lambda: _total(server, "ingest_connections_open") == 0, "all connections closed")
        for name in ("ingest_conservation_error", "ingest_internal_errors_total"):
            self.assertEqual(_total(server, name), 0)
        return f"{held / MIB:.0f} MiB held, {count:,} records delivered, none missing, doubled or out of order"

    def take(self, server: Server, count: int) -> dict[str, int]:
        """Read records; each sender's must come in order and without a gap. Gives how many came of each."""
        assert server.process.stdout is not None
        seen: dict[str, int] = {}
        for _ in range(count):
            name, number, _ = server.process.stdout.readline().decode().split(" ", 2)
            self.assertEqual(int(number), seen.get(name, 0))
            seen[name] = int(number) + 1
        return seen


def _send_lines(port: int, name: str) -> None:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
        for start in range(0, LINES, 1000):
            peer.sendall(b"".join(f"{name} {n} ".encode().ljust(99, b".") + b"\n" for n in range(start, start + 1000)))


def _send_frames(port: int, name: str, settled: list[int]) -> None:
    with RelpClient(port) as client:
        client.open()
        for number in range(FRAMES):
            client.send(f"{name} {number} ".encode().ljust(99, b"."))
        client.close()
        settled.append(len(client.answered))


def _total(server: Server, name: str) -> float:
    """Add up a metric over its listeners."""
    return sum(value for key, value in server.metrics().items() if re.fullmatch(rf"{name}(\[[^]]*\])?", key))


class TimeTests(CgroupCase):
    def test_frozen(self) -> None:
        """A process that was frozen past every timeout reads what came in time, and closes nobody for it."""
        group = self.cgroup(Controller.FREEZER)
        server = self.server(*TIMEOUTS, prefix=group.prefix)
        FROZEN.measured(oversleep(self, server, group.frozen()))

    def test_starved(self) -> None:
        """With a twentieth of a processor lines arrive late, all of them, and no live peer is closed."""
        group = self.cgroup(Controller.CPU)
        server = self.server(prefix=group.prefix)
        group.limit_processor(SHARE)
        lines = numbered("line", COMERS)
        with server.connect() as half:
            half.sendall(b"begun ")
            for line in lines:
                with server.connect() as peer:
                    peer.sendall(line + b"\n")
            half.sendall(b"and ended\n")
            # Not by asking for the metrics: each answer takes as much of the processor as many lines.
            server.wait_output(sum(len(line) + 1 for line in lines) + 16)
            wait_until(lambda: server.metrics()["ingest_connections_open"] == 1, "only one peer left")
            metrics = server.metrics()
        self.assertEqual(sorted(server.output().splitlines()), [b"begun and ended", *lines])
        closed = {name: count for name, count in metrics.items() if name.startswith("ingest_connections_closed_total")}
        self.assertEqual(
            {name: count for name, count in closed.items() if count}, {"ingest_connections_closed_total[eof]": COMERS}
        )
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        waited = group.throttled()
        self.assertGreater(waited, 0)
        STARVED.measured(
            f"{COMERS} peers with a line each beside one inside a line, made to wait {waited:.1f} s for the processor: "
            "all delivered, nobody closed but who had gone"
        )
