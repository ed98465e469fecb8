"""Headers of counted frames, and what weighing them costs."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.framing.beginnings import FEW_CLAIMS, MOST_CLAIMS, claims, first_link, headers

DENSE = st.lists(
    st.sampled_from(
        [b"4 <1>a", b"5 <1>a", b"6 <1>ab", b"99 <1>", b"7", b"12", b"\n", b" ", b"<1>", b"\xef\xbb\xbf", b"999999 <1>"]
    ),
    max_size=120,
).map(b"".join)


class Searched(bytes):
    """Data that counts how many of its bytes were searched."""

    searched = 0

    def find(self, wanted: bytes, start: int = 0, stop: int = 1 << 62) -> int:  # type: ignore[override]
        """See `bytes`."""
        found = super().find(wanted, start, stop)
        self.searched += (min(stop, len(self)) if found < 0 else found) - start
        return found


class HeaderTests(SynchronousTestCase):
    """Where headers are found."""

    def test_marked_and_plain(self) -> None:
        """A header is found with a BOM before its priority and without, in the order they stand in."""
        data = b"1 <1> 22 \xef\xbb\xbf<1> x <1> 3 <1> \xef\xbb\xbf< 4 \xef\xbb\xbf<1>"
        found = [data[begin:blank] for begin, blank, _ in headers(data, 0, len(data))]
        self.assertEqual(found, [b"1", b"22", b"3", b"4"])

    def test_cost(self) -> None:
        """However blanks, BOMs and priorities are mixed, no byte is searched more than a few times."""
        for unit in (
            b" \xef\xbb\xbf<",
            b" <",
            b"1 <1>",
            b"1 \xef\xbb\xbf<1>",
            b" <1> \xef\xbb\xbf<1>",
            b"\xef\xbb\xbf",
            b" ",
        ):
            data = Searched(unit * 2000)
            found = sum(1 for _ in headers(data, 0, len(data)))
            self.assertLessEqual(found, 2000)
            self.assertLess(data.searched, 3 * len(data), unit)


class ClaimTests(SynchronousTestCase):
    """What is weighed."""

    @settings(max_examples=400, deadline=None)
    @given(DENSE)
    def test_what_is_left_out_decides_nothing(self, data: bytes) -> None:
        """Claims left out are none that could have been confirmed first; none is left out where none is confirmed."""
        size = len(data)
        every = claims(data, 0, size, 1000)
        few = claims(data, 0, size, 1000, size)
        self.assertEqual(few, every[: len(few)])
        self.assertEqual(first_link(data, few, size), first_link(data, every, size))
        if first_link(data, every, size) is None:
            self.assertEqual(few, every)

    def test_dense_frames(self) -> None:
        """Where frames follow each other closely, few of them are weighed."""
        data = b"4 <1>a" * 1000
        self.assertLessEqual(len(claims(data, 0, len(data), 1000, len(data))), FEW_CLAIMS)

    def test_lies(self) -> None:
        """Where none is confirmed, a bounded number is weighed."""
        data = b"99999 <1>" * 1000
        self.assertEqual(len(claims(data, 0, len(data), 100_000, len(data))), MOST_CLAIMS + 1)
