"""
Attack: peers that leave while we do not read from them.

Cost to a careless receiver: it never learns of it; sockets pile up in CLOSE_WAIT until the caps are full of the dead.
Bound proven: such peers leave the cap within seconds, their last bytes are delivered when the pressure is gone; none of
them can fill the server with what it left behind.
"""

import re
import signal
import socket
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.server import Server, numbered, wait_until
from twisted_ingest.errors import CloseReason
from twisted_ingest.limits import KIB, MIB, READ_SIZE
from twisted_ingest.testing import Rig, StalledSink
from twisted_ingest.units import Rate

LEFT = Scenario(
    Group.PRESSURE,
    "Peers leave while held back",
    "the sink is stalled, every connection paused; all peers close or reset, others come",
    "a sweep finds them within a second or two; they leave the cap at once, the registry when what the kernel holds "
    "of them is read, which is delivered",
    ("ingest_connections_departed", "ingest_connections_paused"),
)
STOPPED = Scenario(
    Group.PRESSURE,
    "A stop while everybody is held back",
    "SIGTERM with a stalled sink and paused peers, some of them gone",
    "every connection is closed and accounted for, although the reactor does not watch it; what was not delivered is "
    "counted in the last line of the log",
    ('ingest_connections_closed_total{reason="drain"}',),
)

DEBTORS = Scenario(
    Group.PRESSURE,
    "Peers that leave their debts",
    "one address under a cap per peer and a rate connects, sends far more than its rate allows, closes, and again",
    "the departed count towards its cap, and are read without the rate, since they can send no more: they are gone "
    "within seconds, and their bytes are delivered",
    ("ingest_connections_departed", 'ingest_connections_refused_total{reason="per_peer"}'),
)

PEERS = 40
LINES = 500
"""Of a hundred bytes, from each peer: they fit in its receive window, so that a FIN behind them arrives unread."""


