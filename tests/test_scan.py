"""The scanner written in C, held against what it ought to find, said in Python."""

import contextlib
import os
import shutil
import sysconfig
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.scanners import BOM, frames, lines, records
from twisted_ingest.batch import LF
from twisted_ingest.framing import scan

with contextlib.suppress(ImportError):  # no test is run then
    from twisted_ingest.framing import _scan

PIECES = st.one_of(
    st.sampled_from([b"a", b"word", b"\n", b"\n\n", b"\r\n", b"\r", b"\0", b" ", b"        ", b"<", b"<1>", b"<191>"]),
    st.sampled_from([b"0", b"1 ", b"12 <13>", b"1234567 <1>", b"12345678 <1>", BOM, b"\xef", b"9 " + BOM + b"<1>"]),
    st.sampled_from([b"6 <1>abc", b"7 <1>abc\n", b"8 <1>abc\r\n", b"7 <1>abc\0", b"7 <1>a\nbc", b"1 \n", b"3 abc"]),
    st.binary(max_size=5),
)
LINES = [b"<13>Nov 26 17:00:00 host app[1]: said something\n", b"short\n", b"x\n", b"2026-11-26 12:00 <b> 7 <c>\n"]

DATA = st.lists(PIECES, max_size=12).map(b"".join)
LIMITS = st.integers(1, 20)
EXAMPLES = int(os.environ.get("INGEST_TEST_SCANS", "800"))


class ScannerTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not scan.IS_COMPILED:
            raise SkipTest("no C scanner was built")

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(st.one_of(st.just(b""), DATA), DATA, st.integers(0, 10), LIMITS, st.booleans())
    def test_lines(self, partial: bytes, data: bytes, position: int, limit: int, evidence: bool) -> None:
        """It finds the lines before the first odd one, the first of them begun elsewhere, and all of them."""
        self.look(partial, data, position, limit, evidence=evidence)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(
        st.one_of(st.just(b""), DATA),
        st.lists(st.one_of(PIECES, st.sampled_from(LINES)), max_size=60).map(b"".join),
        st.integers(0, 70),
        st.sampled_from([60, 200]),
        st.booleans(),
    )
    def test_many_lines(self, partial: bytes, data: bytes, position: int, limit: int, evidence: bool) -> None:
        """The same over as many bytes as are looked at together, wherever among them something is odd."""
        self.look(partial, data, position, limit, evidence=evidence)

    def test_odd_at_every_place(self) -> None:
        """One odd byte or line in a few blocks of ordinary ones is met wherever it stands."""
        ordinary = b"".join(LINES) * 3
        for odd in (b"\0", b"\r\n", b"\n\n", b"\n<13>", b"\n <13>x", b"\n9 <1>"):
            for at in range(len(ordinary)):
                for evidence in (False, True):
                    self.look(b"", ordinary[:at] + odd + ordinary[at:], 0, 100, evidence=evidence)

    def test_far_nul(self) -> None:
        """A NUL is met that is further from the line at hand than is looked for it at a time, and in a long line."""
        for before in (b"a line\n" * 2000, b"a line\n" + b"x" * 9000, (b"y" * 500 + b"\n") * 9):
            self.look(b"", before + b"x\0y\nlast\n", 0, 20_000, evidence=True)

    def look(self, partial: bytes, data: bytes, position: int, limit: int, *, evidence: bool) -> None:
        """Hold both ways of finding lines against what there is to find."""
        position = min(position, len(data))
        partial = partial.replace(LF, b"")
        expected = lines(partial, data, position, limit, evidence)
        for held in (partial, bytearray(partial)):
            for find in (scan.lines_in, _scan.portable_lines):
                self.assertEqual(find(held, data, position, limit, evidence), expected)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(DATA, st.integers(0, 10), LIMITS, st.booleans())
    def test_frames(self, data: bytes, position: int, limit: int, evidence: bool) -> None:
        """It finds the frames before the first odd one, and all of them."""
        position = min(position, len(data))
        self.assertEqual(scan.frames_in(data, position, limit, evidence), frames(data, position, limit, evidence))

    def test_priority_longer_than_its_frame(self) -> None:
        """A count that ends a frame within its priority is obeyed, and nothing else is copied."""
        data = b"2 <13>"
        self.assertEqual(scan.frames_in(data, 0, 9, True), (b"<1\n", 1, 4))
        self.assertEqual(frames(data, 0, 9, True), (b"<1\n", 1, 4))

    def test_beginning_in_two_parts(self) -> None:
        """A beginning that is evidence is seen wherever the chunks were cut."""
        for beginning in (b"1234567 " + BOM + b"<123>x", b"        <x", BOM + b"<x", b"1 <1>"):
            for cut in range(len(beginning)):
                held, rest = beginning[:cut], beginning[cut:] + b"\nnext\n"
                self.assertEqual(scan.lines_in(held, rest, 0, 100, True), (b"", 0, 0))
                self.assertEqual(scan.lines_in(held, rest, 0, 100, False)[1:], (2, len(rest)))

    def test_whole_chunk_is_not_copied(self) -> None:
        """A chunk of ordinary lines is the wire of its batch."""
        chunk = b"one\ntwo\n"
        self.assertIs(scan.lines_in(b"", chunk, 0, 100, True)[0], chunk)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(st.binary(max_size=80), st.sampled_from([b"", b"\n", b"\0", b"x"]))
    def test_control(self, data: bytes, exception: bytes) -> None:
        """It sees a control character that is not the exception, as the slow way does."""
        expected = any(code < 0x20 and bytes((code,)) != exception for code in data)
        self.assertEqual(scan.holds_control(data, exception), expected)
        self.assertEqual(scan.look_for_control(data, exception), expected)

    def test_mistakes_of_the_caller(self) -> None:
        """A position outside the data and what is no buffer are refused, as in Python."""
        for position in (-1, 4):
            self.assertRaises(ValueError, scan.lines_in, b"", b"abc", position, 9, True)
            self.assertRaises(ValueError, scan.frames_in, b"abc", position, 9, True)
        self.assertRaises(TypeError, scan.lines_in, b"", "text", 0, 9, True)
        self.assertRaises(TypeError, scan.lines_in, "text", b"", 0, 9, True)


