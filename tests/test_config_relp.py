"""Settings of RELP listeners: flags, defaults, levels of durability, and what is refused."""

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.server import RELP_ENDPOINT, Server
from twisted_ingest.config.load import Loaded, load
from twisted_ingest.errors import ConfigurationError, Durability, Oversize
from twisted_ingest.limits import IDLE_TIMEOUT, KIB, MAX_LENGTH, RELP_MAX_LENGTH


class ConfigCase(SynchronousTestCase):
    """Files and flags."""

    def read(self, text: str) -> Loaded:
        path = self.mktemp()
        with open(path, "w") as stream:
            stream.write(text)
        return load(path, {}, [], [])

    def mistakes(self, text: str) -> list[str]:
        try:
            self.read(text)
        except ConfigurationError as error:
            return [problem.message for problem in error.problems]
        return []


class FlagTests(ConfigCase):
    def test_relp(self) -> None:
        """``--relp`` makes a RELP listener, alone or beside lines, named after its port."""
        alone = load(None, {}, [], [], relp=["tcp:20514", "unix:/run/x.sock"]).settings
        self.assertEqual(list(alone.listeners), ["relp-20514", "relp"])
        both = load(None, {"framing": "nul"}, ["tcp:1514"], [], relp=["tcp:20514"]).settings
        self.assertEqual(list(both.listeners), ["tcp-1514", "relp-20514"])
        self.assertEqual([table.protocol for table in both.listeners.values()], ["lines", "relp"])

    def test_one_endpoint_once(self) -> None:
        """The same endpoint for lines and for RELP is refused."""
        error = self.assertRaises(ConfigurationError, load, None, {}, ["tcp:1514"], [], relp=["tcp:1514"])
        self.assertIn("already the endpoint", str(error))

    def test_a_real_process_says_so(self) -> None:
        """The banner and ``/status`` say what an answer promises; metrics have the level."""
        with Server(f"--relp={RELP_ENDPOINT}", "--listen=tcp:0:interface=127.0.0.1") as server:
            self.assertTrue([line for line in server.log if "RELP, answers once a record is on disk" in line])
            levels = {entry["protocol"]: entry["durability"] for entry in server.status()["listeners"]}
            self.assertEqual(levels, {"relp": "fsync", "lines": "written"})
            page = server.get("metrics")
            self.assertIn('ingest_listener_durability{level="fsync",listener="relp-0"} 1.0', page)
            self.assertIn('ingest_listener_durability{level="fsync",listener="tcp-0"} 0.0', page)


class DefaultTests(ConfigCase):
    def test_defaults(self) -> None:
        """A RELP listener takes 128 KiB, truncates, is never idle, and promises the disk; lines are as they were."""
        settings = self.read(
            '[listeners.r]\nendpoint="tcp:1"\nprotocol="relp"\n[listeners.l]\nendpoint="tcp:2"'
        ).settings
        relp, lines = settings.listener_limits("r"), settings.listener_limits("l")
        self.assertEqual((relp.max_record_bytes, relp.oversize), (RELP_MAX_LENGTH, Oversize.TRUNCATE))
        self.assertEqual((relp.idle_timeout_seconds, relp.durability), (None, Durability.FSYNC))
        self.assertEqual((lines.max_record_bytes, lines.idle_timeout_seconds), (MAX_LENGTH, IDLE_TIMEOUT))
        self.assertIs(lines.durability, Durability.WRITTEN)

    def test_common_limits_hold(self) -> None:
        """What ``[limits]`` sets holds for RELP too, and what the listener sets before it."""
        text = '[limits]\nmax_length="64KiB"\nidle_timeout="9s"\n[listeners.r]\nendpoint="tcp:1"\nprotocol="relp"\n'
        limits = self.read(text).settings.listener_limits("r")
        self.assertEqual((limits.max_record_bytes, limits.idle_timeout_seconds), (64 * KIB, 9.0))
        own = self.read(text + 'max_length="1KiB"\nidle_timeout="off"\ndurability="memory"').settings.listener_limits(
            "r"
        )
        self.assertEqual((own.max_record_bytes, own.idle_timeout_seconds), (KIB, None))
        self.assertIs(own.durability, Durability.MEMORY)


RELP_TABLE = '[listeners.r]\nendpoint="tcp:1"\nprotocol="relp"\n'


