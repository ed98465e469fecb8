"""
Coverage-guided fuzzing of the framers.

    python fuzz/framing.py lines|nul|octets|auto|relp [libFuzzer options] fuzz/corpus/NAME

Invariant: the same bytes, whole and cut anywhere, with the C scanner and without, give the same records and the same
accounts; every byte and record is accounted for after every call; and no exception is tolerated, of any kind. The first
bytes of an input choose limit, policy and cuts, the rest is the stream.
"""

import sys

import atheris

with atheris.instrument_imports(include=["twisted_ingest.framing"]):
    from twisted_ingest.framing.auto import AutoFramer
    from twisted_ingest.framing.base import Framer
    from twisted_ingest.framing.lines import LineFramer, NulFramer
    from twisted_ingest.framing.octets import OctetFramer
    from twisted_ingest.framing.relp import RelpFramer
    from twisted_ingest.framing.scan import no_frames, no_lines, no_records

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import Oversize
from twisted_ingest.ledger import Balance, RelpLedger

KINDS: dict[str, type[Framer] | type[RelpFramer]] = {
    "lines": LineFramer,
    "nul": NulFramer,
    "octets": OctetFramer,
    "auto": AutoFramer,
    "relp": RelpFramer,
}
INFO = ConnectionInfo(1, "fuzz", "192.0.2.1:1", "192.0.2.1")
HEADER = 4


def answers(framer: Framer) -> list[tuple[int, bytes]]:
    """Give what a session is answered."""
    if not isinstance(framer, RelpFramer):
        return []
    found = [(number, r.text) for r in framer.replies for number in range(r.number, r.number + r.frames)]
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise AssertionError("answers are not in order")
    return found


def without_scanner(kind: type[Framer] | type[RelpFramer]) -> type[Framer] | type[RelpFramer]:
    """Give a framer that finds nothing in C."""
    nothing = {"_lines_in": no_lines, "_frames_in": no_frames, "_records_in": no_records}
    found = {name: staticmethod(find) for name, find in nothing.items()}
    return type(f"Plain{kind.__name__}", (kind,), {"__slots__": (), **found})


def run(
    kind: type[Framer] | type[RelpFramer], chunks: list[bytes], limit: int, policy: Oversize, *, sniff: bool
) -> object:
    """Frame a stream to its end; gives everything that must not depend on its cuts."""
    ledger = RelpLedger()
    framer = kind(INFO, ledger, limit, policy, sniff=sniff)
    batches = []
    for chunk in chunks:
        ledger.bytes_received += len(chunk)
        batches += framer.feed(chunk, 0.0)
        if Balance.of_bytes(ledger, framer.buffered).error:
            raise AssertionError("a byte is not accounted for")
    closed = framer.closed
    batches += framer.finish(0.0)
    dropped = sum(ledger.records_dropped.values())
    if Balance.of_bytes(ledger, 0).error or ledger.records_framed != sum(b.count for b in batches) + dropped:
        raise AssertionError("something is not accounted for at the end")
    for batch in batches:
        if batch.block().count(b"\n") != batch.count or len(batch.records()) != batch.count:
            raise AssertionError("a batch does not hold as many records as it says")
    records = [(record, batch.truncated) for batch in batches for record in batch.records()]
    return records, answers(framer), ledger.snapshot(), closed


def target(kind: type[Framer] | type[RelpFramer], plain: type[Framer] | type[RelpFramer], data: bytes) -> None:
    """Try one input."""
    if len(data) < HEADER:
        return
    limit, policy = 1 + data[0] % 64, list(Oversize)[data[1] % len(Oversize)]
    step, sniff, stream = 1 + data[2] % 16, bool(data[3] % 2), data[HEADER:]
    whole = run(kind, [stream], limit, policy, sniff=sniff)
    for size in {1, step, 2 * step + 1}:
        chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
        if run(kind, chunks, limit, policy, sniff=sniff) != whole:
            raise AssertionError(f"cut into pieces of {size}, the stream gives something else")
    if run(plain, [stream], limit, policy, sniff=sniff) != whole:
        raise AssertionError("without the scanner, the stream gives something else")


def main() -> None:
    """Fuzz one framer."""
    kind = KINDS[sys.argv.pop(1)]
    plain = without_scanner(kind)
    atheris.Setup(sys.argv, lambda data: target(kind, plain, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
