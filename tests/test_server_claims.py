"""UNIX sockets: whose the file is, who may use it, what becomes of it; sockets that were passed; endpoint strings."""

import os
import shutil
import socket
import stat
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, ServerFactory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.server import Server, wait_until
from tests.test_server_sockets import ListeningTestCase
from twisted_ingest.admin.port import AdminPorts
from twisted_ingest.errors import ListenError
from twisted_ingest.observe.events import Events
from twisted_ingest.server.admission import Admission
from twisted_ingest.server.binding import REBIND_BACKOFF_SECONDS
from twisted_ingest.server.endpoints import UNIX_MODE, PassedSockets, server_endpoint
from twisted_ingest.server.sockets import ListeningReactor
from twisted_ingest.sources.listener import Listener


def mode_of(path: str) -> int:
    """Give the permissions of a file."""
    return stat.S_IMODE(os.stat(path).st_mode)


class UNIXTestCase(ListeningTestCase):
    """A path for sockets, short enough."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.around = os.path.dirname(self.path)

    def stale(self) -> None:
        """Leave a socket behind that nobody listens on, as a killed process does."""
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(self.path)
            killed.listen()

    def connect_to(self, path: str) -> socket.socket:
        """Connect to a path."""
        peer = socket.socket(socket.AF_UNIX)
        self.addCleanup(peer.close)
        peer.connect(path)
        return peer

    async def serves(self, listener: Listener) -> None:
        """See that a peer that connects now is served."""
        before = len(self.sink.records)
        self.connect_to(self.path).sendall(b"served\n")
        await self.until(lambda: len(self.sink.records) > before)


class ClaimTests(UNIXTestCase):
    async def test_after_a_kill(self) -> None:
        """What a killed process left does not stand in the way, nor does Twisted's lock that names our own number."""
        self.stale()
        os.symlink(str(os.getpid()), f"{self.path}.lock")
        listener = await self.listen(self.listener(f"unix:{self.path}"))
        await self.serves(listener)
        await listener.stop()
        self.assertEqual(os.listdir(self.around), [])

    async def test_taken(self) -> None:
        """A path that another listener has is refused by its name, with lock or without; that one goes on."""
        listener = await self.listen(self.listener(f"unix:{self.path}"))
        for option in ("", ":lockfile=0"):
            with self.assertRaisesRegex(ListenError, f"{self.path}: another process"):
                Listener(f"unix:{self.path}{option}", listener.factory, reactor, self.admission).bind()
        await self.serves(listener)

    async def test_taken_by_a_stranger(self) -> None:
        """A socket that some other program listens on, its backlog full or not, is left to it."""
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.bind(self.path)
            stranger.listen(0)
            for _ in range(3):
                with self.assertRaisesRegex(ListenError, f"{self.path}: another process listens on it"):
                    await self.listen(self.listener(f"unix:{self.path}"))
            stranger.accept()[0].close()
        self.assertEqual(os.listdir(self.around), [os.path.basename(self.path)])

    async def test_no_socket(self) -> None:
        """A file that is no socket is never removed."""
        with open(self.path, "w") as file:
            file.write("precious")
        with self.assertRaisesRegex(ListenError, f"{self.path}: it is there and is no socket: remove it"):
            await self.listen(self.listener(f"unix:{self.path}"))
        with open(self.path) as file:
            self.assertEqual(file.read(), "precious")

    async def test_nowhere(self) -> None:
        """A directory that is not there is named."""
        for option in ("", ":lockfile=0"):
            with self.assertRaisesRegex(ListenError, f"{self.path}/x: No such file or directory"):
                await self.listen(self.listener(f"unix:{self.path}/x{option}"))

    async def test_mode(self) -> None:
        """Owner and group may connect, unless the endpoint says otherwise."""
        for option, mode in (("", UNIX_MODE), (":mode=600", 0o600), (":666", 0o666)):
            listener = await self.listen(self.listener(f"unix:{self.path}{option}"))
            self.assertEqual(mode_of(self.path), mode)
            await listener.stop()

    async def test_replaced(self) -> None:
        """A file that is another's by now is not removed at the stop."""
        listener = await self.listen(self.listener(f"unix:{self.path}:lockfile=0"))
        os.unlink(self.path)
        self.stale()
        await listener.stop()
        self.assertEqual(os.listdir(self.around), [os.path.basename(self.path)])

    async def test_removed(self) -> None:
        """A file that somebody removed is no error at the stop."""
        listener = await self.listen(self.listener(f"unix:{self.path}"))
        os.unlink(self.path)
        await listener.stop()
        self.assertEqual((os.listdir(self.around), listener.port), ([], None))

    async def test_passed(self) -> None:
        """A socket that was passed to us keeps its mode and its file, and the next process can accept from it."""
        with socket.socket(socket.AF_UNIX) as given:
            given.bind(self.path)
            os.chmod(self.path, 0o604)
            given.listen()
            for _ in range(2):
                listener = self.listener()
                ports = ListeningReactor(reactor, self.admission, self.events, None, listener._lost)
                listener._ports = ports
                listener.port = ports.adoptStreamPort(given.fileno(), given.family, listener.factory)
                await self.serves(listener)
                await self.stop(listener)
                self.assertEqual(mode_of(self.path), 0o604)
            self.connect_to(self.path)

    def admin_ports(self) -> AdminPorts:
        """Make what the admin endpoint listens through."""
        ports = AdminPorts(reactor, Admission(1), Events(reactor.seconds), None)
        self.addCleanup(ports.let_go)
        return ports

    async def test_admin(self) -> None:
        """A UNIX socket of the admin endpoint is claimed in the same way, passed or not."""
        self.stale()
        factory: Any = Factory()
        port = await server_endpoint(self.admin_ports(), f"unix:{self.path}").listen(factory)
        self.assertEqual(mode_of(self.path), UNIX_MODE)
        await port.stopListening()
        self.assertEqual(os.listdir(self.around), [])
        with socket.socket(socket.AF_UNIX) as given:
            given.bind(self.path)
            given.listen()
            adopted = self.admin_ports().adoptStreamPort(given.fileno(), given.family, factory)
            await adopted.stopListening()
            self.connect_to(self.path)

    async def test_lost(self) -> None:
        """A UNIX socket that was shut down by somebody who shares it is listened on again, under the same name."""
        clock = Clock()
        listener = await self.listen(self.listener(f"unix:{self.path}", clock=clock))
        listener.port.socket.shutdown(socket.SHUT_RDWR)
        await self.until(lambda: listener.port is None)
        self.assertIn("its port was lost", listener.trouble or "")
        clock.advance(REBIND_BACKOFF_SECONDS[0])
        self.assertIsNone(listener.trouble)
        await self.serves(listener)

    async def test_shut_down_at_the_stop(self) -> None:
        """A socket that is shut down as the stop begins does not keep that from its end."""
        listener = await self.listen(self.listener(f"unix:{self.path}"))
        listener.port.socket.shutdown(socket.SHUT_RDWR)
        await listener.stop()
        self.assertEqual((os.listdir(self.around), self.events.internal_errors), ([], 0))

    async def test_abstract(self) -> None:
        """A name without a file has no mode and no lock."""
        name = f"\0ingest-test-{os.getpid()}"
        port = self.admin_ports().listenUNIX(name.encode(), ServerFactory(), wantPID=1)
        self.connect_to(name)
        await port.stopListening()


