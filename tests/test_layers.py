"""Who may know whom: the imports of every module, read and held against the plan (docs/architecture.md)."""

import ast
import functools
import pathlib
import sys

from twisted.trial.unittest import SynchronousTestCase

ROOT = pathlib.Path(__file__).parent.parent / "twisted_ingest"

# From the ground up. A module may import from rows before its own, and from its own row inside its own room.
ROWS = [
    ["errors", "units", "backoff", "logging_handler"],
    ["networks", "admin.hosts", "config.owners", "config.kinds"],
    ["config.fields"],
    ["limits"],
    ["escaping"],
    ["batch"],
    ["rejected"],
    ["ledger"],
    ["interfaces"],
    ["flow.watermark", "flow.budget", "flow.rate", "flow.pauses"],
    ["framing"],
    ["flow"],
    ["observe", "resolving"],
    ["storage"],
    ["sinks", "server"],
    ["sources"],
    ["spool"],
    ["admin"],
    ["config"],
    ["process", "assembly", "pulse"],
    ["run"],
    ["service"],
    ["daemon"],
    ["tap"],
    ["cli"],
    ["__main__"],
]

NO_TWISTED = {
    "errors",
    "units",
    "backoff",
    "networks",
    "admin.hosts",
    "config.fields",
    "config.kinds",
    "config.owners",
    "limits",
    "escaping",
    "batch",
    "rejected",
    "framing",
    "ledger",
    "flow.watermark",
    "flow.budget",
    "flow.rate",
    "flow.pauses",
    "spool.body",
    "spool.checkpoint",
    "spool.codec",
    "spool.cursor",
    "spool.disk",
    "spool.frames",
    "spool.leftovers",
    "spool.position",
    "spool.quarantine",
    "spool.recovery",
    "spool.scan",
    "spool.segments",
    "spool.target",
}
PROMETHEUS = {"observe.metrics", "admin.pages", "admin.site"}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Parse every module of the package but the package itself and the doubles, by its dotted name within it."""
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__" and not name.startswith("testing"):
            found[name] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> set[str]:
    """Give the full names a module imports; what is under ``if TYPE_CHECKING`` is known all the same."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative one would be unseen here; ruff's TID252 refuses it.
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            # Under whatever name: `importlib.import_module`, and that imported as another.
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if "import" in called and isinstance(node.args[0].value, str):
                names.add(node.args[0].value)
    return names


def row(module: str) -> int:
    """Find the row of a module: its own entry, or its room's."""
    for name in (module, module.split(".", maxsplit=1)[0]):
        for number, entries in enumerate(ROWS):
            if name in entries:
                return number
    raise AssertionError(f"{module} has no place in the plan")


class ReadingTests(SynchronousTestCase):
    def test_every_way_to_import(self) -> None:
        """Whichever way a module is imported by a name that is written out, it is seen."""
        for line in (
            "import a.b",
            "import a.b as c",
            "from a import b",
            "def f():\n from a import b",
            "if TYPE_CHECKING:\n from a import b",
            "import_module('a.b')",
            "importlib.import_module('a.b')",
            "x = __import__('a.b')",
            "importlib.__import__('a.b', fromlist=['c'])",
            "util._resolve_import('a.b').c()",
        ):
            self.assertEqual(imports(ast.parse(line)) - {"TYPE_CHECKING"}, {"a.b"}, line)

    def test_what_imports_nothing(self) -> None:
        """Other calls, and names that are put together, are no import; who puts a name together has it read by hand."""
        for line in ("print('a.b')", "import_module(room)", "important()", "f(import_module)"):
            self.assertEqual(imports(ast.parse(line)), set(), line)

    def test_names_that_are_put_together(self) -> None:
        """One module imports by names it is given: those of the rooms of kinds."""
        found = {
            name
            for name, tree in modules().items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Name | ast.Attribute)
            and (node.id if isinstance(node, ast.Name) else node.attr) in ("import_module", "__import__")
        }
        self.assertEqual(found, {"config.kinds"})


class LayerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.modules = modules()

    def ours(self, name: str) -> set[str]:
        """Give the modules of the package that a module imports."""
        found = set()
        for target in imports(self.modules[name]):
            if target.startswith("twisted_ingest."):
                dotted = target.removeprefix("twisted_ingest.")
                found.add(dotted if dotted in self.modules else dotted.rpartition(".")[0] or "__init__")
        return found - {"__init__"}

    def test_no_arrow_points_up(self) -> None:
        """Every import goes to a lower row, or stays in its room."""
        wrong = [
            f"{name} imports {target}"
            for name in self.modules
            for target in self.ours(name)
            if row(target) >= row(name) and target.split(".")[0] != name.split(".")[0]
        ]
        self.assertEqual(wrong, [])

    def test_rooms_are_not_circles(self) -> None:
        """Inside a room too, imports form no circle."""
        seen: dict[str, bool] = {}

        def visit(name: str, path: tuple[str, ...]) -> None:
            self.assertNotIn(name, path)
            if name not in seen:
                for target in self.ours(name):
                    visit(target, (*path, name))
                seen[name] = True

        for name in self.modules:
            visit(name, ())

    def test_pure_rooms_know_no_twisted(self) -> None:
        """Words, framing, ledger, watermark and budget import nothing of Twisted."""
        wrong = {
            name
            for name in self.modules
            if {name, name.split(".")[0]} & NO_TWISTED
            for target in imports(self.modules[name])
            if target.split(".")[0] in ("twisted", "zope")
        }
        self.assertEqual(wrong, set())

    def test_logging_handler_stands_alone(self) -> None:
        """The handler for applications imports the standard library and itself, nothing else of ours."""
        wrong = {
            f"{name} imports {target}"
            for name, tree in self.modules.items()
            if name.split(".")[0] == "logging_handler"
            for target in imports(tree)
            if target.split(".")[0] not in sys.stdlib_module_names
            and not target.startswith("twisted_ingest.logging_handler.")
        }
        self.assertEqual(wrong, set())

    def test_server_and_sinks_are_strangers(self) -> None:
        """Connections and sinks meet at the seams only."""
        for name in self.modules:
            room = name.split(".")[0]
            if room in ("server", "sinks"):
                other = "sinks" if room == "server" else "server"
                self.assertFalse([target for target in self.ours(name) if target.startswith(other)])

    def test_sources_know_of_the_server_alone(self) -> None:
        """A source may be made of what the server has; of what is behind its lane it knows nothing."""
        for name in self.modules:
            if name.split(".")[0] == "sources":
                rooms = {target.split(".")[0] for target in self.ours(name)}
                self.assertFalse(rooms & {"sinks", "spool", "storage"})

    def test_sources_are_known_by_their_interface(self) -> None:
        """Whoever starts, drains, asks or describes sources imports none of them."""
        makers = {"assembly", "config"}
        for name in self.modules:
            if not {name, name.split(".")[0]} & (makers | {"sources"}):
                known = {target for target in self.ours(name) if target.split(".")[0] == "sources"}
                self.assertEqual(known - {"sources", "sources.registry"}, set())

    def test_prometheus_stays_at_the_edge(self) -> None:
        """Only metrics and admin know the metrics library."""
        users = {
            name
            for name, tree in self.modules.items()
            if any(target.startswith("prometheus_client") for target in imports(tree))
        }
        self.assertEqual(users - PROMETHEUS, set())

    def test_nobody_imports_the_reactor(self) -> None:
        """The reactor is passed in: only ``tap`` fetches it, inside a function."""
        for name, tree in self.modules.items():
            top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
            self.assertNotIn("twisted.internet.reactor", imports(top))
            if name != "tap":
                self.assertNotIn("twisted.internet.reactor", imports(tree))

    def test_nobody_imports_the_doubles(self) -> None:
        """The doubles are for tests."""
        for name in self.modules:
            self.assertEqual([each for each in self.ours(name) if each.startswith("testing")], [], name)
