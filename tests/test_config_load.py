"""Loading: flags and a file become one model, or every mistake at once, each with its place."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest import limits
from twisted_ingest.config import checks
from twisted_ingest.config import file as file_module
from twisted_ingest.config.file import LARGEST_CONFIGURATION
from twisted_ingest.config.given import FLAG_PATHS
from twisted_ingest.config.load import Loaded, load
from twisted_ingest.errors import ConfigurationError, Format, Framing, Fsync, Oversize
from twisted_ingest.sinks.file import FileSettings
from twisted_ingest.sinks.null import NullSettings
from twisted_ingest.sinks.stdout import StdoutSettings
from twisted_ingest.units import Rate

# Words that a fuzzed file is made of: right ones, wrong ones, and shapes in wrong places.
FUZZ_KEYS = [
    "listeners",
    "sinks",
    "limits",
    "admin",
    "log_format",
    "a",
    "type",
    "path",
    "endpoint",
    "memory",
    '"[key]"',
]
FUZZ_VALUES = ["1", "-1", "0.5", "true", "[]", "{}", '""', '"file"', '"a\\u0000\\n"', '"tcp:1"', '"off"', "[{}]", "nan"]


class LoadingTestCase(SynchronousTestCase):
    """Writes files and reads them back as settings or as lines of complaint."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "ingest.toml")

    def write(self, text: str | bytes) -> str:
        with open(self.path, "wb") as stream:
            stream.write(text if isinstance(text, bytes) else text.encode())
        return self.path

    def load(
        self,
        text: str | None = None,
        flags: Mapping[str, str] | None = None,
        listen: Sequence[str] = (),
        sinks: Sequence[str] = (),
    ) -> Loaded:
        return load(None if text is None else self.write(text), flags or {}, listen, sinks)

    def complaints(
        self,
        text: str | bytes | None = None,
        flags: Mapping[str, str] | None = None,
        listen: Sequence[str] = (),
        sinks: Sequence[str] = (),
    ) -> list[str]:
        """Give the lines that the operator would see, the file's folder left out."""
        file = None if text is None else self.write(text)
        error = self.assertRaises(ConfigurationError, load, file, flags or {}, listen, sinks)
        return str(error).replace(self.folder + os.sep, "").split("\n")


class DefaultTests(LoadingTestCase):
    def test_nothing_given(self) -> None:
        """Without file and flags the settings are the documented defaults."""
        settings = self.load().settings
        self.assertEqual(
            {name: listener.endpoint for name, listener in settings.listeners.items()},
            {"tcp-1514": "tcp:1514:interface=127.0.0.1"},
        )
        self.assertEqual(settings.sinks, {"file": FileSettings(type="file", path="ingest-data/ingest.log")})
        self.assertEqual(settings.admin.endpoint, "tcp:9108:interface=127.0.0.1")
        self.assertEqual(settings.log_format, "text")
        self.assertEqual(settings.limits.max_length, 100 * 1024)
        self.assertEqual(settings.limits.memory, 256 << 20)
        self.assertEqual(settings.limits.connection_memory, 4 << 20)
        self.assertEqual(settings.limits.drain_timeout, 5.0)
        self.assertIs(settings.limits.max_connections_per_peer, None)

    def test_default_listener_limits(self) -> None:
        """A listener that sets nothing has the default bounds, idleness ending with the first record."""
        self.assertEqual(self.load().settings.listener_limits("tcp-1514"), limits.ListenerLimits())

    def test_default_connections(self) -> None:
        """Connections are capped at 80 % of the descriptor limit and at most ten thousand."""
        for hard, cap in [(1000, 800), (1 << 20, 10_000), (resource.RLIM_INFINITY, 10_000)]:
            self.patch(resource, "getrlimit", lambda _, hard=hard: (hard, hard))
            self.assertEqual(checks.max_connections(self.load().settings), cap)

    def test_empty_file(self) -> None:
        """An empty file, or one with empty tables, means the defaults."""
        for text in ("", "\ufeff", "[listeners]\n[sinks]\n[limits]\n[admin]\n"):
            self.assertEqual(self.load(text).settings, self.load().settings)


class FileTests(LoadingTestCase):
    def test_all_tables(self) -> None:
        """Every table of the file reaches its part of the model, units read."""
        settings = self.load(
            'log_format = "json"\n'
            "[listeners.edge]\n"
            'endpoint = "tcp:5140"\nframing = "nul"\nmax_length = "64KiB"\noversize = "drop"\n'
            'idle_timeout = "off"\nframe_timeout = "10s"\nreceive_buffer = "1MiB"\n'
            '[sinks.disk]\ntype = "file"\npath = "x.log"\nfsync = "1s"\n'
            '[sinks.pipe]\ntype = "stdout"\nrequired = false\n'
            '[sinks.none]\ntype = "null"\n'
            '[limits]\nmemory = "64MiB"\nmax_connections = 7\nmax_connections_per_peer = "off"\n'
            '[admin]\nendpoint = "off"\n'
        ).settings
        self.assertEqual(
            settings.listener_limits("edge"),
            limits.ListenerLimits(
                framing=Framing.NUL,
                max_record_bytes=65536,
                oversize=Oversize.DROP,
                idle_timeout_seconds=None,
                idle_until_first_record=False,
                frame_timeout_seconds=10.0,
                receive_buffer_bytes=1 << 20,
            ),
        )
        self.assertEqual(
            settings.sinks,
            {
                "disk": FileSettings(type="file", path="x.log", fsync=Fsync.SECOND),
                "pipe": StdoutSettings(type="stdout", required=False),
                "none": NullSettings(type="null"),
            },
        )
        self.assertEqual((settings.limits.memory, settings.limits.max_connections), (64 << 20, 7))
        self.assertEqual((settings.admin.endpoint, settings.log_format), ("off", "json"))

    def test_listener_takes_common_limits(self) -> None:
        """What a listener does not set comes from ``[limits]``, what it sets is its own."""
        settings = self.load(
            '[limits]\nmax_length = "10KiB"\noversize = "close"\n'
            '[listeners.a]\nendpoint = "tcp:1"\nmax_length = "20KiB"\n[listeners.b]\nendpoint = "tcp:2"\n'
        ).settings
        bounds = [settings.listener_limits(name) for name in "ab"]
        self.assertEqual([bound.max_record_bytes for bound in bounds], [20480, 10240])
        self.assertEqual([bound.oversize for bound in bounds], [Oversize.CLOSE, Oversize.CLOSE])


