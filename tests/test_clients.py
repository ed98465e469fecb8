"""The recipes of docs/clients.md that a Debian machine can run: what each client sends arrives, a record each."""

import http.client
import json
import os
import re
import socket
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.clients import PAGE, RECIPES, RFC5424, RecipeCase, absent, free_port, module
from tests.server import PATIENCE, wait_until
from tests.test_real_clients import Rsyslog, program
from tests.test_relp_clients import omrelp

TRACEBACK = rb"no number\\nTraceback \(most recent call last\):\\n  File .*\\nValueError: .*: \'twelve\'$"
"""What the Python recipes log last, in one line."""

INCLUDED = re.compile(
    r"^\[`(examples/clients/\S+)`\]\(\.\./\1\), .*:\n\n```[\w-]+\n((?:(?!```).*\n)*)```$", re.MULTILINE
)
"""A recipe on the page: the link to it, then what it holds."""


class PageTests(SynchronousTestCase):
    def test_page_shows_what_is_tested(self) -> None:
        """Every recipe is on the page, with exactly what its file holds."""
        files = {str(path.relative_to(RECIPES.parent.parent)) for path in RECIPES.rglob("*") if path.is_file()}
        shown = dict(INCLUDED.findall(PAGE.read_text()))
        self.assertEqual(set(shown), files)
        for name, text in shown.items():
            self.assertEqual(text, (RECIPES.parent.parent / name).read_text(), name)


class PythonTests(RecipeCase):
    def run_recipe(self, name: str) -> None:
        self.finish(self.start(sys.executable, self.place(f"python/{name}.py")))

    def test_ingest_handler(self) -> None:
        """Our own handler."""
        self.run_recipe("ingest_handler")
        self.check(
            RFC5424 % 14 + rb"\d+ root - INFO:root:started$", RFC5424 % 11 + rb"\d+ root - ERROR:root:" + TRACEBACK
        )

    def test_ingest_handler_relp(self) -> None:
        """Our own handler over RELP: the server's file shows LF as it does for every record that holds one."""
        self.run_recipe("ingest_handler_relp")
        self.check(RFC5424 % 14 + rb"\d+ root - INFO started$", RFC5424 % 11 + rb"\d+ root - ERROR " + TRACEBACK)

    def test_syslog_handler(self) -> None:
        """The standard library's handler for syslog, told to end records with LF."""
        self.run_recipe("syslog_handler")
        self.check(RFC5424 % 14 + rb"\d+ - - started$", RFC5424 % 11 + rb"\d+ - - " + TRACEBACK)

    def test_socket_handler(self) -> None:
        """The standard library's handler for sockets, with text in place of a pickle."""
        self.run_recipe("socket_handler")
        self.check(rb"^\d{4}-\S+ \S+ INFO started$", rb"^\d{4}-\S+ \S+ ERROR " + TRACEBACK)

    def test_rfc5424(self) -> None:
        """The package rfc5424-logging-handler."""
        module("rfc5424logging")
        self.run_recipe("rfc5424")
        self.check(
            RFC5424 % 14 + rb'\d+ - \[order@32473 id="17"\] \xef\xbb\xbfINFO:root:started$',
            RFC5424 % 11 + rb"\d+ - - \xef\xbb\xbfERROR:root:" + TRACEBACK,
        )

    def test_gelf(self) -> None:
        """The package graypy: NUL ends a record."""
        module("graypy")
        self.run_recipe("gelf")
        self.check(rb'^{"version":"1.0",.*"INFO:root:started".*}$', rb'^{"version":"1.0",.*no number\\nTraceback .*}$')

    def test_json_lines(self) -> None:
        """The package python-logstash."""
        module("logstash")
        self.run_recipe("json_lines")
        self.check(rb'^{"@timestamp": .*"message": "started".*}$', rb'^{.*"stack_trace": "Traceback .*}$')

    def test_loguru(self) -> None:
        """The package loguru, through our handler."""
        module("loguru")
        self.run_recipe("loguru_sink")
        self.check(RFC5424 % 14 + rb"\d+ __main__ - started$", RFC5424 % 11 + rb"\d+ __main__ - " + TRACEBACK)

    def test_structlog(self) -> None:
        """The package structlog, through our handler."""
        module("structlog")
        self.run_recipe("structlog_json")
        started, failed = map(json.loads, self.records(2))
        self.assertEqual((started["order"], started["event"]), (17, "started"))
        self.assertEqual((failed["event"], failed["exception"][:10]), ("no number", "Traceback "))