class HangUpTests(SynchronousTestCase):
    def test_left_with_bytes_unread(self) -> None:
        """Who leaves while paused leaves the cap at once, is read to the end later, and ends as it ended."""
        for end, reason in (("peer_closes", CloseReason.EOF), ("peer_resets", CloseReason.RESET)):
            rig = Rig(StalledSink(), connection_memory=READ_SIZE + 134_000, max_connections=1)
            peer = rig.send(b"x" * 60_000 + b"\n" + b"y" * 99_000 + b"\n", chunk_size=64 * KIB)
            self.assertFalse(peer.reading)
            peer.peer_sends(b"last\n")
            getattr(peer, end)()
            rig.turn(1)
            self.assertEqual((rig.admission.open, rig.admission.departed, len(rig.factory.connections)), (0, 1, 1))
            rig.connect("192.0.2.2")
            rig.sink.release()
            rig.turn()
            peer.pump()
            self.assertEqual((rig.admission.open, rig.admission.departed, len(rig.factory.connections)), (1, 0, 1))
            self.assertEqual(rig.factory.ledger.connections_closed[reason], 1)
            rig.turn()
            rig.sink.release()
            self.assertEqual([record[:4] for record in rig.sink.records], [b"xxxx", b"yyyy", b"last"])
            self.assertEqual(rig.survey.conservation_error(), 0)

    def test_left_with_nothing_unread(self) -> None:
        """Who leaves with nothing unread is gone at the next sweep, its unfinished record delivered."""
        rig = Rig(StalledSink(), connection_memory=READ_SIZE + 134_000)
        peer = rig.send(b"x" * 99_000 + b"\n" + b"y" * 99_000 + b"\nhalf", chunk_size=MIB)
        self.assertFalse(peer.reading)
        peer.peer_closes()
        rig.turn(1)
        self.assertEqual((rig.admission.open, rig.admission.departed, len(rig.factory.connections)), (0, 0, 0))
        rig.turn()
        rig.sink.release()
        self.assertEqual(rig.sink.records[-1], b"half")
        self.assertEqual(rig.factory.ledger.connections_closed[CloseReason.EOF], 1)

    def test_the_dead_hold_descriptors(self) -> None:
        """Departed connections count against the descriptors, so that a storm of them cannot use those up."""
        rig = Rig(StalledSink(), connection_memory=200_000, max_connections=2)
        peers = [rig.send(b"x" * 99_000 + b"\n" + b"y" * 99_000 + b"\n") for _ in range(4)]
        for peer in peers:
            peer.peer_sends(b"last\n")
            peer.peer_closes()
        rig.turn(1)
        self.assertEqual((rig.admission.departed, rig.admission.room), (4, 0))
        opened: list[int] = []
        rig.admission.on_room = lambda: opened.append(rig.admission.room)
        for _ in range(3):
            rig.sink.release()
            rig.turn()
            peers[0].pump()
        self.assertEqual((opened, rig.admission.departed), ([1], 3))

    def test_debtors(self) -> None:
        """Who leaves with a debt to its rate is read without it, all of it; until then it counts towards its cap."""
        rig = Rig(rate=Rate(1.0, False), per_peer=2)
        for _ in range(20):
            peers = [rig.connect(), rig.connect()]
            for peer in peers:
                peer.peer_sends(b"debt\n" * 500)
                peer.pump()
                self.assertFalse(peer.reading)
                peer.peer_sends(b"left\n" * 500)
                peer.peer_closes()
            self.assertRaises(ConnectionRefusedError, rig.connect)
            rig.turn(1)
            for peer in peers:
                peer.pump()
            self.assertEqual((rig.admission.open, rig.admission.departed, rig.admission.by_peer), (0, 0, {}))
        rig.turn()
        self.assertEqual(len(rig.sink.records), 20 * 2 * 1000)
        self.assertEqual((rig.survey.conservation_error(), rig.intake.pauses.total), (0, 0))

    def test_debtors_of_a_stalled_sink(self) -> None:
        """Where a sink holds everybody back, one peer leaves no more of the departed behind than its cap."""
        rig = Rig(StalledSink(), connection_memory=READ_SIZE + 134_000, per_peer=2, rate=Rate(1.0, False))
        for _ in range(2):
            peer = rig.send(b"x" * 99_000 + b"\n" + b"y" * 99_000 + b"\n")
            peer.peer_sends(b"left\n")
            peer.peer_closes()
        rig.turn(1)
        self.assertEqual((rig.admission.open, rig.admission.departed), (0, 2))
        self.assertRaises(ConnectionRefusedError, rig.connect)
        rig.connect("192.0.2.2")

    def test_real_debtors(self) -> None:
        """One address that leaves its debts behind, over and over, takes nothing from another."""
        flags = ("--rate", "100/s", "--max-connections", "20", "--max-connections-per-peer", "4")
        server = Server(*flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        lines, refused = b"".join(b"%s\n" % line for line in numbered("debt", 1000)), 0
        for _ in range(40):
            try:
                with server.connect() as peer:
                    peer.sendall(lines)
                    peer.shutdown(socket.SHUT_WR)
            except OSError:
                refused += 1
        wait_until(lambda: server.metrics()["ingest_connections_open"] == 0, "all gone")
        metrics = server.metrics()
        self.assertEqual((metrics["ingest_connections_departed"], metrics["ingest_ready"]), (0, 1))
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        server.send(b"another\n")
        wait_until(lambda: b"another\n" in server.output(), "another peer's line")
        opened = metrics["ingest_connections_opened_total"]
        records = metrics["ingest_records_total"]
        self.assertGreaterEqual(opened, 4)
        DEBTORS.measured(
            f"40 times 1,000 lines at 100/s: {opened:,.0f} admitted, {refused} refused at once, {records:,.0f} lines, "
            "none left behind"
        )

    def fill(self, server: Server, number: int) -> list[socket.socket]:
        """Connect peers that send more than the server will take; give them once all are paused."""
        peers = [server.connect() for _ in range(number)]
        blocks = [b"\n".join(numbered(f"peer {index}", LINES)) + b"\n" for index in range(number)]
        senders = [
            threading.Thread(target=peer.sendall, args=(block,), daemon=True)
            for peer, block in zip(peers, blocks, strict=True)
        ]
        for sender in senders:
            sender.start()
        wait_until(lambda: server.metrics()["ingest_paused_connections"] >= number, "all paused")
        for sender in senders:
            sender.join(60)
        return peers

    def server(self) -> Server:
        flags = (
            "--drain-timeout",
            "1s",
            "--memory",
            "1MiB",
            "--connection-memory",
            "256KiB",
            "--max-connections",
            str(PEERS + 5),
        )
        server = Server("--sink", "stdout:", *flags)
        self.addCleanup(server.kill)
        server.wait_ready()
        return server

    def test_real_peers(self) -> None:
        """Forty paused peers close: room for others within seconds, all lines delivered afterwards."""
        server = self.server()
        for peer in self.fill(server, PEERS):
            peer.close()
        others = [server.connect() for _ in range(PEERS)]
        for other in others:
            self.addCleanup(other.close)
            other.sendall(b"a later peer\n")
        wait_until(lambda: server.metrics()["ingest_connections_opened_total"] == 2 * PEERS, "others admitted")
        expected = PEERS * (LINES + 1)
        assert server.process.stdout is not None
        lines = [server.process.stdout.readline() for _ in range(expected)]
        self.assertEqual(sum(line == b"a later peer\n" for line in lines), PEERS)
        for number in range(PEERS):
            own = [line[:-1] for line in lines if line.startswith(b"peer %d " % number)]
            self.assertEqual(own, numbered(f"peer {number}", LINES))
        wait_until(lambda: server.metrics()["ingest_connections_departed"] == 0, "the dead buried")
        metrics = server.metrics()
        self.assertEqual(metrics["ingest_connections_closed_total[eof]"], PEERS)
        self.assertEqual(metrics["ingest_conservation_error"], 0)
        LEFT.measured(
            f"{PEERS} peers gone, {PEERS} others admitted meanwhile, {expected:,} lines delivered, none missing"
        )

    def test_stop(self) -> None:
        """A stop with everything paused ends in time, every connection accounted for, what is lost said."""
        server = self.server()
        for number, peer in enumerate(self.fill(server, PEERS)):
            if number % 2:
                peer.close()
            else:
                self.addCleanup(peer.close)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        wait_until(lambda: any("stopped:" in line for line in server.log), "the last line of the log")
        (last,) = [line for line in server.log if "stopped:" in line]
        self.assertIn(f"stopped: {PEERS} connections", last)
        self.assertIn("conservation error 0", last)
        found = re.search(r"dropped (.*?), (\d+) bytes left unread", last)
        assert found is not None
        self.assertIn("(shutdown)", found[1])
        self.assertGreater(int(found[2]), 0)
        STOPPED.measured(f"{PEERS} paused peers: dropped {found[1]}, {int(found[2]):,} bytes left unread in the kernel")
