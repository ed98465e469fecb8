"""HTTP pollers: what they ask, how often, what becomes of the body, and what they say of themselves."""

import json
import os
from base64 import b64decode
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.python import log
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.polling import TURNS, PollingTestCase, Talker, answer, header
from twisted_ingest.admin.survey import Survey
from twisted_ingest.errors import DiscardReason, PollResult, Redirects, SourceError
from twisted_ingest.flow.drain import DRAIN_TICK, drain_sources
from twisted_ingest.limits import MIB
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.observe.metrics import build_registry
from twisted_ingest.server.admission import Admission
from twisted_ingest.sources.plan import PollPlan
from twisted_ingest.sources.poller import HttpPoller
from twisted_ingest.sources.timetable import LONGEST_BACKOFF, LONGEST_RETRY_AFTER
from twisted_ingest.sources.url import Url
from twisted_ingest.testing import StalledSink

LINES = b"one\ntwo\r\n\nthree"

reactor: Any = the_reactor


class Page(Resource):
    """What a stock server of Twisted's says."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """Answer, by the version that is asked for."""
        if request.setETag(b'"v1"') is not None:
            return b""
        return LINES


class PollTests(PollingTestCase):
    async def test_body_as_lines(self) -> None:
        """A body arrives as lines, the last one too; all its bytes are accounted for, and the intervals are kept."""
        script = self.serve(answer(LINES))
        poller = await self.once(self.url(script))
        self.assertEqual(self.sink.records, [b"one", b"two", b"three"])
        ledger = poller.ledger
        self.assertEqual((ledger.bytes_received, ledger.bytes_accepted, ledger.bytes_framing), (len(LINES), 11, 4))
        self.assertEqual((ledger.records_partial, ledger.records_empty), (0, 1))
        self.assertEqual(header(script.requests[0], "Accept-Encoding"), "identity")
        self.clock.advance(58)
        self.assertEqual(ledger.polls_begun, 1)
        self.clock.advance(2)
        self.assertEqual(ledger.polls_begun, 2)
        self.assertEqual(await self.done(poller, 2), [PollResult.OK, PollResult.OK])

    async def test_polls_that_go_well_are_not_logged(self) -> None:
        """Nothing is logged for a poll that goes well: a poller asks all day."""
        said: list[str] = []

        def hear(event: Any) -> None:
            text = log.textFromEventDict(event) or ""
            # The test's own ports and the sink's are no business of a poll.
            said.extend([text] if "actory" in text else [])

        log.addObserver(hear)
        self.addCleanup(log.removeObserver, hear)
        await self.once(self.url(self.serve(answer(LINES))))
        await self.turn()
        self.assertEqual(said, [])

    async def test_stock_server(self) -> None:
        """A server of Twisted's own is asked by its ETag, and says 304."""
        port: Any = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        poller = await self.once(f"http://127.0.0.1:{port.getHost().port}/")
        self.clock.advance(60)
        self.assertEqual(await self.done(poller, 2), [PollResult.OK, PollResult.NOT_MODIFIED])
        self.assertEqual(len(self.sink.records), 3)

    async def test_conditional(self) -> None:
        """ETag and Last-Modified are sent back as they came; 304 and 204 bring nothing and keep them."""
        date = "Wed, 21 Oct 2015 07:28:00 GMT"
        script = self.serve(answer(b"a\n", "200 OK", 'ETag: W/"x y"', f"Last-Modified: {date}"), answer(b"", "304 Not"))
        script.answers[0], script.answers[1] = (
            answer(b"a\n", "200 OK", 'ETag: W/"xy"', f"Last-Modified: {date}"),
            b"HTTP/1.1 304 Not Modified\r\n\r\n",
        )
        poller = await self.once(self.url(script))
        for polls in (2, 3):
            self.clock.advance(60)
            await self.done(poller, polls)
        asked = [(header(each, "If-None-Match"), header(each, "If-Modified-Since")) for each in script.requests]
        self.assertEqual(asked, [(None, None), ('W/"xy"', date), ('W/"xy"', date)])
        self.assertEqual((self.sink.records, poller.is_up), ([b"a"], True))

    async def test_never_two_at_once(self) -> None:
        """A poll that takes longer than the interval is not overtaken by the next."""
        script = self.serve(lambda _: None)
        poller = self.poller(self.url(script), interval_seconds=1.0, timeout_seconds=100.0)
        self.clock.advance(1)
        await self.until(lambda: script.requests)
        self.clock.advance(50)
        self.assertEqual((poller.ledger.polls_begun, len(script.requests)), (1, 1))
        script.open[0].transport.write(answer(b"late\n"))
        self.assertEqual(await self.done(poller), [PollResult.OK])
        self.clock.advance(0)
        self.assertEqual(poller.ledger.polls_begun, 2)

    async def test_time_limit(self) -> None:
        """A server that does not answer, or stops in the middle, is given up after the time limit, once."""
        partial = answer(b"whole\nhal", length=100)
        script = self.serve(lambda _: None, partial)
        poller = self.poller(self.url(script), timeout_seconds=10.0)
        self.clock.advance(1)
        await self.until(lambda: script.requests)
        poller.sweep(self.clock.seconds(), 0.0)
        self.assertFalse(poller.is_drained)
        self.clock.advance(10)
        poller.sweep(self.clock.seconds(), 0.0)
        self.assertEqual(await self.done(poller), [PollResult.TIMEOUT])
        self.clock.advance(LONGEST_BACKOFF)
        await self.until(lambda: poller.balance().buffered_bytes)
        self.clock.advance(10)
        poller.sweep(self.clock.seconds(), 0.0)
        self.assertEqual(await self.done(poller, 2), [PollResult.TIMEOUT] * 2)
        self.assertEqual(self.sink.records, [b"whole"])
        self.assertEqual(poller.ledger.bytes_discarded[DiscardReason.UNFINISHED], 3)
        self.assertEqual((poller.is_up, poller.trouble), (False, None))

    async def test_slept(self) -> None:
        """Time that the process slept counts towards no time limit."""
        script = self.serve(lambda _: None)
        poller = self.poller(self.url(script), timeout_seconds=10.0)
        self.clock.advance(1)
        await self.until(lambda: script.requests)
        self.clock.advance(500)
        poller.sweep(self.clock.seconds(), 500.0)
        self.assertFalse(poller.is_drained)

    async def test_validator_of_a_whole_body_only(self) -> None:
        """A body that was cut off is asked for again, unconditionally; whole lines of it are delivered."""

        def cut(talker: Talker) -> None:
            talker.transport.write(answer(b"one\ntw", "200 OK", 'ETag: "v1"', length=7))
            talker.transport.loseConnection()

        script = self.serve(cut, answer(b"one\ntwo", "200 OK", 'ETag: "v1"'))
        poller = await self.once(self.url(script))
        self.assertEqual((self.sink.records, poller.ledger.polls[PollResult.UNFINISHED]), ([b"one"], 1))
        self.clock.advance(LONGEST_BACKOFF)
        await self.done(poller, 2)
        self.clock.advance(60)
        await self.done(poller, 3)
        self.assertEqual([header(each, "If-None-Match") for each in script.requests], [None, None, '"v1"'])
        self.assertEqual(self.sink.records, [b"one", b"one", b"two", b"one", b"two"])

    async def test_body_that_ends_with_its_connection(self) -> None:
        """Without a length or chunks an orderly end is the body's, and a last line without LF is marked partial."""

        def closing(talker: Talker) -> None:
            talker.transport.write(b'HTTP/1.0 200 OK\r\nETag: "v1"\r\n\r\none\ntwo')
            talker.transport.loseConnection()

        def resetting(talker: Talker) -> None:
            talker.transport.write(b"HTTP/1.0 200 OK\r\n\r\none\ntwo")
            reactor.callLater(0.05, talker.transport.abortConnection)

        script = self.serve(closing, resetting)
        poller = await self.once(self.url(script))
        self.assertEqual((self.sink.records, poller.ledger.records_partial), ([b"one", b"two"], 1))
        self.clock.advance(60)
        self.assertEqual(await self.done(poller, 2), [PollResult.OK, PollResult.UNFINISHED])
        self.assertEqual(header(script.requests[1], "If-None-Match"), '"v1"')

    async def test_errors_back_off(self) -> None:
        """After each error the wait grows, by chance, up to its bound; what goes well ends that."""
        script = self.serve(answer(b"no\n", "503 Busy"))
        poller = await self.once(self.url(script))
        waits = []
        for polls in range(2, 8):
            waits.append(poller.status()["next_seconds"])
            self.clock.advance(LONGEST_BACKOFF)
            await self.done(poller, polls)
        self.assertTrue(60 <= waits[0] <= 120, waits)
        self.assertTrue(LONGEST_BACKOFF / 2 <= waits[-1] <= LONGEST_BACKOFF, waits)
        self.assertEqual((self.sink.records, poller.ledger.bytes_received), ([], 0))
        script.answers = [answer(b"yes\n")]
        self.clock.advance(LONGEST_BACKOFF)
        await self.done(poller, 8)
        self.assertTrue(59 <= poller.status()["next_seconds"] <= 60)
        self.assertTrue(poller.is_up)

    async def test_retry_after(self) -> None:
        """A server says when it wants to be asked again, in seconds or as a date; not for ever."""
        for value, least, most in (
            ("300", 300, 300),
            ("Thu, 01 Jan 1970 00:08:00 GMT", 470, 480),
            ("999999999", LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER),
            ("soon", 60, 120),
            ("-5", 60, 120),
        ):
            poller = await self.once(self.url(self.serve(answer(b"", "429 Slow", f"Retry-After: {value}"))))
            wait = poller.status()["next_seconds"]
            self.assertTrue(least - 0.1 <= wait <= most, (value, wait))
            self.assertEqual(poller.ledger.polls[PollResult.THROTTLED], 1)

    async def test_statuses(self) -> None:
        """Each status is counted as what it is, and no body but that of an answer becomes records."""
        for status, result in (
            ("204 None", PollResult.OK),
            ("404 No", PollResult.CLIENT_ERROR),
            ("500 Oh", PollResult.SERVER_ERROR),
            ("206 Part", PollResult.STATUS),
            ("300 Choose", PollResult.STATUS),
            ("999 What", PollResult.STATUS),
        ):
            body = b"" if status.startswith("204") else b"a page of errors\n"
            poller = await self.once(self.url(self.serve(answer(body, status))))
            self.assertEqual(poller.ledger.polls[result], 1, status)
            self.assertEqual(poller.status()["last_status"], int(status[:3]))
        self.assertEqual(self.sink.records, [])

    async def test_nobody_there(self) -> None:
        """Who is not there is asked again later; neither the start nor /readyz depend on it."""
        port: Any = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        for host in (f"127.0.0.1:{number}", "name.invalid"):
            poller = await self.once(f"http://{host}/")
            self.assertEqual(poller.ledger.polls[PollResult.CONNECT], 1, host)
            self.assertIsNone(poller.trouble)


