"""
All who stand in the doorway of one listener: they are let in as far as stages, counted, charged, and made to hurry.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import RefuseReason
from twisted_ingest.flow.intake import Intake
from twisted_ingest.ledger import ListenerLedger
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.doorway import Doorway
from twisted_ingest.server.stages import IStage, TurnedAwayError

_NO_ROOM = (
    "no connection is read from because sinks are behind (--memory), and what others have sent ahead fills its share "
    "of the memory"
)


class DoorwaysOwner(Protocol):
    """What they need of the listener's factory."""

    @property
    def ledger(self) -> ListenerLedger:
        """Where bytes and refusals are counted."""

    @property
    def events(self) -> Events:
        """Who is told of what happens."""

    @property
    def clock(self) -> IReactorTime:
        """What their deadlines go by."""

    def admit(self, info: ConnectionInfo) -> Any:
        """Make the connection of one that has come through, or raise `TurnedAwayError`."""


class Doorways:
    """
    The newcomers of one listener. Those of all listeners have one limit in number and one in bytes: the admission's.

    What they hold is charged to the budget of the intake, where it can pause others and is never itself held back: a
    handshake that is not gone on with would end by its deadline.
    """

    def __init__(self, owner: DoorwaysOwner, admission: Admission, intake: Intake) -> None:
        self._owner = owner
        self._admission = admission
        self._intake = intake
        self._by_number: dict[int, Doorway] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def make(self, info: ConnectionInfo, makers: Sequence[Callable[[], IStage]]) -> Doorway:
        """Make the doorway of a newcomer; it enters once it has its transport."""
        return Doorway(info, self, makers)

    def sweep(self, now: float) -> None:
        """Let each look at its deadline."""
        for doorway in list(self._by_number.values()):
            try:
                doorway.sweep(now)
            except Exception:  # noqa: BLE001 - the deadlines of the others hold all the same
                self.events.internal_error("sweep", doorway.info)

    def forgive(self, seconds: float) -> None:
        """Let time that the process slept count towards no deadline."""
        for doorway in self._by_number.values():
            doorway.forgive(seconds)

    def clear(self) -> None:
        """Turn all away, for a stop: nothing was promised to them."""
        for doorway in list(self._by_number.values()):
            doorway.turn_away(RefuseReason.DRAINING)

    def buffered(self) -> int:
        """Recount the bytes of which nobody knows yet what they are."""
        return sum(doorway.size for doorway in self._by_number.values() if not doorway.is_over)

    # A doorway calls these; see `DoorwayOwner`.

    @property
    def ledger(self) -> ListenerLedger:
        """Where bytes and refusals are counted."""
        return self._owner.ledger

    @property
    def events(self) -> Events:
        """Who is told of what happens."""
        return self._owner.events

    @property
    def clock(self) -> IReactorTime:
        """What deadlines go by."""
        return self._owner.clock

    def admit(self, info: ConnectionInfo, waiting: int) -> Any:
        """Make the connection; not where what stands behind it would have to wait and there is no room for that."""
        if self._intake.budget.mark.is_high and not self._admission.has_room_for_rest(waiting):
            raise TurnedAwayError(RefuseReason.DOORWAY_FULL, _NO_ROOM)
        return self._owner.admit(info)

    def keep(self, delta: int) -> None:
        """Charge what has to wait although its connection is made."""
        self._intake.charge(delta)
        self._admission.keep_rest(delta)

    def doorway_made(self, doorway: Doorway) -> None:
        """Enter it; may turn away the oldest."""
        self._by_number[doorway.info.id] = doorway
        self._admission.enter_doorway(doorway.info.id, lambda: doorway.turn_away(RefuseReason.DOORWAY_FULL))

    def doorway_weighs(self, doorway: Doorway, delta: int) -> None:
        """Charge a change in what it holds; may turn away the oldest, this one included."""
        self._intake.charge(delta)
        self._admission.weigh_doorways(delta)

    def doorway_left(self, doorway: Doorway) -> None:
        """Strike it. Safe to call again."""
        if self._by_number.pop(doorway.info.id, None) is not None:
            self._admission.leave_doorway(doorway.info.id)
