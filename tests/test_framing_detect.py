"""Wrong protocols are recognised by their first bytes, at any cut; log lines never are."""

import pickle
import zlib
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import DiscardReason, RefuseReason
from twisted_ingest.flow.ledger import Balance, ListenerLedger
from twisted_ingest.framing.detect import HEAD_BYTES, diagnose
from twisted_ingest.server.factory import FRAMERS
from twisted_ingest.testing import Rig

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")
PICKLE = pickle.dumps({"msg": "hello", "args": None}, 1 + 1)

WRONG: dict[bytes, RefuseReason] = {
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": RefuseReason.TLS,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": RefuseReason.HTTP,
    b"POST /loki/api/v1/push HTTP/1.0\r\n\r\n": RefuseReason.HTTP,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": RefuseReason.HTTP,
    b"SSH-2.0-OpenSSH_9.2\r\n": RefuseReason.SSH,
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n<13>x\n": RefuseReason.PROXY,
    b"PROXY UNKNOWN\r\n": RefuseReason.PROXY,
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c": RefuseReason.PROXY,
    b"1 open 86 relp_version=0\nrelp_software=librelp": RefuseReason.RELP,
    len(PICKLE).to_bytes(4, "big") + PICKLE: RefuseReason.PICKLE,
    b"\xac\xed\0\x05sr\0": RefuseReason.JAVA,
    b"\x92\xd7\0\x65\x5f\x00\x00\x00\x00\x00\x00\x81\xa3log\xa1x": RefuseReason.MSGPACK,
    zlib.compress(b"<13>message"): RefuseReason.ZLIB,
}


class DiagnoseTests(SynchronousTestCase):
    HONEST: ClassVar = [
        b"<13>Nov 20 23:00:00 host app: text\n",
        b"GET /index.html took 5 ms\n",
        b"GET / HTTP/1.1 200 took 5 ms\n",
        b"POST",
        b"SSH login failed\n",
        b"PROXY is down\n",
        b"1 open file\n",
        b"x\n",
        b"\r\n\r\n\r\n<13>x\n",
        b"\0<13>x\0",
        b"2026-11-21 up\n",
        b"\xe2\x80\x99quoted\n",
        b'{"a": 1}\0',
        b"",
    ]

    def test_every_cut(self) -> None:
        """Each is recognised at the same byte by every framer, however it is cut; nothing of it is delivered."""
        for data, reason in WRONG.items():
            for kind in FRAMERS.values():
                for size in (1, 2, 3, 7, len(data)):
                    ledger = ListenerLedger()
                    framer = kind(INFO, ledger, 1000)
                    batches: list[Batch] = []
                    for at in range(0, len(data), size):
                        ledger.bytes_received += len(data[at : at + size])
                        batches += framer.feed(data[at : at + size], 0.0)
                    assert framer.wrong_protocol is not None, (data, kind)
                    self.assertIs(framer.wrong_protocol.reason, reason)
                    self.assertEqual((batches, framer.closed), ([], DiscardReason.WRONG_PROTOCOL))
                    self.assertEqual(ledger.bytes_discarded[DiscardReason.WRONG_PROTOCOL], len(data))
                    self.assertEqual(Balance.of_bytes(ledger, framer.buffered).error, 0)

    def test_honest_lines(self) -> None:
        """What merely resembles one is received like any line, at any cut."""
        for data in self.HONEST:
            for kind in FRAMERS.values():
                for size in (1, 2, 5, 1000):
                    framer = kind(INFO, ListenerLedger(), 1000)
                    for at in range(0, len(data), size):
                        framer.feed(data[at : at + size], 0.0)
                    framer.finish(0.0)
                    self.assertIsNone(framer.wrong_protocol, data)

    @settings(max_examples=300)
    @given(st.one_of(st.binary(max_size=40), st.sampled_from(list(WRONG)).map(lambda b: b[:6])), st.binary(max_size=20))
    def test_a_verdict_stays(self, data: bytes, more: bytes) -> None:
        """Whatever more bytes come, a verdict once given is not changed by them."""
        found, is_certain = diagnose(data)
        if is_certain:
            self.assertEqual(diagnose(data + more), (found, True))

    def test_is_always_decided(self) -> None:
        """No beginning is held for ever."""
        for data in (b"GET " + b"x" * HEAD_BYTES, b"\r\n" * HEAD_BYTES, b"x" * HEAD_BYTES):
            self.assertTrue(diagnose(data)[1])

    def test_says_what_it_is_and_what_to_do(self) -> None:
        """Every signature names itself and a fix."""
        for data in WRONG:
            found, _ = diagnose(data)
            assert found is not None
            self.assertTrue(found.what)
            self.assertTrue(found.fix)


class WrongProtocolTests(SynchronousTestCase):
    def test_is_refused(self) -> None:
        """A wrong protocol is refused under its own reason, the connection reset, everything accounted for."""
        for data, reason in WRONG.items():
            rig = Rig()
            transport = rig.send(data)
            self.assertTrue(transport.was_reset)
            self.assertEqual(rig.factory.ledger.connections_refused[reason], 1)
            closed = {r.value: n for r, n in rig.factory.ledger.connections_closed.items() if n}
            self.assertEqual((closed, rig.sink.records), ({"wrong_protocol": 1}, []))
            self.assertEqual(rig.watch.conservation_error(), 0)

    def test_bad_frame_closes(self) -> None:
        """On a port for counted frames a line ends the connection, under its own reason."""
        rig = Rig(framing="octet-counted")
        transport = rig.send(b"2 ok<13>a line\n")
        self.assertTrue(transport.was_reset)
        self.assertEqual(rig.sink.records, [b"ok"])
        self.assertEqual(rig.factory.ledger.bytes_discarded[DiscardReason.FRAMING], 11)
        self.assertEqual(rig.watch.conservation_error(), 0)

    def test_keep_alives_at_the_beginning(self) -> None:
        """Empty lines before anything else are no begun record: no frame deadline runs."""
        rig = Rig()
        transport = rig.send(b"\r\n")
        rig.turn(100)
        self.assertFalse(transport.was_reset)
        transport.peer_sends(b"\r\n<13>x\n")
        transport.pump()
        rig.turn()
        self.assertEqual((rig.sink.records, rig.factory.ledger.records_empty), ([b"<13>x"], 2))
