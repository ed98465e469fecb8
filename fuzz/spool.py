"""
Coverage-guided fuzzing of what reads a spool's directory.

    PYTHONPATH=. python fuzz/spool.py codec|recovery [libFuzzer options] fuzz/corpus/NAME

`codec` reads any bytes as header, frame and batch, their checksums made good: it gives what can be written again to the
same, or `DamagedError`, or `ForeignError`. `recovery` damages a directory as an input says. Invariant: a start raises
nothing; what it delivers was written, in order, each batch once; each frame that is still there whole is delivered;
another start comes to the same; and what is written afterwards is delivered too. Each frame that is there, whatever the
name of its segment, is delivered or counted.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from zlib import crc32

import atheris

with atheris.instrument_imports(include=["twisted_ingest.spool"]):
    from tests.disk import SimDisk
    from tests.spooling import DIRECTORY, Spool, make_batch, same
    from twisted_ingest.spool.body import FORMAT, DamagedError, ForeignError, decode_body, refuse_unknown
    from twisted_ingest.spool.codec import (
        HEAD_SIZE,
        SEGMENT_SIZE,
        Header,
        decode_head,
        decode_header,
        encode_frame,
        encode_header,
    )
    from twisted_ingest.spool.position import Position, write_position
    from twisted_ingest.spool.segments import POSITION, parse_name, segment_name

MARKER = b"\x91marker\n"
AFTERWARDS = 1000
"""The number of the batch that is written after a start."""
WRITTEN = bytes((0, FORMAT, 0, 0))
"""Bytes 8 to 12 of a header of ours: others are read as well, and never written."""
STEP = 6
"""Bytes that say one damage."""
BEYOND = 240
"""From here on a byte chooses among positions that none was ever given."""
POSITIONS = (1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1)
MOVING = (1, 2)
"""Kinds of damage that move what is behind it: not done to headers, for frames begin where those end."""


def signed(data: bytes) -> bytes:
    """Put the right checksum behind some bytes."""
    return data + crc32(data).to_bytes(4, "big")


def codec(data: bytes) -> None:
    """Read an input as everything there is."""
    with suppress(DamagedError, ForeignError):
        header = signed(data[: SEGMENT_SIZE - 4])
        if encode_header(decode_header(header)) != header and header[8:12] == WRITTEN:
            raise AssertionError("a header is written otherwise than it was read")
    with suppress(DamagedError, ForeignError):
        decode_head(signed(data[: HEAD_SIZE - 4]), data[:8])
    with suppress(DamagedError):
        _ = decode_body(data, 1)
    with suppress(DamagedError, ForeignError):
        refuse_unknown(data, FORMAT)
        batch = decode_body(data, FORMAT)
        frame = encode_frame(MARKER, 1, batch)
        # Compared as bytes: a time may be no number, and that is equal to nothing.
        if encode_frame(MARKER, 1, decode_body(frame[HEAD_SIZE:], FORMAT)) != frame:
            raise AssertionError("a batch is written otherwise than it was read")


class Directory:
    """A spool of some segments on a disk of its own. ``frames`` has each frame's bytes and its segment, by number."""

    def __init__(self, batches: int, size: int, per_segment: int, position: int) -> None:
        self.disk = SimDisk()
        self.disk.make_directory(DIRECTORY)
        self.paths: list[str] = []
        self.frames: dict[int, tuple[bytes, str]] = {}
        for first in range(1, batches + 1, per_segment):
            self._add(first, min(first + per_segment, batches + 1), size)
        self.position = position
        self.is_moved = False
        """Whether segments have others' names, or are there twice: then a frame may count as another's copy."""
        if position:
            write_position(self.disk, DIRECTORY, Position(position, len(self.paths)))

    def _add(self, first: int, end: int, size: int) -> None:
        number = len(self.paths) + 1
        path = f"{DIRECTORY}/{segment_name(number, MARKER)}"
        for each in range(first, end):
            self.frames[each] = (encode_frame(MARKER, each, make_batch(each, size)), path)
        content = b"".join(self.frames[each][0] for each in range(first, end))
        self.disk.put(path, encode_header(Header(number, first, MARKER)) + content)
        self.paths.append(path)

    def damage(self, step: bytes, more: bytes) -> None:
        """
        Do one thing to a file: overwrite, insert, cut out, cut off or remove, give its name away, or change names.

        ``more`` is what is put there.
        """
        kind, which, high, low, length, value = step
        files = [*self.paths, f"{DIRECTORY}/{POSITION}"]
        path = files[which % len(files)]
        if path.rpartition("/")[2] not in self.disk.list(DIRECTORY):
            return
        data = self.disk.content(path)
        at = (high << 8 | low) % (len(data) + 1)
        if kind % 7 in MOVING:
            at = min(max(at, SEGMENT_SIZE), len(data))
        put = (more or bytes([value]))[: length % 64]
        changed: dict[int, bytes | None] = {
            0: data[:at] + put + data[at + len(put) :],
            1: data[:at] + put + data[at:],
            2: data[:at] + data[at + length :],
            3: data[:at],
            4: None,
        }
        kind %= len(changed) + 2
        if kind >= len(changed):
            self._move(path, data, high << 8 | low, is_swap=bool(kind - len(changed)))
            return
        content = changed[kind]
        if content is None:
            self.disk.remove(path)
        else:
            self.disk.put(path, content)

    def _move(self, path: str, data: bytes, number: int, *, is_swap: bool) -> None:
        """Copy a segment to another name, or have it change its content with another one."""
        names = [name for name in self.paths if name.rpartition("/")[2] in self.disk.list(DIRECTORY)]
        if path not in names:
            return
        self.is_moved = True
        other = names[number % len(names)]
        if is_swap:
            self.disk.put(path, self.disk.content(other))
            self.disk.put(other, data)
        else:
            self.disk.put(f"{DIRECTORY}/{segment_name(number, MARKER)}", data)

    def there(self) -> int:
        """Count the frames that are there, whole, in any segment's place."""
        contents = [self.disk.content(f"{DIRECTORY}/{name}") for name in self.disk.list(DIRECTORY) if parse_name(name)]
        return sum(content.count(frame) for content in contents for frame, _ in self.frames.values())

    def left(self) -> Iterator[int]:
        """Give the numbers of the frames that are still there, whole, in their place, and were not delivered."""
        names = self.disk.list(DIRECTORY)
        for number, (frame, path) in self.frames.items():
            is_there = path.rpartition("/")[2] in names and frame in self.disk.content(path)
            if is_there and number >= self.position:
                yield number


