"""
Send numbered lines: what ``load.c`` does, slower, for a machine without a compiler.

    python load.py -p PORT -c CONNECTIONS -n LINES -s SIZE -f FILLER [-1] [-o] [-r RATE] [-t SECONDS]
"""

import argparse
import itertools
import json
import socket
import time
from collections.abc import Iterator

from lines import line

BLOCK = 256 * 1024


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    for flag, name, default in (
        ("-p", "port", None),
        ("-c", "connections", 1),
        ("-n", "lines", None),
        ("-s", "size", 0),
        ("-r", "rate", 0),
        ("-t", "patience", 120),
    ):
        parser.add_argument(flag, dest=name, type=int, default=default, required=default is None)
    parser.add_argument("-f", dest="filler", required=True)
    parser.add_argument("-1", dest="one", action="store_true")
    parser.add_argument("-o", dest="octets", action="store_true")
    return parser.parse_args()


class Load:
    """All the connections and what they have sent."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        with open(chosen.filler, "rb") as stream:
            self.filler = stream.read()
        self.bytes = self.line_bytes = self.lines = 0
        self.peers = [
            socket.create_connection(("127.0.0.1", chosen.port), chosen.patience) for _ in range(chosen.connections)
        ]

    def records(self, connection: int) -> Iterator[bytes]:
        """Give a connection's lines as they go on the wire."""
        for number in range(self.chosen.lines):
            text = line(self.filler, connection, number, self.chosen.size)
            self.line_bytes += len(text) + 1
            self.lines += 1
            yield b"%d %b" % (len(text), text) if self.chosen.octets else text + b"\n"

    def blocks(self, connection: int) -> Iterator[bytes]:
        """Give what each send takes: one line, or a block of them."""
        records = self.records(connection)
        if self.chosen.one:
            yield from records
            return
        per_block = max(1, BLOCK // (self.chosen.size or 220))
        while block := b"".join(itertools.islice(records, per_block)):
            yield block

    def run(self) -> None:
        """Send everything, everybody in turn."""
        began = time.monotonic()
        turns = {peer: self.blocks(number) for number, peer in enumerate(self.peers)}
        while turns and time.monotonic() - began < self.chosen.patience:
            for peer, blocks in list(turns.items()):
                block = next(blocks, None)
                if block is None:
                    peer.shutdown(socket.SHUT_WR)
                    del turns[peer]
                    continue
                peer.sendall(block)
                self.bytes += len(block)
                if self.chosen.rate:
                    time.sleep(max(0.0, self.lines / self.chosen.rate - (time.monotonic() - began)))
        if turns:
            raise TimeoutError

    def wait_closed(self) -> None:
        """Wait until the server has closed its side, for ten seconds at most."""
        until = time.monotonic() + 10
        for peer in self.peers:
            peer.settimeout(max(0.01, until - time.monotonic()))
            try:
                peer.recv(1)
            except OSError:
                continue


def main() -> int:
    """Send, and print one JSON object."""
    load = Load(options())
    clock, began, failed = time.time(), time.monotonic(), 0
    try:
        load.run()
    except OSError:
        failed = 1
    seconds = time.monotonic() - began
    if not failed:
        load.wait_closed()
    sums = {"bytes": load.bytes, "line_bytes": load.line_bytes, "lines": load.lines, "failed": failed}
    print(json.dumps({"began": clock, "seconds": seconds} | sums))
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
