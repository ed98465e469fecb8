"""The difference of two configurations: what is added, removed and changed, and what each change takes."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.test_config_load import LoadingTestCase
from twisted_ingest.config.fields import Takes
from twisted_ingest.config.load import load
from twisted_ingest.config.model import Settings
from twisted_ingest.config.plan import DEFAULTS, PARTS, Plan, difference
from twisted_ingest.errors import ConfigurationError
from twisted_ingest.sinks.registry import sink_types
from twisted_ingest.sources.registry import source_types

BASE = """
[listeners.a]
endpoint = "tcp:1"
[sinks.f]
type = "file"
path = "x"
spool = true
"""

SINKS = ["file:a", "file:b", "file:a?fsync=always", "null:", "stdout:"]
SPECS = st.lists(st.sampled_from(SINKS), unique=True, max_size=3)
FLAGS = st.dictionaries(
    st.sampled_from(["memory", "connection-memory", "max-length"]), st.sampled_from(["1MiB", "2MiB"]), max_size=1
)


TAKE_NOTHING = {
    "limits": {
        "drain_timeout",
        "frame_timeout",
        "idle_timeout",
        "max_length",
        "oversize",
        "rate",
        "rate_per_peer",
    },
    "listeners": {
        "allow",
        "frame_timeout",
        "framing",
        "idle_timeout",
        "max_length",
        "oversize",
        "protocol",
        "proxy_protocol_from",
        "rate",
        "rate_per_peer",
    },
}
"""Settings of which a running service reads the new value: through a listener's limits, or when it is needed (a
protocol that is another is another kind of table, and so a part made anew). To add one to the configuration, see which
it is, and add it here or mark it in its annotation."""


def tables() -> Iterator[tuple[str, type[BaseModel]]]:
    """Give each section with the tables that may stand there."""
    for section, about in Settings.model_fields.items():
        if section not in PARTS and isinstance(about.annotation, type) and issubclass(about.annotation, BaseModel):
            yield section, about.annotation
    for source in source_types().values():
        yield source.section, source.table
    for sink in sink_types().values():
        yield "sinks", sink.table


def takes_of(table: type[BaseModel], key: str) -> Takes | None:
    """Give what a key says of itself."""
    return next((mark for mark in table.model_fields[key].metadata if isinstance(mark, Takes)), None)


class PlanTests(LoadingTestCase):
    def settings(self, text: str) -> Settings:
        return self.load(text).settings

    def change(self, *replaced: tuple[str, str]) -> Plan:
        """Give the plan from the configuration above to the one with texts replaced."""
        text = BASE
        for one, other in replaced:
            self.assertIn(one, text)
            text = text.replace(one, other)
        return difference(self.settings(BASE), self.settings(text))

    def test_the_same_networks(self) -> None:
        """Networks that mean the same are no difference, however they are written."""
        for key in ("allow", "proxy_protocol_from"):
            text = BASE.replace('"tcp:1"', f'"tcp:1"\n{key} = ["192.0.2.1", "::1"]')
            same = text.replace("192.0.2.1", "::ffff:192.0.2.1/128")
            self.assertTrue(difference(self.settings(text), self.settings(same)).is_empty)
            other = text.replace("192.0.2.1", "192.0.2.2")
            self.assertFalse(difference(self.settings(text), self.settings(other)).is_empty)

    def test_what_a_change_takes(self) -> None:
        """A limit takes nothing, an endpoint or a sink's key the part made anew, the budget a restart."""
        for new, path, takes in (
            ('[limits]\nmax_length = "1KiB"', ("limits", "max_length"), Takes.NOTHING),
            ('[limits]\ndrain_timeout = "1s"', ("limits", "drain_timeout"), Takes.NOTHING),
            ('[limits]\nmemory = "1GiB"', ("limits", "memory"), Takes.RESTART),
            ("[limits]\nmax_connections = 7", ("limits", "max_connections"), Takes.RESTART),
            ('[spool]\nmax_bytes = "2GiB"', ("spool", "max_bytes"), Takes.PART),
            ('[admin]\nendpoint = "off"', ("admin", "endpoint"), Takes.PART),
        ):
            (change,) = self.change(("[sinks.f]", f"{new}\n[sinks.f]")).changed
            self.assertEqual((change.path, change.takes), (path, takes))
        for one, other, where, takes in (
            ('"tcp:1"', '"tcp:2"', ("listeners", "a", "endpoint"), Takes.PART),
            ('"tcp:1"', '"tcp:1"\nrate = "5/s"', ("listeners", "a", "rate"), Takes.NOTHING),
            ('"tcp:1"', '"tcp:1"\nallow = ["::1"]', ("listeners", "a", "allow"), Takes.NOTHING),
            (
                '"tcp:1"',
                '"tcp:1"\nproxy_protocol_from = "::1"',
                ("listeners", "a", "proxy_protocol_from"),
                Takes.NOTHING,
            ),
            ('"tcp:1"', '"tcp:1"\nreceive_buffer = "1MiB"', ("listeners", "a", "receive_buffer"), Takes.PART),
            ('"x"', '"y"', ("sinks", "f", "path"), Takes.PART),
        ):
            (change,) = self.change((one, other)).changed
            self.assertEqual((change.path, change.takes), (where, takes))

    def test_values(self) -> None:
        """A change has both values."""
        (change,) = self.change(('"x"', '"y"')).changed
        self.assertEqual((change.before, change.after), ("x", "y"))

    def test_parts(self) -> None:
        """Parts come and go by name; one that becomes another kind is made anew, and is one change."""
        plan = self.change(("listeners.a", "listeners.b"))
        self.assertEqual((plan.added, plan.removed), ((("listeners", "b"),), (("listeners", "a"),)))
        self.assertEqual((plan.changed, plan.anew(), plan.needs_restart), ((), (), False))
        plan = self.change(('"tcp:1"', '"tcp:1"\nprotocol = "relp"'))
        self.assertEqual((len(plan.changed), plan.anew()), (1, (("listeners", "a"),)))
        plan = self.change(('"x"', '"y"\nmode = "0600"\nfsync = "1s"'))
        self.assertEqual((len(plan.changed), plan.anew()), (3, (("sinks", "f"),)))

    def test_what_is_the_same(self) -> None:
        """Another way to write it, another order, a default written out of what takes a part: no difference."""
        self.assertTrue(self.change(('path = "x"\nspool = true', 'spool = true\npath = "x"\nfsync = "never"')).is_empty)
        sizes = [self.settings(f"[limits]\nmemory = {size}\n{BASE}") for size in ('"512MiB"', 512 << 20)]
        self.assertTrue(difference(*sizes).is_empty)

    def test_the_same_read_twice(self) -> None:
        """A file that has not changed is no difference, whatever it sets: its values are equal, and no other's."""
        texts = [
            f"""
[limits]
rate = "{number}/s"
[admin]
hosts = ["h{number}"]
[listeners.a]
endpoint = "tcp:1"
allow = ["192.0.2.{number}", "2001:db8::/32"]
sinks = ["f{number}"]
[sinks.f{number}]
type = "null"
[sources.b]
type = "http-poll"
url = "http://h{number}/"
headers = {{A = "{number}"}}
"""
            for number in (1, 2)
        ]
        self.assertTrue(difference(self.settings(texts[0]), self.settings(texts[0])).is_empty)
        changed = difference(*map(self.settings, texts)).changed
        self.assertEqual({change.path[-1] for change in changed}, {"rate", "hosts", "allow", "sinks", "url", "headers"})

    def test_a_limit_that_is_set_to_the_default(self) -> None:
        """It is a change: for RELP, and for who is idle, what is not set is another limit."""
        plan = self.change(('"tcp:1"', '"tcp:1"\nidle_timeout = "off"'))
        self.assertEqual([change.path for change in plan.changed], [("listeners", "a", "idle_timeout")])

    def test_every_section_is_known(self) -> None:
        """Whatever table there is says what a change of it takes."""
        self.assertEqual(set(DEFAULTS), set(Settings.model_fields))

    def test_every_setting_is_known(self) -> None:
        """A setting takes nothing only where somebody has seen to it that the new value is read; others say so."""
        found: dict[str, set[str]] = {}
        for section, table in tables():
            if DEFAULTS[section] is Takes.NOTHING:
                unmarked = {key for key in table.model_fields if takes_of(table, key) is None}
                found[section] = found.get(section, set()) | unmarked
        self.assertEqual(found, TAKE_NOTHING)

    def test_every_setting_is_compared(self) -> None:
        """No setting of any kind of table can change unseen."""
        base = self.settings(BASE)
        for section, table in tables():
            for key in table.model_fields:
                needed = dict.fromkeys(name for name, about in table.model_fields.items() if about.is_required())
                one, other = (table.model_construct(None, **{**needed, key: value}) for value in (1, 2))
                path, named = (section,), (one, other)
                if section in PARTS:
                    path, named = (section, "x"), ({"x": one}, {"x": other})  # type: ignore[assignment]
                before, after = (base.model_copy(update={section: each}) for each in named)
                change, *others = difference(before, after).changed
                self.assertEqual(others, [])
                self.assertEqual((change.path, change.before, change.after), ((*path, key), 1, 2))
                self.assertEqual(change.takes, takes_of(table, key) or DEFAULTS[section])

    @given(SPECS, SPECS, FLAGS, FLAGS)
    def test_there_and_back(
        self, one: list[str], other: list[str], flags: dict[str, str], more: dict[str, str]
    ) -> None:
        """The way back is the way mirrored, and there is none from a configuration to itself."""
        specs = [[*each, "null:?required=true"] for each in (one, other)]
        loaded = []
        for chosen, given_flags in zip(specs, (flags, more), strict=True):
            try:
                loaded.append(load(None, given_flags, [], chosen).settings)
            except ConfigurationError:  # two sinks on one file, sizes that do not fit: nothing to compare
                return
        there, back = difference(*loaded), difference(*reversed(loaded))
        self.assertTrue(difference(loaded[0], loaded[0]).is_empty)
        self.assertEqual((there.added, there.removed), (back.removed, back.added))
        mirrored = {(change.path, repr(change.after), repr(change.before), change.takes) for change in back.changed}
        self.assertEqual({(c.path, repr(c.before), repr(c.after), c.takes) for c in there.changed}, mirrored)
