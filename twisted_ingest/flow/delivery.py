"""
Handing a group to a sink, whatever the sink makes of that, and hearing what it will never take.

The same for a sink before which there is a spool, and for one before which there is none.
"""

from asyncio import isfuture
from collections.abc import Callable
from functools import partial
from inspect import iscoroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

from twisted_ingest.batch import Group
from twisted_ingest.interfaces import ISink
from twisted_ingest.rejected import Rejected

OnBug = Callable[[str, Failure], None]
"""Hears of a bug that was caught: where it was met, and what was raised."""

OnRejected = Callable[[str, Rejected], "Deferred[None] | None"]
"""
Hears of records that a sink, by its name, will never take, before anybody counts their group as answered.

The group waits for the Deferred, where it gives one; until then the batches may be read, and a spool keeps what it has.
What is raised, or what that Deferred fails with, is a bug, which costs nothing else.
"""

_MARK = "ingest_answers_a_group"
"""The attribute of a Deferred that has been given for a group."""


class DeliveryOwner(Protocol):
    """Who hears what comes of deliveries beside their answers."""

    on_rejected: OnRejected
    on_bug: OnBug


def deliver(sink: ISink, group: Group, owner: DeliveryOwner) -> "Deferred[Rejected | None]":
    """
    Hand over a group; gives a Deferred of this group alone, whatever the sink makes of the call.

    It fires with what is rejected, once ``owner`` is done with that; with ``None`` where all was taken. It fails as
    `ISink.deliver` says: what is raised becomes its failure, a coroutine is run, and an answer that could tell nothing
    of what becomes of the group is a `TypeError`, a ``ValueError`` or an ``IndexError``.
    """
    try:
        answered = _answer(sink, sink.deliver(group))
    except Exception:  # noqa: BLE001 - the batches are those of innocent connections
        answered = fail()
    return answered.addCallback(_hear, sink, group, owner)


def _hear(
    answer: object, sink: ISink, group: Group, owner: DeliveryOwner
) -> "Deferred[Rejected | None] | Rejected | None":
    if not isinstance(answer, Rejected) or not answer.lost(group.batches):
        return None
    heard = maybeDeferred(owner.on_rejected, sink.name, answer)
    # They are rejected and counted as that, whatever became of them there.
    return heard.addErrback(partial(owner.on_bug, f"what sink {sink.name} rejects")).addCallback(lambda _: answer)


def _answer(sink: ISink, answer: object) -> "Deferred[Any]":
    if iscoroutine(answer):
        return Deferred.fromCoroutine(answer)
    if isfuture(answer):
        return Deferred.fromFuture(answer)
    if not isinstance(answer, Deferred):
        # None may be a forgotten `return`, a generator code that never ran: neither says that anything was taken.
        raise TypeError(
            f"deliver of sink {sink.name} returned {type(answer).__name__}: let it return a Deferred "
            "(succeed(None) for a group that it has taken at once), or make it a coroutine"
        )
    if _MARK in vars(answer):
        # Its first group has had the answer already, and left none for this one.
        raise TypeError(f"deliver of sink {sink.name} returned a Deferred again: each group needs one of its own")
    vars(answer)[_MARK] = True
    return answer