class DurabilityTests(ConfigCase):
    def test_a_sink_that_cannot(self) -> None:
        """A required sink that cannot give what is asked for is refused, with what would mend it."""
        for sink, able in (("stdout", "written"), ("null", "memory")):
            (message,) = self.mistakes(f'{RELP_TABLE}[sinks.s]\ntype="{sink}"')
            for part in ("'fsync'", f"{able!r} at most", "spool", "required = false", f"durability = {able!r}"):
                self.assertIn(part, message)
            self.assertEqual(self.mistakes(f'{RELP_TABLE}durability="{able}"\n[sinks.s]\ntype="{sink}"'), [])

    def test_behind_a_spool(self) -> None:
        """A spool keeps what any sink behind it cannot."""
        for sink in ("stdout", "null"):
            self.assertEqual(self.mistakes(f'{RELP_TABLE}[sinks.s]\ntype="{sink}"\nspool=true'), [])

    def test_across_a_network(self) -> None:
        """RELP passes answers on; TCP has none, and a spool in front is what mends that."""
        tcp, relp = (f'[sinks.s]\ntype="{kind}"\naddress="127.0.0.1:1"\n' for kind in ("tcp", "relp"))
        (message,) = self.mistakes(RELP_TABLE + tcp)
        for part in ("'fsync'", "'s' (tcp) can give 'memory' at most", "(spool = true)", "durability = 'memory'"):
            self.assertIn(part, message)
        for fine in (
            f"{tcp}spool=true",
            relp,
            f"{relp}spool=true",
            f"{tcp}required=false\n[sinks.f]\ntype='relp'\naddress='a:1'",
        ):
            self.assertEqual(self.mistakes(RELP_TABLE + fine), [])

    def test_delivered(self) -> None:
        """It is for those who wait for the sink behind: a spool answers before that, and a file has none."""
        asking = f'{RELP_TABLE}durability="delivered"\n'
        relp = '[sinks.s]\ntype="relp"\naddress="127.0.0.1:1"\n'
        self.assertEqual(self.mistakes(asking + relp), [])
        for sink, fix in (
            (f"{relp}spool=true", "answers with 'fsync' before that: take the spool away"),
            ('[sinks.s]\ntype="file"\npath="x"', "'fsync' at most: use a sink that answers (relp)"),
            ('[sinks.s]\ntype="tcp"\naddress="a:1"\nspool=true', "use a sink that answers (relp), without a spool"),
        ):
            (message,) = self.mistakes(asking + sink)
            self.assertIn(fix, message)

    def test_dead_letters(self) -> None:
        """They go to a file of their own, which says so."""
        sink = f'{RELP_TABLE}[sinks.s]\ntype="relp"\naddress="a:1"\ndead_letter='
        self.assertEqual(self.mistakes(f'{sink}"file:rejected.json"'), [])
        for wrong in ('"rejected.json"', '"file:"', "7"):
            (message,) = self.mistakes(sink + wrong)
            self.assertIn('try "file:PATH"', message)
        twice = f'{sink}"file:x"\n[sinks.f]\ntype="file"\npath="x"'
        self.assertIn("is written to by sink", "".join(self.mistakes(twice)))

    def test_targets(self) -> None:
        """An address is a host and a port, several, or an endpoint; what is none is told what would do."""
        sink = f'{RELP_TABLE}durability="memory"\n[sinks.s]\ntype="tcp"\naddress='
        for good in ('"h:1"', '"[::1]:1"', '"a:1,b:2"', '["a:1", "b:2"]', '"unix:/run/x"', '"tcp:h:1"'):
            self.assertEqual(self.mistakes(sink + good), [])
        for wrong, why in (
            ('""', "HOST:PORT"),
            ('"h"', "HOST:PORT"),
            ('"h:0"', "port 0 is not between"),
            ('"h:70000"', "port 70000 is not between"),
            ('"a:1,a:1"', "twice"),
            ('"unix:"', "HOST:PORT"),
            ('"tcp:h:x"', "no client endpoint"),
            ("7", "HOST:PORT"),
        ):
            (message,) = self.mistakes(sink + wrong)
            self.assertIn(why, message)

    def test_beside_one_that_can(self) -> None:
        """A sink that is not required may be as weak as it likes."""
        file = '[sinks.f]\ntype="file"\npath="x"\n'
        self.assertEqual(self.mistakes(f'{RELP_TABLE}{file}[sinks.s]\ntype="stdout"\nrequired=false'), [])
        self.assertEqual(len(self.mistakes(f'{RELP_TABLE}{file}[sinks.s]\ntype="stdout"')), 1)

    def test_lines(self) -> None:
        """Lines are asked for what they say only: by default nobody is promised anything."""
        lines = '[listeners.l]\nendpoint="tcp:1"\n'
        self.assertEqual(self.mistakes(f'{lines}[sinks.s]\ntype="null"'), [])
        self.assertEqual(len(self.mistakes(f'{lines}durability="fsync"\n[sinks.s]\ntype="stdout"')), 1)

    def test_words(self) -> None:
        """A level or a protocol that is none is refused with those there are."""
        (level,) = self.mistakes(f'{RELP_TABLE}durability="disk"')
        self.assertIn("one of memory, written, fsync, delivered", level)
        (protocol,) = self.mistakes('[listeners.r]\nendpoint="tcp:1"\nprotocol="rlep"')
        self.assertIn("did you mean 'relp'", protocol)

    def test_what_relp_cannot_have(self) -> None:
        """Framing is not RELP's, and closing for an oversize record would have its client send it for ever."""
        (framing,) = self.mistakes(f'{RELP_TABLE}framing="nul"')
        self.assertIn("RELP has its own", framing)
        (oversize,) = self.mistakes(f'{RELP_TABLE}oversize="close"')
        self.assertIn("for ever", oversize)

    def test_exit_status(self) -> None:
        """The refusal is one line with its place, and exit status 78."""
        server = Server(f"--relp={RELP_ENDPOINT}", "--sink=stdout:")
        self.addCleanup(server.kill)
        self.assertEqual(server.process.wait(60), 78)
        server.kill()
        self.assertEqual(len(server.log), 1)
        self.assertTrue(server.log[0].startswith("--sink stdout:: error: listener 'relp-0' asks for"), server.log)

    def test_a_pipe_cannot_keep(self) -> None:
        """A file that turns out to be a FIFO cannot keep what is answered: the start is refused."""
        folder = self.mktemp()
        os.makedirs(folder)
        os.mkfifo(os.path.join(folder, "pipe"))
        server = Server(f"--relp={RELP_ENDPOINT}", "--sink=file:pipe", folder=os.path.abspath(folder))
        self.addCleanup(server.kill)
        self.assertEqual(server.process.wait(60), 1)
        server.kill()
        self.assertTrue([line for line in server.log if "no regular file" in line], server.log)
