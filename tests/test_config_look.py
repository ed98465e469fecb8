"""What is warned of, what ``--check`` looks at, and which addresses cannot be bound beside each other."""

import os
import socket
from collections.abc import Sequence

from tests.server import Server
from tests.test_config_load import LoadingTestCase
from twisted_ingest.config import overlaps
from twisted_ingest.config.load import Loaded, load
from twisted_ingest.config.look import look
from twisted_ingest.errors import ConfigurationError

LISTENERS = '[listeners.apps]\nendpoint = "tcp:1:interface=127.0.0.1"\n[listeners.hosts]\nendpoint = "tcp:2"\n'
CLOSED = f'{LISTENERS}allow = ["192.0.2.0/24"]\n'


class CautionTests(LoadingTestCase):
    def cautions(self, text: str | None, listen: Sequence[str] = (), sinks: Sequence[str] = ()) -> list[str]:
        """Give the warnings, the file's folder left out."""
        found = self.load(text, {}, listen, sinks).cautions
        return [str(caution).replace(self.folder + os.sep, "") for caution in found]

    def test_listeners_replaced(self) -> None:
        """Listeners of the file that a flag replaces are named."""
        message = "it replaces the listeners of ingest.toml, with all their settings: apps, hosts"
        self.assertEqual(self.cautions(LISTENERS, ["tcp:3"]), [f"--listen: warning: {message}"])
        loaded = load(self.write(LISTENERS), {}, [], [], relp=["tcp:3"])
        self.assertEqual([caution.where for caution in loaded.cautions], ["--relp"])
        for text, listen in ((LISTENERS, []), (None, ["tcp:3"]), ("", ["tcp:3"])):
            self.assertEqual(self.cautions(text, listen), [])

    def test_whom_the_file_keeps_out(self) -> None:
        """A flag that would let in whom the file keeps out is refused, unless it is said who may connect."""
        message = (
            "--listen: error: it replaces the listeners of ingest.toml, and with them the allow of hosts: everybody "
            "could connect (give --allow NETWORK too, or change it in the file and leave out --listen)"
        )
        self.assertEqual(self.complaints(CLOSED, {}, ["tcp:3"]), [message])
        loaded = load(self.write(CLOSED), {}, ["tcp:3"], [], ["192.0.2.7"])
        self.assertEqual(str(loaded.settings.listener_limits("tcp-3").allow), "192.0.2.7/32")
        self.assertEqual(len(loaded.cautions), 1)

    def test_whom_only_proxies_may_bring(self) -> None:
        """So is one that would let in whoever comes where only proxies may."""
        text = CLOSED.replace("allow =", "proxy_protocol_from =")
        self.assertNotEqual(text, CLOSED)
        (complaint,) = self.complaints(text, {}, ["tcp:3"])
        self.assertIn("with them the proxy_protocol_from of hosts: everybody could connect", complaint)
        self.assertIn("(give --proxy-protocol-from NETWORK too", complaint)
        load(self.write(text), {}, ["tcp:3"], [], proxies=["192.0.2.7"])

    def test_everybody_a_proxy(self) -> None:
        """Who takes everybody for a proxy is told what that means."""
        text = '[listeners.a]\nendpoint = "tcp:1"\nproxy_protocol_from = ["0.0.0.0/0", "::1"]\n'
        message = "everybody may connect to listener 'a', as whomever it likes: name the proxies alone"
        self.assertEqual(self.cautions(text), [f"ingest.toml:3: warning: {message}"])
        self.assertEqual(self.cautions(text.replace("0.0.0.0/0", "10.0.0.0/8")), [])

    def test_sinks_replaced(self) -> None:
        """So are sinks."""
        text = '[sinks.archive]\ntype = "file"\npath = "x"\nspool = true\n'
        message = "it replaces the sinks of ingest.toml, with all their settings: archive"
        self.assertEqual(self.cautions(text, (), ["null:"]), [f"--sink: warning: {message}"])

    def test_paths(self) -> None:
        """What looks like a home directory or a date is said to be none, where it was written."""
        taken = "is taken as it stands: no home directory, date or variable is put in its place"
        text = (
            "[spool]\ndirectory = '$SPOOL'\n[sinks.a]\ntype = 'file'\npath = '~/x'\nspool = true\n"
            "[sinks.b]\ntype = 'file'\npath = '/l/%Y/x'\n"
        )
        self.assertEqual(
            self.cautions(text),
            [
                f"ingest.toml:5: warning: '~' in '~/x' {taken}",
                f"ingest.toml:9: warning: '%Y' in '/l/%Y/x' {taken}",
                f"ingest.toml:2: warning: '$SPOOL' in '$SPOOL' {taken}",
            ],
        )
        self.assertEqual(self.cautions(None, (), ["file:~/x"]), [f"--sink file:~/x: warning: '~' in '~/x' {taken}"])

    def test_a_real_process_says_so(self) -> None:
        """The banner has the warnings."""
        self.write(LISTENERS)
        with Server("--config", self.path, "--listen", "tcp:0:interface=127.0.0.1") as server:
            told = (
                f"  warning    --listen: it replaces the listeners of {self.path}, with all their settings: apps, hosts"
            )
            self.assertIn(told, server.log)


