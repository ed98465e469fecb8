"""A service inside an application of asyncio, which owns the loop, the signals and the end."""

import asyncio
import sys

from twisted.internet import asyncioreactor


async def main(endpoint: str, path: str) -> None:
    """Receive until the input ends."""
    loop = asyncio.get_running_loop()
    asyncioreactor.install(loop)  # before anything imports twisted.internet.reactor
    from twisted.internet import reactor

    from twisted_ingest.config.load import load
    from twisted_ingest.service import IngestService

    reactor.startRunning(installSignalHandlers=False)  # type: ignore[attr-defined]  # the loop runs already
    service = IngestService(load(None, {"admin": "off"}, listen=[endpoint], sinks=[f"file:{path}"]), reactor)
    service.startService()
    await service.when_ready().asFuture(loop)
    print("listening at", service.listeners[0].address, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    await service.stopService().asFuture(loop)
    summary = await service.when_stopped().asFuture(loop)
    print("received", summary.records, "records, lost", summary.lost, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
