"""
The way of batches to one set of sinks, and of the answers back.

A group is one thing: every sink of a route has the same groups in the same order. What goes another way, or must be
synced where others need not, is in groups of its own.
"""

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from twisted_ingest.batch import Batch, Group
from twisted_ingest.errors import DropReason, SinkError
from twisted_ingest.flow.answers import AnsweringLane
from twisted_ingest.flow.budget import Budget
from twisted_ingest.flow.claims import Claims
from twisted_ingest.flow.delivery import OnBug, OnRejected, deliver
from twisted_ingest.flow.lane import Lane
from twisted_ingest.flow.outlet import Outlet
from twisted_ingest.limits import GATHER_BYTES, GATHER_SECONDS, GROUP_OVERHEAD
from twisted_ingest.rejected import Rejected


class RouteOwner(Protocol):
    """What a route needs of the intake: the budget of all routes, and somebody to report to."""

    clock: IReactorTime
    budget: Budget
    on_sink_failed: Callable[[Outlet], None]
    on_rejected: OnRejected
    on_bug: OnBug
    idle_waiters: list[Deferred[None]]
    """Of those who wait until no sink has anything."""

    def budget_crossed(self) -> None:
        """Pause or resume lanes: the budget has crossed a mark."""

    def sink_answered(self) -> None:
        """Look whether that was the last group, for those who wait."""