class ShellTests(RecipeCase):
    def run_recipe(self, name: str) -> None:
        self.finish(self.start("bash", self.place(f"shell/{name}.sh")))

    def check_file(self, name: str, package: str) -> None:
        """Run a recipe that sends the log file; its last line has no LF."""
        program(name, package)
        self.run_recipe(name)
        self.check(b"^one$", b"^two$", b"^last$")

    def test_logger(self) -> None:
        """``logger``, in lines and counted."""
        program("logger", "bsdutils")
        self.run_recipe("logger")
        self.check(RFC5424 % 13 + b"- - .*started$", RFC5424 % 13 + b"- - .*counted$")

    def test_nc(self) -> None:
        """OpenBSD's ``nc``."""
        self.check_file("nc", "netcat-openbsd")

    def test_ncat(self) -> None:
        """Nmap's ``ncat``."""
        self.check_file("ncat", "ncat")

    def test_socat(self) -> None:
        """``socat``."""
        self.check_file("socat", "socat")

    def test_busybox(self) -> None:
        """The ``nc`` of busybox."""
        self.check_file("busybox", "busybox")

    def test_bash(self) -> None:
        """``/dev/tcp`` of bash."""
        self.run_recipe("dev-tcp")
        self.check(b"^one$", b"^two$", b"^last$")


class ScriptTests(RecipeCase):
    def test_perl(self) -> None:
        """Perl's ``Sys::Syslog``."""
        self.finish(self.start(program("perl", "perl"), self.place("perl/sys_syslog.pl")))
        begin = rb"^<%d>\w{3} [ \d]\d \d\d:\d\d:\d\d (\S+ )?shop\[\d+\]: "
        self.check(begin % 14 + b"started$", begin % 11 + rb"no number\\nat line 12$")

    def test_ruby(self) -> None:
        """Ruby's ``Logger`` on a socket."""
        self.finish(self.start(program("ruby", "ruby"), self.place("ruby/logger.rb")))
        self.check(rb"^\S+Z INFO started$", rb"^\S+Z ERROR no number\\nat line 12$")

    def test_php(self) -> None:
        """Monolog of PHP."""
        php = program("php", "php-cli")
        if not os.path.exists("/usr/share/php/Monolog/autoload.php"):
            absent("needs Monolog (Debian package php-monolog)")
        self.finish(self.start(php, self.place("php/monolog.php")))
        self.check(rb'^{"message":"started","context":{"order":17},.*}$', rb'^{"message":"no number\\nat line 12",.*}$')


class Recipe(Rsyslog):
    """An rsyslog that forwards as a recipe says."""

    def __init__(self, path: str, text: str) -> None:
        self.text = text
        super().__init__(path, 0)

    def action(self, target: int, options: str) -> str:
        """See `Rsyslog`."""
        return self.text


class RsyslogTests(RecipeCase):
    def check_recipe(self, name: str) -> None:
        sender = Recipe(program("rsyslogd", "rsyslog"), self.text(f"rsyslog/{name}.conf"))
        self.addCleanup(sender.stop)
        with socket.create_connection(("127.0.0.1", sender.port), PATIENCE) as peer:
            peer.sendall(b"<14>Nov 21 00:00:00 host shop[7]: started\n<11>Nov 21 00:00:01 host shop[7]: ended\n")
        self.check(RFC5424 % 14 + b"7 - -  ?started$", RFC5424 % 11 + b"7 - -  ?ended$")

    def test_lines(self) -> None:
        """``omfwd`` of rsyslog, lines."""
        self.check_recipe("lines")

    def test_octet_counted(self) -> None:
        """``omfwd`` of rsyslog, counted."""
        self.check_recipe("octet-counted")

    def test_relp(self) -> None:
        """``omrelp`` of rsyslog."""
        omrelp()
        self.check_recipe("relp")