class IdleTimeoutTests(LoadingTestCase):
    LISTENERS = '[listeners.a]\nendpoint = "tcp:1"\n{0}\n[listeners.b]\nendpoint = "tcp:2"\n'

    def idle(self, own: str = "", common: str = "", **flags: str) -> list[tuple[float | None, bool]]:
        """Give timeout and ``idle_until_first_record`` of both listeners."""
        given = {name.replace("_", "-"): value for name, value in flags.items()}
        settings = self.load(f"{common}\n{self.LISTENERS.format(own)}", given).settings
        bounds = [settings.listener_limits(name) for name in "ab"]
        return [(bound.idle_timeout_seconds, bound.idle_until_first_record) for bound in bounds]

    def test_default_ends_with_the_first_record(self) -> None:
        """A timeout that nobody set applies until a peer's first record."""
        self.assertEqual(self.idle(), [(300.0, True), (300.0, True)])

    def test_flag_holds_for_all(self) -> None:
        """A timeout from the flag holds for every peer, even where it equals the default."""
        self.assertEqual(self.idle(idle_timeout="5m"), [(300.0, False), (300.0, False)])

    def test_file_holds_for_all(self) -> None:
        """A timeout in ``[limits]`` holds for every peer of every listener."""
        self.assertEqual(self.idle(common='limits.idle_timeout = "1m"'), [(60.0, False), (60.0, False)])

    def test_listener_holds_for_itself(self) -> None:
        """A timeout of one listener leaves the other at the default."""
        self.assertEqual(self.idle(own='idle_timeout = "1m"'), [(60.0, False), (300.0, True)])

    def test_off_for_one_listener(self) -> None:
        """``off`` in a listener is a choice of its own and not a missing one."""
        idle = self.idle(own='idle_timeout = "off"', common='limits.idle_timeout = "1m"')
        self.assertEqual(idle, [(None, False), (60.0, False)])

    def test_flag_overrides_a_listener(self) -> None:
        """The flag wins over the value of a single listener."""
        self.assertEqual(self.idle(own='idle_timeout = "1m"', idle_timeout="2m"), [(120.0, False), (120.0, False)])