RELP_PIECES = st.one_of(
    st.sampled_from(
        [b"syslog 3 abc\n", b"syslog 4 abc\n\n", b"syslog 5 abc\r\n\n", b"syslog 1 \0\n", b"syslog 3 a\nc\n"]
    ),
    st.sampled_from([b"syslog 0\n", b"syslog 3 ab", b"syslog 12 x", b"close 0\n", b"syslog 6 " + BOM + b"<1>\n"]),
    st.sampled_from(
        [b"syslog 000000002 ab\n", b"syslog 0000000002 ab\n", b"syslog 40 " + b"x" * 40 + b"\n", b"", b" "]
    ),
    st.binary(max_size=5),
)
NUMBERS = st.sampled_from([-1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2])
"""How much more than the one before a frame's number is."""


class RelpScannerTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not scan.IS_COMPILED:
            raise SkipTest("no C scanner was built")

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(st.lists(st.tuples(NUMBERS, RELP_PIECES), max_size=8), st.integers(0, 10**9 - 9), st.integers(0, 9), LIMITS)
    def test_records(self, pieces: list[tuple[int, bytes]], first: int, more: int, limit: int) -> None:
        """It finds the records before the first odd frame, and all of them, from whatever it is given."""
        number, data = first - 1, b""
        for step, piece in pieces:
            number += step
            data += b"%d %b" % (number, piece)
        for position in {0, min(3, len(data))}:
            expected = records(data, position, first, first + more, limit)
            for given_as in (data, memoryview(data)):
                self.assertEqual(scan.records_in(given_as, position, first, first + more, limit), expected)

    @given(st.one_of(st.integers(1, 2000), st.integers(10**9 - 300, 10**9 - 1)), st.integers(0, 300))
    def test_answers(self, number: int, frames: int) -> None:
        """It writes an answer for each frame, and no other, also where the numbers begin anew."""
        self.assertEqual(scan.answers_to(number, frames), scan.write_answers(number, frames))

    def test_mistakes_of_the_caller(self) -> None:
        """A position outside the data, and frames that there cannot be, are refused."""
        for position in (-1, 4):
            self.assertRaises(ValueError, scan.records_in, b"abc", position, 1, 2, 9)
        for number, many in ((0, 1), (-1, 1), (10**9, 1), (1, -1), (1, 10**9)):
            self.assertRaises(ValueError, scan.answers_to, number, many)
        self.assertRaises(TypeError, scan.records_in, "text", 0, 1, 2, 9)


class BuildTests(SynchronousTestCase):
    def test_built_where_it_can_be(self) -> None:
        """Where there are a compiler and Python's headers, the scanner was built and is in use."""
        if not shutil.which("cc") or not Path(sysconfig.get_path("include"), "Python.h").exists():
            raise SkipTest("no C compiler, or no headers of Python")
        if os.environ.get(scan.PURE):
            raise SkipTest(f"{scan.PURE} is set")
        self.assertTrue(scan.IS_COMPILED)
