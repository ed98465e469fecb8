"""Readiness: who can be read is read once a turn, whoever is paused or ends meanwhile is not; no descriptor is left."""

import errno
import os
import select
import socket
import sys
from typing import Any

from twisted.internet import main
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from twisted_ingest.server.readiness import (
    DENSE_SECONDS,
    HAS_EPOLL,
    REST_SECONDS,
    RETRY_SECONDS,
    ROUNDS_PER_TURN,
    TURN_SECONDS,
    Readiness,
)


class Watcher(Clock):
    """A reactor as far as watching goes."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = []
        self.is_full = False

    def addReader(self, reader: object) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:
        self.readers.remove(reader)


class Bugs(list[tuple[str, type[BaseException] | None]]):
    """Where bugs were met, and which."""

    def __call__(self, where: str) -> None:
        self.append((where, sys.exc_info()[0]))


class End:
    """One end of a real pair of sockets, as a transport is to a `Readiness`."""

    def __init__(self, case: SynchronousTestCase, readiness: Readiness) -> None:
        self.socket, self.peer = socket.socketpair()
        case.addCleanup(self.socket.close)
        case.addCleanup(self.peer.close)
        self.socket.setblocking(False)
        self._readiness = readiness
        self.seen: list[bytes] = []
        self.lost: list[object] = []
        self.on_read: Any = None
        readiness.add(self)

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> Exception | None:
        data = self.socket.recv(100)
        if not data:
            return main.CONNECTION_DONE
        self.seen.append(data)
        return self.on_read() if self.on_read is not None else None

    def readConnectionLost(self, reason: Failure) -> None:
        self.lost.append(type(reason.value))

    connectionLost = readConnectionLost

    def stopWriting(self) -> None:
        """Nothing is written here."""

    def abortConnection(self) -> None:
        self.lost.append("aborted")


class ReadinessTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not HAS_EPOLL:
            raise SkipTest("needs epoll (Linux)")
        self.reactor = Watcher()
        self.bugs = Bugs()
        self.readiness = Readiness(self.reactor, self.bugs, seconds=self.reactor.seconds)
        self.addCleanup(self.readiness.connectionLost, Failure(ConnectionLost()))

    def end(self) -> End:
        return End(self, self.readiness)

    def test_each_once_a_turn(self) -> None:
        """Everyone who has something to read is read once, nobody else, and the reactor watches one descriptor."""
        ends = [self.end() for _ in range(3)]
        for end in ends[:2]:
            end.peer.sendall(b"x")
        self.readiness.doRead()
        self.assertEqual([end.seen for end in ends], [[b"x"], [b"x"], []])
        self.assertEqual(self.reactor.readers, [self.readiness])

    def test_bulk_is_read_in_rounds(self) -> None:
        """While reads bring much and are quick, all are read once more, each as often as the other, within bounds."""
        first, second = self.end(), self.end()
        for end in (first, second):
            end.peer.sendall(b"x" * 10_000)
            end.on_read = self.note_bulk
        self.readiness.doRead()
        self.assertEqual((len(first.seen), len(second.seen)), (ROUNDS_PER_TURN, ROUNDS_PER_TURN))

        def slowly() -> None:
            self.note_bulk()
            self.reactor.advance(TURN_SECONDS)

        first.on_read = slowly
        self.readiness.doRead()
        self.assertEqual((len(first.seen), len(second.seen)), (ROUNDS_PER_TURN + 1, ROUNDS_PER_TURN + 1))

    def note_bulk(self) -> None:
        self.readiness.is_bulk = True

    def test_paused_by_a_neighbour(self) -> None:
        """Who is removed by a read before its own in the same turn is not read; added again, it is."""
        first, second = self.end(), self.end()
        for end in (first, second):
            end.peer.sendall(b"x")
        first.on_read = lambda: self.readiness.remove(second)
        second.on_read = lambda: self.readiness.remove(first)
        self.readiness.doRead()
        self.assertEqual(sorted([first.seen, second.seen]), [[], [b"x"]])
        unread = first if not first.seen else second
        unread.on_read = None
        self.readiness.add(unread)
        self.readiness.doRead()
        self.assertEqual(unread.seen, [b"x"])

    def test_ends(self) -> None:
        """The end of a peer ends its transport, an error or a bug too; the others are read all the same."""
        closed, broken, fine = self.end(), self.end(), self.end()
        closed.peer.close()
        broken.peer.sendall(b"x")
        fine.peer.sendall(b"x")

        def bug() -> None:
            raise ZeroDivisionError

        broken.on_read = bug
        self.readiness.doRead()
        self.assertEqual((closed.lost, broken.lost, fine.lost), ([ConnectionDone], [ZeroDivisionError], []))
        self.assertEqual(fine.seen, [b"x"])
        self.assertEqual(self.bugs, [("reading from a connection", ZeroDivisionError)])

    def test_bug_at_the_end(self) -> None:
        """Whoever cannot be ended, at an end of its peer or after a bug, is aborted; the others are read on."""
        closed, broken, fine = self.end(), self.end(), self.end()

        def bug(*_: object) -> None:
            raise ZeroDivisionError

        closed.peer.close()
        closed.readConnectionLost = bug  # type: ignore[assignment, method-assign]
        broken.peer.sendall(b"x")
        broken.on_read = broken.stopWriting = bug  # type: ignore[method-assign]
        for _ in range(3):
            fine.peer.sendall(b"x")
            self.readiness.doRead()
        self.assertEqual((closed.lost, broken.lost, fine.seen), (["aborted"], ["aborted"], [b"x"] * 3))
        self.assertEqual([where for where, _ in self.bugs].count("ending a connection"), 2)
        self.assertEqual(self.reactor.readers, [self.readiness])

    def test_bug_of_the_whole(self) -> None:
        """A turn of reading that fails as a whole is the last of nobody."""
        end = self.end()
        end.peer.sendall(b"x")
        seconds, self.readiness._seconds = self.readiness._seconds, lambda: 1 / 0
        self.readiness.doRead()
        self.readiness._seconds = seconds
        self.readiness.doRead()
        self.assertEqual((end.seen, self.bugs), ([b"x"], [("reading from a port", ZeroDivisionError)]))

    def test_closed_behind_our_back(self) -> None:
        """A socket closed without a word neither costs its remover an error nor the next with its number the watch."""
        forgotten = self.end()
        number = forgotten.fileno()
        forgotten.socket.close()
        other = self.end()
        self.assertEqual(other.fileno(), number)
        other.peer.sendall(b"x")
        self.readiness.doRead()
        self.assertEqual(other.seen, [b"x"])
        os.close(other.fileno())
        self.readiness.remove(other)
        other.socket.detach()

    def test_no_room_in_the_reactor(self) -> None:
        """Where the reactor cannot watch us nothing is held."""
        self.reactor.is_full = True
        before = len(os.listdir("/proc/self/fd"))
        self.assertRaises(OSError, Readiness, self.reactor, self.bugs)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_descriptor_stays(self) -> None:
        """
        Whoever is removed, the reactor watches the same descriptor.

        One made anew could get the number of a socket closed in the same turn of the reactor, and be taken for lost
        with that one.
        """
        end, number = self.end(), self.readiness.fileno()
        self.readiness.remove(end)
        self.readiness.remove(end)
        self.assertEqual((self.readiness.fileno(), self.reactor.readers), (number, [self.readiness]))
        self.readiness.doRead()  # called for what was to be read before
        self.readiness.add(end)
        end.peer.sendall(b"x")
        self.readiness.doRead()
        self.assertEqual((end.seen, self.readiness.fileno()), ([b"x"], number))

    def test_retires(self) -> None:
        """Once its port is closed and the last connection has left, be it watched or held back, nothing is held."""
        before = len(os.listdir("/proc/self/fd"))
        held_back, read = self.end(), self.end()
        self.readiness.retire()
        self.readiness.remove(held_back)
        self.readiness.remove(read)
        self.readiness.leave(read)
        self.assertNotEqual(self.readiness.fileno(), -1)
        self.readiness.add(held_back)
        self.readiness.remove(held_back)
        self.readiness.leave(held_back)
        self.assertEqual((self.reactor.readers, self.readiness.fileno()), ([], -1))
        # Two pairs more, both descriptors less.
        self.assertEqual(len(os.listdir("/proc/self/fd")), before + 4 - 2)

    def test_closed_socket(self) -> None:
        """One that is closed already is not watched."""
        end = self.end()
        self.readiness.remove(end)
        end.socket.close()
        self.readiness.add(end)
        other = self.end()
        other.peer.sendall(b"x")
        self.readiness.doRead()
        self.assertEqual(other.seen, [b"x"])


class RecallTests(SynchronousTestCase):
    """Whoever holds what it has not brought is read from although the kernel shows nothing."""

    def setUp(self) -> None:
        if not HAS_EPOLL:
            raise SkipTest("needs epoll (Linux)")
        self.reactor = Watcher()
        self.bugs = Bugs()
        self.readiness = Readiness(self.reactor, self.bugs, rests=True, seconds=self.reactor.seconds)
        self.addCleanup(self.readiness.connectionLost, Failure(ConnectionLost()))
        self.calls: list[str] = []

    def end(self, name: str, recalls: int = 0) -> End:
        """Make an end whose reads are noted, the first ``recalls`` of which ask to be called again."""
        end = End(self, self.readiness)
        left = [recalls]

        def read() -> None:
            self.calls.append(name)
            if left[0]:
                left[0] -= 1
                self.readiness.recall(end)

        end.doRead = read  # type: ignore[method-assign]
        return end

    def would_be_called(self) -> bool:
        """Whether the reactor, which watches the descriptor, would call."""
        return bool(select.select([self.readiness], [], [], 0)[0])

    def test_called_until_it_asks_no_more(self) -> None:
        """Each time it asks it is called once, a turn each, and then the reactor is left in peace."""
        end = self.end("a", recalls=2)
        self.readiness.doRead()
        self.assertEqual((self.calls, self.would_be_called()), ([], False))
        self.readiness.recall(end)
        turns = 0
        while self.would_be_called():
            self.readiness.doRead()
            turns += 1
        self.assertEqual((self.calls, turns), (["a"] * 3, 3))

    def test_once_a_round(self) -> None:
        """One that the kernel shows too is read once."""
        shown, recalled = self.end("shown"), self.end("recalled")
        shown.peer.sendall(b"x")
        self.readiness.recall(recalled)
        self.readiness.recall(shown)
        self.readiness.doRead()
        self.assertEqual(sorted(self.calls), ["recalled", "shown"])

    def test_no_rest(self) -> None:
        """A port does not rest while one of its connections asks."""
        end = self.end("a", recalls=3)
        self.readiness.recall(end)
        for watched in (True, True, True, False):
            self.readiness.doRead()
            self.assertEqual(self.readiness in self.reactor.readers, watched)

    def test_in_bulk_with_the_others(self) -> None:
        """While a port is read from in rounds, whoever asks is read in each of them."""
        end = self.end("a")

        def read() -> None:
            self.calls.append("a")
            self.readiness.is_bulk = True
            self.readiness.recall(end)

        end.doRead = read  # type: ignore[method-assign]
        self.readiness.recall(end)
        self.readiness.doRead()
        self.assertEqual(self.calls, ["a"] * ROUNDS_PER_TURN)

    def test_removed(self) -> None:
        """Whoever is removed is not read from, nor where it is watched again; and nobody calls for it."""
        end, other = self.end("a"), self.end("b")
        self.readiness.recall(end)
        self.readiness.remove(end)
        self.readiness.recall(end)
        self.readiness.add(end)
        self.readiness.doRead()
        self.assertEqual((self.calls, self.would_be_called()), ([], False))
        for each in (end, other):
            self.readiness.recall(each)
        self.readiness.remove(end)
        self.readiness.remove(other)
        self.readiness.doRead()
        self.assertFalse(self.would_be_called())

    def test_removed_by_a_neighbour(self) -> None:
        """Nor where that happens in the same round."""
        end, other = self.end("a"), self.end("b")
        other.doRead = lambda: self.readiness.remove(end)  # type: ignore[method-assign]
        self.readiness.recall(other)
        self.readiness.recall(end)
        self.readiness.doRead()
        self.assertEqual((self.calls, self.would_be_called()), ([], False))

    def test_retired_while_it_calls(self) -> None:
        """The last one may leave a closed port from inside its read."""
        end = self.end("a")
        self.readiness.retire()

        def read() -> None:
            self.readiness.recall(end)
            self.readiness.remove(end)
            self.readiness.leave(end)

        end.doRead = read  # type: ignore[method-assign]
        self.readiness.recall(end)
        self.readiness.doRead()
        self.assertEqual((self.readiness.fileno(), self.reactor.readers, self.bugs), (-1, [], []))


class RestTests(SynchronousTestCase):
    """Small reads that follow each other closely are made fewer and larger."""

    def setUp(self) -> None:
        if not HAS_EPOLL:
            raise SkipTest("needs epoll (Linux)")
        self.reactor = Watcher()
        self.bugs = Bugs()
        self.readiness = Readiness(self.reactor, self.bugs, rests=True, seconds=self.reactor.seconds)
        self.addCleanup(self.readiness.connectionLost, Failure(ConnectionLost()))
        self.end = End(self, self.readiness)

    def read(self, after: float) -> bool:
        """Read a line after a time; gives whether the reactor watches on."""
        self.reactor.advance(after)
        self.end.peer.sendall(b"x")
        self.readiness.doRead()
        return bool(self.reactor.readers)

    def test_no_room_after_a_rest(self) -> None:
        """Where the kernel has no room for the watch that was given up for a rest, it is asked again until it has."""
        self.read(0)
        self.read(0)
        self.reactor.is_full = True
        self.reactor.advance(REST_SECONDS)
        self.reactor.advance(RETRY_SECONDS)
        self.assertEqual(self.reactor.readers, [])
        self.reactor.is_full = False
        self.reactor.advance(RETRY_SECONDS)
        self.assertEqual(self.reactor.readers, [self.readiness])

    def test_lines_now_and_then(self) -> None:
        """A line that comes alone costs no timer."""
        self.assertTrue(self.read(0))
        self.assertTrue(self.read(DENSE_SECONDS))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close_together(self) -> None:
        """After the second of two that follow closely nothing is read for a while, and then again."""
        self.assertTrue(self.read(0))
        self.assertFalse(self.read(DENSE_SECONDS / 2))
        self.reactor.advance(REST_SECONDS)
        self.assertEqual(self.reactor.readers, [self.readiness])

    def test_bulk(self) -> None:
        """Nobody rests while a peer has more than a small read can take."""

        def more() -> None:
            self.readiness.is_bulk = True

        self.end.on_read = more
        self.assertTrue(all(self.read(0) for _ in range(3)))

    def test_long_turn(self) -> None:
        """A turn that took as long as the rest would is followed by the next at once."""
        self.end.on_read = lambda: self.reactor.advance(REST_SECONDS)
        self.assertTrue(all(self.read(0) for _ in range(3)))

    def test_ends_while_resting(self) -> None:
        """The last connection of a closed port that leaves takes the timer with it."""
        self.read(0)
        self.read(0)
        self.readiness.retire()
        self.readiness.remove(self.end)
        self.readiness.leave(self.end)
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))

    def test_ends_all_while_resting(self) -> None:
        """The reactor's end leaves no timer either."""
        self.read(0)
        self.read(0)
        self.readiness.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
