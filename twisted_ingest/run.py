"""
One run: the parts that are made for a start, and what is done with them until a stop is over.

The one place that knows all parts. Start and stop are sequences, so they are written as sequences.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

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
from twisted_ingest.flow.drain import close_sinks, drain_sources, flush_sinks
from twisted_ingest.flow.outlet import description_of
from twisted_ingest.interfaces import IListener, ILiveConnection, ISink, ISource
from twisted_ingest.limits import FLUSH_GRACE
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.observe.metrics import build_registry
from twisted_ingest.process.announce import Summary, banner, summarize
from twisted_ingest.pulse import Pulse


class Run:
    """
    All parts of one run; used once.

    It is bound, started and begun in this order, and stopped; `undo` ends it from wherever a failed start has left it.
    """

    def __init__(
        self,
        loaded: Loaded,
        reactor: Any,
        wall_time: Callable[[], float],
        log: LogWriter,
        *,
        protocols: Mapping[str, type[Any]],
        sinks: Sequence[OwnSink],
    ) -> None:
        settings = loaded.settings
        self._loaded = loaded
        self._reactor = reactor
        self._admin: AdminListener | None = None
        self._started: list[ISink] = []
        """Sinks that a failed start has to close."""
        self.is_bound = False
        self.is_over = False
        """Whether its parts have been used, so that another start needs others."""
        self.events = Events(reactor.seconds)
        self.admission = make_admission(settings)
        self.admission.on_room = self._open_gates
        self.intake = make_intake(settings, reactor, self.events, wall_time)
        for own in sinks:
            add_own_sink(self.intake, own)
        parts: dict[str, Any] = {"intake": self.intake, "admission": self.admission, "events": self.events}
        self.sources: list[ISource] = make_sources(settings, reactor, wall_time, **parts)
        for listener in self.listeners:
            if listener.name in protocols:
                listener.set_protocol(protocols[listener.name])
        self.survey = Survey(
            sources=self.sources,
            log=log,
            seconds=reactor.seconds,
            wall_time=wall_time,
            limits=limit_origins(loaded, self.admission.limit),
            hide_in=loaded.secrets.hide_in,
            admin_connections=checks.admin_connections(settings),
            **parts,
        )
        self._pulse = Pulse(self.sources, self.survey, self.events, reactor)

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
        return None if self._admin is None else self._admin.url

    # Start.

    def bind(self) -> None:
        """Acquire what may take root to have. Raises `IngestError`."""
        settings = self._loaded.settings
        check_sinks(settings, self.intake.outlets)
        for source in self.sources:
            source.bind()
        if settings.admin.endpoint != OFF:
            self._bind_admin()
        self.is_bound = True

    def _bind_admin(self) -> None:
        admin = self._loaded.settings.admin
        registry = build_registry(self.survey)
        site = build_site(self.survey, registry, self.events, hosts=admin.hosts, reactor=self._reactor)
        self._admin = AdminListener(admin.endpoint, site, self._reactor)
        self._admin.bind()

    def start(self) -> None:
        """Open the sinks, and then receive. Raises `IngestError`."""
        for sink in self.sinks:
            self._started.append(sink)
            sink.start()
        tell_leftovers(self._loaded.settings, self.events)
        for source in self.sources:
            source.start()
        self._pulse.start()
        self._started.clear()

    def begin(self) -> list[str]:
        """Be ready, now that the reactor runs; gives the lines of the banner."""
        self.survey.state = "ready"
        self._pulse.begin()
        sinks = [description_of(sink, self.events.bug) for sink in self.sinks]
        lines = banner(self.sources, sinks, self.admin_address, self._loaded.cautions)
        return [self._loaded.secrets.hide(line) for line in lines]

    def undo(self) -> None:
        """Let go of whatever a failed start had acquired."""
        self.unbind()
        self._pulse.stop()
        for source in self.sources:
            try:
                source.end_drain()
            except Exception:  # noqa: BLE001 - the others have something to let go of, too
                self.events.internal_error("undoing a start")
        deadline = self._reactor.seconds() + FLUSH_GRACE
        started, self._started = self._started, []
        closed = close_sinks(self._reactor, started, deadline, self.events.bug)
        _ = Deferred.fromCoroutine(closed).addErrback(lambda bug: self.events.bug("undoing a start", bug))

    def unbind(self) -> None:
        """Let go of what was bound."""
        # Whoever waits to be accepted is turned away.
        self.admission.draining = True
        self.is_bound, self.is_over = False, True
        bound: list[Any] = [*self.sources, *([] if self._admin is None else [self._admin])]
        for each in bound:
            _ = Deferred.fromCoroutine(self._try("closing a port", each.stop()))

    # While running.

    def reopen(self, why: str) -> None:
        """Let the sinks go of files that were rotated away, and read certificates anew; ``why`` is for the log."""
        self.events.reopening(why)
        for sink in self.sinks:
            try:
                sink.reopen()
            except Exception:  # noqa: BLE001 - the other sinks have rotated files too
                self.events.internal_error(f"reopen of sink {sink.name}")
        for listener in self.listeners:
            try:
                listener.renew()
            except Exception:  # noqa: BLE001 - as above
                self.events.internal_error(f"renewal of listener {listener.name}")

    def _open_gates(self) -> None:
        for listener in self.listeners:
            listener.open_gate()

    # Stop.

    async def stop(self) -> Summary:
        """Drain, until the drain deadline and a grace at most; gives what became of all that came in."""
        self.is_bound, self.is_over = False, True
        deadline = self._reactor.seconds() + self._loaded.settings.limits.drain_timeout
        self.survey.state = "draining"
        for source in self.sources:
            await self._try("closing a port", source.stop())
        self.admission.draining = True
        before = self._unread()
        await self._try("draining", drain_sources(self._reactor, self.sources, deadline, self.events.bug))
        unread = self._unread() - before
        await self._try("flushing", flush_sinks(self._reactor, self.intake, deadline + FLUSH_GRACE))
        self._pulse.stop()
        try:
            summary = summarize(self.survey.view(), unread)
        finally:
            if self._admin is not None:
                await self._try("closing a port", self._admin.stop())
        summary.tell(self.events)
        return summary

    async def _try(self, where: str, step: Coroutine[Any, Any, None]) -> None:
        """Take one step of a stop; the others follow, whatever becomes of it."""
        try:
            await step
        except Exception:  # noqa: BLE001
            self.events.internal_error(where)

    def _unread(self) -> int:
        return sum(source.ledger.bytes_unread for source in self.sources)
