"""Kinds of sinks, ours and others': how they are found, and what becomes of those that cannot be used."""

import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.config import kinds
from twisted_ingest.config.kinds import OWN
from twisted_ingest.config.model import settings_model
from twisted_ingest.errors import Durability
from twisted_ingest.sinks.null import NullSink
from twisted_ingest.sinks.registry import GROUP, SinkTable, SinkType, sink_types


class ShoutTable(SinkTable):
    type: Literal["shout"]
    path: str


class Nameless(SinkTable):
    pass


def shout(**changes: Any) -> SinkType[Any]:
    """Describe a sink as a distribution of somebody else's would."""
    parts: dict[str, Any] = {
        "table": ShoutTable,
        "make": lambda name, table, context: NullSink(name),
        "durability": Durability.MEMORY,
        "summary": "shouted",
        "address": "path",
        **changes,
    }
    return SinkType(**parts)


class InstalledTestCase(SynchronousTestCase):
    """Pretends that distributions are installed."""

    def setUp(self) -> None:
        self.forget()
        self.addCleanup(self.forget)

    def forget(self) -> None:
        """Let what was found be looked for again."""
        sink_types.cache_clear()
        settings_model.cache_clear()

    def install(self, *points: tuple[str, object], group: str = GROUP) -> None:
        """Install a distribution for each pair of a word and what its entry point names; text: there is no such."""
        made = []
        for number, (word, thing) in enumerate(points):
            module = f"a_plugin_{number}"
            if not isinstance(thing, str):
                sys.modules[module] = ModuleType(module)
                sys.modules[module].__dict__["thing"] = thing
                self.addCleanup(sys.modules.pop, module, None)
            point = metadata.EntryPoint(word, f"{module}:thing" if not isinstance(thing, str) else thing, group)
            dist = SimpleNamespace(name=f"plugin-{number}", version="1.2")
            made.append(point._for(dist))  # type: ignore[attr-defined]
        self.patch(kinds, "entry_points", lambda group: [point for point in made if point.group == group])
        self.forget()


class FindingTests(InstalledTestCase):
    def test_ours(self) -> None:
        """Ours are there, each with what operators read of it, and a page that there is."""
        found = sink_types()
        self.assertEqual(list(found), sorted(found))
        self.assertLessEqual({"file", "null", "stdout"}, set(found))
        for word, kind in found.items():
            self.assertEqual((kind.word, found.owner(word)), (word, OWN))
            self.assertTrue(kind.form.startswith(f"{word}:"))
            self.assertRegex(kind.summary, r"^[a-z].*[^.]$")

    def test_an_entry_point(self) -> None:
        """A kind of another distribution's stands among ours."""
        self.install(("shout", shout()))
        self.assertEqual(sink_types()["shout"].form, "shout:PATH")
        self.assertEqual(sink_types().owner("shout"), "plugin-0 1.2")
        self.assertEqual(dict(sink_types().broken), {})

    def test_broken(self) -> None:
        """What cannot be used is left out, with its distribution and the reason."""
        for word, thing, reason in (
            ("shout", "no_such_module:thing", "ModuleNotFoundError: \"No module named 'no_such_module'\""),
            ("shout", "sys:no_such_thing", "AttributeError: "),
            ("shout", NullSink, "TypeError: 'type is no SinkType'"),
            ("shout", shout(table=dict), "'its table is no subclass of SinkTable'"),
            ("shout", shout(table=Nameless), "its table lacks type: Literal"),
            ("shout", shout(address="paht"), "its table has no key 'paht', which it names as the address\""),
            ("cry", shout(), "its entry point is named 'cry', and its table is of type 'shout'"),
            ("Shout!", shout(), "a word of small letters"),
            ("file", shout(), "the word is taken by twisted-ingest (uninstall one of the two)"),
        ):
            self.install((word, thing))
            broken = sink_types().broken[word]
            self.assertEqual(broken.distribution, "plugin-0 1.2")
            self.assertIn(reason, str(broken))
            self.assertEqual("shout" in sink_types(), False)

    def test_modules_that_raise(self) -> None:
        """Whatever a module of somebody else's raises costs its own kind; what the operator interrupts ends."""

        class MuteError(Exception):
            def __str__(self) -> str:
                raise ValueError

        class Module(ModuleType):
            """Raises when anything is looked for in it."""

            def __getattr__(self, name: str) -> Any:
                raise self.__dict__["raised"]

        for raised, words in (
            (MuteError(), "MuteError: it cannot say what is wrong"),
            (SystemExit(3), "SystemExit: '3'"),
            (GeneratorExit("odd"), "GeneratorExit: 'odd'"),
        ):
            self.install(("shout", None))
            module = Module("a_plugin_0")
            module.__dict__["raised"] = raised
            sys.modules["a_plugin_0"] = module
            self.assertIn(words, str(sink_types().broken["shout"]))
            self.assertIn("file", sink_types())
        interrupted = sys.modules["a_plugin_0"]
        interrupted.__dict__["raised"] = KeyboardInterrupt()
        self.forget()
        self.assertRaises(KeyboardInterrupt, sink_types)

    def test_two_with_one_word(self) -> None:
        """Of two distributions with one word the second is named, and the word is not to be used."""
        self.install(("shout", shout()), ("shout", shout()))
        self.assertIn("is taken by plugin-0 1.2", sink_types().broken["shout"].reason)
