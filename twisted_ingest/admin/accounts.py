"""
The accounts of the process: what live objects hold, counted anew, held against what was counted as it happened.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twisted_ingest.flow.intake import Intake
from twisted_ingest.flow.outlet import Outlet
from twisted_ingest.interfaces import ISource
from twisted_ingest.ledger import Balance, ListenerLedger, SourceBalance


@dataclass(frozen=True, slots=True)
class Recount:
    """What live objects hold, counted anew; the dear part of a look, hence taken once for each."""

    sources: Mapping[ISource, SourceBalance]
    """What each source holds."""
    in_flight: Mapping[Outlet, Counter[str]]
    """Records, by outlet and listener."""


class Accounts:
    """
    Weighs every source and every pair of a listener and a sink, those that are gone included.

    ``sources`` are those that are there.
    """

    def __init__(self, sources: Sequence[ISource], intake: Intake) -> None:
        self.sources = list(sources)
        self._intake = intake
        self._owed: Counter[tuple[str, Outlet]] = Counter()
        """Records that listeners which are gone have framed, for each sink they were to go to; below zero, those that
        were on no way to a sink which was added later."""
        self._wrong: Counter[str] = Counter()
        """What was not accounted for when they went, by place."""
        intake.on_sink_added = self._add_sink

    def retire(self, source: ISource) -> None:
        """Weigh a source no longer, but its records until they have arrived."""
        held, ledger, name = source.balance(), source.ledger, source.name
        self._wrong[f"{name}: bytes"] += Balance.of_bytes(ledger, held.buffered_bytes).error
        for outlet in source.route.outlets:
            self._owed[name, outlet] += ledger.records_framed - sum(ledger.records_dropped.values())
        self.sources.remove(source)

    def retire_sink(self, outlet: Outlet) -> None:
        """Weigh a sink no longer."""
        for key in [key for key in self._owed if key[1] is outlet]:
            del self._owed[key]

    def _add_sink(self, outlet: Outlet) -> None:
        """Weigh a sink that is added against what is on its way to it from now on."""
        on_its_way = self._intake.in_flight(outlet)
        for source in self.sources:
            if outlet in source.route.outlets:
                ledger, name = source.ledger, source.name
                earlier = ledger.records_framed - sum(ledger.records_dropped.values()) - on_its_way[name]
                self._owed[name, outlet] -= earlier

    def recount(self) -> Recount:
        """Count what is held now."""
        return Recount(
            {source: source.balance() for source in self.sources},
            {outlet: self._intake.in_flight(outlet) for outlet in self._intake.outlets},
        )

    def weigh(self, recount: Recount) -> dict[str, int]:
        """Give what is not accounted for: bytes by listener, records by listener and sink."""
        errors = Counter(self._wrong)
        ledgers = dict.fromkeys(self._owed, ListenerLedger())
        for source, held in recount.sources.items():
            ledgers.update({(source.name, outlet): source.ledger for outlet in source.route.outlets})
            errors[f"{source.name}: bytes"] += Balance.of_bytes(source.ledger, held.buffered_bytes).error
        for (name, outlet), ledger in ledgers.items():
            if outlet in recount.in_flight:
                balance = Balance.of_records(ledger, outlet.tally(name), recount.in_flight[outlet][name])
                errors[f"{name}: records at {outlet.sink.name}"] += balance.error + self._owed[name, outlet]
        return dict(errors)
