"""Wrong protocols are recognised by their first bytes, at any cut; log lines never are."""

import os
from typing import ClassVar

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wrong_protocols import LURES, TEXT_LIKE, TOGETHER, WRONG
from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.errors import DiscardReason, RefuseReason
from twisted_ingest.framing.detect import diagnose, diagnose_relp, is_run_together, no_text_begins
from twisted_ingest.framing.signatures import HEAD_BYTES, SIGNATURES
from twisted_ingest.ledger import Balance, ListenerLedger
from twisted_ingest.server.lines import FRAMERS

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")

PRINTABLE = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\t\x1b"), max_size=30)
TEXT = st.builds(str.__add__, st.sampled_from(("", "<13>", "<34>1 - h a - - - ", '{"a":"', *LURES)), PRINTABLE)
"""A record of one line, printable, as any client may send it."""


def as_lines(end: bytes, records: list[str]) -> bytes:
    """Give them as lines."""
    return b"".join(record.encode() + end for record in records)


def as_frames(records: list[str]) -> bytes:
    """Give them counted."""
    return b"".join(b"%d %b" % (len(record.encode()), record.encode()) for record in records)


def as_nul_ended(records: list[str]) -> bytes:
    """Give them as records ended by NUL; single characters could be UTF-16, which operations.md says."""
    return b"".join((record if len(record) > 1 else f"<13>{record}").encode() + b"\0" for record in records)


