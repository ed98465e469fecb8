"""
What happens, told to whoever wants to hear it: the log, a page, a test.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.escaping import escape
from twisted_ingest.observe.folding import FoldingLog


class Fact(NamedTuple):
    """
    Something that happened, as plain values. What came from a peer is bounded and escaped.

    ``text`` is a constant format of ``fields``.
    """

    kind: str
    level: LogLevel
    text: str
    fields: Mapping[str, object]

    @property
    def message(self) -> str:
        """What happened, in words."""
        return formatEvent({"log_format": self.text, **self.fields})


Observer = Callable[[Fact], None]
"""Hears of facts, in the order they happen, inside the call that made each: it has to put it away and return."""


class _Subscription:
    __slots__ = ("observer",)

    def __init__(self, observer: Observer) -> None:
        self.observer = observer


def _hear_nothing(fact: Fact) -> None:
    pass


class Facts:
    """
    Where facts are told: to the log, which folds what comes too often, and to whoever has subscribed.

    Where nobody has, nothing is made of a fact but its line in the log.
    """

    def __init__(self, log: FoldingLog) -> None:
        self.log = log
        self._subscriptions: tuple[_Subscription, ...] = ()
        self.internal_errors = 0

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        """
        Tell an observer of every fact from now on; gives what ends that, and may be called again.

        One that raises hears nothing any more: that is a bug, counted and told to the others, and costs nobody else.
        """
        subscription = _Subscription(observer)
        self._subscriptions += (subscription,)
        return lambda: self._unsubscribe(subscription)

    def _unsubscribe(self, subscription: _Subscription) -> None:
        # It may be about to hear of a fact that is being told right now.
        subscription.observer = _hear_nothing
        self._subscriptions = tuple(each for each in self._subscriptions if each is not subscription)

    def _limited(self, kind: str, level: LogLevel, text: str, **fields: object) -> None:
        """Tell what may happen often; ``text`` is a constant format."""
        folded = self.log.fold(kind)
        if folded is not None:
            self.log.write(kind, level, text, fields, folded)
        if self._subscriptions:
            self._tell(Fact(kind, level, text, fields))

    def _always(self, kind: str, level: LogLevel, text: str, **fields: object) -> None:
        """Tell what happens so seldom that the log says it each time."""
        self.log.write(kind, level, text, fields)
        if self._subscriptions:
            self._tell(Fact(kind, level, text, fields))

    def _tell(self, fact: Fact) -> None:
        for subscription in self._subscriptions:
            try:
                subscription.observer(fact)
            except Exception:  # noqa: BLE001 - the fact is another's, and so is the call that told it
                self._unsubscribe(subscription)
                self.internal_error("an observer of events")

    # Bugs of ours: the one kind of fact that anybody may have to tell.

    def bug(self, where: str, failure: Failure) -> None:
        """Note a bug of ours that has been caught already."""
        self.internal_error(where, failure=failure)

    def guard(self, where: str, call: Callable[..., None], *arguments: object) -> None:
        """Make a call that nobody else looks after, as one from another thread; what it raises is noted as a bug."""
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001 - the reactor would log it, and nobody would count it
            self.internal_error(where)

    def internal_error(self, where: str, info: ConnectionInfo | None = None, failure: Failure | None = None) -> None:
        """Note a bug of ours, with its traceback; without ``failure`` called from inside an ``except`` block."""
        self.internal_errors += 1
        kind, who = "internal_error", {} if info is None else who_of(info)
        text = "{listener}: {peer} (#{conn}): internal error in {where}" if who else "internal error in {where}"
        fields = {"where": where, **who}
        folded = self.log.fold(kind)
        if folded is not None:
            self.log.write_failure(kind, text, fields, failure or Failure(), folded)
        if self._subscriptions:
            self._tell(Fact(kind, LogLevel.critical, text, fields))


def who_of(info: ConnectionInfo) -> dict[str, object]:
    """Give the fields that tell a connection."""
    return {"listener": info.listener, "peer": escape(info.peer), "conn": info.id}


class Backlog:
    """
    An observer for those who are slower than what happens: keeps the latest facts, and counts those it had to let fall.
    """

    def __init__(self, limit: int) -> None:
        self._facts: deque[Fact] = deque(maxlen=limit)
        self._lost = 0

    def __call__(self, fact: Fact) -> None:
        """Keep a fact."""
        self._lost += len(self._facts) == self._facts.maxlen
        self._facts.append(fact)

    def take(self) -> tuple[list[Fact], int]:
        """Give the facts since the last time, and how many before them were lost."""
        taken, lost = list(self._facts), self._lost
        self._facts.clear()
        self._lost = 0
        return taken, lost
