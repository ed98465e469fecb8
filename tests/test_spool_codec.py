"""The frames of a spool: what is written comes back, and no cut and no change of a byte goes unnoticed."""

import contextlib
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.disk import SimDisk
from tests.spooling import make_batch, put_fields, same
from twisted_ingest.batch import Batch, ConnectionInfo
from twisted_ingest.sinks.rendering import render_json
from twisted_ingest.spool.body import FORMAT, REQUIRED, DamagedError, ForeignError, decode_body, refuse_unknown
from twisted_ingest.spool.codec import (
    HEAD_SIZE,
    MAX_BODY,
    MAX_NUMBER,
    MAX_SEQUENCE,
    SEGMENT_SIZE,
    Header,
    count_of,
    decode_head,
    decode_header,
    encode_frame,
    encode_header,
    is_whole,
    sequence_of,
)
from twisted_ingest.spool.frames import Damage, FrameReader, Whole

MARKER = b"\x01marker\xff"

TEXTS = st.text(max_size=30) | st.text(st.characters(categories=["Cs"]), max_size=3)
MAYBE = st.none() | TEXTS
INFOS = st.builds(
    ConnectionInfo,
    st.integers(0, 2**64 - 1),
    TEXTS,
    TEXTS,
    MAYBE,
    local=MAYBE,
    proxy=MAYBE,
    identity=MAYBE | st.just("x" * 2000),
)
TAGS = st.integers(4, REQUIRED - 1)
"""Of fields that this version does not know, and may pass by."""
FIELDS = st.dictionaries(TAGS, st.binary(max_size=40), max_size=4).map(lambda fields: list(fields.items()))
RECORDS = st.lists(st.binary(min_size=1, max_size=50).filter(lambda r: b"\n" not in r), min_size=1, max_size=5)
LINES = st.builds(
    lambda records, info, at: Batch(b"".join(r + b"\n" for r in records), len(records), info, at),
    RECORDS,
    INFOS,
    st.floats(0, 4e9),
)
SINGLES = st.builds(
    lambda record, info, at, partial, truncated: Batch(
        record + b"\0", 1, info, at, b"\0", partial=partial, truncated=truncated
    ),
    st.binary(min_size=1, max_size=80),
    INFOS,
    st.floats(0, 4e9),
    st.booleans(),
    st.booleans(),
)
BATCHES = LINES | SINGLES
SHORT = settings(max_examples=20, deadline=None)


def read(data: bytes) -> list[Whole | Damage]:
    """Read a file of frames, from its beginning to its end."""
    disk = SimDisk()
    disk.put("/frames", data)
    return list(FrameReader(disk, disk.open("/frames"), MARKER, 0).read_all(len(data)))