RECORDS = st.lists(TEXT, min_size=1, max_size=6)
STREAMS = st.one_of(
    st.builds(as_lines, st.sampled_from((b"\n", b"\r\n", b"\n\0")), RECORDS),
    st.builds(as_frames, st.lists(TEXT.filter(bool), min_size=1, max_size=6)),
    st.builds(as_nul_ended, RECORDS),
    st.builds(as_lines, st.just(b"\n"), RECORDS).map(lambda lines: b"\r\n\r\n" + lines),
    st.builds(as_lines, st.just(b"\n"), RECORDS).map(lambda lines: bytes(64) + b"\n" + lines),
    st.builds(as_nul_ended, RECORDS).map(lambda records: b"\0" + records),
)


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
        b"2W\0\tx\0",
        b"\r\n\r\n\r\n<13>x\n",
        b"\0<13>x\0",
        b"2026-11-21 up\n",
        b"\xe2\x80\x99quoted\n",
        b'{"a": 1}\0',
        b"a\0b\0c\0more\0",
        b"\0a\0b\0more",
        b"2Way mirror\n",
        b"",
        *(lure.encode() + end for lure in LURES for end in (b"\n", b"\r\nsecond\r\n", b"\0", b"")),
    ]

    def test_every_cut(self) -> None:
        """Each is recognised at the same byte by every framer, however it is cut; nothing of it is delivered."""
        for reason, data in WRONG:
            for kind in FRAMERS.values():
                for size in (1, 2, 3, 5, 7, len(data)):
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

    def test_any_cut_of_the_head(self) -> None:
        """Cut anywhere, what is shown of each is either named alike or not decided yet; and it is named in time."""
        for reason, data in WRONG:
            verdicts = [diagnose(data[:cut]) for cut in range(len(data) + 1)]
            first = next(cut for cut, (found, _) in enumerate(verdicts) if found is not None)
            self.assertEqual(set(verdicts[:first]), {(None, False)}, data)
            named = {found.reason if found else None for found, _ in verdicts[first:]}
            self.assertEqual(named, {reason}, data)

    def test_on_a_relp_port(self) -> None:
        """Each is named alike where a RELP session ought to begin, at any cut; what RELP is is none of them."""
        for reason, data in WRONG:
            for cut in range(len(data) + 1):
                found, is_certain = diagnose_relp(data[:cut])
                if is_certain:
                    self.assertEqual(found.reason if found else RefuseReason.RELP, reason, data[:cut])
            self.assertTrue(diagnose_relp(data)[1], data)

    @settings(max_examples=500)
    @given(
        st.one_of(
            st.binary(max_size=40),
            st.builds(lambda w, n: w[1][:n], st.sampled_from(WRONG), st.integers(0, 40)),
            STREAMS,
        ),
        st.binary(max_size=20),
    )
    def test_a_verdict_stays(self, data: bytes, more: bytes) -> None:
        """Whatever more bytes come, a verdict once given is not changed by them."""
        for judge in (diagnose, diagnose_relp):
            found, is_certain = judge(data)
            if is_certain:
                self.assertEqual(judge(data + more), (found, True))
        if no_text_begins(data) is not None:
            self.assertEqual(no_text_begins(data + more), no_text_begins(data))

    @settings(max_examples=1000)
    @given(STREAMS)
    def test_text_is_never_refused(self, stream: bytes) -> None:
        """Records of printable text, as any client ends them, are taken for no protocol but those that are text."""
        assume(not TEXT_LIKE.match(stream))
        found, _ = diagnose(stream)
        self.assertIsNone(found)
        self.assertIsNot(no_text_begins(stream), True)

    def test_other_encodings(self) -> None:
        """Lines that begin with any character of an older encoding are lines, whatever is behind it."""
        for code, behind in (("shift-jis", "期しました"), ("gb18030", "启动"), ("cp1252", "été"), ("koi8-r", "привет")):
            for letter in map(chr, range(0xA0, 0xA000)):
                first = letter.encode(code, "ignore")
                for rest in (behind.encode(code), b" starts", b"[1] x"):
                    self.assertFalse(diagnose(first + rest + b"\n")[0] is not None, (code, letter, rest))

    def test_every_signature_is_shown(self) -> None:
        """The table has an example of each protocol, and the enumeration no reason that no signature has."""
        shown = {reason for reason, _ in WRONG}
        self.assertEqual(shown, {signature.reason for signature in SIGNATURES})

    def test_every_reason_is_documented(self) -> None:
        """The table of reasons names each that first bytes may be refused for."""
        with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), "docs", "operations.md")) as stream:
            rows = [row.split("|")[1] for row in stream if row.startswith("| `")]
        for reason in (*(signature.reason for signature in SIGNATURES), RefuseReason.PLAIN):
            self.assertTrue(any(f"`{reason}`" in row for row in rows), reason)

    def test_is_always_decided(self) -> None:
        """No beginning is held for ever."""
        for data in (b"GET " + b"x" * HEAD_BYTES, b"\r\n" * HEAD_BYTES, b"x" * HEAD_BYTES):
            self.assertTrue(diagnose(data)[1])
        for first in range(0x100):
            self.assertTrue(diagnose(bytes((first,)) * HEAD_BYTES)[1])
            self.assertIsNotNone(no_text_begins(bytes((first,)) * HEAD_BYTES))

    def test_says_what_it_is_and_what_to_do(self) -> None:
        """Every signature names itself and a fix."""
        fixes = {signature.reason: signature.fix for signature in SIGNATURES}
        self.assertEqual(len(fixes), len(SIGNATURES))
        for signature in SIGNATURES:
            self.assertTrue(signature.what)
            self.assertRegex(signature.fix, r"\w")
        self.assertIn("lines, not HTTP", fixes[RefuseReason.HTTP])
        self.assertIn("twisted_ingest.logging_handler.IngestHandler", fixes[RefuseReason.PICKLE])
        for words in ("target group", "HAProxy", "nginx"):
            self.assertIn(words, fixes[RefuseReason.PROXY])

    def test_looks_run_together(self) -> None:
        """Only what holds a second beginning looks like several records."""
        for partial in TOGETHER:
            self.assertTrue(is_run_together(partial), partial)
            self.assertTrue(is_run_together(bytearray(partial)), partial)
        for partial in (b"", b"<14>a <b>", b'{"a":{"b":0},"c":[{},{}]}', b"a<14>b", b"text } {", b"<14>a<14", b"{"):
            self.assertFalse(is_run_together(partial), partial)