class FlagTests(LoadingTestCase):
    def test_every_flag_has_a_key(self) -> None:
        """Each single-valued flag reaches the key of the same meaning and is named as its origin."""
        flags = {
            "max-length": "1KiB",
            "oversize": "close",
            "idle-timeout": "off",
            "frame-timeout": "off",
            "max-connections": "5",
            "max-connections-per-peer": "2",
            "connection-rate-per-peer": "600/m",
            "peer-prefix-ipv6": "56",
            "rate": "10k/s",
            "rate-per-peer": "1MiB/s",
            "memory": "8MiB",
            "connection-memory": "2MiB",
            "drain-timeout": "1s",
            "admin": "tcp:1",
            "log-format": "json",
        }
        self.assertEqual(set(flags), set(FLAG_PATHS))
        loaded = self.load(None, flags)
        self.assertEqual(
            dict(loaded.settings.limits),
            {
                "max_length": 1024,
                "oversize": Oversize.CLOSE,
                "idle_timeout": None,
                "frame_timeout": None,
                "max_connections": 5,
                "max_connections_per_peer": 2,
                "connection_rate_per_peer": Rate(10.0, False),
                "peer_prefix_ipv6": 56,
                "rate": Rate(10_000.0, False),
                "rate_per_peer": Rate(float(1 << 20), True),
                "memory": 8 << 20,
                "connection_memory": 2 << 20,
                "drain_timeout": 1.0,
            },
        )
        self.assertEqual((loaded.settings.admin.endpoint, loaded.settings.log_format), ("tcp:1", "json"))
        self.assertEqual(
            {flag: loaded.origin(*path) for flag, path in FLAG_PATHS.items()}, {f: f"--{f}" for f in flags}
        )

    def test_flag_overrides_file(self) -> None:
        """A flag wins over the file, also where the file has the value per listener, and so does its origin."""
        text = (
            '[limits]\nmax_length = "1KiB"\n[listeners.a]\nendpoint = "tcp:1"\nmax_length = "2KiB"\nframing = "nul"\n'
        )
        loaded = self.load(text, {"max-length": "3KiB", "framing": "newline"})
        bounds = loaded.settings.listener_limits("a")
        self.assertEqual((bounds.max_record_bytes, bounds.framing), (3072, Framing.NEWLINE))
        self.assertEqual(loaded.origin("limits", "max_length"), "--max-length")
        self.assertEqual(loaded.origin("listeners", "a", "framing"), "--framing")
        self.assertEqual(loaded.origin("listeners", "a", "max_length"), "default")

    def test_proxies(self) -> None:
        """The proxies of one listener, or by a flag those of all, RELP included; without any nobody is expected."""
        text = '[listeners.a]\nendpoint = "tcp:1"\n[listeners.b]\nendpoint = "tcp:2"\nprotocol = "relp"\n'
        text = text.replace('"tcp:1"', '"tcp:1"\nproxy_protocol_from = "192.0.2.1"')
        settings = self.load(text, {}).settings
        self.assertEqual(str(settings.listener_limits("a").proxies), "192.0.2.1/32")
        self.assertIsNone(settings.listener_limits("b").proxies)
        loaded = load(self.write(text), {}, [], [], proxies=["10.0.0.0/8", "::1"])
        for name in ("a", "b"):
            self.assertEqual(str(loaded.settings.listener_limits(name).proxies), "10.0.0.0/8, ::1/128")
            self.assertEqual(loaded.origin("listeners", name, "proxy_protocol_from"), "--proxy-protocol-from")
        for value, fault in (("[]", "it needs the networks of the proxies"), ('["lb"]', "'lb' is not a network")):
            error = self.assertRaises(ConfigurationError, self.load, text.replace('"192.0.2.1"', value), {})
            self.assertIn(fault, str(error.problems[0]))

    def test_allow(self) -> None:
        """Networks given as flags are those of every listener, those of the file included."""
        loaded = self.load('[listeners.a]\nendpoint = "tcp:1"\nallow = ["192.0.2.0/24"]\n', {})
        self.assertEqual(str(loaded.settings.listener_limits("a").allow), "192.0.2.0/24")
        loaded = load(None, {}, ["tcp:1", "tcp:2"], [], ["10.0.0.0/8", "2001:db8::1"])
        for name in ("tcp-1", "tcp-2"):
            self.assertEqual(str(loaded.settings.listener_limits(name).allow), "10.0.0.0/8, 2001:db8::1/128")
            self.assertEqual(loaded.origin("listeners", name, "allow"), "--allow")

    def test_admin_hosts(self) -> None:
        """Names of the admin endpoint come from the file, or from flags in their place."""
        text = '[admin]\nhosts = ["Ingest.example.", "logs"]\n'
        self.assertEqual(self.load(text, {}).settings.admin.hosts.names, {"ingest.example", "logs"})
        self.assertEqual(self.load('admin.hosts = "logs"', {}).settings.admin.hosts.names, {"logs"})
        self.assertEqual(self.load("", {}).settings.admin.hosts.names, frozenset())
        loaded = load(self.write(text), {}, [], [], admin_hosts=["other"])
        self.assertEqual(loaded.settings.admin.hosts.names, {"other"})
        self.assertEqual(loaded.origin("admin", "hosts"), "--admin-host")

    def test_admin_hosts_mistaken(self) -> None:
        """What is no name is refused where it was written, with what to write."""
        for text, complaint in (
            ('[admin]\nhosts = ["ingest:9108"]', "'ingest:9108' is not the name of a host: the name alone is compared"),
            ("[admin]\nhosts = 5", 'it needs names of hosts (try ["ingest.example.com"])'),
            ("[admin]\nhosts = []", 'it needs names of hosts (try ["ingest.example.com"])'),
            ('[admin]\nhost = ["a"]', "unknown key 'host' in [admin]; did you mean 'hosts'?"),
        ):
            (line,) = self.complaints(text)
            self.assertTrue(line.startswith("ingest.toml:2: error: "), line)
            self.assertIn(complaint, line)
        error = self.assertRaises(ConfigurationError, load, None, {}, [], [], admin_hosts=["http://a.example/"])
        self.assertEqual(
            str(error),
            "--admin-host: error: hosts: 'http://a.example/' is not the name of a host: the name alone is compared "
            '(try "a.example")',
        )

    def test_rates_of_listeners(self) -> None:
        """A listener's own rate wins over the common one; ``off`` is a rate of its own."""
        text = (
            'limits.rate = "5/s"\n'
            'listeners.a = {endpoint = "tcp:1"}\n'
            'listeners.b = {endpoint = "tcp:2", rate = "off"}\n'
        )
        settings = self.load(text, {}).settings
        self.assertEqual(settings.listener_limits("a").rate, Rate(5.0, False))
        self.assertIsNone(settings.listener_limits("b").rate)

    def test_overridden_value_is_not_judged(self) -> None:
        """A value of the file that a flag replaces cannot break the limits."""
        settings = self.load('limits.memory = "1KiB"\n', {"memory": "64MiB"}).settings
        self.assertEqual(settings.limits.memory, 64 << 20)

    def test_listen_and_sink_replace_tables(self) -> None:
        """``--listen`` and ``--sink`` replace the file's tables as a whole, with nothing left of their origins."""
        text = (
            '[listeners.tcp-9]\nendpoint = "tcp:9"\nmax_length = "1KiB"\n'
            '[sinks.null]\ntype = "file"\npath = "x"\nrequired = false\n'
        )
        loaded = self.load(text, {}, ["tcp:9"], ["null:"])
        self.assertEqual(list(loaded.settings.listeners), ["tcp-9"])
        self.assertEqual(loaded.settings.listener_limits("tcp-9").max_record_bytes, limits.MAX_LENGTH)
        self.assertEqual(loaded.settings.sinks, {"null": NullSettings(type="null")})
        self.assertEqual(loaded.origin("listeners", "tcp-9", "endpoint"), "--listen")
        self.assertEqual(loaded.origin("listeners", "tcp-9", "max_length"), "default")
        self.assertEqual(loaded.origin("sinks", "null", "type"), "--sink null:")
        self.assertEqual(loaded.origin("sinks", "null", "required"), "default")

    def test_flag_made_names(self) -> None:
        """Listeners are named by transport and port, sinks by scheme, and a name that is taken gets a number."""
        settings = self.load(
            None,
            {},
            [
                "tcp:1514:interface=127.0.0.2",
                "tcp:1514:interface=127.0.0.1",
                "tcp:port=99",
                "tcp:interface=127.0.0.1:port=98",
                r"tcp6:1514:interface=\:\:1",
                r"tcp6:interface=\:\:1:port=7",
                "unix:/run/a",
            ],
            ["file:a", "file:b", "stdout:", "null:", "file:c"],
        ).settings
        self.assertEqual(
            list(settings.listeners),
            ["tcp-1514", "tcp-1514-2", "tcp-99", "tcp-98", "tcp6-1514", "tcp6-7", "unix"],
        )
        self.assertEqual(list(settings.sinks), ["file", "file-2", "stdout", "null", "file-3"])

    def test_sink_options(self) -> None:
        """Options after a question mark are the keys of the sink's table."""
        settings = self.load(
            None, {}, [], ["file:/a b:c?fsync=always&required=false", "stdout:?required=true"]
        ).settings
        self.assertEqual(
            settings.sinks,
            {
                "file": FileSettings(type="file", path="/a b:c", fsync=Fsync.ALWAYS, required=False),
                "stdout": StdoutSettings(type="stdout", required=True),
            },
        )

    def test_any_port_twice(self) -> None:
        """Port 0 is a new port each time, so it may be asked for more than once."""
        self.assertEqual(list(self.load(None, {}, ["tcp:0", "tcp:0"]).settings.listeners), ["tcp-0", "tcp-0-2"])