class FrameTests(SynchronousTestCase):
    @given(st.integers(0, MAX_SEQUENCE), BATCHES)
    def test_round_trip(self, sequence: int, batch: Batch) -> None:
        """A batch comes back the same in everything a sink can see, and so does its JSON."""
        frame = encode_frame(MARKER, sequence, batch)
        head = decode_head(frame, MARKER)
        self.assertTrue(is_whole(head, frame[HEAD_SIZE:]))
        back = decode_body(frame[HEAD_SIZE:], FORMAT)
        self.assertTrue(same(back, batch))
        self.assertEqual(back.records(), batch.records())
        self.assertEqual(render_json(back), render_json(batch))
        self.assertEqual((head.sequence, sequence_of(frame)), (sequence, sequence))
        self.assertEqual((head.count, count_of(frame)), (batch.count, batch.count))

    @SHORT
    @given(BATCHES, st.integers(1, 255))
    def test_every_changed_byte_is_noticed(self, batch: Batch, change: int) -> None:
        """With any one byte changed nothing is read but the frame after it, which is whole."""
        frame, after = encode_frame(MARKER, 1, batch), encode_frame(MARKER, 2, make_batch(2))
        for offset in range(len(frame)):
            data = bytearray(frame + after)
            data[offset] ^= change
            damage, found = read(bytes(data))
            self.assertEqual(damage, Damage(0, len(frame), is_torn=False))
            self.assertTrue(isinstance(found, Whole) and found.sequence == 2 and same(found.batch(), make_batch(2)))

    @SHORT
    @given(BATCHES, st.integers(1, 255))
    def test_every_changed_byte_of_the_last_frame_is_noticed(self, batch: Batch, change: int) -> None:
        """With nothing after it neither: a length that was changed reads no byte it should not."""
        frame = encode_frame(MARKER, 1, batch)
        for offset in range(len(frame)):
            data = bytearray(frame)
            data[offset] ^= change
            self.assertEqual(read(bytes(data)), [Damage(0, len(frame), is_torn=False)])

    @SHORT
    @given(BATCHES, BATCHES)
    def test_every_cut(self, one: Batch, other: Batch) -> None:
        """Cut anywhere, what was whole is read and the rest is torn: no more, no less."""
        first, second = encode_frame(MARKER, 1, one), encode_frame(MARKER, 2, other)
        for cut in range(len(first) + len(second)):
            items = read((first + second)[:cut])
            whole = [item for item in items if isinstance(item, Whole)]
            torn = [item for item in items if isinstance(item, Damage)]
            self.assertEqual([item.sequence for item in whole], [1] if cut >= len(first) else [])
            start = len(first) if whole else 0
            self.assertEqual(torn, [Damage(start, cut, is_torn=True)] if cut > start else [])

    def test_length_is_covered(self) -> None:
        """A length is not believed before its checksum: shortened to a body that would be whole, it is damage still."""
        frame = bytearray(encode_frame(MARKER, 1, make_batch(1, size=300)))
        frame[8:12] = (len(frame) - HEAD_SIZE - 1).to_bytes(4, "big")
        with self.assertRaises(DamagedError):
            decode_head(bytes(frame), MARKER)

    @given(st.binary(max_size=200))
    def test_noise_is_no_frame(self, noise: bytes) -> None:
        """Bytes that nobody wrote are never a frame."""
        self.assertFalse([item for item in read(noise) if isinstance(item, Whole)])

    def test_forged_frame_in_a_record(self) -> None:
        """A frame that a sender has put into its record, under a marker it cannot know, is never found there."""
        forged = encode_frame(b"guessed!", 2, make_batch(666))
        frame = bytearray(encode_frame(MARKER, 1, Batch(forged + b"\n", 1, make_batch(1).info, 0.0)))
        frame[-1] ^= 1
        self.assertEqual(read(bytes(frame)), [Damage(0, len(frame), is_torn=False)])
        self.assertEqual(read(forged), [Damage(0, len(forged), is_torn=False)])

    @given(st.binary(max_size=60), st.integers(1, FORMAT))
    def test_body_that_is_no_batch(self, body: bytes, form: int) -> None:
        """A body that nobody wrote is damage, or a batch by chance; never another error."""
        with contextlib.suppress(DamagedError, ForeignError):
            refuse_unknown(body, form)
            decode_body(body, form)

    def test_long_damage(self) -> None:
        """The next frame is found behind a region longer than one read, a marker across its edge included."""
        frame = encode_frame(MARKER, 9, make_batch(9))
        for length in ((1 << 20) - 4, 1 << 20, (5 << 19) + 3):
            damage, found = read(bytes(length) + frame)
            self.assertEqual(damage, Damage(0, length, is_torn=False))
            self.assertTrue(isinstance(found, Whole) and found.sequence == 9)


