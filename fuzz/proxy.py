"""
Coverage-guided fuzzing of the PROXY header.

    python fuzz/proxy.py proxy [libFuzzer options] fuzz/corpus/proxy

Invariant: any bytes, whole and cut anywhere, are a header, none, or not a whole one, alike; no exception but the one
that says so; no more is kept than a header may have; and what is accepted of version 1 with addresses is written as it
would be. The first byte of an input chooses the cuts, the rest is the stream.
"""

import sys

import atheris

with atheris.instrument_imports(include=["twisted_ingest.framing"]):
    from twisted_ingest.framing.proxy import PREFIX, ProxyReader
    from twisted_ingest.framing.proxy_block import HEADER_BYTES
    from twisted_ingest.framing.proxy_said import ProxyHeaderError


def run(stream: bytes, size: int) -> object:
    """Read a stream in pieces of so many bytes; gives everything that must not depend on its cuts."""
    reader = ProxyReader()
    for at in range(0, len(stream), size):
        try:
            rest = reader.feed(stream[at : at + size])
        except ProxyHeaderError as error:
            return error.is_missing
        if reader.kept > HEADER_BYTES:
            raise AssertionError("more is kept than a header may have")
        if rest is not None:
            return reader.header, rest + stream[at + size :]
    return None


def target(_: str, data: bytes) -> None:
    """Try one input."""
    if not data[1:]:
        return
    step, stream = 1 + data[0] % 32, data[1:]
    whole = run(stream, len(stream))
    for size in {1, step}:
        if run(stream, size) != whole:
            raise AssertionError(f"cut into pieces of {size}, the stream gives something else")
    if isinstance(whole, tuple) and stream.startswith(PREFIX) and whole[0].source is not None:
        header = stream[: len(stream) - len(whole[1])]
        if header != b" ".join(header.split()) + b"\r\n":
            raise AssertionError("a header of version 1 was accepted that is not written as it must be")


def main() -> None:
    """Fuzz the reader."""
    kind = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: target(kind, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
