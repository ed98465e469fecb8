"""
Attack: a server that is polled does what it likes.

Cost to the attacker: being polled. Cost to a naive client: memory without end, a reactor that does nothing else,
secrets, and records that are lost or made up. Bounds proven: a poll ends in time and within its bytes, every byte is
accounted for, whole lines are delivered, and what is secret goes nowhere else.
"""

import datetime as dt
import functools
import gzip
import ipaddress
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor as the_reactor
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from tests.attacks.report import Group, Scenario
from tests.polling import TURNS, Answer, PollingTestCase, Script, Talker, answer, header
from twisted_ingest.errors import DiscardReason, Oversize, PollResult
from twisted_ingest.limits import KIB, MIB
from twisted_ingest.sources.poll import MOST_REDIRECTS
from twisted_ingest.sources.wire import HEADER_BYTES, MOST_INTERIM
from twisted_ingest.testing import StalledSink

reactor: Any = the_reactor

ENDLESS_BODY = Scenario(
    Group.SERVERS,
    "A body without end",
    "a polled server sends lines for ever, or one line, or headers",
    "a body ends at `max_bytes`, a line at `max_length`, headers at 64 KiB; what is whole by then is delivered, the "
    "rest counted, and the poll backs off",
    ('ingest_polls_total{result="too_long"}', 'ingest_discarded_bytes_total{reason="unfinished"}'),
)

SLOW = Scenario(
    Group.SERVERS,
    "A server that takes its time",
    "a byte of the headers or of the body now and then; an answer after the time limit",
    "the poll is given up after `timeout`, and its connection aborted; no other poll begins meanwhile",
    ('ingest_polls_total{result="timeout"}', "ingest_poll_active"),
)

BOMB = Scenario(
    Group.SERVERS,
    "A compressed body",
    "a body of 20 KiB that would be 20 MiB, although nothing compressed was asked for",
    "nothing is decompressed: it is not read, the poll counts as an error",
    ('ingest_polls_total{result="encoding"}',),
)

LIES = Scenario(
    Group.SERVERS,
    "Lengths that are lies",
    "a `Content-Length` above, below, beside, twice or not a number; a reset in the middle of a body",
    "whole lines are delivered, an unfinished one is counted, and the body is asked for again as a whole; what "
    "follows a body is nothing",
    ('ingest_polls_total{result="unfinished"}', 'ingest_discarded_bytes_total{reason="unfinished"}'),
)

CHURN = Scenario(
    Group.SERVERS,
    "The smallest pieces",
    "a million lines of one byte; a body in chunks of one byte",
    "lines are framed a read at a time, whatever their number",
    ("ingest_listener_records_total",),
)

STRAY = Scenario(
    Group.SERVERS,
    "Answers that lead astray",
    "redirects in a circle, to other hosts or schemes; a hostile `ETag`, `Last-Modified` or `Retry-After`; 304 to all",
    "five redirects are followed, on the same host; what goes back into a request is held against its grammar first; "
    "the interval is kept",
    ('ingest_polls_total{result="redirect"}', 'ingest_polls_total{result="not_modified"}'),
)

IMPOSTOR = Scenario(
    Group.SERVERS,
    "An impostor",
    "a certificate that nobody trusts, or of another name; plain HTTP, or nonsense, where TLS was expected",
    "nothing is sent to it, credentials included",
    ('ingest_polls_total{result="tls"}',),
)

STALLED = Scenario(
    Group.SERVERS,
    "A sink that stalls under a poll",
    "a body of 10 MB while the sink takes nothing for half an hour",
    "the body is not read on, no time limit runs, no further poll begins; then all of it arrives",
    ("ingest_poll_active", 'ingest_connections_paused{reason="connection"}'),
)


def is_asked(script: Script) -> bool:
    """Whether a request has come."""
    return bool(script.requests)


def is_left(script: Script) -> bool:
    """Whether nobody is connected."""
    return not script.open