class FieldTests(SynchronousTestCase):
    @given(BATCHES, FIELDS)
    def test_unknown_fields(self, batch: Batch, fields: list[tuple[int, bytes]]) -> None:
        """Fields that a later version has put into a frame are passed by: the batch is the same without them."""
        frame = put_fields(encode_frame(MARKER, 1, batch), fields)
        (found,) = read(frame)
        assert isinstance(found, Whole)
        refuse_unknown(found.body, found.head.format)
        self.assertTrue(same(found.batch(), batch))

    @given(BATCHES, FIELDS, TAGS, FIELDS)
    def test_required_fields(
        self, batch: Batch, before: list[tuple[int, bytes]], tag: int, after: list[tuple[int, bytes]]
    ) -> None:
        """One that must be known is refused, wherever it stands, and by whoever wants the batch too."""
        after = [field for field in after if field not in before and field[0] not in dict(before)]
        frame = put_fields(encode_frame(MARKER, 1, batch), [*before, (tag | REQUIRED, b"?"), *after])
        (found,) = read(frame)
        assert isinstance(found, Whole)
        for refuses in (lambda: refuse_unknown(found.body, found.head.format), found.batch):
            with self.assertRaisesRegex(ForeignError, f"a field {tag | REQUIRED:#06x} that must not be passed by"):
                refuses()

    @SHORT
    @given(BATCHES, FIELDS, st.integers(1, 255))
    def test_every_changed_byte_and_cut(self, batch: Batch, fields: list[tuple[int, bytes]], change: int) -> None:
        """With fields in it too, no cut and no change of a byte goes unnoticed."""
        frame = put_fields(encode_frame(MARKER, 1, batch), fields)
        for offset in range(len(frame)):
            data = bytearray(frame)
            data[offset] ^= change
            self.assertEqual(read(bytes(data)), [Damage(0, len(frame), is_torn=False)])
            self.assertEqual(read(frame[:offset]), [Damage(0, offset, is_torn=True)] if offset else [])

    def test_fields_that_nobody_writes(self) -> None:
        """Fields that do not end where they must, or stand there twice, are damage."""
        for fields in ([(5, b"a"), (5, b"b")], [(1, b"a"), (1, b"a")], [(1, b"\xff")]):
            (found,) = read(put_fields(encode_frame(MARKER, 1, make_batch(1)), fields))
            assert isinstance(found, Whole)
            self.assertRaises(DamagedError, found.batch)
            # A start does not fall over it: whoever reads it sets it aside.
            refuse_unknown(found.body, found.head.format)
        body = encode_frame(MARKER, 1, make_batch(1))[HEAD_SIZE:]
        for size in (1, 5, 6, 1000, 2**32 - 1):
            self.assertRaises(DamagedError, decode_body, body[:28] + size.to_bytes(4, "big") + body[32:], FORMAT)

    def test_what_an_older_reader_sees(self) -> None:
        """A frame of this format is damage to a reader of format 1 with a header lost: its length is beyond all."""
        length = int.from_bytes(encode_frame(MARKER, 1, make_batch(1))[8:12], "big")
        self.assertGreater(length, 256 * 1024 * 1024)

    def test_a_later_format(self) -> None:
        """A head of a later format is told from damage; format 1 says nothing where the others have theirs."""
        frame = encode_frame(MARKER, 1, make_batch(1))
        for form, expected in ((0, None), (1, DamagedError), (FORMAT + 1, ForeignError), (15, ForeignError)):
            head = frame[:8] + (form << 28 | len(frame) - HEAD_SIZE).to_bytes(4, "big") + frame[12:28]
            head += crc32(head).to_bytes(4, "big")
            if expected is None:
                self.assertEqual(decode_head(head, MARKER).format, 1)
            else:
                self.assertRaises(expected, decode_head, head, MARKER)

    def test_a_batch_beyond_all(self) -> None:
        """A batch whose frame could not be read is not written."""
        batch = make_batch(1)
        batch.size = MAX_BODY
        self.assertRaises(OverflowError, encode_frame, MARKER, 1, batch)


class HeaderTests(SynchronousTestCase):
    @given(st.integers(0, MAX_NUMBER), st.integers(0, MAX_SEQUENCE), st.binary(min_size=8, max_size=8))
    def test_round_trip(self, number: int, first: int, marker: bytes) -> None:
        """A header comes back."""
        header = Header(number, first, marker)
        self.assertEqual(decode_header(encode_header(header)), header)

    def test_numbers_beyond(self) -> None:
        """Numbers that none is given are damage, in a header and in a head: what follows them would fit no format."""
        for header in (Header(MAX_NUMBER + 1, 1, MARKER), Header(1, MAX_SEQUENCE + 1, MARKER)):
            self.assertRaises(DamagedError, decode_header, encode_header(header))
        self.assertRaises(DamagedError, decode_head, encode_frame(MARKER, MAX_SEQUENCE + 1, make_batch(1)), MARKER)

    def test_every_changed_byte_and_cut_is_noticed(self) -> None:
        """No header is read that was not written."""
        data = encode_header(Header(3, 100, MARKER))
        self.assertEqual(len(data), SEGMENT_SIZE)
        for offset in range(len(data)):
            changed = bytearray(data)
            changed[offset] ^= 0x10
            for broken in (bytes(changed), data[:offset]):
                with self.assertRaises(DamagedError):
                    decode_header(broken)

    def test_other_version(self) -> None:
        """A whole header of another version is told from a damaged one."""
        data = bytearray(encode_header(Header(3, 100, MARKER))[:-4])
        data[8:10] = (FORMAT + 1).to_bytes(2, "big")
        with self.assertRaises(ForeignError):
            decode_header(bytes(data) + crc32(data).to_bytes(4, "big"))
