"""
One look at the whole process: what `/metrics`, `/readyz`, `/status` and `/connections` say.

Everything is read from the live objects at the time of asking; nothing is kept up to date for it.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted_ingest import __version__
from twisted_ingest.admin.clients import Clients
from twisted_ingest.errors import DropReason
from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.outlet import Outlet, description_of, details_of, trouble_of
from twisted_ingest.framing.scan import SCANNER
from twisted_ingest.interfaces import ISource
from twisted_ingest.ledger import Balance, SourceBalance
from twisted_ingest.limits import ADMIN_CONNECTIONS
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.lag import LoopLag
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.observe.metrics import SinkView, View
from twisted_ingest.observe.steps import ClockSteps
from twisted_ingest.server.admission import Admission


@dataclass(frozen=True, slots=True)
class _Recount:
    """What live objects hold, counted anew; the dear part of a look, hence taken once for each."""

    sources: Mapping[str, SourceBalance]
    """What each source holds."""
    in_flight: Mapping[Outlet, Counter[str]]
    """Records, by outlet and listener."""


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
    ) -> None:
        self._sources = sources
        self._intake = intake
        self._admission = admission
        self._events = events
        self._log = log
        self._seconds = seconds
        self._limits = limits
        self._started = seconds()
        self.loop_lag = LoopLag()
        self.clients = Clients(admin_connections)
        """Those of the admin endpoint."""
        self.clock_steps = ClockSteps(wall_time, seconds)
        self.state = "starting"
        """``starting``, ``ready`` or ``draining``; the service sets it."""

    # Accounting.

    def conservation(self) -> dict[str, int]:
        """Recount, and give what is not accounted for: bytes by listener, records by listener and sink."""
        return self._weigh(self._recount())

    def conservation_error(self) -> int:
        """Give the sum of all that is not accounted for, signs ignored."""
        return sum(abs(error) for error in self.conservation().values())

    def reasons(self) -> list[str]:
        """Say why the process is not ready; empty when it is."""
        return self._reasons(self.conservation())

    def _recount(self) -> "_Recount":
        return _Recount(
            {source.name: source.balance() for source in self._sources},
            {outlet: self._intake.in_flight(outlet) for outlet in self._intake.outlets},
        )

    def _weigh(self, recount: "_Recount") -> dict[str, int]:
        errors: dict[str, int] = {}
        for source in self._sources:
            ledger, name = source.ledger, source.name
            errors[f"{name}: bytes"] = Balance.of_bytes(ledger, recount.sources[name].buffered_bytes).error
            for outlet, in_flight in recount.in_flight.items():
                balance = Balance.of_records(ledger, outlet.tally(name), in_flight[name])
                errors[f"{name}: records at {outlet.sink.name}"] = balance.error
        return errors

    def _reasons(self, conservation: Mapping[str, int]) -> list[str]:
        state = [] if self.state == "ready" else [self.state]
        required = [outlet.sink for outlet in self._intake.outlets if outlet.required]
        troubles = ((sink.name, trouble_of(sink, self._events.bug)) for sink in required)
        wrong = ((place, error) for place, error in conservation.items() if error)
        lost = (source for source in self._sources if source.trouble is not None)
        return [
            *state,
            *(f"listener {source.name}: not listening: {source.trouble}" for source in lost),
            *(f"sink {name}: {trouble}" for name, trouble in troubles if trouble is not None),
            *self._crowd(),
            *(f"conservation error {error} ({place})" for place, error in wrong),
        ]

    def _crowd(self) -> list[str]:
        """Say why new connections have to wait, where they do."""
        if self._admission.room:
            return []
        everybody = (each for source in self._sources for each in source.connections().values())
        silent = sum(not each.records for each in everybody)
        has_sent_nothing = f"; {silent} of them have sent no record" if silent else ""
        return [f"{self._admission.fullness}{has_sent_nothing}: new ones wait until one closes"]

    # Views.

    def view(self) -> View:
        """Take a look at everything; what is in flight is recounted once."""
        budget = self._intake.budget
        recount = self._recount()
        conservation = self._weigh(recount)
        return View(
            version=__version__,
            listeners={source.name: source.ledger.snapshot() for source in self._sources},
            listener_up={source.name: source.is_up for source in self._sources},
            connections_open={source.name: len(source.connections()) for source in self._sources},
            buffered_bytes={name: held.buffered_bytes for name, held in recount.sources.items()},
            durability={source.name: source.durability for source in self._sources},
            answering=[source.name for source in self._sources if source.answers],
            unanswered={name: (held[1], held[2]) for name, held in recount.sources.items()},
            connections_limit=self._admission.limit,
            paused_connections=self._intake.pauses.total,
            paused_by_reason=dict(self._intake.pauses.lanes),
            pauses=dict(self._intake.pauses.begun),
            pause_seconds=self._intake.pauses.seconds(),
            departed_connections=self._admission.departed,
            loop_lag=self.loop_lag.view(),
            clock_steps=dict(self.clock_steps.counts),
            budget_limit=budget.limit,
            budget_used=budget.used,
            budget_partials=budget.partials,
            sinks=[self._sink(outlet, in_flight.total()) for outlet, in_flight in recount.in_flight.items()],
            conservation=conservation,
            reasons=self._reasons(conservation),
            internal_errors=self._events.internal_errors,
            log_suppressed=self._events.suppressed,
            log_dropped=self._log.dropped,
            uptime_seconds=self._seconds() - self._started,
            admin_connections=len(self.clients),
            admin_requests=self.clients.answered,
        )

    def _sink(self, outlet: Outlet, in_flight_records: int) -> SinkView:
        tallies, sink, on_bug = outlet.tallies.values(), outlet.sink, self._events.bug
        details = details_of(sink, on_bug)
        dropped = {reason: sum(tally.records_dropped[reason] for tally in tallies) for reason in DropReason}
        # Lost after they counted as delivered: no part of the accounts, and not to be overlooked all the same.
        dropped[DropReason.SPOOL_FULL] += int(details.get("spool_dropped_records", 0))
        dropped[DropReason.REJECTED] += int(details.get("spool_rejected_records", 0))
        return SinkView(
            name=sink.name,
            description=description_of(sink, on_bug),
            required=outlet.required,
            delivered_records=sum(tally.records_delivered for tally in tallies),
            delivered_bytes=sum(tally.bytes_delivered for tally in tallies),
            dropped_records=dropped,
            in_flight_records=in_flight_records,
            queued_bytes=outlet.charge,
            trouble=trouble_of(sink, on_bug),
            details=details,
        )

    def status(self) -> dict[str, Any]:
        """Give the document behind ``/status``."""
        view = self.view()
        return {
            "version": view.version,
            "scanner": SCANNER,
            "state": self.state,
            "ready": not view.reasons,
            "reasons": view.reasons,
            "uptime_seconds": round(view.uptime_seconds, 3),
            "listeners": [_row(source, view) for source in self._sources],
            "connections": {
                "open": sum(view.connections_open.values()),
                "limit": view.connections_limit,
                "paused": view.paused_connections,
                "paused_by_reason": view.paused_by_reason,
                "departed": view.departed_connections,
            },
            "budget": {
                "limit_bytes": view.budget_limit,
                "used_bytes": view.budget_used,
                "partial_bytes": view.budget_partials,
                "high_bytes": self._intake.budget.mark.high,
                "low_bytes": self._intake.budget.mark.low,
                "reading_stopped": self._intake.budget.mark.is_high,
            },
            "admin": {"connections": view.admin_connections, "limit": self.clients.limit},
            "sinks": [
                {
                    "name": sink.name,
                    "to": sink.description,
                    "required": sink.required,
                    "trouble": sink.trouble,
                    "delivered_records": sink.delivered_records,
                    "delivered_bytes": sink.delivered_bytes,
                    "in_flight_records": sink.in_flight_records,
                    "queued_bytes": sink.queued_bytes,
                    "dropped_records": {reason.value: count for reason, count in sink.dropped_records.items()},
                    **sink.details,
                }
                for sink in view.sinks
            ],
            "conservation": {"error": view.conservation_error, "by_place": view.conservation},
            "limits": self._limits,
        }

    def connections(self) -> Iterator[dict[str, Any]]:
        """
        Give one row per connection, of those open when this was called and still when their row is asked for.

        Their numbers are kept for that, not they: who reads the rows slowly would have the memory of ended ones kept.
        """
        numbers = [(source.connections(), array("Q", source.connections())) for source in self._sources]
        return (
            dict(connections[number].status(self._seconds()))
            for connections, those in numbers
            for number in those
            if number in connections
        )


def _row(source: ISource, view: View) -> dict[str, Any]:
    """Join what a source says of itself, and what was counted of it."""
    name = source.name
    return {
        **source.status(),
        "connections_open": view.connections_open[name],
        "unanswered_frames": view.unanswered[name][0],
        "unanswered_bytes": view.unanswered[name][1],
        "bytes_buffered": view.buffered_bytes[name],
        "counts": view.listeners[name],
    }
