"""The page docs/reliability.md and the attacks it is made from say the same."""

import importlib
import inspect
import json
import os
from collections import Counter
from itertools import count
from typing import Any

from prometheus_client import generate_latest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.report import Group, Scenario
from tests.reliability import PAGE, insert, modules, results, row, scenarios, tables
from tests.tls import Folder, speak_tls
from twisted_ingest.admin.survey import Survey
from twisted_ingest.observe.events import Events
from twisted_ingest.observe.log import LogWriter
from twisted_ingest.observe.metrics import build_registry
from twisted_ingest.server.certificates import Files
from twisted_ingest.sinks.file import FileSink
from twisted_ingest.sinks.registry import SinkContext, sink_types
from twisted_ingest.sources.plan import PollPlan
from twisted_ingest.sources.poller import HttpPoller
from twisted_ingest.sources.url import Url
from twisted_ingest.testing import Rig


def samples() -> str:
    """Give the exposition of a server with a listener for each protocol, a poller and a file sink, at rest."""
    clock = Clock()
    context = SinkContext(
        clock, Events(clock.seconds), clock.seconds, sync_for=None, is_patient=False, charge=lambda _: None
    )
    relay = sink_types()["relp"].make("file", sink_types()["relp"].table(type="relp", address="a:1"), context)
    text = generate_latest(build_registry(Rig(relay).survey)).decode()
    text += generate_latest(build_registry(secure_survey())).decode()
    for wire in ("lines", "relp", "http-poll"):
        rig = Rig()
        sink = FileSink("file", "nowhere", reactor=rig.clock, events=Events(rig.clock.seconds))
        survey = poller_survey() if wire == "http-poll" else Rig(sink, wire=wire).survey
        text += generate_latest(build_registry(survey)).decode()
    # The names of sinks and listeners are the operator's words.
    for name in ('sink="file"', 'listener="test"'):
        text = text.replace(f"{name},", "").replace(f"{{{name}}}", "")
    return text


def secure_survey() -> Survey:
    """Look at a listener that speaks TLS."""
    rig, folder = Rig(), Folder()
    try:
        speak_tls(rig, Files(folder.certificate, folder.key))
    finally:
        folder.remove()
    return rig.survey


def poller_survey() -> Survey:
    """Look at a poller, whose name is that of the other sources."""
    rig = Rig()
    plan = PollPlan(url=Url.parse("http://192.0.2.1/"))
    parts: dict[str, Any] = {"intake": rig.intake, "events": rig.events, "clock": rig.clock, "reactor": rig.clock}
    poller = HttpPoller("test", plan, **parts, wall_time=rig.clock.seconds, ids=count(1))
    return Survey(
        sources=[poller],
        intake=rig.intake,
        admission=rig.admission,
        events=rig.events,
        log=LogWriter(),
        seconds=rig.clock.seconds,
        wall_time=rig.clock.seconds,
        limits={},
    )


class ScenarioTests(SynchronousTestCase):
    def test_every_attack_is_described(self) -> None:
        """Each attack module describes a scenario, names are unique, and each reports a result somewhere."""
        found = list(scenarios())
        self.assertEqual(sorted({module for module, _ in found}), modules())
        self.assertEqual(Counter(scenario.name for _, scenario in found).most_common(1)[0][1], 1)
        for module in modules():
            loaded = importlib.import_module(f"tests.attacks.{module}")
            source = inspect.getsource(loaded)
            names = [name for name, value in vars(loaded).items() if isinstance(value, Scenario)]
            self.assertEqual([name for name in names if f"{name}.measured(" not in source], [], module)

    def test_metrics_exist(self) -> None:
        """Every metric that a scenario names is one that the server exports, the label included."""
        exported = samples()
        for _, scenario in scenarios():
            for metric in scenario.metrics:
                line = f"\n{metric} " if "{" in metric else f"\n# TYPE {metric} "
                self.assertIn(line, exported, scenario.name)

    def test_page_is_up_to_date(self) -> None:
        """The page has a row for every scenario, in the words of the attack modules (`make reliability` writes it)."""
        page = PAGE.read_text()
        for module, scenario in scenarios():
            is_there = row(module, scenario, "").removesuffix("  |") in page
            self.assertTrue(is_there, f"make reliability: the page lacks the row of {scenario.name!r} as it is now")

    def test_recorder(self) -> None:
        """A result is kept where the environment names a file, and nowhere else."""
        scenario = Scenario(Group.PEERS, "Name", "trigger", "behaviour", ("ingest_ready",))
        path = self.mktemp()
        self.patch(os, "environ", {})
        scenario.measured("lost")
        os.environ["INGEST_TEST_REPORT"] = path
        scenario.measured("1 MiB")
        scenario.measured("2 s")
        with open(path) as report:
            self.assertEqual(results(report), {"Name": "1 MiB; 2 s"})

    def test_tables(self) -> None:
        """A row has the figure that was measured; a scenario without one is an error."""
        measured = {scenario.name: f"result {number}" for number, (_, scenario) in enumerate(scenarios())}
        text = tables(measured)
        for result in measured.values():
            self.assertIn(f"| {result} |", text)
        self.assertRaises(KeyError, tables, {})

    def test_insert(self) -> None:
        """Only what stands between the markers is replaced; a page without them is an error."""
        page = "before\n<!-- x -->\nold\n<!-- end of x -->\nafter\n"
        self.assertEqual(insert(page, "x", "new"), "before\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nafter\n")
        self.assertRaises(ValueError, insert, page, "y", json.dumps({}))