class OriginTests(LoadingTestCase):
    def test_three_origins(self) -> None:
        """A setting comes from a flag, a line of the file, or is a default; nothing else."""
        loaded = self.load('\n[limits]\nmemory = "64MiB"\n', {"oversize": "drop"})
        origins = [loaded.origin("limits", name) for name in ("memory", "oversize", "max_length")]
        self.assertEqual(origins, [f"{self.path}:3", "--oversize", "default"])
        self.assertEqual(loaded.origin("listeners", "tcp-1514", "endpoint"), "default")
        self.assertEqual(loaded.origin("sinks", "file", "path"), "default")


class FileMistakeTests(LoadingTestCase):
    def test_one_line_for_each(self) -> None:
        """Each kind of mistake in a file gives one line: place, what is wrong, the nearest valid word."""
        unknown_listener = (
            "unknown key 'zzz' in [listeners.a] "
            "(known: endpoint, protocol, durability, max_length, oversize, idle_timeout, frame_timeout, "
            "rate, rate_per_peer, allow, proxy_protocol_from, receive_buffer, tls, sinks, framing)"
        )
        listener = '[listeners.a]\nendpoint = "tcp:1"\n'
        for text, line, message in [
            ("limts = 1", 1, "unknown key 'limts' in the file; did you mean 'limits'?"),
            ("\n[limits]\nmemry = 1", 3, "unknown key 'memry' in [limits]; did you mean 'memory'?"),
            ("[admin]\nendpiont = 'off'", 2, "unknown key 'endpiont' in [admin]; did you mean 'endpoint'?"),
            (f"{listener}zzz = 1", 3, unknown_listener),
            (
                f"{listener}protocol = 'rlep'",
                3,
                "protocol: 'rlep' is not known; did you mean 'relp'? (one of lines, relp)",
            ),
            (f"{listener}protocol = 7", 3, "protocol: 7 is not known (one of lines, relp)"),
            (f"{listener}protocol = 'relp'\nframing = 'nul'", 4, "framing: RELP has its own; the key is for lines"),
            ("listeners.a = 5", 1, "a: 5 is not a table"),
            (
                "[sinks.x]\ntype = 'null'\nrequird = 1",
                3,
                "unknown key 'requird' in [sinks.x]; did you mean 'required'?",
            ),
            ("\n[listeners.a]\n", 2, "[listeners.a] needs the key 'endpoint'"),
            ("sinks.x.path = 'x'", 1, "[sinks.x] needs the key 'type': one of file, null, relp, stdout, tcp"),
            ("[sinks.x]\ntype = 'file'", 1, "[sinks.x] needs the key 'path'"),
            ("[sinks.x]\ntype = 'fiel'\npath = 'x'", 2, "type: 'fiel' is not a sink; did you mean 'file'?"),
            ("[sinks.x]\ntype = 'file'\npath = ''", 3, "path: it must not be empty"),
            ("[sinks.x]\ntype = 'file'\npath = \"a\\u0000\"", 3, r"path: 'a\x00' is not a path: it holds a NUL"),
            ("[sinks.x]\ntype = 'null'\nrequired = 'perhaps'", 3, "required: 'perhaps' is not true or false"),
            (
                f"{listener}framing = 'null'",
                3,
                "framing: 'null' is not known; did you mean 'nul'? (one of auto, newline, nul, octet-counted)",
            ),
            (f"{listener}framing = 7", 3, "framing: 7 is not known (one of auto, newline, nul, octet-counted)"),
            ("log_format = 'xml'", 1, "log_format: 'xml' is not known (one of text, json)"),
            ("listeners = []", 1, "listeners: [] is not a table"),
            ("sinks = false", 1, "sinks: false is not a table"),
            ("sinks.x = 5", 1, "x: 5 is not a table"),
            ("limits = 3", 1, "limits: 3 is not a table"),
            ("listeners.a.endpoint = 1514", 1, "endpoint: 1514 is not text in quotes"),
            (
                'listeners."a b".endpoint = "tcp:1"',
                1,
                "'a b' is not a name: letters, digits, '_', '.' and '-' only, at most 64",
            ),
            (
                'listeners."[key]".endpoint = "tcp:1"',
                1,
                "'[key]' is not a name: letters, digits, '_', '.' and '-' only, at most 64",
            ),
            ("limits.memory = '64k'", 1, "memory: '64k' is not a size: unknown unit 'k' (try \"64KiB\" or \"64kB\")"),
            ("limits.memory = 0", 1, "memory: 0 is too small: it must be at least one byte"),
            ("limits.memory = '9999TiB'", 1, "memory: '9999TiB' is too large: it must be at most 1024TiB"),
            (f"{listener}receive_buffer = '2GiB'", 3, "receive_buffer: '2GiB' is too large: it must be at most 1GiB"),
            ("limits.drain_timeout = 5", 1, 'drain_timeout: 5 is not a duration (try "5m", "300s" or "250ms")'),
            (
                "limits.drain_timeout = '0s'",
                1,
                "drain_timeout: '0s' is too short: it must be longer than nothing (try \"5s\")",
            ),
            ("limits.drain_timeout = '366d'", 1, "drain_timeout: '366d' is too long: it must be at most 365d"),
            ("limits.idle_timeout = 5", 1, 'idle_timeout: 5 is not a duration (try "off", "5m", "300s" or "250ms")'),
            ("limits.max_connections = true", 1, "max_connections: true is not a number of 1 or more"),
            (
                "limits.peer_prefix_ipv6 = 129",
                1,
                "peer_prefix_ipv6: 129 is not a length of an IPv6 prefix, 1 to 128 (try 64)",
            ),
            (
                "limits.max_connections_per_peer = 0",
                1,
                'max_connections_per_peer: 0 is not a number of 1 or more (try "off")',
            ),
            ("a = 1\n\n\nb\n\n", 4, "Expected '=' after a key in a key/value pair"),
            ("a = 1\nb = = 2\n", 2, "Invalid value"),
            (
                "[limits]\nmemory = 512MiB # half\n",
                2,
                "Expected newline or end of document after a statement; text stands in quotes, did you mean: "
                'memory = "512MiB"',
            ),
            (
                f"{listener}allow = [10.0.0.0/8, '192.0.2.1']",
                3,
                "Unclosed array; text stands in quotes, did you mean: allow = [\"10.0.0.0/8\", '192.0.2.1']",
            ),
            ("[sinks.x]\ntype = file", 2, 'Invalid value; text stands in quotes, did you mean: type = "file"'),
            (
                "sinks.x.required = True",
                1,
                "Invalid value; text stands in quotes, did you mean: sinks.x.required = true",
            ),
        ]:
            self.assertEqual(self.complaints(text), [f"ingest.toml:{line}: error: {message}"])

    def test_all_at_once_in_reading_order(self) -> None:
        """All mistakes of flags and file come together: flags first, then the file from top to bottom."""
        text = (
            '[listeners.a]\nendpoint = "ssl:1"\nframing = "x"\n'
            "[sinks.x]\ntype = 'null'\nrequired = 7\n"
            "[limits]\nmemory = '1KiB'\nfoo = 1\n"
            "[admin]\nendpoint = 'tcp:99999'\n"
        )
        places = [line.split(": error: ")[0] for line in self.complaints(text, {"oversize": "x"})]
        self.assertEqual(places, ["--oversize", *(f"ingest.toml:{line}" for line in (2, 3, 6, 8, 9, 11))])

    def test_no_second_complaint(self) -> None:
        """A value that cannot be read is not measured against others, nor a sink missed that only has a typo."""
        text = (
            "[limits]\nconnection_memory = 'x'\nmax_length = '500MiB'\n"
            "[sinks.a]\ntype = 'null'\nrequired = 7\n[sinks.b]\ntype = 'null'\nrequired = false\n"
        )
        self.assertEqual(
            [line.split(": error: ")[0] for line in self.complaints(text)], ["ingest.toml:2", "ingest.toml:6"]
        )

    def test_flags_are_read_beside_a_broken_file(self) -> None:
        """A file that is not TOML does not hide the mistakes of the flags."""
        lines = self.complaints("x = [", {"memory": "x"})
        self.assertEqual([line.split(": error: ")[0] for line in lines], ["--memory", "ingest.toml:1"])

    def test_unreadable_file(self) -> None:
        """A file that is missing, or a directory, is named with the reason."""
        for path, reason in [("none.toml", "No such file or directory"), ("", "Is a directory")]:
            file = os.path.join(self.folder, path)
            error = self.assertRaises(ConfigurationError, load, file, {}, (), ())
            self.assertEqual(str(error), f"--config {file}: error: cannot read the file: {reason}")

    @pytest.mark.slow
    def test_pipes(self) -> None:
        """A pipe is read to its end, whoever made it and however late it is written."""
        fifo = os.path.join(self.folder, "fifo")
        os.mkfifo(fifo)
        text = "[limits]\nmax_length = 77\n"
        late = f"sleep 0.2; printf '{text}' "
        fifos = f"({late} > {fifo}) & exec"
        for before, file, after in (
            ("exec", f"<({late})", ""),
            (f"({late}) |", "/dev/stdin", ""),
            (f"printf '{text}' |", "/dev/stdin", ""),
            (fifos, fifo, ""),
            ("exec", "/dev/stdin", f"< {self.write(text)}"),
        ):
            code = (
                "import sys; from twisted_ingest.config.load import load\n"
                "print(load(sys.argv[1], {}, (), ()).settings.limits.max_length)"
            )
            command = ["bash", "-c", f'{before} {sys.executable} -c "$1" {file} {after}', "bash", code]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual((done.stdout, done.stderr), ("77\n", ""), command)

    def test_what_never_ends(self) -> None:
        """What has no end is refused for that or for its size, within its time, and named with the reason."""
        self.patch(file_module, "PIPE_SECONDS", 0.05)
        fifo = os.path.join(self.folder, "fifo")
        os.mkfifo(fifo)
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        os.write(writing, b"[limits]\n")
        waiting = "nobody has written it to its end within 0 s (is it a pipe? its writer must close it)"
        for path, reason in (
            (fifo, waiting),
            (f"/dev/fd/{reading}", waiting),
            ("/dev/zero", "the file has more than 4 MiB: is it TOML?"),
        ):
            error = self.assertRaises(ConfigurationError, load, path, {}, (), ())
            self.assertEqual(str(error), f"--config {path}: error: {reason}")
        load("/dev/null", {}, (), ())

    def test_huge_file(self) -> None:
        """A file that cannot be meant is refused for its size, and not read into memory; the largest one is read."""
        file = os.path.join(self.folder, "image.toml")
        with open(file, "wb") as stream:
            stream.write(b"#" * LARGEST_CONFIGURATION)
        load(file, {}, (), ())
        os.truncate(file, 1 << 40)  # a hole: it takes no room, and more memory than there is
        error = self.assertRaises(ConfigurationError, load, file, {}, (), ())
        self.assertEqual(str(error), f"--config {file}: error: the file has more than 4 MiB: is it TOML?")

    def test_not_utf8(self) -> None:
        """A file in another encoding is refused with the place of the first wrong byte."""
        self.assertEqual(self.complaints(b"a = '\xff'"), ["ingest.toml: error: the file is not UTF-8 (byte 5)"])

    def test_beyond_what_python_reads(self) -> None:
        """Brackets and digits by the thousand are a mistake of the file and not a traceback."""
        for text in ("a = " + "[" * 9000 + "]" * 9000, "a = " + "1" * 5000):
            (line,) = self.complaints(text)
            self.assertTrue(line.startswith("ingest.toml"), line)

    def test_long_value_is_cut(self) -> None:
        """A value of any length is quoted in short, so that the line stays readable."""
        (line,) = self.complaints(f"limits.oversize = '{'x' * 5000}'")
        self.assertTrue(len(line) < 200, line)

    def test_control_characters_are_escaped(self) -> None:
        """Whatever a name holds, one mistake is one line, and no escape sequence reaches the terminal."""
        lines = self.complaints('[listeners."a\\n\\u001b[2J"]\nendpoint = "tcp:1"\nfoo = 1\n')
        self.assertEqual(len(lines), 2)
        self.assertTrue(all(line.isprintable() for line in lines), lines)

    @settings(max_examples=100)
    @given(
        st.lists(
            st.tuples(st.lists(st.sampled_from(FUZZ_KEYS), min_size=1, max_size=3), st.sampled_from(FUZZ_VALUES)),
            max_size=4,
        )
    )
    def test_any_shape(self, entries: list[tuple[list[str], str]]) -> None:
        """Any shape of TOML gives settings or complaints of one line each that name the file."""
        file = self.write("\n".join(f"{'.'.join(keys)} = {value}" for keys, value in entries))
        try:
            load(file, {"framing": "nul", "max-length": "2KiB"}, (), ())
        except ConfigurationError as error:
            for problem in error.problems:
                self.assertTrue(problem.where.startswith(file), problem)
                self.assertTrue(str(problem).isprintable(), problem)