class ServerTests(PollingTestCase):
    async def test_endless_body(self) -> None:
        """A body is read up to its bound and not beyond; its whole lines are records."""
        line = b"x" * 99 + b"\n"

        def flood(talker: Talker) -> None:
            talker.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")

            def more() -> None:
                if talker in script.open:
                    talker.transport.write(line * 1000)
                    reactor.callLater(0, more)

            more()

        script = self.serve(flood)
        poller = await self.once(self.url(script), max_body_bytes=MIB + 50)
        ledger = poller.ledger
        self.assertEqual(ledger.polls[PollResult.TOO_LONG], 1)
        whole = (MIB + 50) // 100
        self.assertEqual(ledger.records_framed, whole)
        self.assertEqual(ledger.bytes_discarded[DiscardReason.UNFINISHED] + whole * 100, ledger.bytes_received)
        self.assertLess(ledger.bytes_received, MIB + 256 * KIB)
        await self.until(lambda: not script.open)
        ENDLESS_BODY.measured(f"lines for ever: {ledger.bytes_received // KIB:,} KiB read of them with max_bytes 1 MiB")

    async def test_announced_length(self) -> None:
        """A body that says itself that it is too long is not read."""
        script = self.serve(answer(b"one\n", length=MIB + 1))
        poller = await self.once(self.url(script), max_body_bytes=MIB)
        self.assertEqual((poller.ledger.polls[PollResult.TOO_LONG], poller.ledger.bytes_received), (1, 0))

    async def test_endless_line(self) -> None:
        """A line without end is cut at the limit under each policy, and never held."""
        body = b"x" * (8 * MIB)
        for policy, result, records in (
            (Oversize.TRUNCATE, PollResult.OK, [b"x" * 1000, b"after"]),
            (Oversize.DROP, PollResult.OK, [b"after"]),
            (Oversize.CLOSE, PollResult.OVERSIZE, []),
        ):
            self.sink.batches.clear()
            script = self.serve(answer(body + b"\nafter\n"))
            poller = await self.once(self.url(script), max_record_bytes=1000, oversize=policy)
            self.assertEqual((poller.ledger.polls[result], self.sink.records), (1, records), policy)
            self.assertEqual(self.intake.budget.partials, 0)

    async def test_endless_headers(self) -> None:
        """Headers without end, or interim answers, end the poll after their bound."""
        for piece in (b"X-A: " + b"y" * 200 + b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 10):

            def flood(talker: Talker, piece: bytes = piece) -> None:
                talker.transport.write(b"HTTP/1.1 200 OK\r\n" if piece.startswith(b"X") else b"")
                sent = 0

                def more() -> None:
                    nonlocal sent
                    if talker in self.scripts[-1].open and sent < 100 * HEADER_BYTES:
                        talker.transport.write(piece * 20)
                        sent += len(piece) * 20
                        reactor.callLater(0, more)

                more()

            script = self.serve(flood)
            poller = await self.once(self.url(script))
            self.assertEqual(poller.ledger.polls[PollResult.PROTOCOL], 1)
            await self.until(functools.partial(is_left, script))

    async def test_interim_answers(self) -> None:
        """A few interim answers before an answer are passed over, wherever reads cut them; many end the poll."""
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        said: list[Any] = []
        observer: Any = said.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

        def drip(number: int) -> Answer:
            async def send(talker: Talker) -> None:
                for byte in interim * number + answer(b"one\n"):
                    if talker.transport.connected:
                        talker.transport.write(bytes([byte]))
                        await self.turn()

            def begin(talker: Talker) -> None:
                _ = Deferred.fromCoroutine(send(talker))

            return begin

        for way in (lambda number: interim * number + answer(b"one\n"), drip):
            for number, result in ((3, PollResult.OK), (50, PollResult.PROTOCOL)):
                said.clear()
                poller = await self.once(self.url(self.serve(way(number))))
                self.assertEqual(poller.ledger.polls[result], 1)
                told = [event for event in said if "103" in str(event.get("code", ""))]
                self.assertLessEqual(len(told), MOST_INTERIM + 1)

    async def test_slow(self) -> None:
        """A server that drips headers or a body is given up in time; it never has two connections."""
        for start in (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"):
            script = self.serve(start)
            poller = self.poller(self.url(script), timeout_seconds=10.0, interval_seconds=2.0)
            self.clock.advance(1)
            await self.until(functools.partial(is_asked, script))
            for second in range(1, 13):
                if script.open:
                    script.open[0].transport.write(b"X")
                await self.turn()
                self.clock.advance(1)
                poller.sweep(self.clock.seconds(), 0.0)
                self.assertEqual((poller.ledger.polls_begun, poller.is_drained), (1, second >= 10))
            await poller.stop()
            self.assertEqual(poller.ledger.polls[PollResult.TIMEOUT], 1)
            await self.until(functools.partial(is_left, script))
        SLOW.measured("a byte a second: given up with the sweep after the time limit, one poll begun")

    async def test_answer_after_the_limit(self) -> None:
        """What a server says after it was given up is heard by nobody."""
        script = self.serve(lambda _: None)
        poller = self.poller(self.url(script), timeout_seconds=5.0)
        self.clock.advance(1)
        await self.until(lambda: script.requests)
        talker = script.open[0]
        self.clock.advance(5)
        poller.sweep(self.clock.seconds(), 0.0)
        talker.transport.write(answer(b"late\n"))
        self.assertEqual(await self.done(poller), [PollResult.TIMEOUT])
        await self.until(lambda: not script.open)
        self.assertEqual((self.sink.records, poller.ledger.bytes_received), ([], 0))

    async def test_bomb(self) -> None:
        """A compressed body is neither asked for, nor read, nor decompressed."""
        bomb = gzip.compress(b"\n" * 20 * MIB)
        script = self.serve(answer(bomb, "200 OK", "Content-Encoding: gzip"))
        poller = await self.once(self.url(script))
        self.assertEqual(header(script.requests[0], "Accept-Encoding"), "identity")
        self.assertEqual((poller.ledger.polls[PollResult.ENCODING], poller.ledger.bytes_received), (1, 0))
        BOMB.measured(f"{len(bomb) // KIB} KiB for 20 MiB: 0 bytes of it read")

    async def test_lengths(self) -> None:
        """A length that is a lie costs at most the line that it cuts."""
        for headers, body, result, records in (
            ("Content-Length: 99", b"one\ntwo", PollResult.UNFINISHED, [b"one"]),
            ("Content-Length: 4", b"one\ntwo\n", PollResult.OK, [b"one"]),
            ("Content-Length: 5", b"one\ntwo\n", PollResult.OK, [b"one", b"t"]),
            ("Content-Length: -1", b"one\n", PollResult.PROTOCOL, []),
            ("Content-Length: ten", b"one\n", PollResult.PROTOCOL, []),
            ("Content-Length: 4\r\nContent-Length: 8", b"one\ntwo\n", PollResult.PROTOCOL, []),
            ("Transfer-Encoding: chunked", b"zz\r\n", PollResult.UNFINISHED, []),
            ("Transfer-Encoding: chunked", b"4\r\none\n\r\n", PollResult.UNFINISHED, [b"one"]),
            ("Transfer-Encoding: mystery", b"one\n", PollResult.PROTOCOL, []),
        ):
            self.sink.batches.clear()

            def lie(talker: Talker, headers: str = headers, body: bytes = body) -> None:
                talker.transport.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body)
                talker.transport.loseConnection()

            poller = await self.once(self.url(self.serve(lie)))
            polls = {each: number for each, number in poller.ledger.polls.items() if number}
            self.assertEqual((polls, self.sink.records), ({result: 1}, records), (headers, body))

    async def test_reset(self) -> None:
        """A reset in the middle of a body loses the line it cuts, for now, and no other."""

        def reset(talker: Talker) -> None:
            talker.transport.write(answer(b"one\ntwo\nthr", length=99))
            reactor.callLater(0.05, talker.transport.abortConnection)

        poller = await self.once(self.url(self.serve(reset)))
        self.assertEqual((self.sink.records, poller.ledger.polls[PollResult.UNFINISHED]), ([b"one", b"two"], 1))
        self.assertEqual(poller.ledger.bytes_discarded[DiscardReason.UNFINISHED], 3)
        LIES.measured("a reset after 11 bytes: two lines delivered, 3 bytes counted as unfinished")

    async def test_nonsense(self) -> None:
        """What is no HTTP at all ends the poll, without a traceback."""
        for said in (
            b"220 smtp ready\r\n",
            b"\0" * 100 + b"\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"\r\n" * 50,
            b": \r\n\r\n",
        ):

            def say(talker: Talker, said: bytes = said) -> None:
                talker.transport.write(said)
                talker.transport.loseConnection()

            poller = await self.once(self.url(self.serve(say)))
            bad = poller.ledger.polls[PollResult.PROTOCOL] + poller.ledger.polls[PollResult.UNFINISHED]
            self.assertEqual((bad, self.events.internal_errors), (1, 0), said)

    async def test_million_lines(self) -> None:
        """A million lines of a byte are a few batches."""
        poller = await self.once(self.url(self.serve(answer(b"x\n" * 1_000_000))))
        self.assertEqual((poller.ledger.records_framed, poller.ledger.polls[PollResult.OK]), (1_000_000, 1))
        self.assertLess(len(self.sink.batches), 200)
        CHURN.measured(f"1,000,000 lines: {len(self.sink.batches)} batches")

    async def test_tiny_chunks(self) -> None:
        """Chunks of a byte are framed a read at a time."""
        body = b"1\r\nx\r\n1\r\n\n\r\n" * 20_000 + b"0\r\n\r\n"
        script = self.serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        poller = await self.once(self.url(script))
        self.assertEqual((poller.ledger.records_framed, poller.ledger.polls[PollResult.OK]), (20_000, 1))
        self.assertLess(len(self.sink.batches), 100)
        self.assertEqual(poller.ledger.bytes_received, 40_000)

    async def test_redirects(self) -> None:
        """A circle of redirects is left after five."""
        script = self.serve(answer(b"", "302 Found", "Location: /b"))
        poller = await self.once(self.url(script))
        self.assertEqual((poller.ledger.polls[PollResult.REDIRECT], len(script.requests)), (1, MOST_REDIRECTS + 1))
        await self.until(lambda: not script.open)
        STRAY.measured(f"a circle: {len(script.requests)} requests")

    async def test_hostile_validators(self) -> None:
        """What is sent back can be nothing but an entity tag and a date; the rest is forgotten."""
        hostile = (
            'ETag: "a"\r\n X-Evil: 1',
            'ETag: "a\rX-Evil: 1"',
            "ETag: unquoted",
            'ETag: "' + "x" * 5000 + '"',
            "Last-Modified: x\0y",
            "Last-Modified: " + "9" * 100,
        )
        for line in hostile:
            script = self.serve(answer(b"a\n", "200 OK", line))
            poller = await self.once(self.url(script))
            self.clock.advance(1000)
            await self.done(poller, 2)
            self.assertNotIn(b"If-", script.requests[1], line)
            self.assertNotIn(b"Evil", script.requests[1])
            await poller.stop()

    async def test_not_modified_storm(self) -> None:
        """A server that always says 304 is asked no oftener for that."""
        script = self.serve(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        poller = await self.once(self.url(script), interval_seconds=10.0)
        for polls in range(2, 12):
            self.clock.advance(10)
            await self.done(poller, polls)
        self.assertEqual((poller.ledger.polls[PollResult.NOT_MODIFIED], self.sink.records), (11, []))
        self.assertTrue(poller.is_up)


class StalledSinkTests(PollingTestCase):
    sink: StalledSink

    def make_sink(self) -> StalledSink:
        return StalledSink()

    async def test_stalled_sink(self) -> None:
        """While the sink takes nothing a body waits in the kernel, and no other poll begins."""
        script = self.serve(answer((b"x" * 99 + b"\n") * 100_000))
        poller = self.poller(self.url(script), timeout_seconds=10.0)
        self.clock.advance(1)
        await self.until(lambda: poller.status()["paused"])
        taken = poller.ledger.bytes_received
        for _ in range(18):
            self.clock.advance(100)
            poller.sweep(self.clock.seconds(), 0.0)
            await self.turn()
        self.assertEqual((poller.ledger.bytes_received, poller.ledger.polls_begun), (taken, 1))
        self.assertLess(self.intake.budget.used, 2 * MIB)
        for _ in range(TURNS):
            if not poller.is_drained:
                self.sink.release()
                self.clock.advance(0.01)
                await self.turn()
        self.assertEqual(await self.done(poller), [PollResult.OK])
        self.sink.release()
        self.assertEqual(poller.ledger.records_framed, 100_000)
        STALLED.measured(f"{taken // KIB:,} KiB read of 9,765, then nothing for 1,800 s of a virtual clock, then all")


def certificate(*names: str) -> tuple[bytes, bytes]:
    """Make a certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in names if each[0].isdigit()]
    hosts = [x509.DNSName(each) for each in names if not each[0].isdigit()]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([*hosts, *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return made.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)


class ImpostorTests(PollingTestCase):
    def serve_tls(self, *names: str) -> Any:
        """Start a server with a certificate of its own, which is in the file ``ca.pem``."""
        shown, key = certificate(*names)
        with open("ca.pem", "wb") as file:
            file.write(shown)
        script = self.serve(answer(b"secure\n"))
        with open("server.pem", "wb") as file:
            file.write(shown + key)
        options = ssl.DefaultOpenSSLContextFactory("server.pem", "server.pem")
        port = reactor.listenSSL(0, script, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        script.port = port.getHost().port
        return script

    def secret(self) -> str:
        """Write credentials, and give their file."""
        with open("authorization", "w") as file:
            file.write("Bearer s3cret")
        return "authorization"

    async def test_trusted(self) -> None:
        """The certificates of a file are trusted where it is given."""
        script = self.serve_tls("localhost")
        url = f"https://localhost:{script.port}/"
        poller = await self.once(url, ca="ca.pem", authorization_file=self.secret())
        self.assertEqual((self.sink.records, poller.ledger.polls[PollResult.OK]), ([b"secure"], 1))
        self.assertEqual(header(script.requests[0], "Authorization"), "Bearer s3cret")

    async def test_not_trusted(self) -> None:
        """A certificate that nobody trusts, or of another name, gets no request."""
        for names, ca in ((("localhost",), None), (("other.example",), "ca.pem")):
            script = self.serve_tls(*names)
            url = f"https://localhost:{script.port}/"
            poller = await self.once(url, ca=ca, authorization_file=self.secret())
            self.assertEqual((poller.ledger.polls[PollResult.TLS], script.requests), (1, []), names)
        IMPOSTOR.measured("not trusted, or of another name: no byte of a request sent")

    async def test_no_tls(self) -> None:
        """Who speaks no TLS where it was expected gets no request either."""

        def talk(talker: Talker) -> None:
            talker.transport.write(answer(b"plain\n"))
            talker.transport.loseConnection()

        script = self.serve(talk)
        script.is_eager = True
        url = self.url(script).replace("http:", "https:")
        poller = await self.once(url, authorization_file=self.secret())
        self.assertEqual((poller.ledger.polls[PollResult.TLS], script.requests, self.sink.records), (1, [], []))
