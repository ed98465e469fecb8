"""``sinks = [...]`` of a source: which sinks its records go to, and what is refused."""

from tests.server import Server, wait_until
from tests.test_config_load import LoadingTestCase

SINKS = """
[sinks.disk]
type = "file"
path = "disk.log"
[sinks.none]
type = "null"
[sinks.tail]
type = "null"
required = false
"""


class RouteSettingsTests(LoadingTestCase):
    def of(self, sinks: str, more: str = "") -> str:
        return f'{SINKS}[listeners.a]\nendpoint = "tcp:0:interface=127.0.0.1"\nsinks = {sinks}\n{more}'

    def test_chosen(self) -> None:
        """A source has the sinks that it names, or all; the durability it asks for is held against those alone."""
        settings = self.load(self.of('["disk"]', 'protocol = "relp"\n')).settings
        self.assertEqual(list(settings.sinks_of("a")), ["disk"])
        (line,) = self.complaints(self.of('["disk", "none"]', 'protocol = "relp"\n'))
        self.assertIn("the required sink 'none' (null) can give 'memory' at most", line)

    def test_mistakes(self) -> None:
        """A name that no sink has, none that is required, and what is no list of names."""
        for sinks, message in (
            ('["dsik"]', "sinks: no sink is named 'dsik'; did you mean 'disk'?"),
            ('["tail"]', "sinks: none of them is required, so every record may be dropped: set required = true on one"),
            ("[]", 'sinks: it needs names of sinks (try ["file"]); without it all sinks are meant'),
            ('["disk", "disk"]', "sinks: 'disk' is named twice"),
            ("[1]", 'sinks: it needs names of sinks (try ["file"]); without it all sinks are meant'),
        ):
            self.assertEqual(self.complaints(self.of(sinks)), [f"ingest.toml:12: error: {message}"])

    def test_nobody_names_it(self) -> None:
        """A sink that no source names is warned of at its line, where each names its own."""
        cautions = [str(each).rpartition("/")[2] for each in self.load(self.of('["disk", "tail"]')).cautions]
        message = "ingest.toml:5: warning: no source names the sink 'none' in its sinks: nothing goes there"
        self.assertEqual(cautions, [message])
        everything = self.load(self.of('["disk"]', '[listeners.b]\nendpoint = "tcp:1515"\n'))
        self.assertEqual(everything.cautions, ())

    def test_a_real_process(self) -> None:
        """Records go to the sinks that their listener names, and to no other."""
        self.load(self.of('["disk", "tail"]'))
        with Server("--config", self.path) as server:
            server.send(b"hello\n")
            count = "ingest_sink_delivered_records_total"
            wait_until(lambda: server.metrics()[f"{count}[disk]"] == 1, "the record in the file")
            wait_until(lambda: server.metrics()[f"{count}[tail]"] == 1, "the record at the other")
            self.assertEqual(server.metrics()[f"{count}[none]"], 0)