class KillTests(SynchronousTestCase):
    def start(self, path: str) -> Server:
        """Start a server on a path, and see that it receives there."""
        server = Server("--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{path}")
        self.addCleanup(server.kill)
        server.wait_ready()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.sendall(b"over unix\n")
            wait_until(lambda: server.output() == b"over unix\n", "the line")
        return server

    def test_start_after_a_kill(self) -> None:
        """A server that was killed starts again on its UNIX socket, and leaves nothing behind when it is stopped."""
        folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "ingest.sock")
        for _ in range(2):
            self.start(path).crash()
            self.assertTrue(os.path.exists(path))
        self.start(path).stop()
        self.assertEqual(os.listdir(folder), [])


class PassedSocketsTests(SynchronousTestCase):
    def test_read(self) -> None:
        """With names or without, but never those of another process, nor nonsense."""
        environment = {"LISTEN_FDS": "2", "LISTEN_PID": "5", "LISTEN_FDNAMES": "lines:relp"}
        self.assertEqual(PassedSockets.read(environment, 5), PassedSockets((3, 4), ("lines", "relp")))
        del environment["LISTEN_FDNAMES"]
        self.assertEqual(PassedSockets.read(environment, 5), PassedSockets((3, 4)))
        self.assertEqual(PassedSockets.read(environment, 6), PassedSockets())
        self.assertEqual(PassedSockets.read({**environment, "LISTEN_FDS": "x"}, 5), PassedSockets())
        self.assertEqual(PassedSockets.read({}, 5), PassedSockets())

    def test_find(self) -> None:
        """By index or by name, either."""
        passed = PassedSockets((3, 4), ("lines", "relp"))
        self.assertEqual((passed.find("1", None), passed.find(None, "lines")), (4, 3))
        self.assertEqual(PassedSockets((3, 4)).find("1", None), 4)
        for index, name in (("2", None), ("-1", None), (None, "other")):
            self.assertRaises(LookupError, passed.find, index, name)
        self.assertRaises(ValueError, passed.find, None, None)
        self.assertRaises(ValueError, passed.find, "0", "lines")