def syslog_ng() -> list[str]:
    """Give the command that runs syslog-ng, or skip (or fail) for want of it; see `SyslogNgTests`."""
    unpacked = os.environ.get("INGEST_TEST_SYSLOG_NG")
    if unpacked is None:
        return [program("syslog-ng", "syslog-ng-core, or unpacked: INGEST_TEST_SYSLOG_NG"), "--no-caps"]
    library = os.path.join(unpacked, "usr/lib/syslog-ng")
    (version,) = (entry for entry in os.listdir(library) if entry[0].isdigit())
    return [
        "env",
        f"LD_LIBRARY_PATH={library}",
        os.path.join(unpacked, "usr/sbin/syslog-ng"),
        "--no-caps",
        f"--module-path={library}/{version}",
    ]


class SyslogNgTests(RecipeCase):
    """
    syslog-ng, whose package cannot be installed beside rsyslog's.

    ``INGEST_TEST_SYSLOG_NG`` may name a folder that its package was unpacked in (``dpkg -x``).
    """

    def check_recipe(self, name: str, expected: bytes) -> None:
        port = free_port()
        config = self.folder / "syslog-ng.conf"
        config.write_text(
            "@version: 3.38\n"
            f'source s_src {{ network(ip("127.0.0.1") port({port})); }};\n' + self.text(f"syslog-ng/{name}.conf")
        )
        places = [f"--{key}={self.folder}/{key}" for key in ("persist-file", "control", "pidfile")]
        self.start(*syslog_ng(), "--foreground", f"--cfgfile={config}", *places)
        wait_until(lambda: self.fed(port), "syslog-ng takes connections")
        self.check(expected % 14 + b"started$", expected % 11 + b"ended$")

    def fed(self, port: int) -> bool:
        """Send it two messages, if it listens."""
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as peer:
                peer.sendall(b"<14>Nov 21 00:00:00 host shop[7]: started\n<11>Nov 21 00:00:01 host shop[7]: ended\n")
                return True
        except OSError:
            return False

    def test_network(self) -> None:
        """``network()``: lines of RFC 3164."""
        self.check_recipe("network", rb"^<%d>Nov 21 00:00:0\d \S+ shop\[7\]: ")

    def test_syslog(self) -> None:
        """``syslog()``: counted frames of RFC 5424."""
        self.check_recipe("syslog", RFC5424 + rb"7 - (- |\[meta [^]]*\] )(\xef\xbb\xbf)?")


class HaproxyTests(RecipeCase):
    def test_ring(self) -> None:
        """A ring of HAProxy."""
        path = program("haproxy", "haproxy")
        port = free_port()
        config = self.folder / "haproxy.cfg"
        config.write_text(
            self.text("haproxy/ring.cfg") + f"defaults\n    mode http\n    log global\n    option httplog\n"
            f"    timeout client 5s\nfrontend shop\n    bind 127.0.0.1:{port}\n    http-request return status 200\n"
        )
        self.start(path, "-f", str(config))
        wait_until(lambda: self.asked(port), "HAProxy answers")
        wait_until(lambda: b"GET /started HTTP/1.1" in self.server.output(), "a line of HAProxy's")
        line = next(line for line in self.server.output().splitlines() if b"GET /started" in line)
        self.assertRegex(line, rb"^<134>1 \S+ \S+ haproxy \d+ - - 127\.0\.0\.1:")

    def asked(self, port: int) -> bool:
        """Ask for a page, if it listens."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/started")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