class SeenCase(PollingTestCase):
    def survey(self, *sources: Any) -> Survey:
        """Look at pollers as the admin endpoint does."""
        survey = Survey(
            sources=list(sources),
            intake=self.intake,
            admission=Admission(1),
            events=self.events,
            log=LogWriter(),
            seconds=self.clock.seconds,
            wall_time=self.clock.seconds,
            limits={},
        )
        survey.state = "ready"
        return survey


class SeenTests(SeenCase):
    async def test_status(self) -> None:
        """``/status`` has a row for each poller, without what is secret, and counts those that run."""
        script = self.serve(answer(LINES), answer(b"", "500 Oh"))
        good = await self.once(self.url(script, "/log?token=s3cret"))
        idle = HttpPoller(
            "idle",
            PollPlan(url=Url.parse("http://192.0.2.1/")),
            intake=self.intake,
            events=self.events,
            clock=self.clock,
            reactor=reactor,
            wall_time=self.clock.seconds,
            ids=self.ids,
        )
        survey = self.survey(good, idle)
        http = survey.status()["http"]
        self.assertEqual(http["active_pollers"], 1)
        row = http["pollers"][0]
        self.assertEqual(row["url"], self.url(script, "/log?..."))
        self.assertNotIn("s3cret", json.dumps(http))
        seen = {key: row[key] for key in ("last_result", "last_status", "records", "errors", "polls", "polling")}
        self.assertEqual(
            seen,
            {"last_result": "ok", "last_status": 200, "records": 3, "errors": 0, "polls": 1, "polling": False},
        )
        self.assertTrue(0 <= row["last_age_seconds"] < 1 and 59 <= row["next_seconds"] <= 60, row)
        self.assertEqual(survey.status()["listeners"], [])
        self.clock.advance(60)
        await self.done(good, 2)
        row = survey.status()["http"]["pollers"][0]
        self.assertEqual((row["last_result"], row["last_status"], row["errors"]), ("server_error", 500, 1))
        # Who cannot be asked is no reason to take this server out of its work.
        self.assertEqual(survey.reasons(), [])

    async def test_metrics(self) -> None:
        """Every result is a series from the start; what is under way shows while it is."""
        script = self.serve(lambda _: None)
        poller = self.poller(self.url(script))
        registry = build_registry(self.survey(poller))

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, {"listener": poller.name, **labels})

        for result in PollResult:
            self.assertEqual(value("ingest_polls_total", result=result.value), 0)
        self.assertEqual(value("ingest_poll_active"), 0)
        self.clock.advance(1)
        await self.until(lambda: script.requests)
        self.assertEqual((value("ingest_poll_active"), value("ingest_listener_up")), (1, 1))
        script.open[0].transport.write(answer(LINES))
        await self.done(poller)
        self.assertEqual((value("ingest_poll_active"), value("ingest_polls_total", result="ok")), (0, 1))
        self.assertEqual(value("ingest_listener_received_bytes_total"), len(LINES))
        self.assertEqual(registry.get_sample_value("ingest_conservation_error"), 0)


