"""Settings of TLS: flags and tables, and that half of them never starts a server."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from tests.tls import NAME, Folder, issue
from twisted_ingest.config.load import Loaded, load
from twisted_ingest.config.plan import difference
from twisted_ingest.errors import ConfigurationError


class TLSConfigCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Folder()
        self.addCleanup(self.folder.remove)
        self.pair = {"tls-certificate": self.folder.certificate, "tls-key": self.folder.key}
        self.all = {**self.pair, "tls-client-ca": self.folder.client_ca}

    def load(
        self,
        flags: Mapping[str, str],
        listen: Sequence[str] = ("tcp:6514",),
        *,
        text: str | None = None,
        peers: Sequence[str] = (),
        plain: Sequence[str] = (),
        relp: Sequence[str] = (),
    ) -> Loaded:
        file = None
        if text is not None:
            file = str(self.folder.path / "ingest.toml")
            pathlib.Path(file).write_text(text)
        sources = {"listen-tls": listen, "relp-tls": relp}
        return load(file, flags, plain, [], sources=sources, tls_peers=peers)

    def mistakes(self, *arguments: object, **options: object) -> list[str]:
        error = self.assertRaises(ConfigurationError, self.load, *arguments, **options)
        return str(error).replace(f"{self.folder.path}{os.sep}", "").split("\n")

    def table(self, **more: str) -> str:
        keys = {"certificate": self.folder.certificate, "key": self.folder.key, **more}
        inner = ", ".join(f"{key} = {value if value.startswith('[') else repr(value)}" for key, value in keys.items())
        return f"[listeners.safe]\nendpoint = 'tcp:6514'\ntls = {{ {inner} }}\n"


class FlagTests(TLSConfigCase):
    def test_listeners(self) -> None:
        """Each flag makes listeners that speak TLS, named for it; where there is no ``--listen`` none is plain."""
        settings = self.load(self.all, relp=["tcp:20514"], peers=["*.example.com", "b.test"]).settings
        self.assertEqual(list(settings.listeners), ["tls-6514", "relp-tls-20514"])
        self.assertEqual([table.protocol for table in settings.listeners.values()], ["lines", "relp"])
        for table in settings.listeners.values():
            assert table.tls is not None
            self.assertEqual((table.tls.certificate, table.tls.min_version), (self.folder.certificate, "1.2"))
            self.assertEqual(str(table.tls.peers), "*.example.com, b.test")
        both = self.load(self.pair, plain=["tcp:1514"]).settings.listeners
        self.assertEqual(
            {name: table.tls is not None for name, table in both.items()}, {"tcp-1514": False, "tls-6514": True}
        )

    def test_half_set(self) -> None:
        """What is missing is named, with the flag to give."""
        self.assertEqual(self.mistakes({}), ["--listen-tls: error: it needs --tls-certificate FILE and --tls-key FILE"])
        self.assertEqual(
            self.mistakes({"tls-key": self.folder.key}), ["--listen-tls: error: it needs --tls-certificate FILE"]
        )
        self.assertEqual(
            self.mistakes({"tls-certificate": self.folder.certificate}, [], relp=["tcp:1"]),
            ["--relp-tls: error: it needs --tls-key FILE"],
        )
        (mistake,) = self.mistakes(self.pair, peers=["a.test"])
        self.assertTrue(mistake.startswith("--tls-peer: error: peers: clients show a certificate only where client_ca"))
        (mistake,) = self.mistakes(self.all, peers=["w*.example.com"])
        self.assertIn("--tls-peer: error: peers: 'w*.example.com' is not the name of a peer", mistake)

    def test_nobody_to_have_them(self) -> None:
        """Flags of TLS without a listener that speaks it are refused: one might think there is one."""
        for flags, peers in (*(({flag: value}, ()) for flag, value in self.all.items()), ({}, ("a.test",))):
            (mistake,) = self.mistakes(flags, [], plain=["tcp:1514"], peers=peers)
            self.assertRegex(mistake, "^--tls-[a-z-]+: error: no listener speaks TLS: give --listen-tls ENDPOINT or ")

    def test_files(self) -> None:
        """Files that cannot be used are refused before anything is bound, at the flag that names them."""
        expired = issue(NAME, ends=timedelta(seconds=-9)).write(self.folder.path, "expired")
        other = issue(NAME).write(self.folder.path, "other")
        for flags, flag, text in (
            (dict(zip(self.pair, expired, strict=True)), "--tls-certificate", "has expired on"),
            ({**self.pair, "tls-key": other[1]}, "--tls-key", "other.key is not the key of the first certificate"),
            ({**self.pair, "tls-client-ca": "/nowhere"}, "--tls-client-ca", "cannot read /nowhere"),
        ):
            (mistake,) = self.mistakes(flags)
            self.assertTrue(mistake.startswith(f"{flag}: error: "), mistake)
            self.assertIn(text, mistake)

    def test_key_for_everybody(self) -> None:
        """A key that everybody may read is warned of, once."""
        os.chmod(self.folder.key, 0o644)
        found = self.load(self.pair, relp=["tcp:20514"]).cautions
        self.assertEqual([caution.where for caution in found], ["--tls-key"])
        self.assertIn("chmod o= ", found[0].message)


class TableTests(TLSConfigCase):
    def test_table(self) -> None:
        """The table has the same words; a change of it makes the listener anew."""
        text = self.table(client_ca=self.folder.client_ca, peers='["a.test"]', min_version="1.3")
        settings = self.load({}, [], text=text).settings
        table = settings.listeners["safe"].tls
        assert table is not None
        self.assertEqual((table.files.min_version, str(table.peers)), ("1.3", "a.test"))
        other = self.load({}, [], text=text.replace("a.test", "b.test")).settings
        self.assertEqual(difference(settings, other).anew(), (("listeners", "safe"),))
        self.assertTrue(difference(settings, self.load({}, [], text=text).settings).is_empty)

    def test_flags_override(self) -> None:
        """Flags override every table of TLS, and leave plain listeners alone."""
        text = self.table() + "[listeners.plain]\nendpoint = 'tcp:1514'\n"
        tables = self.load({"tls-client-ca": self.folder.client_ca}, [], text=text).settings.listeners
        assert tables["safe"].tls is not None
        self.assertEqual((tables["safe"].tls.client_ca, tables["plain"].tls), (self.folder.client_ca, None))

    def test_mistakes(self) -> None:
        """A wrong table says where and what."""
        for text, message in (
            ("tls = {}", "[listeners.x.tls] needs the key 'certificate'"),
            (
                "tls = { certificat = 'x' }",
                "unknown key 'certificat' in [listeners.x.tls]; did you mean 'certificate'?",
            ),
            ("tls = true", "tls: true is not a table"),
            ("tls = { certificate = 'a', key = 'b', peers = [] }", "peers: it needs names of those who may send"),
            ("tls = { certificate = 'a', key = 'b', peers = [7] }", "peers: [7] are no names of peers"),
            ("tls = { certificate = 'a', key = 'b', min_version = '1.1' }", "min_version: '1.1' is not known"),
        ):
            found = self.mistakes({}, [], text=f"[listeners.x]\nendpoint = 'tcp:1'\n{text}\n")
            self.assertTrue(any(message in line and line.startswith("ingest.toml:3") for line in found), found)

    def test_plain_in_place_of_it(self) -> None:
        """Flags may not put plain listeners in place of the file's that ask for certificates."""
        text = self.table(client_ca=self.folder.client_ca)
        (mistake,) = self.mistakes({}, [], text=text, plain=["tcp:1514"])
        self.assertIn("--listen: error: it replaces the listeners of", mistake)
        self.assertIn("of which safe let in only who has a certificate", mistake)
        self.assertEqual(list(self.load(self.all, ["tcp:1"], text=text).settings.listeners), ["tls-1"])