def start(disk: SimDisk, size: int) -> list[int]:
    """Start a spool and read all; gives the numbers of what it delivers, which is what was written under them."""
    spool = Spool(disk)
    found = []
    for batch in spool.read():
        number = int(bytes(batch.wire).partition(b".")[0])
        if not same(batch, make_batch(number, size)):
            raise AssertionError("a batch was not written as it was delivered")
        found.append(number)
    spool.append(make_batch(AFTERWARDS, size))
    if [batch.wire for batch in spool.read()] != [make_batch(AFTERWARDS, size).wire]:
        raise AssertionError("what is written after a start is not delivered")
    return found


def copy(disk: SimDisk) -> SimDisk:
    """Give another disk with the same files."""
    other = SimDisk()
    other.make_directory(DIRECTORY)
    for name in disk.list(DIRECTORY):
        other.put(f"{DIRECTORY}/{name}", disk.content(f"{DIRECTORY}/{name}"))
    return other


def recovery(data: bytes) -> None:
    """Damage a directory and start on it twice."""
    if len(data) < STEP:
        return
    batches, size, per_segment = 1 + data[0] % 8, data[1] * 2, 1 + data[2] % 3
    position = POSITIONS[data[3] % len(POSITIONS)] if data[3] >= BEYOND else data[3] % (batches + 4)
    directory = Directory(batches, size, per_segment, position)
    steps, more = data[4 : 4 + STEP * (data[4] % 5)], data[4 + STEP * 4 :]
    for at in range(0, len(steps) - STEP + 1, STEP):
        directory.damage(steps[at : at + STEP], more)
    there, left = directory.there(), set(directory.left())
    before = copy(directory.disk)
    found = start(directory.disk, size)
    if sorted(set(found)) != found:
        raise AssertionError("not in order, or not once")
    looked = Spool(before)
    report = looked.recovered.report
    before.kill()
    if report.batches + report.duplicates + report.passed != there:
        raise AssertionError("a frame that is there is not counted")
    if not left <= set(found) and not directory.is_moved:
        raise AssertionError("a frame that is there is not delivered")
    if start(before, size) != found or report.records != len(found):
        raise AssertionError("another start, or its report, comes to something else")


KINDS: dict[str, Callable[[bytes], None]] = {"codec": codec, "recovery": recovery}


def main() -> None:
    """Fuzz one of them."""
    kind = KINDS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, kind)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