class Route:
    """
    Gathers the batches of its lanes, and hands them to its sinks in groups.

    A group is handed over once per reactor turn (after ``GATHER_SECONDS`` where a sink ``wants_groups``, unless a lane
    that gave to it is paused and cannot give more), or when ``GATHER_BYTES`` have gathered: not with each batch of a
    paused lane, for one chunk of counted frames can make thousands. With ``needs_sync`` sinks answer only once the
    device has the records.
    """

    def __init__(self, owner: RouteOwner, *, needs_sync: bool = False) -> None:
        self._owner = owner
        self._clock = owner.clock
        self._budget = owner.budget
        self.outlets: list[Outlet] = []
        self.needs_sync = needs_sync
        self.pending: list[Batch] = []
        self._lanes: list[Lane] = []
        """Of each batch gathered, where it came from."""
        self._pending_size = 0
        self._gather_seconds = 0.0
        self._gathering: IDelayedCall | None = None
        self._hurried = False
        """Whether gathering ends with this turn."""
        self._telling: list[AnsweringLane] = []
        """Lanes that have something to tell of the group being settled."""

    def add(self, outlet: Outlet) -> None:
        """Let groups to come go to one more sink."""
        self.outlets.append(outlet)
        if outlet.sink.wants_groups:
            self._gather_seconds = GATHER_SECONDS

    # Called by lanes.

    def take(self, lane: Lane, batch: Batch, charge: int) -> None:
        """Charge a batch and gather it."""
        self.pending.append(batch)
        self._lanes.append(lane)
        self._pending_size += batch.size
        if self._budget.charge(charge):
            self._owner.budget_crossed()
        if self._pending_size >= GATHER_BYTES:
            self.flush()
        elif self._gathering is None:
            self._hurried = lane.is_paused or lane.is_answered
            self._gathering = self._clock.callLater(0 if self._hurried else self._gather_seconds, self._gathered)
        elif not self._hurried and (lane.is_paused or lane.is_answered):
            # Neither sends more meanwhile: there is nothing to gather but delay. Anew, because `reset` would search all
            # timers of the reactor for it.
            self._gathering.cancel()
            self._hurried, self._gathering = True, self._clock.callLater(0, self._gathered)

    def tell_later(self, lane: AnsweringLane) -> None:
        """Let a lane tell its producer what it knows once the group at hand is settled."""
        self._telling.append(lane)

    # The way to the sinks.

    def flush(self) -> None:
        """Hand what was gathered to the sinks now."""
        if not self.pending:
            return
        size = self._pending_size
        claims = Claims(self.pending, self._lanes, size)
        self.pending, self._lanes, self._pending_size = [], [], 0
        if self._budget.charge(GROUP_OVERHEAD):
            self._owner.budget_crossed()
        takers = [outlet for outlet in self.outlets if outlet.take_or_drop(claims)]
        # Counted before the first call: a sink may take the group before `deliver` returns.
        claims.holders = claims.readers = len(takers)
        claims.required = required = len([outlet for outlet in takers if outlet.required])
        for outlet in takers:
            outlet.outstanding[claims] = self
            outlet.charge += claims.charge
        group = Group(claims.batches, size, claims.records, needs_sync=self.needs_sync)
        for outlet in takers:
            self._hand_over(outlet, group, claims)
        if not required:
            self._settle(claims)  # nobody's answer is waited for
        if not takers:
            self._release(claims)
            claims.let_go(self._owner.on_bug)
            self._look_for_idle()  # no answer will

    def _hand_over(self, outlet: Outlet, group: Group, claims: Claims) -> None:
        arguments = (outlet, claims)
        done = deliver(outlet.sink, group, self._owner)
        answered = done.addCallbacks(self._answered, self._refused, callbackArgs=arguments, errbackArgs=arguments)
        _ = answered.addBoth(self._end_reading, claims)

    def _gathered(self) -> None:
        self._gathering = None
        try:
            self.flush()
        except Exception:  # noqa: BLE001 - counted, where the reactor would log it without a limit
            self._owner.on_bug("handing over a group", Failure())

    def close(self) -> None:
        """Hand over what was gathered; no timer is left."""
        self.flush()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    # The way back.

    def _answered(self, rejected: Rejected | None, outlet: Outlet, claims: Claims) -> None:
        if claims in outlet.outstanding:
            outlet.count_delivered(claims)
            if rejected is not None:
                # Settled as taken all the same: nobody may bring such records for ever.
                outlet.count_rejected(rejected.lost(claims.batches))
            self._let_go(outlet, claims)

    def _refused(self, failure: Failure, outlet: Outlet, claims: Claims) -> None:
        if claims in outlet.outstanding:
            self.lose(outlet, claims, DropReason.SINK_FAILED)
        if failure.check(SinkError):
            self._owner.on_sink_failed(outlet)
        else:
            self._owner.on_bug(f"sink {outlet.sink.name}", failure)

    def _end_reading(self, result: object, claims: Claims) -> None:
        """Note that one more sink has answered, and reads the bytes no more; report an error of ours on the way."""
        claims.readers -= 1
        if claims.readers == 0:
            claims.let_go(self._owner.on_bug)
        if isinstance(result, Failure):
            # It must not stay unseen in a Deferred.
            self._owner.on_bug("settling a group", result)

    def lose(self, outlet: Outlet, claims: Claims, reason: DropReason) -> None:
        """Count a group as lost to a sink; where that is required, nobody may be told that it is safe."""
        claims.is_refused = claims.is_refused or outlet.required
        outlet.count_dropped(claims, reason)
        self._let_go(outlet, claims)

    def _let_go(self, outlet: Outlet, claims: Claims) -> None:
        del outlet.outstanding[claims]
        outlet.charge -= claims.charge
        claims.holders -= 1
        if outlet.required:
            claims.required -= 1
            if claims.required == 0:
                self._settle(claims)
        if claims.holders == 0:
            self._release(claims)
        self._look_for_idle()

    def _look_for_idle(self) -> None:
        if self._owner.idle_waiters:
            self._owner.sink_answered()

    def _settle(self, claims: Claims) -> None:
        """Tell the lanes that the required sinks have answered."""
        claims.settle()
        if self._telling:
            lanes, self._telling = self._telling, []
            for lane in lanes:
                lane.tell()

    def _release(self, claims: Claims) -> None:
        """Give the charge back: no sink has the group in its accounts any more."""
        if self._budget.charge(-claims.charge):
            self._owner.budget_crossed()