class LookTests(LoadingTestCase):
    def look(self, loaded: Loaded) -> list[str]:
        """Give what is complained of, the folder left out."""
        return [str(problem).replace(self.folder, "DIR") for problem in look(loaded)]

    def at(self, *parts: str) -> str:
        return os.path.join(self.folder, *parts)

    def test_nothing_wrong(self) -> None:
        """Directories that are missing are made, so they are no mistake; nothing is made by looking."""
        self.write("x")
        sinks = [f"file:{self.at('a', 'b', 'x.log')}", f"file:{self.path}", "null:"]
        self.assertEqual(self.look(self.load(None, {}, [f"unix:{self.at('s')}", "tcp:0"], sinks)), [])
        self.assertEqual(os.listdir(self.folder), ["ingest.toml"])

    def test_paths(self) -> None:
        """A directory in a file's place, a file in a directory's, and what may not be written are named."""
        self.write("x")
        below = self.at("ingest.toml", "x.log")
        for path, message in (
            (self.folder, "DIR is a directory"),
            (below, "DIR/ingest.toml/x.log: Not a directory"),
        ):
            (line,) = self.look(self.load(None, {}, (), [f"file:{path}"]))
            self.assertEqual(line, f"--sink file:{path}: error: {message}".replace(self.folder, "DIR"))

    def test_not_writable(self) -> None:
        """What this user may not write is named, with the user."""
        self.patch(os, "access", lambda path, mode: False)
        self.write("x")
        for path, message in (
            (self.path, "ingest.toml: user {} may not read and write it"),
            (self.at("n", "x"), ": user {} may not make anything in it"),
        ):
            (line,) = self.look(self.load(None, {}, (), [f"file:{path}"]))
            self.assertTrue(line.endswith(message.format(os.geteuid())), line)

    def test_spool(self) -> None:
        """The spool's directory is looked at where there is one."""
        self.write("x")
        text = f"[sinks.a]\ntype = 'null'\nspool = true\n[spool]\ndirectory = '{self.path}'\n"
        loaded = self.load(text)
        self.assertEqual(self.look(loaded), ["DIR/ingest.toml:5: error: DIR/ingest.toml is no directory"])

    def test_sockets(self) -> None:
        """A socket's folder is not made; what stands in its place and is no socket is not removed."""
        self.write("x")
        for endpoint, message in (
            (f"unix:{self.at('none', 's')}", "there is no directory DIR/none, and none is made for a socket"),
            (f"unix:{self.path}", "DIR/ingest.toml is there, and no socket"),
            (
                "tcp:1:interface=no_such",
                "'no_such' is no address: an interface is given by one that it has (see ip address)",
            ),
            ("tcp:1:interface=192.0.2.1", "this machine has no address 192.0.2.1"),
        ):
            (line,) = self.look(self.load(None, {"admin": "off"}, [endpoint], ["null:"]))
            self.assertEqual(line, f"--listen: error: {endpoint}: {message}".replace(self.folder, "DIR"))
        taken = socket.socket(socket.AF_UNIX)
        self.addCleanup(taken.close)
        taken.bind(self.at("s"))
        self.assertEqual(self.look(self.load(None, {}, [f"unix:{self.at('s')}"], ["null:"])), [])


class OverlapTests(LoadingTestCase):
    def refusal(self, *listen: str, admin: str = "off") -> str | None:
        """Give what is said of endpoints beside each other, or nothing."""
        try:
            self.load(None, {"admin": admin}, listen)
        except ConfigurationError as error:
            return str(error)
        return None

    def test_overlaps(self) -> None:
        """An endpoint on every interface leaves no room for one on some, nor tcp6 on every one for tcp."""
        every = "every interface includes that one"
        both = (
            "tcp6 on every interface takes IPv4 too (dual stack): leave the tcp one out, or give tcp6 one address "
            "(interface=)"
        )
        self.patch(overlaps, "takes_both", lambda: True)
        for one, other, reason in (
            ("tcp:1", "tcp:1:interface=127.0.0.1", every),
            ("tcp:1:interface=127.0.0.1", "tcp:1:interface=0.0.0.0", every),
            ("tcp:1", "tcp:port=1", "listener 'tcp-1'"),
            ("tcp:1", "tcp6:1", both),
            ("tcp6:1", "tcp:1:interface=127.0.0.1", both),
            (r"tcp6:1:interface=\:\:1", "tcp6:1", every),
            ("unix:/x", "unix:/x", "is already the endpoint of listener 'unix'"),
        ):
            self.assertIn(reason, self.refusal(one, other) or "")
            self.assertIn("--admin: error: ", self.refusal(one, admin=other) or "")
        for one, other in (
            ("tcp:1", "tcp:2"),
            ("tcp:0", "tcp:0"),
            ("tcp:1:interface=127.0.0.1", "tcp:1:interface=127.0.0.2"),
            ("tcp:1", r"tcp6:1:interface=\:\:1"),
            ("unix:/x", "unix:/y"),
        ):
            self.assertIsNone(self.refusal(one, other))
            self.assertIsNone(self.refusal(one, admin=other))
        self.assertEqual(
            self.refusal("tcp:9108", admin="tcp:9108:interface=127.0.0.1"),
            "--admin: error: tcp:9108:interface=127.0.0.1 cannot be bound beside tcp:9108, the endpoint of listener "
            "'tcp-9108': every interface includes that one",
        )

    def test_no_dual_stack(self) -> None:
        """Where the machine keeps IPv6 to itself (net.ipv6.bindv6only), both may be had."""
        self.patch(overlaps, "takes_both", lambda: False)
        self.assertIsNone(self.refusal("tcp:1", "tcp6:1"))
        self.assertIsNotNone(self.refusal("tcp:1", "tcp:1:interface=127.0.0.1"))
