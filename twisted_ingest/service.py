"""
The service: ordered start, ordered drain.

The one place that knows all parts. Start and stop are sequences, so they are written as sequences.
"""

import os
from collections.abc import Callable
from itertools import count
from socket import SO_SNDBUF, SOL_SOCKET
from threading import Timer
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from twisted_ingest import process
from twisted_ingest.admin.site import build_site
from twisted_ingest.admin.watch import Watch
from twisted_ingest.announce import banner, stopped
from twisted_ingest.assembly import limit_origins, make_admission, make_sinks, tell_leftovers
from twisted_ingest.config import checks
from twisted_ingest.config.load import Loaded
from twisted_ingest.config.model import OFF
from twisted_ingest.errors import DropReason, ListenError
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.outlet import Outlet
from twisted_ingest.interfaces import ISink
from twisted_ingest.limits import ADMIN_SEND_BUFFER, FLUSH_GRACE, OVERSLEPT, STOP_GRACE, SWEEP_SECONDS
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.lag import BEAT_SECONDS
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.observe.metrics import build_registry
from twisted_ingest.server.drain import drain_connections, flush_sinks
from twisted_ingest.server.listener import FACTORIES, Listener
from twisted_ingest.server.protocol import IngestProtocol


class IngestService(Service):
    """
    Receives records and delivers them until stopped.

    ``privilegedStartService`` binds the listeners, ``startService`` opens the sinks; both raise `IngestError`
    where the process had better not run. ``stopService`` returns a Deferred that fires with ``None`` within the
    drain deadline and a grace, whatever is stuck.
    """

    def __init__(self, loaded: Loaded, reactor: Any, wall_time: Callable[[], float], log: LogWriter) -> None:
        settings = loaded.settings
        self._settings = settings
        self._reactor = reactor
        self._log = log
        self.events = Events(reactor.seconds)
        self.admission = make_admission(settings)
        self.admission.on_room = self._open_gates
        self.intake = Intake(reactor, Budget(settings.limits.memory), settings.limits.connection_memory)
        self.intake.on_high = self._intake_high
        self.intake.on_low = self._intake_low
        self.intake.on_sink_failed = self._sink_failed
        self.intake.on_rejected = self.events.sink_rejected
        self.intake.on_bug = self.events.bug
        for sink, is_required, share in make_sinks(settings, reactor, self.events, wall_time):
            self.intake.add_sink(sink, required=is_required, share=share)
        ids = count(1)
        self.listeners = [
            Listener(
                listener.endpoint,
                FACTORIES[listener.protocol](
                    name,
                    settings.listener_limits(name),
                    intake=self.intake,
                    admission=self.admission,
                    events=self.events,
                    clock=reactor,
                    wall_time=wall_time,
                    ids=ids,
                ),
            )
            for name, listener in settings.listeners.items()
        ]
        self.watch = Watch(
            listeners=self.listeners,
            intake=self.intake,
            admission=self.admission,
            events=self.events,
            log=log,
            seconds=reactor.seconds,
            limits=limit_origins(loaded, self.admission.limit),
            admin_connections=checks.admin_connections(settings),
        )
        self._admin_port: Any = None
        self._sweeper = LoopingCall.withCount(self._sweep)
        self._sweeper.clock = reactor
        self._heartbeat: Any = None
        self._has_failed = False
        self.banner_on_stderr = settings.log_format == "text"

    @property
    def sinks(self) -> list[ISink]:
        """All sinks, in the order they were configured."""
        return [outlet.sink for outlet in self.intake.outlets]

    @property
    def connections(self) -> list[IngestProtocol]:
        """All live connections."""
        return [connection for listener in self.listeners for connection in listener.factory.connections.values()]

    @property
    def admin_address(self) -> str | None:
        """Where the admin endpoint listens in fact, or ``None``."""
        if self._admin_port is None:
            return None
        host = self._admin_port.getHost()
        if not hasattr(host, "port"):
            return f"unix:{os.fsdecode(host.name)}"
        return f"http://[{host.host}]:{host.port}" if ":" in host.host else f"http://{host.host}:{host.port}"

    # Start.

    def privilegedStartService(self) -> None:
        """Raise the descriptor limit and bind, while we may still be root. Raises `ListenError`."""
        process.raise_descriptor_limit()
        try:
            for listener in self.listeners:
                _now(listener.listen(self._reactor, self.admission, self.events))
            if self._settings.admin.endpoint != OFF:
                _now(self._listen_admin())
        except ListenError:
            self._unbind()
            raise

    def startService(self) -> None:
        """Open the sinks and begin. Raises `SinkError`."""
        self._log.start()
        try:
            for sink in self.sinks:
                sink.start()
            tell_leftovers(self._settings, self.events)
        except BaseException:
            self._unbind()
            raise
        super().startService()
        # A failing sweep is a bug; it is logged and the process goes on without deadlines, visibly.
        _ = self._sweeper.start(SWEEP_SECONDS, now=False).addErrback(self._sweep_failed)
        self._reactor.callWhenRunning(self._begin)

    def _beat(self, due: float) -> None:
        """Measure how late the reactor is, until the stop is over."""
        now = self._reactor.seconds()
        # First, so that a bug of the other does not end it.
        self._heartbeat = self._reactor.callLater(BEAT_SECONDS, self._beat, now + BEAT_SECONDS)
        self.watch.loop_lag.observe(now - due)

    def _begin(self) -> None:
        """Say that all is ready: only now, with the reactor running, does a signal mean what we say it means."""
        process.install_signals(self._reactor, self.reopen)
        if self.running:
            self.watch.state = "ready"
            self._beat(self._reactor.seconds())
            self._show_banner()

    async def _listen_admin(self) -> None:
        endpoint, hosts = self._settings.admin.endpoint, self._settings.admin.hosts
        registry = build_registry(self.watch)
        site = build_site(self.watch, registry, self.events, hosts=hosts, reactor=self._reactor)
        try:
            self._admin_port = await serverFromString(self._reactor, endpoint).listen(site)
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise ListenError(f"cannot listen on {endpoint} (--admin): {reason}") from error
        # Accepted sockets inherit it (Linux).
        self._admin_port.socket.setsockopt(SOL_SOCKET, SO_SNDBUF, ADMIN_SEND_BUFFER)

    def _unbind(self) -> None:
        """Let go of what was bound before the start failed."""
        ports = [listener.port for listener in self.listeners] + [self._admin_port]
        for port in ports:
            if port is not None:
                port.stopListening()

    def _show_banner(self) -> None:
        lines = banner(self.listeners, self.sinks, self.admin_address)
        if not self.banner_on_stderr:
            self.events.note("{banner}", banner="\n".join(lines))
            return
        for line in lines:
            self._log.write(line)

    def reopen(self) -> None:
        """Let the sinks go of files that were rotated away (SIGHUP)."""
        self.events.reopening()
        for sink in self.sinks:
            try:
                sink.reopen()
            except Exception:  # noqa: BLE001 - the other sinks have rotated files too
                self.events.internal_error(f"reopen of sink {sink.name}")

    # While running.

    def _sweep(self, turns: int) -> None:
        """Look at deadlines; ``turns`` counts the sweeps that were due, more than one where we slept."""
        now, overslept = self._reactor.seconds(), (turns - 1) * SWEEP_SECONDS
        for listener in self.listeners:
            try:
                if overslept >= OVERSLEPT:
                    listener.factory.forgive(overslept)
                listener.factory.sweep(now)
            except Exception:  # noqa: BLE001 - the next sweep, and those of the other listeners, are needed all the same
                self.events.internal_error(f"the sweep of listener {listener.name}")

    def _sweep_failed(self, failure: Failure) -> None:
        self.events.log.failure("the sweep of deadlines has ended", failure)
        self.watch.state = "broken: the sweep of deadlines has ended"

    def _open_gates(self) -> None:
        for listener in self.listeners:
            listener.open_gate()

    def _intake_high(self) -> None:
        self.events.intake_high(self.intake.budget.used, self.intake.budget.limit)

    def _intake_low(self) -> None:
        self.events.intake_low(self.intake.budget.used)

    def _sink_failed(self, outlet: Outlet) -> None:
        """Stop when a required sink has failed for good: to read on would be to lose every record."""
        if outlet.required and not self._has_failed and self.running:
            self._has_failed = True
            self.events.log.critical("a required sink has failed: stopping")
            # twistd itself would exit with 0 after a plain stop.
            self._exit_failed()
            self._reactor.stop()

    def _exit_failed(self) -> None:
        """Have the process end with status 1: supervisors must see a failure."""
        self._reactor.addSystemEventTrigger("after", "shutdown", process.exit_failed, self._log)

    # Stop.

    def stopService(self) -> "Deferred[None]":
        """Drain; see the class."""
        super().stopService()
        limit = self._settings.limits.drain_timeout + STOP_GRACE
        return Deferred.fromCoroutine(self._stop(process.last_resort(limit)))

    async def _stop(self, last_resort: Timer) -> None:
        deadline = self._reactor.seconds() + self._settings.limits.drain_timeout
        self.watch.state = "draining"
        for listener in self.listeners:
            await listener.stop()
        self.admission.draining = True
        ledgers = [listener.factory.ledger for listener in self.listeners]
        unread = -sum(ledger.bytes_unread for ledger in ledgers)
        await drain_connections(self._reactor, lambda: self.connections, deadline)
        unread += sum(ledger.bytes_unread for ledger in ledgers)
        await flush_sinks(self._reactor, self.intake, deadline + FLUSH_GRACE)
        if self._sweeper.running:
            self._sweeper.stop()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        stopped(self.events, self.watch.view(), ledgers, unread)
        self._confess()
        if self._admin_port is not None:
            await self._admin_port.stopListening()
        last_resort.cancel()
        self._log.stop()

    def _confess(self) -> None:
        """Let the exit status say so where records that we had read were lost to a required sink by this stop."""
        required = (outlet for outlet in self.intake.outlets if outlet.required)
        tallies = (tally for outlet in required for tally in outlet.tallies.values())
        if not self._has_failed and any(tally.records_dropped[DropReason.SHUTDOWN] for tally in tallies):
            self._exit_failed()


def _now(coroutine: Any) -> None:
    """Run a coroutine that does not wait (binding does not), so that its failure can end the start."""
    outcome: list[object] = []
    _ = Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
    if not outcome:
        raise ListenError("an endpoint did not bind at once")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
