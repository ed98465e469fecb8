"""
Receivers as they are first written with Twisted or asyncio: every line goes to one file.

    python reference.py linereceiver|lineonlyreceiver|streams PORT FILE [FLUSH_SECONDS]

They have no limits, counters or accounts beyond those of their base class, and a write that waits for the disk
stops them.
"""

import asyncio
import signal
import sys
from typing import Any, BinaryIO

BACKLOG = 1024


def twisted(base_name: str, port: int, output: BinaryIO, flush_seconds: float) -> None:
    """Receive with one of Twisted's line receivers."""
    from twisted.internet import reactor as installed  # noqa: PLC0415 - the process without Twisted stays without
    from twisted.internet import task  # noqa: PLC0415
    from twisted.internet.protocol import ServerFactory  # noqa: PLC0415
    from twisted.protocols import basic  # noqa: PLC0415

    class Receiver(getattr(basic, base_name)):  # type: ignore[misc]
        delimiter = b"\n"

        def lineReceived(self, line: bytes) -> None:
            output.write(line + b"\n")

    reactor: Any = installed
    task.LoopingCall(output.flush).start(flush_seconds)
    reactor.listenTCP(port, ServerFactory.forProtocol(Receiver), backlog=BACKLOG, interface="127.0.0.1")
    reactor.run()


async def streams(port: int, output: BinaryIO, flush_seconds: float) -> None:
    """Receive with asyncio's streams, a line at a time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                output.write(line)
        except ValueError:
            pass  # longer than the reader takes
        finally:
            writer.close()

    stopping = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set_result, None)
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=BACKLOG)
    while not stopping.done():
        await asyncio.wait([stopping], timeout=flush_seconds)
        output.flush()
    server.close()


def main() -> None:
    """Run one of them."""
    kind, port, path = sys.argv[1:4]
    flush_seconds = float(sys.argv[4]) if sys.argv[4:] else 0.1
    with open(path, "ab") as output:
        if kind == "streams":
            asyncio.run(streams(int(port), output, flush_seconds))
        else:
            twisted({"linereceiver": "LineReceiver"}.get(kind, "LineOnlyReceiver"), int(port), output, flush_seconds)


if __name__ == "__main__":
    main()