class RetiredTests(SeenCase):
    async def test_not_while_polling(self) -> None:
        """A poller is not let go of while a poll is under way, which counts on; afterwards its counts stay."""
        poller = self.poller(self.url(self.serve(answer(LINES))))
        survey = self.survey(poller)
        self.clock.advance(1)
        self.assertFalse(poller.is_drained)
        self.assertRaises(ValueError, survey.retire, poller)
        await self.done(poller, 1)
        survey.retire(poller)
        self.assertEqual(survey.conservation_error(), 0)


class PressureTests(PollingTestCase):
    sink: StalledSink

    def make_sink(self) -> StalledSink:
        return StalledSink()

    async def test_stalled_sink_pauses(self) -> None:
        """A sink that takes nothing stops the reading of a body, for as long as it takes; then all of it arrives."""
        body = (b"x" * 99 + b"\n") * 100_000  # ten times what a lane may hold
        script = self.serve(answer(body, "200 OK", 'ETag: "v1"'))
        poller = self.poller(self.url(script), timeout_seconds=10.0)
        self.clock.advance(1)
        await self.until(lambda: poller.status()["paused"])
        taken = poller.ledger.bytes_received
        for _ in range(20):
            self.clock.advance(100)
            poller.sweep(self.clock.seconds(), 0.0)
            await self.turn()
        # It is neither read from nor given up: the sockets' buffers hold the server.
        self.assertEqual((poller.ledger.bytes_received, poller.ledger.polls_begun), (taken, 1))
        self.assertLess(taken, 2 * MIB)
        for _ in range(TURNS):
            if not poller.is_drained:
                self.sink.release()
                self.clock.advance(0.01)
                await self.turn()
        self.assertEqual(await self.done(poller), [PollResult.OK])
        self.sink.release()
        self.assertEqual(poller.ledger.records_framed, 100_000)
        self.check(poller)

    async def test_paused_lane_pauses_polls(self) -> None:
        """A poll that is due while the lane is paused waits until it is no longer, and is one then."""
        poller = await self.once(self.url(self.serve(answer(b"one\n"))))
        poller.lane.rest(1000)
        self.clock.advance(500)
        self.assertEqual((poller.ledger.polls_begun, poller.status()["paused"]), (1, "rate"))
        self.clock.advance(500)
        self.clock.advance(0)
        self.assertEqual(poller.ledger.polls_begun, 2)
        await self.done(poller, 2)
        self.sink.release()

    async def test_stop_while_due(self) -> None:
        """A poll that waits for its lane is not begun by a stop, nor after it."""
        poller = await self.once(self.url(self.serve(answer(b"one\n"))))
        poller.lane.rest(1000)
        self.clock.advance(500)
        await poller.stop()
        self.clock.advance(1000)
        self.assertEqual((poller.ledger.polls_begun, poller.lane.producer), (1, None))
        self.sink.release()


