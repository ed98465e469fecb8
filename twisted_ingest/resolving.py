"""
Looking up names in threads that nobody waits for.

The reactor joins the threads of its own pool before it ends, and a resolver whose servers are silent takes half a
minute and more: a stop would take as long.
"""

from threading import Thread
from typing import Any

from twisted.internet._resolver import GAIResolver
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.python.threadpool import ThreadPool

MOST_LOOKUPS = 8
"""Names that are looked up at a time; more wait. As many pollers and sinks as this may have silent name servers before
the names of others wait for them."""


def _unwaited(*arguments: Any, **named: Any) -> Thread:
    return Thread(*arguments, daemon=True, **named)


class UnwaitedResolver(GAIResolver):
    """Asks the system, in threads that end with the process. They are started with the first name."""

    def __init__(self, reactor: Any) -> None:
        self._pool: ThreadPool | None = None
        super().__init__(reactor, self._threads)

    def _threads(self) -> ThreadPool:
        if self._pool is None:
            self._pool = ThreadPool(0, MOST_LOOKUPS, "names")
            self._pool.threadFactory = _unwaited  # type: ignore[assignment]
            self._pool.start()
        return self._pool


def let_stop_not_wait(reactor: Any) -> None:
    """Have names looked up so that no stop waits for one; a resolver that an application has installed stays."""
    if IReactorPluggableNameResolver.providedBy(reactor) and type(reactor.nameResolver) is GAIResolver:
        reactor.installNameResolver(UnwaitedResolver(reactor))
