"""The benchmarks: the runner verifies every line, and the verifier sees what it is there to see."""

import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"
CONNECTIONS, LINES = 3, 400
CLEAN = {"missing": 0, "doubled": 0, "torn": 0, "reordered": 0}


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


class FolderTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        if not FOLDER.is_dir():
            raise SkipTest("needs the checkout: benchmarks are not installed")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ingest-bench-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.filler = self.folder / "filler"
        code = "import sys; sys.path.insert(0, sys.argv[1]); import lines; sys.stdout.buffer.write(lines.make_filler())"
        with self.filler.open("wb") as stream:
            subprocess.run([sys.executable, "-c", code, str(FOLDER)], stdout=stream, check=True)

    def compiled(self, name: str) -> list[str]:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise SkipTest("needs a C compiler (Debian package gcc)")
        done = run(compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", self.folder / name, FOLDER / f"{name}.c")
        self.assertEqual(done.stderr, "")
        return [str(self.folder / name)]

    def interpreted(self, name: str) -> list[str]:
        return [sys.executable, str(FOLDER / f"{name}.py")]

    def received(self, load: list[str], *options: str, connections: int = CONNECTIONS) -> list[bytes]:
        """Give what each connection of a load sent."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            streams: list[bytes] = []

            def receive() -> None:
                peers = [listener.accept()[0] for _ in range(connections)]
                for peer in peers:
                    with peer:
                        streams.append(b"".join(iter(lambda peer=peer: peer.recv(65536), b"")))  # type: ignore[misc]

            thread = threading.Thread(target=receive, daemon=True)
            thread.start()
            done = run(*load, "-p", port, "-c", connections, "-n", LINES, "-s", 0, "-f", self.filler, *options)
            thread.join(60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["bytes"], sum(map(len, streams)))
        return streams


class LoadTests(FolderTestCase):
    def test_compiled_and_interpreted_send_the_same(self) -> None:
        """Both loads send the same bytes, in blocks, a line a send, and with counted octets."""
        compiled, interpreted = self.compiled("load"), self.interpreted("load")
        for options in ((), ("-1",), ("-o",), ("-1", "-r", "20000")):
            self.assertEqual(self.received(compiled, *options), self.received(interpreted, *options))

    def test_counts(self) -> None:
        """Counted frames hold exactly the lines that are sent without counts."""
        (plain,) = self.received(self.interpreted("load"), connections=1)
        (counted,) = self.received(self.interpreted("load"), "-o", connections=1)
        self.assertEqual(counted, b"".join(b"%d %b" % (len(line), line) for line in plain.splitlines()))


class VerifierTests(FolderTestCase):
    """Each damage planted in what was sent; both verifiers say the same about it."""

    def setUp(self) -> None:
        super().setUp()
        streams = self.received(self.interpreted("load"))
        self.lines = [line for number in range(LINES) for stream in streams for line in [stream.splitlines()[number]]]

    def report(self, command: list[str], content: bytes, *options: str) -> dict[str, Any]:
        output = self.folder / "output"
        output.write_bytes(content)
        done = run(*command, "-c", CONNECTIONS, "-n", LINES, "-s", 0, "-f", self.filler, *options, output)
        report: dict[str, Any] = json.loads(done.stdout)
        damaged = any(report[word] for word in CLEAN)
        self.assertEqual((done.returncode, done.stderr), (int(damaged), ""))
        return report

    def check(self, command: list[str]) -> None:
        def damage(lines: list[bytes], **expected: int) -> dict[str, Any]:
            report = self.report(command, b"".join(line + b"\n" for line in lines))
            self.assertEqual({word: report[word] for word in CLEAN}, CLEAN | expected)
            return report

        lines = self.lines
        self.assertEqual(damage(lines)["good"], CONNECTIONS * LINES)
        shuffled = sorted(lines, key=lambda line: line[21:26])
        damage(shuffled)
        report = damage(lines[:10] + lines[11:], missing=1)
        hit = {"connection": 10 % CONNECTIONS, "missing": 1, "doubled": 0, "torn": 0, "reordered": 0}
        self.assertEqual(report["connections"], [hit])
        damage([*lines, lines[5]], doubled=1)
        damage([*lines[:3], lines[6], *lines[4:6], lines[3], *lines[7:]], reordered=1)
        damage([*lines[:3], lines[3][:60], lines[3][60:], *lines[4:]], missing=1, torn=2)
        damage([*lines[:3], lines[3] + lines[4], *lines[5:]], missing=2, torn=1)
        damage([*lines[:3], lines[3][:80] + b"~" + lines[3][81:], *lines[4:]], missing=1, torn=1)
        damage([*lines, b""], torn=1)
        damage([*lines, b"who sent this?"], torn=1)
        damage([], missing=CONNECTIONS * LINES)
        cut = self.report(command, b"\n".join(lines))
        self.assertEqual((cut["missing"], cut["torn"]), (1, 1))
        self.check_json(command)

    def check_json(self, command: list[str]) -> None:
        objects = [json.dumps({"received": "now", "message": line.decode(), "peer": "x"}) for line in self.lines]
        self.assertIn('\\"', "".join(objects))
        report = self.report(command, "".join(f"{text}\n" for text in objects).encode(), "-j")
        self.assertEqual({word: report[word] for word in CLEAN}, CLEAN)
        victim = random.Random(3).randrange(len(objects))
        objects[victim] = objects[victim][:-20]
        report = self.report(command, "".join(f"{text}\n" for text in objects).encode(), "-j")
        self.assertEqual((report["missing"], report["torn"]), (1, 1))

    def test_compiled(self) -> None:
        """The compiled verifier finds missing, doubled, torn and reordered lines."""
        self.check(self.compiled("verify"))

    def test_interpreted(self) -> None:
        """So does the one for machines without a compiler."""
        self.check(self.interpreted("verify"))


class CompareTests(FolderTestCase):
    def compare(self, *options: str) -> tuple[str, list[dict[str, Any]]]:
        script = FOLDER / "compare.py"
        sizes = ("--quick", "--megabytes", 2, "--servers", "ours,lineonlyreceiver", "--results", self.folder)
        done = run(sys.executable, script, *sizes, *options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        with (self.folder / "compare.json").open() as stream:
            return done.stdout, json.load(stream)["runs"]

    def test_every_line(self) -> None:
        """A quick comparison runs both servers and verifies every line of each."""
        printed, runs = self.compare("--workloads", "a")
        self.assertEqual([run["server"] for run in runs], ["ours", "lineonlyreceiver"])
        for result in runs:
            self.assertEqual({word: result[word] for word in CLEAN}, CLEAN)
            self.assertEqual(result["good"], 2_000_000 // 220)
            self.assertGreater(result["peak_rss_megabytes"], 1)
        self.assertIn("| ours |", printed)

    def test_without_a_compiler(self) -> None:
        """Without a compiler it does the same, says so, and gives no ratio to a copy loop that did not run."""
        printed, runs = self.compare("--workloads", "b", "--no-compiler")
        self.assertIn("load and verifier in Python", printed)
        self.assertEqual([run["missing"] for run in runs], [0, 0])


class TLSTests(FolderTestCase):
    def test_every_line(self) -> None:
        """Our server and the C loop write every line that came over TLS; the tables have a row for each of them."""
        words = ("--quick", "--servers", "tlsloop,ours", "--workloads", "lines-16,handshakes")
        done = run(sys.executable, FOLDER / "tls.py", *words)
        if "nothing is measured" in done.stdout:
            raise SkipTest("needs a C compiler and OpenSSL's headers (Debian packages gcc, libssl-dev)")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
        found = [(row[0], row[-1]) for row in rows if row[0] in ("tlsloop", "ours") and len(row) > 2]
        self.assertEqual(found, [("tlsloop", "0"), ("ours", "0")] * 2)


class AcknowledgedTests(FolderTestCase):
    def test_every_answer_is_kept(self) -> None:
        """Our server and the C loop answer what is in their files; the table has a row for each number in flight."""
        self.compiled("syncloop")
        done = run(sys.executable, FOLDER / "relp.py", "--quick", "--servers", "ours,syncloop", "--in-flight", "1,16")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
        found = [(row[0], row[1], row[-1]) for row in rows if "---" not in row]
        self.assertEqual(found, [(n, name, "0") for n in ("1", "16") for name in ("ours", "syncloop")])

    def test_beside_a_flood(self) -> None:
        """Sessions alone, lines alone and both together: each row has what it measured, and all that was answered."""
        done = run(sys.executable, FOLDER / "beside.py", "--quick", "--sessions", 3)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][2:]
        self.assertEqual(
            [(row[0], row[-1]) for row in rows], [(n, "0") for n in ("answers alone", "lines alone", "both")]
        )
        self.assertEqual([bool(row[3].strip()) for row in rows], [True, False, True])
        self.assertEqual([float(row[6]) > 0 for row in rows], [False, True, True])