class FlagMistakeTests(LoadingTestCase):
    def test_one_line_for_each(self) -> None:
        """Each kind of wrong flag value gives one line: the flag, what is wrong, the nearest valid word."""
        for flag, value, message in [
            ("memory", "lots", 'memory: \'lots\' is not a size (try "64KiB", "10MB" or a number of bytes)'),
            (
                "framing",
                "newlin",
                "framing: 'newlin' is not known; did you mean 'newline'? (one of auto, newline, nul, octet-counted)",
            ),
            ("oversize", "x", "oversize: 'x' is not known (one of truncate, drop, close)"),
            ("log-format", "jsno", "log_format: 'jsno' is not known; did you mean 'json'? (one of text, json)"),
            ("frame-timeout", "of", 'frame_timeout: \'of\' is not a duration (try "off", "5m", "300s" or "250ms")'),
            ("max-connections", "-1", "max_connections: '-1' is not a number of 1 or more"),
            (
                "max-connections-per-peer",
                "of",
                "max_connections_per_peer: 'of' is not a number of 1 or more (try \"off\")",
            ),
            (
                "admin",
                "of",
                "'of': unknown endpoint type 'of'; did you mean 'off'? (try 'tcp:1514:interface=127.0.0.1')",
            ),
        ]:
            self.assertEqual(self.complaints(None, {flag: value}), [f"--{flag}: error: {message}"])

    def test_one_flag_one_complaint(self) -> None:
        """A wrong ``--framing`` is complained of once, however many listeners there are."""
        self.assertEqual(len(self.complaints(None, {"framing": "x"}, ["tcp:1", "tcp:2"])), 1)

    def test_sinks(self) -> None:
        """Each kind of wrong sink gives one line, and all of them come together."""
        self.assertEqual(
            self.complaints(
                None,
                {},
                [],
                [
                    "fil:x",
                    "stdout",
                    "stdout:x",
                    "file:",
                    "file:a?fsync=alway",
                    "file:b?fsnc=1s",
                    "null:?required=x",
                    "file:c?type=null",
                ],
            ),
            [
                "--sink: error: 'fil:x' is not a sink; did you mean 'file'? "
                "(try file:PATH, null:, relp:ADDRESS, stdout: or tcp:ADDRESS)",
                "--sink: error: 'stdout' is not a sink; did you mean 'stdout:'?",
                "--sink: error: 'stdout:x': nothing but options may follow 'stdout' and its colon",
                "--sink: error: 'file:c?type=null': 'type' is given twice",
                "--sink file:: error: path: it must not be empty",
                "--sink file:a?fsync=alway: error: fsync: 'alway' is not known; did you mean 'always'? "
                "(one of never, 1s, always)",
                "--sink file:b?fsnc=1s: error: unknown key 'fsnc' in [sinks.file-3]; did you mean 'fsync'?",
                "--sink null:?required=x: error: required: 'x' is not true or false",
            ],
        )


