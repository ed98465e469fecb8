"""
The service: ordered start, ordered drain.

The one place that knows all parts. Start and stop are sequences, so they are written as sequences.
"""

import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from twisted_ingest.admin.port import AdminListener
from twisted_ingest.admin.site import build_site
from twisted_ingest.admin.survey import Survey
from twisted_ingest.assembly import (
    OwnSink,
    add_own_sink,
    check_sinks,
    limit_origins,
    make_admission,
    make_intake,
    make_sources,
    tell_leftovers,
)
from twisted_ingest.config import checks
from twisted_ingest.config.fields import OFF
from twisted_ingest.config.load import Loaded
from twisted_ingest.errors import IngestError, SinkError
from twisted_ingest.flow.drain import close_sinks, drain_sources, flush_sinks
from twisted_ingest.flow.outlet import Outlet, description_of
from twisted_ingest.interfaces import IListener, ILiveConnection, ISink, ISource
from twisted_ingest.limits import FLUSH_GRACE, SWEEP_SECONDS
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.lag import BEAT_SECONDS
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.observe.metrics import build_registry
from twisted_ingest.process.announce import Summary, banner, summarize
from twisted_ingest.process.milestone import Milestone


class IngestService(Service):
    """
    Receives records and delivers them until stopped. It tells of itself in `twisted.logger`, and at its admin endpoint.

    To embed it, make it from what `twisted_ingest.config.load.load` gives, and start it, or give it to a parent that
    is started, in a reactor that runs or is about to::

        service = IngestService(load(None, {}, ["tcp:1514"], ["file:lines.log"], []), reactor)
        service.when_ready().addCallbacks(go_on, give_up)
        service.startService()

    ``set_protocol`` and ``add_sink``, before it is started, put in parts of one's own (docs/embedding.md).

    Its host stays its own: it ends no process and no reactor, takes no signal, and changes no limit of the process.
    ``startService`` binds, unless ``privilegedStartService`` has (for a process that is root until then), and opens
    the sinks. Where either cannot, all that was acquired is let go of, and `IngestError` is raised, which
    ``when_ready`` fails with too. A second ``startService`` raises it as well, and changes nothing. After a failed
    start, or once a stop is over, the service can be started again; it is made anew then, its counts included.

    ``stopService`` returns a Deferred that fires with ``None`` within the drain deadline and a grace, whatever sink or
    peer is stuck; that takes the reactor turning. A required sink that fails for good stops the service by itself:
    ``when_stopped`` tells.

    Call ``reopen`` when files were rotated. ``wall_time`` gives Unix time for the stamps of records; timers go by the
    reactor's own. ``log`` is who writes our log, where that counts what it drops.
    """

    def __init__(
        self,
        loaded: Loaded,
        reactor: Any,
        wall_time: Callable[[], float] = time.time,
        log: LogWriter | None = None,
    ) -> None:
        self._loaded = loaded
        self._settings = loaded.settings
        self._reactor = reactor
        self._wall_time = wall_time
        self._log = log or LogWriter()
        self._admin: AdminListener | None = None
        self._heartbeat: Any = None
        self._stopping: Milestone[None] | None = None
        self._own_protocols: dict[str, type[Any]] = {}
        self._own_sinks: list[OwnSink] = []
        self._assemble()

    def _assemble(self) -> None:
        """Make all parts."""
        settings, reactor = self._settings, self._reactor
        self.events = Events(reactor.seconds)
        self.admission = make_admission(settings)
        self.admission.on_room = self._open_gates
        self.intake = make_intake(settings, reactor, self.events, self._wall_time)
        for own in self._own_sinks:
            add_own_sink(self.intake, own)
        self.intake.on_sink_failed = self._sink_failed
        parts: dict[str, Any] = {"intake": self.intake, "admission": self.admission, "events": self.events}
        self.sources: list[ISource] = make_sources(settings, reactor, self._wall_time, **parts)
        for listener in self.listeners:
            if listener.name in self._own_protocols:
                listener.set_protocol(self._own_protocols[listener.name])
        self.survey = Survey(
            sources=self.sources,
            log=self._log,
            seconds=reactor.seconds,
            wall_time=self._wall_time,
            limits=limit_origins(self._loaded, self.admission.limit),
            hide_in=self._loaded.secrets.hide_in,
            admin_connections=checks.admin_connections(settings),
            **parts,
        )
        self._sweeper = LoopingCall.withCount(self._sweep)
        self._sweeper.clock = reactor
        self._ready: Milestone[None] = Milestone()
        self._stopped: Milestone[Summary] = Milestone()
        self._failure: SinkError | None = None
        self._is_bound = False
        self._is_spent = False
        """Whether these parts have been used, and are to be made anew for another start."""

    # Parts of one's own.

    def set_protocol(self, listener: str, protocol: type[Any]) -> None:
        """
        Let the connections of a listener, by its name, be of this subclass of its own, in this start and all others.

        Raises `IngestError` once it is started, ``ValueError`` and ``TypeError`` as the listener's factory does,
        and for a listener that there is not.
        """
        self._refuse_late("set_protocol")
        named = {each.name: each for each in self.listeners}
        if listener not in named:
            raise ValueError(f"no listener {listener!r} (known: {', '.join(named)})")
        # Of a service that was stopped these are the parts that were used: it only tells whether they can have it.
        named[listener].set_protocol(protocol)
        self._own_protocols[listener] = protocol

    def add_sink(self, make: Callable[[], ISink], *, required: bool = True) -> None:
        """
        Add a sink, which ``make`` gives: once now, and once for each further start.

        A required one holds the senders back and is waited for by all that answers; one that is not has a queue of its
        own, and drops what that cannot hold. Raises `IngestError` once the service is started. What the sinks do not
        give together, the start refuses with `ConfigurationError`.
        """
        self._refuse_late("add_sink")
        own = OwnSink(make, required)
        if not self._is_spent:
            add_own_sink(self.intake, own)
        self._own_sinks.append(own)

    def _refuse_late(self, what: str) -> None:
        if self.running or self._is_bound or self._stopping is not None:
            raise IngestError(f"{what}: the service is started already")

    @property
    def sinks(self) -> list[ISink]:
        """All sinks, in the order they were configured."""
        return [outlet.sink for outlet in self.intake.outlets]

    @property
    def listeners(self) -> list[IListener]:
        """Those of the sources that others connect to, in the order they were configured."""
        return [source for source in self.sources if IListener.providedBy(source)]

    @property
    def connections(self) -> list[ILiveConnection]:
        """All live connections."""
        return [connection for source in self.sources for connection in source.connections().values()]

    @property
    def admin_address(self) -> str | None:
        """Where the admin endpoint listens in fact, or ``None``."""
        if self._admin is None or self._admin.port is None:
            return None
        host = self._admin.port.getHost()
        if not hasattr(host, "port"):
            return f"unix:{os.fsdecode(host.name)}"
        return f"http://[{host.host}]:{host.port}" if ":" in host.host else f"http://{host.host}:{host.port}"

    def when_ready(self) -> "Deferred[None]":
        """
        Wait for the latest start, or the first.

        The Deferred fires with ``None`` once records are received (the reactor runs), and fails with the `IngestError`
        that the start has ended with.
        """
        return self._ready.wait()

    def when_stopped(self) -> "Deferred[Summary]":
        """
        Wait for the end of what the latest start has begun, or will.

        The Deferred fires with the `Summary` of a stop, and fails with `SinkError` where a required sink that failed
        for good was the reason for it, or with the `IngestError` of a start that failed.
        """
        return self._stopped.wait()

    # Start.

    def privilegedStartService(self) -> None:
        """Bind, while the process may still be root. Raises `ListenError`; see the class."""
        try:
            self._bind()
        except BaseException:
            self._undo_start(Failure(), [])
            raise

    def startService(self) -> None:
        """Begin. Raises `IngestError`; see the class."""
        if self.running or self._stopping is not None:
            raise IngestError(f"the service is {'running already' if self.running else 'still stopping'}")
        started: list[ISink] = []
        try:
            if not self._is_bound:
                self._bind()
            for sink in self.sinks:
                started.append(sink)
                sink.start()
            tell_leftovers(self._settings, self.events)
            for source in self.sources:
                source.start()
        except BaseException:
            self._undo_start(Failure(), started)
            raise
        super().startService()
        # A failing sweep is a bug; it is logged and the process goes on without deadlines, visibly.
        _ = self._sweeper.start(SWEEP_SECONDS, now=False).addErrback(self._sweep_failed)
        self._reactor.callWhenRunning(self._begin, self.survey)

    def _bind(self) -> None:
        if self._is_spent:
            self._assemble()
        check_sinks(self._settings, self.intake.outlets)
        for source in self.sources:
            source.bind()
        if self._settings.admin.endpoint != OFF:
            self._bind_admin()
        self._is_bound = True

    def _undo_start(self, reason: Failure, started: list[ISink]) -> None:
        """Let go of whatever a failed start had acquired."""
        self._is_spent, self._is_bound = True, False
        self._unbind()
        for source in self.sources:
            self._guard("undoing a start", source.end_drain)
        deadline = self._reactor.seconds() + FLUSH_GRACE
        closed = close_sinks(self._reactor, started, deadline, self.events.bug)
        _ = Deferred.fromCoroutine(closed).addErrback(lambda bug: self.events.bug("undoing a start", bug))
        self._ready.reach(reason)
        self._stopped.reach(reason)

    def _begin(self, survey: Survey) -> None:
        """Say that all is ready, now that the reactor runs."""
        if self.running and survey is self.survey:
            self.survey.state = "ready"
            self._beat(self._reactor.seconds())
            sinks = [description_of(sink, self.events.bug) for sink in self.sinks]
            lines = banner(self.sources, sinks, self.admin_address, self._loaded.cautions)
            self.show_banner([self._loaded.secrets.hide(line) for line in lines])
            self._ready.reach(None)

    def _beat(self, due: float) -> None:
        """Measure how late the reactor is, until the stop is over."""
        now = self._reactor.seconds()
        # First, so that a bug of the other does not end it.
        self._heartbeat = self._reactor.callLater(BEAT_SECONDS, self._beat, now + BEAT_SECONDS)
        self.survey.loop_lag.observe(now - due)

    def _bind_admin(self) -> None:
        endpoint, hosts = self._settings.admin.endpoint, self._settings.admin.hosts
        registry = build_registry(self.survey)
        site = build_site(self.survey, registry, self.events, hosts=hosts, reactor=self._reactor)
        self._admin = AdminListener(endpoint, site, self._reactor)
        self._admin.bind()

    def _unbind(self) -> None:
        """Let go of what was bound."""
        # Whoever waits to be accepted is turned away.
        self.admission.draining = True
        bound: list[Any] = [*self.sources, *([] if self._admin is None else [self._admin])]
        for each in bound:
            _ = Deferred.fromCoroutine(self._try("closing a port", each.stop()))

    def show_banner(self, lines: list[str]) -> None:
        """Say where everything is: in the log, unless somebody has a better place."""
        self.events.note("{banner}", kind="banner", banner="\n".join(lines))

    # While running.

    def reopen(self, why: str = "reopen") -> None:
        """Let the sinks go of files that were rotated away; ``why`` is for the log."""
        self.events.reopening(why)
        for sink in self.sinks:
            try:
                sink.reopen()
            except Exception:  # noqa: BLE001 - the other sinks have rotated files too
                self.events.internal_error(f"reopen of sink {sink.name}")

    def _sweep(self, turns: int) -> None:
        """Look at deadlines; ``turns`` counts the sweeps that were due, more than one where we slept."""
        step = self.survey.clock_steps.look()
        if step:
            self.events.clock_stepped(step)
        now, overslept = self._reactor.seconds(), (turns - 1) * SWEEP_SECONDS
        for source in self.sources:
            # The next sweep, and those of the other sources, are needed all the same.
            self._guard(f"the sweep of listener {source.name}", source.sweep, now, overslept)

    def _sweep_failed(self, failure: Failure) -> None:
        self.events.bug("the sweep of deadlines, which has ended", failure)
        self.survey.state = "broken: the sweep of deadlines has ended"

    def _open_gates(self) -> None:
        for listener in self.listeners:
            listener.open_gate()

    def _sink_failed(self, outlet: Outlet) -> None:
        """Stop when a required sink has failed for good: to read on would be to lose every record."""
        if outlet.required and self._failure is None and self.running:
            self._failure = SinkError(f"required sink {outlet.sink.name} has failed")
            self.events.stopping("a required sink has failed")
            # Not from inside the read that met it.
            self._reactor.callLater(0, self.stopService)

    # Stop.

    def stopService(self) -> "Deferred[None]":
        """Drain; see the class. Called again it waits for the same end."""
        if self._stopping is None:
            if not self.running:
                self._unbind()
                self._is_bound = False
                return succeed(None)
            super().stopService()
            self._stopping = Milestone()
            _ = Deferred.fromCoroutine(self._stop()).addBoth(self._end)
            if self._stopping is None:
                return succeed(None)
        return self._stopping.wait()

    async def _stop(self) -> Summary:
        deadline = self._reactor.seconds() + self._settings.limits.drain_timeout
        self.survey.state = "draining"
        for source in self.sources:
            await self._try("closing a port", source.stop())
        self.admission.draining = True
        before = self._unread()
        await self._try("draining", drain_sources(self._reactor, self.sources, deadline, self.events.bug))
        unread = self._unread() - before
        await self._try("flushing", flush_sinks(self._reactor, self.intake, deadline + FLUSH_GRACE))
        if self._sweeper.running:
            self._sweeper.stop()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        try:
            summary = summarize(self.survey.view(), unread)
        finally:
            if self._admin is not None:
                await self._try("closing a port", self._admin.stop())
        summary.tell(self.events)
        return summary

    def _end(self, outcome: Summary | Failure) -> None:
        """Tell those who wait that the stop is over."""
        stopping, self._stopping = self._stopping, None
        self._is_spent = True
        self._is_bound = False
        if isinstance(outcome, Failure):
            self.events.bug("a stop", outcome)
        self._stopped.reach(outcome if self._failure is None else Failure(self._failure))
        if stopping is not None:
            stopping.reach(None)

    def _guard(self, where: str, act: Callable[..., None], *arguments: object) -> None:
        """Do something whose bug must not end the rest."""
        try:
            act(*arguments)
        except Exception:  # noqa: BLE001
            self.events.internal_error(where)

    async def _try(self, where: str, step: Coroutine[Any, Any, None]) -> None:
        """Take one step of a stop; the others follow, whatever becomes of it."""
        try:
            await step
        except Exception:  # noqa: BLE001
            self.events.internal_error(where)

    def _unread(self) -> int:
        return sum(source.ledger.bytes_unread for source in self.sources)