class StopTests(PollingTestCase):
    def drain(self, poller: HttpPoller) -> "Deferred[None]":
        """Stop as the service does, the deadline 5 s from now."""

        async def stop() -> None:
            await poller.stop()
            await drain_sources(self.clock, [poller], self.clock.seconds() + 5, self.events.bug)

        return Deferred.fromCoroutine(stop())

    async def test_idle(self) -> None:
        """Between two polls a stop takes no time, and nothing is asked afterwards."""
        script = self.serve(answer(LINES))
        poller = await self.once(self.url(script))
        stopped = self.drain(poller)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.clock.advance(1000)
        self.assertEqual(poller.ledger.polls_begun, 1)

    async def test_nothing_has_come(self) -> None:
        """A poll without its answer is given up at once."""
        script = self.serve(lambda _: None)
        poller = self.poller(self.url(script))
        self.clock.advance(1)
        await self.until(lambda: script.requests)
        stopped = self.drain(poller)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(poller.ledger.polls[PollResult.STOPPED], 1)

    async def test_body_under_way(self) -> None:
        """A body under way is read to its end."""
        script = self.serve(answer(b"one\n", length=8))
        poller = self.poller(self.url(script))
        self.clock.advance(1)
        await self.until(lambda: poller.ledger.bytes_received)
        stopped = self.drain(poller)
        self.clock.advance(DRAIN_TICK)
        self.assertNoResult(stopped)
        script.open[0].transport.write(b"two\n")
        await self.until(lambda: poller.is_drained)
        self.clock.advance(DRAIN_TICK)
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual((self.sink.records, poller.ledger.polls[PollResult.OK]), ([b"one", b"two"], 1))

    async def test_endless_body(self) -> None:
        """A body that does not end is cut at the deadline: whole lines are delivered, the rest is counted."""
        script = self.serve(answer(b"one\ntw", length=8))
        poller = self.poller(self.url(script))
        self.clock.advance(1)
        await self.until(lambda: poller.ledger.bytes_received)
        stopped = self.drain(poller)
        for _ in range(120):
            self.clock.advance(DRAIN_TICK)
        self.successResultOf(stopped)
        self.assertEqual((self.sink.records, poller.ledger.polls[PollResult.STOPPED]), ([b"one"], 1))
        self.assertEqual(poller.ledger.bytes_discarded[DiscardReason.UNFINISHED], 2)


