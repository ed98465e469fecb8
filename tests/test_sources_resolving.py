"""Names are looked up in threads that no stop waits for."""

import threading
from typing import Any

from twisted.internet import reactor as real_reactor
from twisted.internet._resolver import GAIResolver
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorPluggableNameResolver, IResolutionReceiver
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from twisted_ingest.resolving import UnwaitedResolver, let_stop_not_wait


@implementer(IReactorPluggableNameResolver)
class Reactor:
    """A reactor whose own threads are waited for at a stop: nobody may ask for them."""

    def __init__(self, resolver: Any = None) -> None:
        self.nameResolver: Any = resolver or GAIResolver(self)  # type: ignore[arg-type]
        self.callFromThread = real_reactor.callFromThread  # type: ignore[attr-defined]

    def installNameResolver(self, resolver: Any) -> Any:
        before, self.nameResolver = self.nameResolver, resolver
        return before

    def getThreadPool(self) -> Any:
        raise AssertionError("the reactor waits for these threads")


@implementer(IResolutionReceiver)
class Receiver:
    """Tells when a name was looked up."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()

    def resolutionBegan(self, resolution: Any) -> None:
        """See the interface."""

    def addressResolved(self, address: Any) -> None:
        """See the interface."""

    def resolutionComplete(self) -> None:
        self.done.callback(None)


class ResolvingTests(TestCase):
    async def test_nobody_waits(self) -> None:
        """A name is looked up in a thread that does not outlive the process, and is none of the reactor's."""
        seen: list[bool] = []

        def look_up(*_: Any, **__: Any) -> list[Any]:
            seen.append(threading.current_thread().daemon)
            return []

        reactor, receiver = Reactor(), Receiver()
        let_stop_not_wait(reactor)
        resolver = reactor.nameResolver
        resolver._getaddrinfo = look_up
        self.addCleanup(lambda pool: pool.stop(), resolver._threads())
        resolver.resolveHostName(receiver, "a.name.example")
        await receiver.done
        self.assertEqual(seen, [True])

    def test_once(self) -> None:
        """It is installed once, and not over what an application has installed."""
        reactor = Reactor()
        let_stop_not_wait(reactor)
        first = reactor.nameResolver
        self.assertIsInstance(first, UnwaitedResolver)
        let_stop_not_wait(reactor)
        self.assertIs(reactor.nameResolver, first)
        theirs = Reactor(object())
        let_stop_not_wait(theirs)
        self.assertIs(type(theirs.nameResolver), object)
