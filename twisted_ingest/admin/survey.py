"""
One look at the whole process: what `/metrics`, `/readyz`, `/status` and `/connections` say.

Everything is read from the live objects at the time of asking; nothing is kept up to date for it.
"""

import ssl
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from twisted_ingest import __version__
from twisted_ingest.admin import status
from twisted_ingest.admin.accounts import Accounts
from twisted_ingest.admin.clients import Clients
from twisted_ingest.errors import DropReason
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.outlet import Outlet, description_of, details_of, trouble_of
from twisted_ingest.framing.scan import SCANNER
from twisted_ingest.interfaces import ISource
from twisted_ingest.ledger import SourceBalance
from twisted_ingest.limits import ADMIN_CONNECTIONS
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.lag import LoopLag
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.observe.steps import ClockSteps
from twisted_ingest.observe.view import ListenerView, SinkView, View
from twisted_ingest.server.admission import Admission


class Survey:
    """Looks at the parts the service is made of. ``limits`` maps a setting's name to its value and origin."""

    def __init__(
        self,
        *,
        sources: Sequence[ISource],
        intake: Intake,
        admission: Admission,
        events: Events,
        log: LogWriter,
        seconds: Callable[[], float],
        wall_time: Callable[[], float],
        limits: Mapping[str, Mapping[str, object]],
        admin_connections: int = ADMIN_CONNECTIONS,
        hide_in: Callable[[Any], Any] = lambda document: document,
    ) -> None:
        self._hide_in = hide_in
        self._accounts = Accounts(sources, intake)
        self._intake = intake
        self._admission = admission
        self._events = events
        self._log = log
        self._seconds = seconds
        self._limits = limits
        self._started = seconds()
        self._retired: View | None = None
        """What those have counted that are gone."""
        self.loop_lag = LoopLag()
        self.clients = Clients(admin_connections)
        """Those of the admin endpoint."""
        self.clock_steps = ClockSteps(wall_time, seconds)
        self.state = "starting"
        """``starting``, ``ready`` or ``draining``; the service sets it."""

    # What is gone.

    def retire(self, source: ISource) -> None:
        """
        Look at a source no longer: what it has counted stays in every total.

        Its records may still be on their way. Raises ``ValueError`` while anything is under way, which counts on: a
        connection, who stands in its doorway, a poll.
        """
        if not source.is_drained or source.balance().doorways:
            raise ValueError(f"listener {source.name} has connections or a poll under way: let it drain first")
        self._keep(View(listeners={source.name: _listener(source, source.balance()).counted()}))
        self._accounts.retire(source)

    def retire_sink(self, outlet: Outlet) -> None:
        """Look at a sink no longer, which the intake has let go of: what it has counted stays in every total."""
        self._keep(View(sinks={outlet.sink.name: self._sink(outlet, 0).counted()}))
        self._accounts.retire_sink(outlet)

    def _keep(self, gone: View) -> None:
        self._retired = gone if self._retired is None else self._retired + gone

    # Accounting.

    def conservation(self) -> dict[str, int]:
        """Recount, and give what is not accounted for: bytes by listener, records by listener and sink."""
        return self._accounts.weigh(self._accounts.recount())

    def conservation_error(self) -> int:
        """Give the sum of all that is not accounted for, signs ignored."""
        return sum(abs(error) for error in self.conservation().values())

    def reasons(self) -> list[str]:
        """Say why the process is not ready; empty when it is."""
        reasons: list[str] = self._hide_in(self._reasons(self.conservation()))
        return reasons

    def _reasons(self, conservation: Mapping[str, int]) -> list[str]:
        state = [] if self.state == "ready" else [self.state]
        used = {outlet for source in self._accounts.sources for outlet in source.route.outlets}
        required = [outlet.sink for outlet in self._intake.outlets if outlet.required and outlet in used]
        troubles = ((sink.name, trouble_of(sink, self._events.bug)) for sink in required)
        wrong = ((place, error) for place, error in conservation.items() if error)
        lost = (source for source in self._accounts.sources if source.trouble is not None)
        return [
            *state,
            *(f"listener {source.name}: not listening: {source.trouble}" for source in lost),
            *(f"listener {name}: {trouble}" for name, trouble in self._expired()),
            *(f"sink {name}: {trouble}" for name, trouble in troubles if trouble is not None),
            *self._crowd(),
            *(f"conservation error {error} ({place})" for place, error in wrong),
        ]

    def _expired(self) -> Iterator[tuple[str, str]]:
        """Give the listeners whose certificate has expired, and what to do."""
        for source in self._accounts.sources:
            certificate = source.balance().certificate
            if certificate is not None and certificate.trouble is not None:
                yield source.name, certificate.trouble

    def _crowd(self) -> list[str]:
        """Say why new connections have to wait, where they do."""
        if self._admission.room:
            return []
        silent = sum(not each.records for source in self._accounts.sources for each in source.connections().values())
        has_sent_nothing = f"; {silent} of them have sent no record" if silent else ""
        return [f"{self._admission.fullness}{has_sent_nothing}: new ones wait until one closes"]

    # Views.

    def view(self) -> View:
        """Take a look at everything; what is in flight is recounted once."""
        recount = self._accounts.recount()
        conservation = self._accounts.weigh(recount)
        budget, pauses = self._intake.budget, self._intake.pauses
        live = View(
            builds=(f"{__version__} {SCANNER}",),
            reasons=tuple(self._reasons(conservation)),
            missing={place: max(0, error) for place, error in conservation.items()},
            surplus={place: max(0, -error) for place, error in conservation.items()},
            listeners={source.name: _listener(source, held) for source, held in recount.sources.items()},
            sinks={outlet.sink.name: self._sink(outlet, held.total()) for outlet, held in recount.in_flight.items()},
            connections_limit=self._admission.limit,
            departed_connections=self._admission.departed,
            paused_connections=pauses.total,
            paused_by_reason=dict(pauses.lanes),
            pauses=dict(pauses.begun),
            pause_seconds=pauses.seconds(),
            budget_limit=budget.limit,
            budget_used=budget.used,
            budget_partials=budget.partials,
            budget_standing=budget.standing,
            slabs_given_up=self._intake.slabs.given_up,
            uptime_seconds=self._seconds() - self._started,
            loop_lag=self.loop_lag.view(),
            clock_steps=dict(self.clock_steps.counts),
            internal_errors=self._events.internal_errors,
            log_suppressed=self._events.log.suppressed,
            log_dropped=self._log.dropped,
            admin_connections=len(self.clients),
            admin_requests={f"{route} {code}": count for (route, code), count in self.clients.answered.items()},
        )
        return live if self._retired is None else self._retired + live

    def _sink(self, outlet: Outlet, in_flight_records: int) -> SinkView:
        tallies, sink, on_bug = outlet.tallies.values(), outlet.sink, self._events.bug
        details, trouble = details_of(sink, on_bug), trouble_of(sink, on_bug)
        dropped = {reason: sum(tally.records_dropped[reason] for tally in tallies) for reason in DropReason}
        # Lost after the spool had taken them, so the accounts have them as delivered; shown as dropped all the same.
        dropped[DropReason.SPOOL_FULL] += int(details.get("spool_dropped_records", 0))
        dropped[DropReason.REJECTED] += int(details.get("spool_rejected_records", 0))
        return SinkView(
            descriptions=(description_of(sink, on_bug),),
            required=outlet.required,
            is_up=trouble is None,
            troubles=() if trouble is None else (trouble,),
            delivered_records=sum(tally.records_delivered for tally in tallies),
            delivered_bytes=sum(tally.bytes_delivered for tally in tallies),
            dropped_records=dropped,
            in_flight_records=in_flight_records,
            queued_bytes=outlet.charge,
            details=details,
        )

    # Documents.

    def status(self) -> dict[str, Any]:
        """Give the document behind ``/status``, without secrets."""
        document: dict[str, Any] = self._hide_in(self._status())
        return document

    def _status(self) -> dict[str, Any]:
        view = self.view()
        return {
            "version": __version__,
            "scanner": SCANNER,
            "openssl": ssl.OPENSSL_VERSION,
            "state": self.state,
            **status.of_process(view),
            **status.of_sources(view, self._accounts.sources),
            "budget": status.of_budget(view, self._intake.budget.mark),
            "admin": {"connections": view.admin_connections, "limit": self.clients.limit},
            "limits": self._limits,
        }

    def connections(self) -> Iterator[dict[str, Any]]:
        """
        Give one row per connection, of those open when this was called and still when their row is asked for.

        Their numbers are kept for that, not they: who reads the rows slowly would have the memory of ended ones kept.
        """
        numbers = [(source.connections(), array("Q", source.connections())) for source in self._accounts.sources]
        return (
            dict(connections[number].status(self._seconds()))
            for connections, those in numbers
            for number in those
            if number in connections
        )


def _listener(source: ISource, held: SourceBalance) -> ListenerView:
    return ListenerView(
        counts=source.ledger.snapshot(),
        is_up=source.is_up,
        connections_open=len(source.connections()),
        doorways_open=held.doorways,
        handshakes_active=held.handshakes,
        certificate_not_after=None if held.certificate is None else held.certificate.not_after,
        tls_reloads={} if held.certificate is None else held.certificate.reloads,
        buffered_bytes=held.buffered_bytes,
        durability=source.durability,
        answers=source.answers,
        unanswered_frames=held.unanswered_frames,
        unanswered_bytes=held.unanswered_bytes,
    )
