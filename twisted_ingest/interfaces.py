"""
The seams: how records come in, how they are handed over in batches, and how a sink takes groups of them.

Only contracts live here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import Attribute, Interface

from twisted_ingest.batch import Batch, Group
from twisted_ingest.errors import Durability
from twisted_ingest.ledger import ListenerLedger, SourceBalance


class IBatchProducer(IPushProducer):
    """
    A connection as its lane sees it.

    The lane calls ``pauseProducing`` and ``resumeProducing`` when it has come to be paused or has ceased to be: each at
    most once in a row, and never ``resumeProducing`` before a pause. Others may call them too.
    """

    def evict_partial() -> None:
        """
        Give up the unfinished record because such records fill their share of the budget.

        Called from inside the call of any producer's ``IBatchConsumer.hold``, the own one included.
        """

    def fail(where: str) -> None:  # noqa: N805
        """
        End on account of a bug: this producer raised in ``where``. Called inside the ``except`` block; never raises.
        """


class IAnsweringProducer(IBatchProducer):
    """A connection that answers its peer, and therefore wants to hear what became of its batches."""

    def settled(count: int) -> None:  # noqa: N805
        """
        Hear that the oldest ``count`` batches not heard of yet are safe: every required sink has taken them.

        May be called from inside ``IBatchConsumer.write``.
        """

    def refused() -> None:
        """Hear that a required sink will never take the next batch; nothing is heard afterwards."""


class IBatchConsumer(Interface):
    """
    What a connection writes to: a lane.

    Deliberately not Twisted's ``IConsumer``: that one carries bytes.
    """

    def registerProducer(producer: IBatchProducer, streaming: bool) -> None:  # noqa: N805
        """Attach the one producer; ``streaming`` must be true. It may be paused before this returns."""

    def unregisterProducer() -> None:
        """Detach the producer. What it wrote stays with the lane until it is settled."""

    def write(batch: Batch) -> None:  # noqa: N805
        """
        Take a batch; never refuses.

        May call the producer's ``pauseProducing`` before it returns.
        """

    def hold(size: int, since: float) -> None:  # noqa: N805
        """
        Say how many bytes of memory an unfinished record takes now, zero for none.

        ``since`` is when its first byte came, in reactor seconds: the oldest are evicted first.
        """


class ISink(Interface):
    """
    A final taker of groups.

    The intake calls ``deliver`` without waiting for earlier calls; a sink keeps their order.
    A sink that meets a passing condition waits and tries again by itself.
    """

    name: str = Attribute("The sink's configured name: a metric label.")
    durability: Durability = Attribute(
        "The most that is true of a record once its Deferred has fired. Listeners that answer are refused a required "
        "sink that gives less than they promise."
    )
    wants_groups: bool = Attribute("Whether a call of ``deliver`` is dear, so that batches had better be gathered.")
    trouble: str | None = Attribute("Why nothing is being taken at the moment, for ``/readyz``; ``None``: all is well.")

    def describe() -> str:
        """Say in a few words where records go, for the banner and ``/status``."""

    def start() -> None:
        """
        Acquire files and threads, or raise and leave nothing behind: it may be called again.

        Raises ``MisconfiguredError`` where only another configuration could help, and ``SinkError`` where it cannot
        start as things are: either ends the start of the process. Behind a spool the second does not: the spool takes
        records, and calls this again later.
        """

    def deliver(group: Group) -> "Deferred[Any]":  # noqa: N805
        """
        Take a group of batches.

        Returns a Deferred of this group alone, or is a coroutine. It fires once the sink has taken responsibility, and,
        where the group ``needs_sync``, the device has said that it has the records. The sink may keep the group until
        then, and not after: the bytes of its batches may be views of buffers that are used again, where any use raises
        ``ValueError``. What is kept for longer is ``batch.copy()``; what ``batch.records()`` gives is the sink's own.
        It fires with

        - ``Rejected``, which names the records that the sink will never take, whoever brings them: all others it has
          taken. They are dropped and counted, and their senders are answered as for the rest: who brings a record again
          that is never taken brings it for ever.
        - anything else, such as ``None``: it has taken them all.

        What passes is no answer: the sink waits, and tries again in order. The Deferred fails with

        - ``SinkError`` once the sink has failed for good: until it is started anew it takes nothing any more. The group
          is dropped and counted, senders that wait for an answer get none, and the process stops where the sink is
          required; a spool in front stops bringing records, and keeps them for the next start.
        - anything else, which may be raised as well, on account of a bug. It is counted, and costs the group; a spool
          in front, which has it still, brings it again, later and later.

        ``None`` or any other value in place of a Deferred says nothing of what became of the group, and a ``Rejected``
        of what was not in it neither: those are such bugs too.
        """

    def reopen() -> None:
        """Let go of files that were rotated away and open new ones (SIGHUP, SIGUSR1)."""

    def close() -> "Deferred[None]":
        """
        Finish what was delivered, then let go of everything.

        Returns a Deferred that fires with ``None``. Callers bound the wait; ``abandon`` ends it.
        One that raises or fails is a bug, counted and logged; the sink is abandoned, the others are closed.
        """

    def abandon() -> None:
        """Stop trying. What was not taken fails with ``SinkError``."""

    def details() -> Mapping[str, float]:
        """
        Give the sink's own counters, by the ends of their metric names; all known in advance.

        Behind a slash may stand what a label says: ``requests/taken``. Whose they are, and what they mean, is in
        `twisted_ingest.observe.details`.
        """


class ILiveConnection(Interface):
    """A connection as those see it who only look."""

    records: int = Attribute("Records framed so far.")

    def status(now: float) -> Mapping[str, Any]:  # noqa: N805
        """Give its row of ``/connections``, plain values, what came from the peer escaped; ``now``: reactor seconds."""


class ISource(Interface):
    """
    Where records come from: all that the service, those who look at it and the banner know of it.

    A source hands batches to lanes it opens, and keeps the two identities of its ledger. It is bound, started, swept
    every second, stopped and drained in this order; a failed start stops it from wherever it is. A source that raises
    where no error is named has a bug: it is counted, and costs the others nothing.
    """

    name: str = Attribute("The configured name: the metric label ``listener``.")
    protocol: str = Attribute("How records come, in one word of the configuration.")
    durability: Durability = Attribute("What it asks of the sinks.")
    answers: bool = Attribute("Whether senders are told what is safe; its ledger counts the answers then.")
    ledger: ListenerLedger = Attribute("Its counts.")
    route: Any = Attribute(
        "The way of its records to their sinks, a `Route` of the intake: it is weighed against the ``outlets`` of that "
        "only."
    )
    trouble: str | None = Attribute(
        "Why it can take nothing although it should, for ``/readyz``; ``None``: all is well, as far as that lies here."
    )
    is_up: bool = Attribute("Whether records can come, as far as is known.")

    def describe() -> str:
        """Say in a few words, the first a verb, what it does and where: for the banner."""

    def hints() -> Sequence[tuple[str, str]]:
        """Give what to tell somebody who has just started it: a word and a line each."""

    def bind() -> None:
        """Acquire what may take root to have. Raises ``ListenError`` or ``SourceError``; called once."""

    def start() -> None:
        """Begin to bring records, without waiting for anybody. The sinks are open."""

    async def stop() -> None:
        """Bring nothing new: what is under way goes on. Callable at any time, and again."""

    def connections() -> Mapping[int, ILiveConnection]:
        """Give the live connections by number: the mapping itself, which changes as they come and go."""

    def sweep(now: float, overslept: float) -> None:  # noqa: N805
        """Look at deadlines. For ``overslept`` seconds up to now the process was not running."""

    def balance() -> SourceBalance:
        """Recount what is held, from the live objects."""

    def status() -> Mapping[str, Any]:
        """Give its row of ``/status``: plain values, no secret among them."""

    is_drained: bool = Attribute("Whether nothing is under way any more.")

    def begin_drain() -> None:
        """Finish what is under way, from now on with a deadline. Called after ``stop``."""

    def drain(now: float) -> None:  # noqa: N805
        """End what is done; called several times a second until all ``is_drained``, or the deadline."""

    def end_drain() -> None:
        """Cut off what is left, and count it. The deadline has come."""


class IListener(ISource):
    """A source that others connect to."""

    port: Any = Attribute("The port it became, Twisted's ``IListeningPort``; ``None`` while it does not listen.")
    address: str | None = Attribute("Where it listens in fact; ``None`` while it does not.")

    def open_gate() -> None:
        """Accept again: there is room below the cap on connections."""

    def renew() -> None:
        """Read anew the certificates that it shows, and those of whoever may connect (SIGHUP)."""

    def set_protocol(protocol: type[Any]) -> None:  # noqa: N805
        """
        Let the connections to come be of this class.

        Raises ``TypeError``, and ``ValueError`` where this listener cannot have what the class declares.
        """
