"""
The service that Twisted starts and stops, and what an application that embeds it may ask of it.
"""

import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twisted_ingest.admin.survey import Survey
from twisted_ingest.assembly import OwnSink, add_own_sink
from twisted_ingest.config.load import Loaded
from twisted_ingest.errors import IngestError, SinkError
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.outlet import Outlet
from twisted_ingest.interfaces import IListener, ILiveConnection, ISink, ISource
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.process.announce import Summary
from twisted_ingest.process.milestone import Milestone
from twisted_ingest.run import Run
from twisted_ingest.server.admission import Admission


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
        self._stopping: Milestone[None] | None = None
        self._own_protocols: dict[str, type[Any]] = {}
        self._own_sinks: list[OwnSink] = []
        self._await_start()
        self._make_run()

    def _await_start(self) -> None:
        self._ready: Milestone[None] = Milestone()
        self._stopped: Milestone[Summary] = Milestone()
        self._failure: SinkError | None = None

    def _make_run(self) -> None:
        """Make all parts, for one start."""
        self._run = Run(
            self._loaded,
            self._reactor,
            self._wall_time,
            self._log,
            protocols=self._own_protocols,
            sinks=self._own_sinks,
        )
        self._run.intake.on_sink_failed = self._sink_failed

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
        # After a stop these parts are used up, and the next start makes others: this only finds out whether they can
        # have the class.
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
        if not self._run.is_over:
            add_own_sink(self.intake, own)
        self._own_sinks.append(own)

    def _refuse_late(self, what: str) -> None:
        if self.running or self._run.is_bound or self._stopping is not None:
            raise IngestError(f"{what}: the service is started already")

    # The parts that there are, of the latest start or the first.

    @property
    def events(self) -> Events:
        """Who is told of what happens."""
        return self._run.events

    @property
    def intake(self) -> Intake:
        """Where all records go."""
        return self._run.intake

    @property
    def admission(self) -> Admission:
        """The caps on connections."""
        return self._run.admission

    @property
    def survey(self) -> Survey:
        """One look at everything."""
        return self._run.survey

    @property
    def sources(self) -> list[ISource]:
        """Where records come from, in the order they were configured."""
        return self._run.sources

    @property
    def sinks(self) -> list[ISink]:
        """All sinks, in the order they were configured."""
        return self._run.sinks

    @property
    def listeners(self) -> list[IListener]:
        """Those of the sources that others connect to, in the order they were configured."""
        return self._run.listeners

    @property
    def connections(self) -> list[ILiveConnection]:
        """All live connections."""
        return self._run.connections

    @property
    def admin_address(self) -> str | None:
        """Where the admin endpoint listens in fact, or ``None``."""
        return self._run.admin_address

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
            self._undo_start(Failure())
            raise

    def startService(self) -> None:
        """Begin. Raises `IngestError`; see the class."""
        if self.running or self._stopping is not None:
            raise IngestError(f"the service is {'running already' if self.running else 'still stopping'}")
        try:
            if not self._run.is_bound:
                self._bind()
            self._run.start()
        except BaseException:
            self._undo_start(Failure())
            raise
        super().startService()
        self._reactor.callWhenRunning(self._begin, self._run)

    def _bind(self) -> None:
        if self._run.is_over:
            if self._stopped.is_reached:
                self._await_start()
            self._make_run()
        self._run.bind()

    def _undo_start(self, reason: Failure) -> None:
        self._run.undo()
        self._ready.reach(reason)
        self._stopped.reach(reason)

    def _begin(self, run: Run) -> None:
        """Say that all is ready, now that the reactor runs."""
        if self.running and run is self._run:
            self.show_banner(run.begin())
            self._ready.reach(None)

    def show_banner(self, lines: list[str]) -> None:
        """Say where everything is: in the log, unless somebody has a better place."""
        self.events.note("{banner}", kind="banner", banner="\n".join(lines))

    # While running.

    def reopen(self, why: str = "reopen") -> None:
        """Let the sinks go of files that were rotated away; ``why`` is for the log."""
        self._run.reopen(why)

    def _sink_failed(self, outlet: Outlet) -> None:
        """Stop when a required sink has failed for good: to read on would be to lose every record."""
        if outlet.required and self._failure is None and self.running:
            self._failure = SinkError(f"required sink {outlet.sink.name} has failed")
            self.events.stopping("a required sink has failed")
            # Later: this may be called from inside a read, of a connection that the stop would end.
            self._reactor.callLater(0, self.stopService)

    # Stop.

    def stopService(self) -> "Deferred[None]":
        """Drain; see the class. Called again it waits for the same end."""
        if self._stopping is None:
            if not self.running:
                self._run.unbind()
                return succeed(None)
            super().stopService()
            self._stopping = Milestone()
            _ = Deferred.fromCoroutine(self._run.stop()).addBoth(self._end)
            if self._stopping is None:
                return succeed(None)
        return self._stopping.wait()

    def _end(self, outcome: Summary | Failure) -> None:
        """Tell those who wait that the stop is over."""
        stopping, self._stopping = self._stopping, None
        if isinstance(outcome, Failure):
            self.events.bug("a stop", outcome)
        self._stopped.reach(outcome if self._failure is None else Failure(self._failure))
        if stopping is not None:
            stopping.reach(None)
