"""Whoever subscribes hears every fact as plain values, and costs nobody anything, however it behaves."""

import json
from collections.abc import Callable
from typing import NoReturn

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from tests.test_observe_events import HOSTILE, PEER, EventsTestCase, bug
from twisted_ingest.batch import ConnectionInfo
from twisted_ingest.errors import CloseReason
from twisted_ingest.observe import facts
from twisted_ingest.observe.facts import Backlog, Fact
from twisted_ingest.observe.folding import BURST
from twisted_ingest.testing import Rig


class SubscriptionTests(EventsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.heard: list[Fact] = []

    def kinds(self) -> list[str]:
        """Give what was heard."""
        return [fact.kind for fact in self.heard]

    def test_every_fact(self) -> None:
        """An observer hears what the log folds, and the log what it logged without an observer."""
        self.events.subscribe(self.heard.append)
        for _ in range(BURST + 5):
            self.oversize()
        self.assertEqual(self.kinds(), ["record_oversize"] * (BURST + 5))
        self.assertEqual((len(self.seen.events), self.events.log.suppressed), (BURST, 5))

    def test_plain_and_escaped(self) -> None:
        """A fact is words and numbers, of which nothing steers a terminal, and says in words what happened."""
        self.events.subscribe(self.heard.append)
        info = ConnectionInfo(1, "unix", HOSTILE, None)
        self.events.connection_closed(self.ledger, info, CloseReason.EOF, 3, 2048)
        self.events.record_oversize(info, 1024, "truncate", HOSTILE.encode())
        for fact in self.heard:
            self.assertTrue(all(isinstance(value, str | int | float) for value in fact.fields.values()), fact)
            self.assertTrue(json.dumps(fact.fields, ensure_ascii=False).isprintable(), fact)
            self.assertTrue(fact.message.isprintable())
        self.assertEqual(self.heard[0].level, LogLevel.info)
        self.assertTrue(self.heard[0].message.endswith(" closed (#1): eof, 3 records, 2KiB"), self.heard[0].message)

    def test_the_same_words_as_the_log(self) -> None:
        """What an observer reads is what the log says."""
        self.events.subscribe(self.heard.append)
        self.oversize()
        self.events.sink_failed("file", "gone")
        self.fail()
        self.assertEqual([fact.message for fact in self.heard], self.seen.lines)

    def test_unsubscribe(self) -> None:
        """Who has left hears nothing more, may leave again, and takes nobody along."""
        leave, stay = self.events.subscribe(self.heard.append), list[Fact]()
        self.events.subscribe(stay.append)
        self.oversize()
        leave()
        leave()
        self.oversize()
        self.assertEqual((len(self.heard), len(stay)), (1, 2))

    def test_twice(self) -> None:
        """An observer that subscribes twice hears everything twice, and leaves once each."""
        leave = self.events.subscribe(self.heard.append)
        self.events.subscribe(self.heard.append)
        self.oversize()
        leave()
        self.oversize()
        self.assertEqual(len(self.heard), 3)

    def test_leaving_while_told(self) -> None:
        """An observer may leave, and another come, in the middle of a fact."""

        def once(fact: Fact) -> None:
            self.heard.append(fact)
            leave()
            self.events.subscribe(self.heard.append)

        leave = self.events.subscribe(once)
        self.oversize()
        self.oversize()
        self.assertEqual(len(self.heard), 2)

    def test_sent_away_while_told(self) -> None:
        """Whoever is sent away by another observer in the middle of a fact does not hear it any more."""
        leave: list[Callable[[], None]] = []
        self.events.subscribe(lambda _: leave[0]())
        leave.append(self.events.subscribe(self.heard.append))
        self.oversize()
        self.assertEqual(self.heard, [])

    def test_one_that_raises(self) -> None:
        """An observer that raises is a bug of its own: counted and told once, and it hears no more."""
        calls = []

        def raising(fact: Fact) -> NoReturn:
            calls.append(fact)
            bug("an observer's")

        self.events.subscribe(raising)
        self.events.subscribe(self.heard.append)
        self.oversize()
        self.oversize()
        self.assertEqual((len(calls), self.events.internal_errors), (1, 1))
        self.assertEqual(sorted(self.kinds()), ["internal_error", "record_oversize", "record_oversize"])
        self.assertIn("internal error in an observer of events", self.seen.lines)
        self.assertIn("an observer's", self.seen.events[1]["log_failure"].getTraceback())

    def test_all_raise(self) -> None:
        """However many raise, every fact is logged, and each of them costs one line."""
        for _ in range(BURST - 1):
            self.events.subscribe(lambda _: bug())
        self.oversize()
        self.oversize()
        self.assertEqual(self.events.internal_errors, BURST - 1)
        self.assertEqual([event["event"] for event in self.seen.events].count("record_oversize"), 2)

    def test_a_bug(self) -> None:
        """Others read where a bug was met; its traceback, and all that this holds, is the log's."""
        self.events.subscribe(self.heard.append)
        self.fail("the bug")
        expected = {"where": "dataReceived", "listener": PEER.listener, "peer": PEER.peer, "conn": PEER.id}
        self.assertEqual(dict(self.heard[0].fields), expected)
        self.assertIn("the bug", self.seen.events[0]["log_failure"].getTraceback())

    def test_nothing_is_built_for_nobody(self) -> None:
        """Without an observer no fact is made of what happens."""
        self.patch(facts, "Fact", lambda *_: bug("made for nobody"))
        self.oversize()
        self.events.sink_failed("file", "gone")
        self.fail()
        self.assertEqual((len(self.seen.events), self.events.internal_errors), (3, 1))


class BacklogTests(EventsTestCase):
    def test_slower_than_the_facts(self) -> None:
        """Who reads seldom has the latest facts, knows how many it has missed, and holds no more of them."""
        backlog = Backlog(3)
        self.events.subscribe(backlog)
        for number in range(10):
            self.events.connection_opened(
                self.ledger, ConnectionInfo(number, "tcp-1514", "192.0.2.1:40000", "192.0.2.1")
            )
        found, lost = backlog.take()
        self.assertEqual(([fact.fields["conn"] for fact in found], lost), ([7, 8, 9], 7))
        self.assertEqual(backlog.take(), ([], 0))

    def test_fast_enough(self) -> None:
        """Who keeps up loses nothing."""
        backlog = Backlog(3)
        self.events.subscribe(backlog)
        for _ in range(5):
            self.oversize()
            found, lost = backlog.take()
            self.assertEqual((len(found), lost), (1, 0))


class RigTests(SynchronousTestCase):
    def test_of_a_connection(self) -> None:
        """What happens on a connection is heard in the order it happens."""
        rig, heard = Rig(max_record_bytes=10), list[Fact]()
        rig.events.subscribe(heard.append)
        transport = rig.send(b"x" * 20 + b"\n")
        transport.peer_closes()
        transport.pump()
        expected = ["connection_opened", "record_oversize", "connection_closed"]
        self.assertEqual([fact.kind for fact in heard], expected)
