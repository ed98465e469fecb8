"""
Where all lanes meet: the budget, the gathering of groups, and the way to the sinks and back.

Knows the reactor's clock only. What it reports goes through callbacks, so that it needs no log.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_ingest.batch import Batch, Group, Rejected, count_records
from twisted_ingest.errors import DropReason, SinkError
from twisted_ingest.flow.answers import AnsweringLane
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.lane import Lane
from twisted_ingest.flow.outlet import Outlet, deliver
from twisted_ingest.flow.pauses import Pauses
from twisted_ingest.interfaces import IBatchProducer, ISink
from twisted_ingest.limits import (
    GATHER_BYTES,
    GATHER_SECONDS,
    GROUP_OVERHEAD,
    OPTIONAL_SHARE,
    RESUME_PER_TURN,
)


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
    Collects the batches of all lanes, charges them, and hands them to the sinks in groups.

    A group is handed over once per reactor turn (after ``GATHER_SECONDS`` where a sink ``wants_groups``, unless a lane
    that gave to it is paused and cannot give more), or when ``GATHER_BYTES`` have gathered: not with each batch of a
    paused lane, for one chunk of counted frames can make thousands. ``on_high`` and ``on_low`` are called when the
    budget crosses its marks, ``on_sink_failed`` when a sink has failed for good, ``on_rejected`` with its name,
    how many records it will never take, and why, ``on_bug`` with where it was met.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, budget: Budget, connection_limit: int) -> None:
        self.clock = clock
        self.budget = budget
        self.connection_limit = connection_limit
        self.outlets: list[Outlet] = []
        self.lanes: set[Lane] = set()
        self.pending: list[Batch] = []
        self._pending_size = 0
        self._needs_sync = False
        self.telling: list[AnsweringLane] = []
        """Lanes that have something to tell of the group being settled."""
        self._gather_seconds = 0.0
        self._gathering: IDelayedCall | None = None
        self._hurried = False
        """Whether gathering ends with this turn."""
        self._evicting = False
        self._waiting: OrderedDict[Lane, None] = OrderedDict()
        """Lanes that the budget keeps paused, longest first."""
        self._resuming = False
        self.pauses = Pauses(clock.seconds)
        self.on_high: Callable[[], None] = _ignore
        self.on_low: Callable[[], None] = _ignore
        self.on_sink_failed: Callable[[Outlet], None] = _ignore
        self.on_rejected: Callable[[str, int, str], None] = _ignore
        self.on_bug: Callable[[str, Failure], None] = _log_bug
        self._idle_waiters: list[Deferred[None]] = []

    def add_sink(self, sink: ISink, *, required: bool, share: float = OPTIONAL_SHARE) -> Outlet:
        """Attach a sink. ``share`` is the part of the budget that one not required may keep queued."""
        limit = None if required else int(self.budget.limit * share)
        outlet = Outlet(sink, required=required, limit=limit)
        self.outlets.append(outlet)
        if sink.wants_groups:
            self._gather_seconds = GATHER_SECONDS
        return outlet

    def open_lane(self, *, needs_sync: bool = False) -> Lane:
        """Make the lane of a new connection; it joins when a producer registers with it."""
        return Lane(self, self.connection_limit, needs_sync=needs_sync)

    def open_answering_lane(self, *, needs_sync: bool) -> AnsweringLane:
        """Make the lane of a new connection that answers its peer."""
        return AnsweringLane(self, self.connection_limit, needs_sync=needs_sync)

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

    def take(self, batch: Batch, charge: int) -> None:
        """Charge a batch and gather it."""
        self.pending.append(batch)
        self._pending_size += batch.size
        if batch.lane.needs_sync:
            self._needs_sync = True
        if self.budget.charge(charge):
            self._budget_crossed()
        if self._pending_size >= GATHER_BYTES:
            self.flush()
        elif self._gathering is None:
            self._hurried = batch.lane.is_paused or batch.lane.is_answered
            self._gathering = self.clock.callLater(0 if self._hurried else self._gather_seconds, self._gathered)
        elif not self._hurried and (batch.lane.is_paused or batch.lane.is_answered):
            # Neither sends more meanwhile: there is nothing to gather but delay. Anew, because `reset` would search all
            # timers of the reactor for it.
            self._gathering.cancel()
            self._hurried, self._gathering = True, self.clock.callLater(0, self._gathered)

    def hold(self, delta: int) -> None:
        """Charge a change in what unfinished records take; evict the oldest where they take too much."""
        if self.budget.charge_partial(delta):
            self._budget_crossed()
        if delta > 0 and self.budget.partials > self.budget.partials_limit and not self._evicting:
            self._evict()

    # The way to the sinks.

    def flush(self) -> None:
        """Hand what was gathered to the sinks now."""
        if not self.pending:
            return
        group = Group(self.pending, self._pending_size, needs_sync=self._needs_sync)
        self.pending = []
        self._pending_size = 0
        self._needs_sync = False
        if self.budget.charge(GROUP_OVERHEAD):
            self._budget_crossed()
        takers = [outlet for outlet in self.outlets if self._admits(outlet, group)]
        # Counted before the first call: a sink may take the group before `deliver` returns.
        group.holders = len(takers)
        group.required = sum(outlet.required for outlet in takers)
        for outlet in takers:
            outlet.outstanding[group] = None
            outlet.charge += group.charge
        for outlet in takers:
            done = deliver(outlet.sink, group)
            settled = (outlet, group)
            answered = done.addCallbacks(self._answered, self._refused, callbackArgs=settled, errbackArgs=settled)
            _ = answered.addErrback(self._broken)
        if not any(outlet.required for outlet in takers):
            self._settle(group)  # nobody's answer is waited for
        if not takers:
            self._release(group)

    def _gathered(self) -> None:
        self._gathering = None
        try:
            self.flush()
        except Exception:  # noqa: BLE001 - counted, where the reactor would log it without a limit
            self.on_bug("handing over a group", Failure())

    def _admits(self, outlet: Outlet, group: Group) -> bool:
        if outlet.limit is None or outlet.charge + group.charge <= outlet.limit:
            return True
        outlet.drop(group, DropReason.OVERFLOW)
        return False

    # The way back.

    def _answered(self, answer: object, outlet: Outlet, group: Group) -> None:
        if isinstance(answer, Rejected) and answer.refusals:
            self._rejected(answer, outlet, group)
        elif group in outlet.outstanding:
            outlet.delivered(group)
            self._let_go(outlet, group)

    def _rejected(self, answer: Rejected, outlet: Outlet, group: Group) -> None:
        """Count what was rejected; the group is settled as taken, for nobody may bring such records for ever."""
        try:
            lost = answer.lost(group.batches)
        except Exception:  # noqa: BLE001 - the answer may hold anything
            self._refused(Failure(), outlet, group)
            return
        if group in outlet.outstanding:
            outlet.delivered(group)
            outlet.rejected(lost)
            self._let_go(outlet, group)
            self.on_rejected(outlet.sink.name, sum(records for _, records, _ in lost), str(answer))

    def _refused(self, failure: Failure, outlet: Outlet, group: Group) -> None:
        if group in outlet.outstanding:
            self._lose(outlet, group, DropReason.SINK_FAILED)
        if failure.check(SinkError):
            self.on_sink_failed(outlet)
        else:
            self.on_bug(f"sink {outlet.sink.name}", failure)

    def _broken(self, failure: Failure) -> None:
        """Report an error of ours in the way back; it must not stay unseen in a Deferred."""
        self.on_bug("settling a group", failure)

    def _lose(self, outlet: Outlet, group: Group, reason: DropReason) -> None:
        """Count a group as lost to a sink; where that is required, nobody may be told that it is safe."""
        group.is_refused = group.is_refused or outlet.required
        outlet.drop(group, reason)
        self._let_go(outlet, group)

    def _let_go(self, outlet: Outlet, group: Group) -> None:
        del outlet.outstanding[group]
        outlet.charge -= group.charge
        group.holders -= 1
        if outlet.required:
            group.required -= 1
            if group.required == 0:
                self._settle(group)
        if group.holders == 0:
            self._release(group)
        if self._idle_waiters and self.is_idle:
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def _settle(self, group: Group) -> None:
        """Tell the lanes that the required sinks have answered."""
        taken = not group.is_refused
        for batch in group.batches:
            batch.lane.settle(batch, taken=taken)
        if self.telling:
            lanes, self.telling = self.telling, []
            for lane in lanes:
                lane.tell()

    def _release(self, group: Group) -> None:
        """Give the charge back: nobody holds the bytes any more."""
        if self.budget.charge(-group.charge):
            self._budget_crossed()

    # Pressure.

    def _budget_crossed(self) -> None:
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

    @property
    def is_idle(self) -> bool:
        """Whether nothing is gathered and no sink has anything outstanding."""
        return not self.pending and not any(outlet.outstanding for outlet in self.outlets)

    def when_idle(self) -> "Deferred[None]":
        """Hand over what was gathered; the Deferred fires with ``None`` once every sink has answered."""
        self.flush()
        idle: Deferred[None] = Deferred()
        if self.is_idle:
            idle.callback(None)
        else:
            self._idle_waiters.append(idle)
        return idle

    def abandon(self) -> None:
        """Count what no sink has taken as dropped, reason ``shutdown``, and let go of it; no timer is left."""
        self.flush()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        for outlet in self.outlets:
            for group in list(outlet.outstanding):
                self._lose(outlet, group, DropReason.SHUTDOWN)

    def in_flight(self, outlet: Outlet) -> Counter[str]:
        """Recount, from what was gathered and the live groups, the records by listener that a sink has yet to take."""
        held = count_records(self.pending)
        for group in outlet.outstanding:
            records = group.records if len(group.batches) == group.counted else count_records(group.batches)
            for listener in records:
                held[listener] = held.get(listener, 0) + records[listener]
        return Counter(held)