class CrossLimitTests(LoadingTestCase):
    def test_record_must_fit_in_a_connection(self) -> None:
        """A record and one read must fit in a connection's memory; the smallest that does is offered and good."""
        self.assertEqual(
            self.complaints(None, {"max-length": "5MB"}),
            [
                "--max-length: error: max_length 5MB and one read of 128KiB do not fit in connection_memory 4MiB: "
                "raise connection_memory to 5011KiB or lower max_length"
            ],
        )
        self.load(None, {"max-length": "5MB", "connection-memory": "5011KiB"})

    def test_exactly_fitting(self) -> None:
        """Limits that hold with nothing to spare are good, one byte more is not."""
        self.load(None, {"max-length": str(3968 * 1024), "memory": "8MiB"})
        self.assertEqual(len(self.complaints(None, {"max-length": str(3968 * 1024 + 1)})), 1)
        self.assertEqual(len(self.complaints(None, {"memory": str((8 << 20) - 1)})), 1)

    def test_listener_record(self) -> None:
        """A listener's own record length is held against the same limit and named by its own line."""
        (line,) = self.complaints('[listeners.a]\nendpoint = "tcp:1"\nmax_length = "4MiB"\n')
        self.assertTrue(line.startswith("ingest.toml:3: error: max_length 4MiB and one read"), line)

    def test_connection_must_fit_in_memory(self) -> None:
        """A connection may hold at most half of the memory; the place is the value that was set."""
        message = "connection_memory {} is more than half of memory {}: raise memory to {} or lower connection_memory"
        self.assertEqual(
            self.complaints(None, {"connection-memory": "200MiB"}),
            ["--connection-memory: error: " + message.format("200MiB", "256MiB", "400MiB")],
        )
        self.assertEqual(
            self.complaints("\n[limits]\nmemory = '1MiB'"),
            ["ingest.toml:3: error: " + message.format("4MiB", "1MiB", "8MiB")],
        )

    def test_descriptors(self) -> None:
        """More connections than descriptors are refused, with the number that would do."""
        self.patch(resource, "getrlimit", lambda _: (1000, 1000))
        self.assertEqual(
            self.complaints(None, {"max-connections": "1000"}),
            [
                "--max-connections: error: 1000 connections need 1096 descriptors, and the limit is 1000: "
                "raise it (ulimit -Hn, LimitNOFILE=) or set max_connections to 904"
            ],
        )
        self.load(None, {"max-connections": "904"})
        self.load(None, {"max-connections": "968", "admin": "off"})

    def test_few_descriptors(self) -> None:
        """The default never refuses itself, and leaves the admin endpoint its own descriptors."""
        for limit, connections, admin in ((64, 24, 4), (256, 192, 16), (1024, 819, 32), (1 << 20, 10_000, 32)):
            self.patch(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
            settings = self.load(None, {}).settings
            self.assertEqual(checks.max_connections(settings), connections)
            self.assertEqual(checks.admin_connections(settings), admin)
            self.assertLessEqual(connections + checks.reserved_descriptors(settings), limit)

    def test_too_few_descriptors(self) -> None:
        """Where nothing is left for connections, what must be raised is named, and to how much."""
        self.patch(resource, "getrlimit", lambda _: (32, 32))
        message = (
            "the limit of 32 descriptors leaves none for connections, 36 are needed besides: "
            "raise it to 256 or more (ulimit -Hn, LimitNOFILE=)"
        )
        self.assertEqual(self.complaints(), [f"configuration: error: {message}"])
        self.assertEqual(self.complaints(None, {"max-connections": "1"}), [f"--max-connections: error: {message}"])

    def test_one_sink_is_required(self) -> None:
        """Sinks that may all drop are refused."""
        self.assertEqual(
            self.complaints(None, {}, [], ["null:?required=false", "stdout:?required=false"]),
            [
                "--sink null:?required=false: error: no sink is required, so every record may be dropped: "
                "set required = true on one"
            ],
        )

    def test_same_path_twice(self) -> None:
        """Two sinks that write to one file are refused, however the path is spelled, through links too."""
        link = os.path.join(self.folder, "link")
        os.symlink(self.folder, link)
        folder = os.path.realpath(self.folder)
        other = f"file:{link}/../{os.path.basename(folder)}/./a"
        error = self.assertRaises(ConfigurationError, load, None, {}, (), [f"file:{folder}/a", other])
        self.assertEqual(str(error), f"--sink {other}: error: {folder}/a is written to by sink 'file' already")

    def test_standard_output_twice(self) -> None:
        """Two sinks on standard output are refused; two that write nowhere are not."""
        self.assertEqual(
            self.complaints(None, {}, [], ["stdout:", "null:", "null:", "stdout:"]),
            ["--sink stdout:: error: standard output is written to by sink 'stdout' already"],
        )


TLS_ENDPOINT = (
    "TLS is no type of endpoint here: give --listen-tls (or --relp-tls) tcp:6514 with --tls-certificate FILE and "
    "--tls-key FILE, or in a table tls = {certificate = ..., key = ...}"
)


class EndpointTests(LoadingTestCase):
    def test_refused(self) -> None:
        """Each kind of wrong endpoint gives one line that names the flag and a form that works."""
        known = "(known: tcp, tcp6, unix, systemd)"
        tcp = "(try 'tcp:1514:interface=127.0.0.1')"
        for endpoint, message in [
            *((f"{word}:1514", TLS_ENDPOINT) for word in ("ssl", "tls")),
            ("tpc:1514", f"unknown endpoint type 'tpc'; did you mean 'tcp'? {tcp}"),
            ("garbage", f"unknown endpoint type 'garbage' {known} {tcp}"),
            ("gar bage:80", f"unknown endpoint type 'gar bage' {known} {tcp}"),
            ("", f"unknown endpoint type '' {known} {tcp}"),
            ("tcp:99999", "port 99999 is not between 0 and 65535"),
            ("tcp6:65536", "port 65536 is not between 0 and 65535"),
            ("tcp:-1", "port -1 is not between 0 and 65535"),
        ]:
            self.assertEqual(self.complaints(None, {}, [endpoint]), [f"--listen: error: {endpoint!r}: {message}"])

    def test_not_an_endpoint(self) -> None:
        """What Twisted cannot read is said in words of the operator, not of a Python call."""
        tcp = "(try 'tcp:1514:interface=127.0.0.1')"
        for endpoint, message in [
            ("tcp", f"it needs the port {tcp}"),
            ("tcp:", f"'' is not a number {tcp}"),
            ("tcp:syslog", f"'syslog' is not a number {tcp}"),
            ("tcp:1:interfce=::1", f"unknown option 'interfce'; did you mean 'interface'? {tcp}"),
            ("tcp:1:port=2", f"the port is given twice {tcp}"),
            ("tcp:1:50:127.0.0.1:x:y", f"it has too many parts {tcp}"),
            ("tcp:1:backlog=x", f"'x' is not a number {tcp}"),
            ("tcp:1\\", f"it ends in a backslash {tcp}"),
            ("tcp6:x", r"'x' is not a number (try 'tcp6:1514:interface=\:\:1')"),
            ("unix:", "it needs the address (try 'unix:/run/ingest.sock')"),
            ("unix:/x:mode=99", "'99' is not a number (try 'unix:/run/ingest.sock')"),
            ("systemd:index=0", "it needs the domain (try 'systemd:domain=INET:index=0')"),
        ]:
            self.assertEqual(
                self.complaints(None, {}, [endpoint]), [f"--listen: error: {endpoint!r} is not an endpoint: {message}"]
            )

    def test_no_socket_from_systemd(self) -> None:
        """A systemd endpoint without a socket passed by the service manager is refused before the start."""
        for endpoint in ("systemd:domain=INET:index=9", "systemd:domain=INET:name=none"):
            self.assertEqual(
                self.complaints(None, {}, [endpoint]),
                [f"--listen: error: {endpoint!r}: the service manager passed no such socket"],
            )

    def test_every_endpoint_is_checked(self) -> None:
        """The endpoints of the file, of each flag, and of admin are all judged."""
        lines = self.complaints('[admin]\nendpoint = "ssl:1"\n', {}, ["tcp:99999", "tls:1"])
        self.assertEqual([line.split(": error: ")[0] for line in lines], ["--listen", "--listen", "ingest.toml:2"])

    def test_same_endpoint_twice(self) -> None:
        """One address for two listeners, or for a listener and admin, is refused."""
        self.assertEqual(
            self.complaints(None, {"admin": "tcp:2"}, ["tcp:1", "tcp:2", "tcp:1"]),
            [
                "--listen: error: tcp:1 is already the endpoint of listener 'tcp-1'",
                "--admin: error: tcp:2 is already the endpoint of listener 'tcp-2'",
            ],
        )

    @settings(max_examples=100)
    @given(st.text(alphabet="tcp6unixsystemd:=\\0159./ \n٣", max_size=20))
    def test_any_text(self, endpoint: str) -> None:
        """Any text is an endpoint or gives one line that names the flag."""
        try:
            self.load(None, {}, [endpoint], ["null:"])
        except ConfigurationError as error:
            (problem,) = error.problems
            self.assertEqual(problem.where, "--listen")
            self.assertTrue(str(problem).isprintable(), problem)


class FormatTests(LoadingTestCase):
    def test_on_the_command_line(self) -> None:
        """The sinks that write lines take a format after their question mark, beside other options; raw is default."""
        specs = ["file:a?format=json", "file:b?fsync=1s&format=raw", "file:c", "stdout:?format=json"]
        sinks = self.load(None, {}, [], specs).settings.sinks
        self.assertEqual(
            list(sinks.values()),
            [
                FileSettings(type="file", path="a", format=Format.JSON),
                FileSettings(type="file", path="b", fsync=Fsync.SECOND, format=Format.RAW),
                FileSettings(type="file", path="c"),
                StdoutSettings(type="stdout", format=Format.JSON),
            ],
        )
        self.assertEqual(FileSettings(type="file", path="c").format, Format.RAW)

    def test_in_the_file(self) -> None:
        """The file sets it per sink."""
        text = "[sinks.a]\ntype = 'file'\npath = 'x'\nformat = 'json'\n[sinks.b]\ntype = 'stdout'\n"
        sinks = self.load(text).settings.sinks
        self.assertEqual(sinks["a"], FileSettings(type="file", path="x", format=Format.JSON))
        self.assertEqual(sinks["b"], StdoutSettings(type="stdout", format=Format.RAW))

    def test_mistakes(self) -> None:
        """A format that is none, and a format where nothing is written, are one line each."""
        self.assertEqual(
            self.complaints(None, {}, [], ["file:a?format=jsno", "stdout:?formt=json", "null:?format=json"]),
            [
                "--sink file:a?format=jsno: error: format: 'jsno' is not known; did you mean 'json'? "
                "(one of raw, json)",
                "--sink stdout:?formt=json: error: unknown key 'formt' in [sinks.stdout]; did you mean 'format'?",
                "--sink null:?format=json: error: unknown key 'format' in [sinks.null] "
                "(known: type, required, spool, dead_letter)",
            ],
        )
