"""
Damage, and what it costs: streams as known kinds of client send them, with stray bytes put in.

    python -m tests.containment        # print the table, and write it into docs/reliability.md

A stream's records are those that come of it undamaged. The loss is the number of neighbouring records, from the first
to the last that is not delivered as it would have been.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.framing.auto import AutoFramer
from twisted_ingest.ledger import Balance, ListenerLedger
from twisted_ingest.limits import MAX_LENGTH

INFO = ConnectionInfo(1, "test", "192.0.2.1:1", "192.0.2.1")
RECORDS = 40
"""Of a stream: more than it takes until frames are trusted."""

BOUND = 3
"""Records that any damage of 64 bytes may cost: the one it is in, and its neighbours."""

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- containment -->\n", "<!-- /containment -->\n"


def _text(number: int) -> str:
    return f"msg {number:03d} alpha w{number * 7919 % 997:03d}e"


def _message(number: int) -> bytes:
    return f"<{13 + number % 3}>{_text(number)}".encode()


def _traced(number: int) -> bytes:
    return _message(number) + b"\n at line %d\n end of %d" % (number, number)


def _object(number: int) -> bytes:
    return b'{"n":%d,"m":"%b"}' % (number, _text(number).encode())


def _counted(record: bytes) -> bytes:
    return b"%d %b" % (len(record), record)


KINDS: dict[str, Callable[[int], bytes]] = {
    "lines with a priority": lambda number: _message(number) + b"\n",
    "raw lines": lambda number: _text(number).encode() + b"\n",
    "raw lines that begin with digits": lambda number: b"%d 2026-11-21 %b\n" % (200 + number, _text(number).encode()),
    "CRLF": lambda number: _message(number) + b"\r\n",
    "counted": lambda number: _counted(_message(number)),
    "counted, LF at the end": lambda number: _counted(_message(number) + b"\n"),
    "counted, LF behind the count": lambda number: _counted(_message(number)) + b"\n",
    "counted, LF inside": lambda number: _counted(_traced(number)),
    "counted, ending in digits": lambda number: _counted(_message(number) + b" pid=%d" % (70 + number)),
    "NUL-ended": lambda number: _message(number) + b"\0",
    "NUL-ended, LF inside": lambda number: _traced(number) + b"\0",
    "LF and NUL": lambda number: _message(number) + b"\n\0",
    "JSON lines": lambda number: _object(number) + b"\n",
    "GELF": lambda number: _object(number) + b"\0",
}

POISONS = (
    b"\0",
    b"\0" * 64,
    b"\n",
    b"\n" * 64,
    b"\r\n",
    b"\0\n",
    b"\n\0",
    b"x",
    b"a\nb\nc\nd\n",
    b"<13>",
    b"\0<13>",
    b"<13>a\0<13>",
    b"\0<13>x\0<13>",
    b"\n<13>",
    b"{",
    b"\0{",
    b"\n{",
    b"}{",
    b"9999999 <0>",
    b"9999999 <0>\n",
    b"2000000 <13>first\n",
    b"102400 <13>",
    b"102000 <13>x\n",
    b"500 <13>",
    b"100 <1>",
    b"100 <1> retries\n",
    b"57 <13>",
    b"9 <13>a\nb",
    b"9 <1>",
    b"7 <13>ok\n",
    b"5 <13>a",
    b"5 <13>a500 <13>",
    b"5 <13>ab5 <13>c5 <13>d",
    b"4 <1>a5 <1>ab6 <1>abc" * 3,
    b"12",
    b"1 ",
    b" ",
    b"  <b>1</b>\n",
    b" <13>",
    b"<14>a<14>b",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"GET / HTTP/1.1\r\n",
)

ATOMS = (
    *(b"<13>", b"<1>", b"\n", b"\0", b" ", b"5 ", b"9 ", b"47 ", b"46 <13>", b"99999 <13>", b"500 <1>", b"{", b"}"),
    *(b"a", b"bc", b"\r\n", b"\xef\xbb\xbf", b"12", b"7", b"1 <1>", b"\xff", b"13>", b"<"),
)
"""What random damage is made of."""


def wires(kind: str) -> list[bytes]:
    """Give a stream, record by record as it is sent."""
    return [KINDS[kind](number) for number in range(RECORDS)]


@cache
def intact(kind: str) -> list[bytes]:
    """Give the records of a stream without damage."""
    return records([b"".join(wires(kind))])


def damaged(kind: str, at: int, offset: int, poison: bytes) -> bytes:
    """Put bytes into record ``at`` of a stream, ``offset`` bytes behind its beginning."""
    sent = wires(kind)
    sent[at] = sent[at][:offset] + poison + sent[at][offset:]
    return b"".join(sent)


def records(chunks: list[bytes]) -> list[bytes]:
    """Give the records of a stream to its end; raises where the connection would not live or a byte is unaccounted."""
    ledger = ListenerLedger()
    framer = AutoFramer(INFO, ledger, MAX_LENGTH, sniff=False)
    ledger.bytes_received = sum(map(len, chunks))
    batches = [batch for chunk in chunks for batch in framer.feed(chunk, 0.0)]
    if framer.closed is not None or Balance.of_bytes(ledger, framer.buffered).error:
        raise AssertionError("the stream was given up, or a byte lost")
    return [record for batch in (*batches, *framer.finish(0.0)) for record in batch.records()]


def loss(given: list[bytes], expected: list[bytes]) -> int:
    """Count the records from the first to the last that were not delivered as they should have been."""
    before = behind = 0
    most = min(len(given), len(expected))
    while before < most and given[before] == expected[before]:
        before += 1
    while behind < most - before and given[-1 - behind] == expected[-1 - behind]:
        behind += 1
    return len(expected) - before - behind


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at the places given."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


def places(kind: str) -> Iterator[tuple[int, int]]:
    """Give where damage is tried: between records, and inside, before there is trust and afterwards."""
    sent = wires(kind)
    for at in (0, 1, 2, 5, 16, 17, 18, 20, RECORDS - 2, RECORDS - 1):
        size = len(sent[at])
        for offset in sorted({0, 8, size // 2, size - 2, size - 1}):
            yield at, offset


def worst(kind: str, poison: bytes) -> int:
    """Give the most records that one kind of damage costs, wherever it is."""
    expected = intact(kind)
    return max(loss(records([damaged(kind, at, offset, poison)]), expected) for at, offset in places(kind))


@dataclass(frozen=True)
class Row:
    """How many kinds of damage cost how many records."""

    kind: str
    counts: tuple[int, ...]
    at_random: tuple[int, ...]


def measure(kind: str, tries: int) -> Row:
    """Try every poison everywhere, and random ones."""
    counts, at_random = [0] * (BOUND + 2), [0] * (BOUND + 2)
    for poison in POISONS:
        counts[min(worst(kind, poison), BOUND + 1)] += 1
    chance = random.Random(kind)
    sent, expected = wires(kind), intact(kind)
    for _ in range(tries):
        poison = b"".join(chance.choice(ATOMS) for _ in range(chance.randint(1, 12)))[:64]
        at = chance.randrange(RECORDS)
        offset = chance.choice((0, chance.randrange(8, len(sent[at]))))
        at_random[min(loss(records([damaged(kind, at, offset, poison)]), expected), BOUND + 1)] += 1
    return Row(kind, tuple(counts), tuple(at_random))


def table(tries: int) -> str:
    """Write the table."""
    heads = [*(str(lost) for lost in range(BOUND + 1)), "more"]
    lines = [
        f"Each of {len(POISONS)} kinds of stray bytes was put at {len(list(places('raw lines')))} places of a stream",
        f"of {RECORDS} records, of each kind of client; and {tries:,} random ones, of up to 64 bytes, anywhere.",
        "What is counted is the worst place of each, and each random try, by how many records it has cost.",
        "",
        f"| records lost, merged or altered: | {' | '.join(heads)} | random: {' | '.join(heads)} |",
        f"|---|{'---|' * len(heads) * 2}",
    ]
    for kind in KINDS:
        row = measure(kind, tries)
        lines.append(f"| {kind} | {' | '.join(map(str, (*row.counts, *row.at_random)))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and put it into the page."""
    text = table(1000)
    print(text)  # noqa: T201
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, behind = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{text}{END}{behind}", encoding="utf-8")


if __name__ == "__main__":
    main()
