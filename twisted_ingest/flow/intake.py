"""
Where all lanes meet: the one budget, the sinks, and the routes between.

Knows the reactor's clock only. What it reports goes through callbacks, so that it needs no log.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_ingest.batch import count_records
from twisted_ingest.errors import DropReason
from twisted_ingest.flow.answers import AnsweringLane
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.claims import add_records
from twisted_ingest.flow.delivery import OnBug, OnRejected
from twisted_ingest.flow.lane import Lane
from twisted_ingest.flow.outlet import Outlet
from twisted_ingest.flow.pauses import Pauses
from twisted_ingest.flow.route import Route
from twisted_ingest.flow.slabs import Slabs
from twisted_ingest.interfaces import IBatchProducer, ISink
from twisted_ingest.limits import OPTIONAL_SHARE, RESUME_PER_TURN


def _ignore(*_: object) -> None:
    """Do nothing: the default of the hooks."""


def _log_bug(where: str, failure: Failure) -> None:
    """Log a bug of ours; an owner that counts them sets its own hook."""
    Intake.log.failure("internal error in {where}", failure, where=where)


def _evict(producer: IBatchProducer) -> None:
    try:
        producer.evict_partial()
    except Exception:  # noqa: BLE001 - the next one has to be evicted all the same
        producer.fail("evict_partial")


class Intake:
    """
    Has the sinks, the routes to them, and one budget for all lanes, which it pauses and resumes.

    A sink that stalls holds back the lanes of its routes, each at its own limit; the others read on, until
    what waits for that sink has used up the budget. ``on_high`` and ``on_low`` are called when the
    budget crosses its marks, ``on_sink_added`` when a sink was added, ``on_sink_failed`` when one has failed for good,
    ``on_rejected`` with its name and what it will never take, ``on_bug`` with where it was met.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, budget: Budget, connection_limit: int) -> None:
        self.clock = clock
        self.budget = budget
        self.connection_limit = connection_limit
        self.slabs = Slabs(budget, self.charge)
        """What reads of all ports are received into."""
        self.outlets: list[Outlet] = []
        self.lanes: set[Lane] = set()
        self._routes: dict[tuple[frozenset[str] | None, bool], Route] = {}
        self._evicting = False
        self._waiting: OrderedDict[Lane, None] = OrderedDict()
        """Lanes that the budget keeps paused, longest first."""
        self._resuming = False
        self.pauses = Pauses(clock.seconds)
        self.on_high: Callable[[], None] = _ignore
        self.on_low: Callable[[], None] = _ignore
        self.on_sink_added: Callable[[Outlet], None] = _ignore
        self.on_sink_failed: Callable[[Outlet], None] = _ignore
        self.on_rejected: OnRejected = _ignore
        self.on_bug: OnBug = _log_bug
        self.idle_waiters: list[Deferred[None]] = []

    def add_sink(self, sink: ISink, *, required: bool, share: float = OPTIONAL_SHARE) -> Outlet:
        """Attach a sink. ``share`` is the part of the budget that one not required may keep queued."""
        limit = None if required else int(self.budget.limit * share)
        outlet = Outlet(sink, required=required, limit=limit)
        self.outlets.append(outlet)
        for (names, _), route in self._routes.items():
            if names is None or sink.name in names:
                route.add(outlet)
        self.on_sink_added(outlet)
        return outlet

    def route(self, sinks: Iterable[str] | None = None, *, needs_sync: bool = False) -> Route:
        """
        Give the route to some sinks by name; ``None`` is all of them.

        Sinks that are added later are on it too, so it may be asked for before they are there: whoever starts sources
        sees to it that every name has its sink. There is one for each set of sinks and ``needs_sync``, so that what
        must be synced holds nobody else up.
        """
        names = None if sinks is None else frozenset(sinks)
        route = self._routes.get((names, needs_sync))
        if route is None:
            route = Route(self, needs_sync=needs_sync)
            for outlet in self.outlets:
                if names is None or outlet.sink.name in names:
                    route.add(outlet)
            self._routes[names, needs_sync] = route
        return route

    @property
    def routes(self) -> Collection[Route]:
        """All routes that have been asked for."""
        return self._routes.values()

    def open_lane(self, route: Route) -> Lane:
        """Make the lane of a new connection; it joins when a producer registers with it."""
        return Lane(self, route, self.connection_limit)

    def open_answering_lane(self, route: Route) -> AnsweringLane:
        """Make the lane of a new connection that answers its peer."""
        return AnsweringLane(self, route, self.connection_limit)

    # Called by lanes.

    def join(self, lane: Lane) -> None:
        """Count a lane in; it starts paused while the budget is used up."""
        self.lanes.add(lane)
        if self.budget.mark.is_high:
            self._wait(lane)

    def leave(self, lane: Lane) -> None:
        """Count a lane out: its connection is gone. Its batches stay until they are settled."""
        self.lanes.discard(lane)
        self._waiting.pop(lane, None)
        if lane.pause_reason is not None:
            self.pauses.change(lane.pause_reason, None)
            lane.pause_reason, lane.is_paused = None, False

    def hold(self, delta: int) -> None:
        """Charge a change in what unfinished records take; evict the oldest where they take too much."""
        if self.budget.charge_partial(delta):
            self.budget_crossed()
        if delta > 0 and self.budget.partials > self.budget.partials_limit and not self._evicting:
            self._evict()

    def charge(self, size: int) -> None:
        """Charge what a sink, a connection or a read holds besides groups and records; negative, give it back."""
        if self.budget.charge(size):
            self.budget_crossed()

    def occupy(self, size: int) -> bool:
        """Keep free what a connection takes by being there; false, and nothing kept, where such have their share."""
        if self.budget.standing + size > self.budget.standing_limit:
            return False
        if self.budget.charge_standing(size):
            self.budget_crossed()
        return True

    def vacate(self, size: int) -> None:
        """Give that back."""
        if self.budget.charge_standing(-size):
            self.budget_crossed()

    @property
    def is_crowded(self) -> bool:
        """Whether so much is held that each connection may hold less of it."""
        return self.budget.used > self.budget.crowd

    # Pressure.

    def budget_crossed(self) -> None:
        """Pause everybody above the high mark; let them resume at the low one."""
        if self.budget.mark.is_high:
            for lane in list(self.lanes):
                self._wait(lane)
            self.on_high()
        else:
            self._resume_soon()
            self.on_low()

    def _wait(self, lane: Lane) -> None:
        if not lane.waiting:
            lane.waiting = True
            self._waiting[lane] = None
            lane.update()

    def _resume_soon(self) -> None:
        # Never from inside the call that relieved the budget: that may be a read of the lane's own producer.
        if self._waiting and not self._resuming:
            self._resuming = True
            self.clock.callLater(0, self._resume_some)

    def _resume_some(self) -> None:
        """Resume a few lanes, longest paused first, and go on in the next turn."""
        self._resuming = False
        for _ in range(min(RESUME_PER_TURN, len(self._waiting))):
            if self.budget.mark.is_high:
                return
            lane, _value = self._waiting.popitem(last=False)
            lane.waiting = False
            try:
                lane.update()
            except Exception:  # noqa: BLE001 - those behind it would wait for ever
                self.on_bug("resuming a lane", Failure())
        self._resume_soon()

    def _evict(self) -> None:
        """Give up the oldest unfinished records until their share is met with room to spare."""
        self._evicting = True
        try:
            holders = sorted((lane for lane in self.lanes if lane.held), key=lambda lane: lane.held_since)
            for lane in holders:
                if self.budget.partials <= self.budget.partials_keep:
                    break
                if lane.producer is not None:
                    _evict(lane.producer)
        finally:
            self._evicting = False

    # What is left.

    def flush(self) -> None:
        """Hand what was gathered to the sinks now."""
        for route in self.routes:
            route.flush()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is gathered and no sink has anything outstanding."""
        return not any(route.pending for route in self.routes) and not any(each.outstanding for each in self.outlets)

    def sink_answered(self) -> None:
        """See `RouteOwner`: fire the Deferreds of those who wait for idleness, where that was the last one."""
        if self.is_idle:
            waiters, self.idle_waiters = self.idle_waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def when_idle(self) -> "Deferred[None]":
        """Hand over what was gathered; the Deferred fires with ``None`` once every sink has answered."""
        self.flush()
        idle: Deferred[None] = Deferred()
        if self.is_idle:
            idle.callback(None)
        else:
            self.idle_waiters.append(idle)
        return idle

    def abandon(self) -> None:
        """Count what no sink has taken as dropped, reason ``shutdown``, and let go of it; no timer is left."""
        for route in self.routes:
            route.close()
        for outlet in self.outlets:
            for claims, owner in list(outlet.outstanding.items()):
                owner.lose(outlet, claims, DropReason.SHUTDOWN)

    def in_flight(self, outlet: Outlet) -> Counter[str]:
        """Recount, from what was gathered and the live groups, the records by listener that a sink has yet to take."""
        held: dict[str, int] = {}
        add_records(held, (count_records(route.pending) for route in self.routes if outlet in route.outlets))
        add_records(held, (claims.count() for claims in outlet.outstanding))
        return Counter(held)