class RedirectTests(PollingTestCase):
    async def test_followed(self) -> None:
        """Redirects on the same host are followed, and credentials go with them on the same server only."""
        end = self.serve(answer(b"there\n"))
        start = self.serve(answer(b"", "302 Found", "Location: /other"), b"")
        start.answers[1] = answer(b"", "307 Go", f"Location: {self.url(end)}")
        with open("secret", "w") as file:
            file.write("Bearer t0ken\n")
        headers = {b"X-Key": b"k3y"}
        poller = await self.once(self.url(start), authorization_file="secret", headers=headers)
        self.assertEqual((self.sink.records, poller.ledger.polls[PollResult.OK]), ([b"there"], 1))
        sent = [(header(each, "Authorization"), header(each, "X-Key")) for each in start.requests + end.requests]
        self.assertEqual(sent, [("Bearer t0ken", "k3y"), ("Bearer t0ken", "k3y"), (None, None)])
        self.assertEqual(start.requests[1].split()[1], b"/other")

    async def test_not_followed(self) -> None:
        """Loops, other hosts, other schemes and what is no URL end the poll, and say why."""
        for location, why in (
            ("/again", "more than 5 times"),
            ("http://localhost:1/", "another host, localhost"),
            ("file:///etc/passwd", "must begin with http"),
            ("http://u:p@127.0.0.1/", "credentials"),
            ("http://a..b/", "host"),
        ):
            script = self.serve(answer(b"", "301 Moved", f"Location: {location}"))
            told: list[str] = []
            self.patch(self.events, "poll_failed", lambda *words, told=told: told.append(words[2]))
            poller = await self.once(self.url(script))
            self.assertEqual(poller.ledger.polls[PollResult.REDIRECT], 1, location)
            self.assertIn(why, told[0])
            self.assertLessEqual(len(script.requests), 6)

    async def test_any_host(self) -> None:
        """Where the operator says so another host is asked, without what is secret."""
        end = self.serve(answer(b"there\n"))
        location = self.url(end).replace("127.0.0.1", "localhost")
        start = self.serve(answer(b"", "303 See", f"Location: {location}"))
        await self.once(self.url(start), redirects=Redirects.ANY, headers={b"X-Key": b"k3y"})
        self.assertEqual((self.sink.records, header(end.requests[0], "X-Key")), ([b"there"], None))


class CredentialTests(PollingTestCase):
    async def test_basic(self) -> None:
        """A password comes from its file, and is read again once it is refused."""
        with open("password", "w") as file:
            file.write("old\n")
        script = self.serve(answer(b"", "401 Who"), answer(b"in\n"))
        poller = await self.once(self.url(script), username="me", password_file="password")
        with open("password", "w") as file:
            file.write("new\n")
        poller._renew_authorization(401)
        self.clock.advance(LONGEST_BACKOFF)
        await self.done(poller, 2)
        sent = [b64decode((header(each, "Authorization") or "").removeprefix("Basic ")) for each in script.requests]
        self.assertEqual(sent, [b"me:old", b"me:new"])
        self.assertNotIn("me", str(poller.status()["url"]))

    def test_unusable_files(self) -> None:
        """A file that cannot be read, or holds what no header may, ends the start and is named; its content is not."""
        with open("two-lines", "w") as file:
            file.write("s3cret\r\nX-Evil: 1\n")
        os.mkfifo("pipe")
        with open("empty", "w"):
            pass
        for path, why in (
            ("nowhere", "No such file"),
            ("two-lines", "one line of printable ASCII"),
            ("pipe", "is no file"),
            ("empty", "one line"),
            (".", "Is a directory"),
        ):
            plan = PollPlan(url=Url.parse("http://h/"), authorization_file=path)
            error = self.assertRaises(SourceError, plan.authorization)
            self.assertIn(why, str(error))
            self.assertNotIn("s3cret", str(error))


class UrlTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """A URL is taken apart, and shown without its query."""
        for url, shown, port in (
            ("http://h", "http://h/", 80),
            ("https://h:8443/a/b?token=1", "https://h:8443/a/b?...", 8443),
            ("http://[::1]:9/x", "http://[::1]:9/x", 9),
            ("HTTPS://Host.Example./", "https://host.example/", 443),
        ):
            parsed = Url.parse(url)
            self.assertEqual((parsed.shown, parsed.port), (shown, port))

    def test_mistakes(self) -> None:
        """What is no URL to poll is refused, and nothing of a secret in it repeated."""
        for url in (
            "ftp://h/",
            "h/path",
            "http://",
            "http:///x",
            "http://user:pa55@h/",
            "http://h/#top",
            "http://h:0/",
            "http://h:99999/",
            "http://h:port/",
            "http://h/a b",
            "http://h/\r\nX: y",
            "http://\u00fc/",
            "http://a..b/",
            "http://[::1/",
            "http://[::z]/",
            "http://h/" + "x" * 9000,
        ):
            error = self.assertRaises(ValueError, Url.parse, url)
            self.assertNotIn("pa55", str(error))

    def test_trust(self) -> None:
        """Secrets go to the same server, or to its own https; not to another port, another host, nor back to http."""
        here = Url.parse("http://h/")
        for url, is_trusted in (
            ("http://h/other", True),
            ("https://h/", True),
            ("http://h:8080/", False),
            ("https://h:8443/", False),
            ("http://other/", False),
        ):
            self.assertEqual(here.trusts(Url.parse(url)), is_trusted, url)
        self.assertFalse(Url.parse("https://h/").trusts(here))
        self.assertRaises(ValueError, Url.parse("https://h/").follow, "http://h/", Redirects.ANY)
        self.assertRaises(ValueError, here.follow, "/x", Redirects.OFF)
