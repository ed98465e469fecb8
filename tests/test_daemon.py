"""twistd as a daemon: its command tells whether the start has worked; its log goes to a file, and is rotated."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from tests.server import PATIENCE, wait_until

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
ANY = ["--listen", "tcp:0:interface=127.0.0.1", "--admin", "off"]


class DaemonCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="ingest-test-")
        self.addCleanup(shutil.rmtree, self.folder)

    def run_command(self, *words: str, outer: tuple[str, ...] = (), shell: str = "") -> tuple[int, str, str]:
        """Run ``twistd ingest`` until its command ends: exit status, standard output and error."""
        command = [*TWISTD, *outer, "ingest", *words]
        if shell:
            command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
        ended = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            start_new_session=True,
        )
        return ended.returncode, ended.stdout, ended.stderr

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def read(self, name: str) -> str:
        with open(self.path(name)) as stream:
            return stream.read()

    def daemon(self, *words: str, outer: tuple[str, ...] = (), shell: str = "") -> int:
        """Start a daemon; gives its number."""
        self.assertEqual(self.run_command(*ANY, *words, outer=outer, shell=shell), (0, "", ""))
        pid = int(self.read("twistd.pid"))
        self.addCleanup(self.kill, pid)
        return pid

    def kill(self, pid: int) -> None:
        if self.is_alive(pid):
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not self.is_alive(pid), "the end of the daemon")

    def is_alive(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/stat") as stream:
                return stream.read().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not self.is_alive(pid), "the end of the daemon")


class FailedStartTests(DaemonCase):
    def test_port_in_use(self) -> None:
        """A port that is taken is one line on standard error and one in the log, exit status 1, and no pid file."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            line = f"error: cannot listen on {endpoint}: Address already in use"
            self.assertEqual(self.run_command("--listen", endpoint, "--admin", "off"), (1, "", f"{line}\n"))
        self.assertEqual(self.read("twistd.log").count(line), 1)
        self.assertEqual(os.listdir(self.folder), ["twistd.log"])

    def test_sink_that_cannot_be_opened(self) -> None:
        """So is a sink; the log is where and what it was asked to be."""
        words = (*ANY, "--sink", f"file:{self.folder}", "--log-format", "json")
        line = f"error: sink file: cannot open {self.folder}: Is a directory"
        ended = self.run_command(*words, outer=("--logfile=our.log", "--pidfile=our.pid"))
        self.assertEqual(ended, (1, "", f"{line}\n"))
        last = json.loads(self.read("our.log").splitlines()[-1])
        self.assertEqual((last["message"], last["level"]), (line, "critical"))
        self.assertEqual(os.listdir(self.folder), ["our.log"])

    def test_in_the_foreground(self) -> None:
        """In the foreground the pid file goes as well, and a log that is elsewhere has the line too."""
        words = (*ANY, "--sink", f"file:{self.folder}")
        line = f"error: sink file: cannot open {self.folder}: Is a directory"
        ended = self.run_command(*words, outer=("-n", "--logfile=our.log", "--pidfile=our.pid"))
        self.assertEqual(ended, (1, "", f"{line}\n"))
        self.assertIn(line, self.read("our.log"))
        self.assertEqual(os.listdir(self.folder), ["our.log"])

    def test_mistakes(self) -> None:
        """A mistake of configuration is told before anything is made, with exit status 78."""
        status, _, errors = self.run_command("--listen", "tcp:99999")
        self.assertEqual((status, errors.count("\n")), (78, 1))
        self.assertEqual(os.listdir(self.folder), [])

    def test_one_that_says_nothing(self) -> None:
        """Where the daemon ends without a word, its command says so, and where to look."""
        status, _, errors = self.run_command(*ANY, outer=("--pidfile=/nowhere/at/all.pid",))
        self.assertEqual(status, 1)
        self.assertIn(
            f"error: the daemon ended with status 1 before it was ready: see {self.path('twistd.log')}\n", errors
        )
        self.assertIn("/nowhere/at/all.pid", self.read("twistd.log"))

    def test_log_that_cannot_be_opened(self) -> None:
        """A log that cannot be opened is told at once."""
        ended = self.run_command(*ANY, outer=("--logfile=/nowhere/our.log",))
        self.assertEqual(ended, (1, "", "error: cannot open the log /nowhere/our.log: No such file or directory\n"))

    def test_standard_output(self) -> None:
        """Standard output that nobody can read is refused for records and for the log: exit status 78."""
        null = "it is closed, or /dev/null"
        for outer, shell, reason in (
            ((), "", "a daemon has none"),
            (("-n", "--pidfile="), ">/dev/null", null),
            (("-n", "--pidfile="), ">&-", null),
        ):
            status, _, errors = self.run_command(*ANY, "--sink", "stdout:", outer=outer, shell=shell)
            self.assertEqual(status, 78)
            self.assertIn(f"error: sink 'stdout' writes to standard output, and {reason}: nobody", errors)
        status, _, errors = self.run_command(*ANY, outer=("--logfile=-",))
        self.assertEqual(
            (status, errors),
            (78, "--logfile=-: error: a daemon has no standard output (name a file, or add -n)\n"),
        )
        self.assertEqual(os.listdir(self.folder), [])
        # To check a configuration is not to run it.
        self.assertEqual(self.run_command(*ANY, "--sink", "stdout:", "--check")[0], 0)


class RunningTests(DaemonCase):
    def test_a_failure_leaves_no_pid_file(self) -> None:
        """A process that a required sink has ended leaves no pid file either."""
        command = [
            *TWISTD,
            "-n",
            "--pidfile=our.pid",
            "ingest",
            *ANY[2:],
            "--listen",
            "unix:lines.sock",
            "--sink",
            "stdout:",
        ]
        with subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            self.addCleanup(process.kill)
            assert process.stdout is not None
            assert process.stderr is not None
            while b"lines to" not in process.stderr.readline():
                pass
            process.stdout.close()
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(self.path("lines.sock"))
                peer.sendall(b"nobody hears\n")
                self.assertEqual(process.wait(PATIENCE), 1)
        self.assertNotIn("our.pid", os.listdir(self.folder))

    def test_log_is_rotated(self) -> None:
        """Renamed and SIGUSR1: the log goes on in a new file of the same mode; one that cannot be made is told of."""
        pid = self.daemon("--log-format", "json")
        mode = stat.S_IMODE(os.stat(self.path("twistd.log")).st_mode)
        for number, old in ((signal.SIGUSR1, "one"), (signal.SIGHUP, "two")):
            os.rename(self.path("twistd.log"), self.path(old))
            os.kill(pid, number)
            wait_until(lambda: os.path.exists(self.path("twistd.log")), "a new file")
            self.assertEqual(stat.S_IMODE(os.stat(self.path("twistd.log")).st_mode), mode)
        os.rename(self.path("twistd.log"), self.path("three"))
        os.mkdir(self.path("twistd.log"))
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: "going on in the old file" in self.read("three"), "the failure told")
        self.stop(pid)
        for name in ("one", "two", "three"):
            for line in self.read(name).splitlines():
                self.assertIn("message", json.loads(line))
        self.assertIn("stopped: ", self.read("three").splitlines()[-1])
        self.assertFalse(os.path.exists(self.path("twistd.pid")))

    def test_lets_go_of_the_terminal(self) -> None:
        """A daemon that is ready holds neither the standard streams nor the folder of its command's session."""
        pid = self.daemon()
        for number in range(3):
            self.assertEqual(os.readlink(f"/proc/{pid}/fd/{number}"), os.devnull)
        self.assertNotEqual(os.getsid(pid), pid)
        self.assertNotEqual(os.getsid(pid), os.getsid(0))
        with open(f"/proc/{pid}/status") as stream:
            (umask,) = [line.split()[1] for line in stream if line.startswith("Umask:")]
        self.assertEqual(umask, "0077")
        self.stop(pid)

    def test_modes_of_output_files(self) -> None:
        """What it writes has the mode that it has in the foreground, whatever the umask of a daemon."""
        pid = self.daemon(
            "--sink", "file:a/usual.log", "--sink", "file:b/open.log?mode=0644", outer=("--umask", "0777")
        )
        for folder, name, mode, above in (("a", "usual.log", 0o640, 0o750), ("b", "open.log", 0o644, 0o755)):
            self.assertEqual(stat.S_IMODE(os.stat(self.path(f"{folder}/{name}")).st_mode), mode)
            self.assertEqual(stat.S_IMODE(os.stat(self.path(folder)).st_mode), above)
        self.stop(pid)

    def test_closed_streams(self) -> None:
        """Started with closed streams it runs, and none of its own descriptors takes their places."""
        pid = self.daemon(shell="0<&- 1>&- 2>&-")
        for number in range(3):
            self.assertEqual(os.readlink(f"/proc/{pid}/fd/{number}"), os.devnull)
        self.stop(pid)
        self.assertIn("stopped: ", self.read("twistd.log").splitlines()[-1])

    def test_closed_streams_in_the_foreground(self) -> None:
        """So it does in the foreground, by twistd and by our own command."""
        for command in ([*TWISTD, "-n", "ingest"], [sys.executable, "-m", "twisted_ingest"]):
            closed = ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *command, *ANY, "--sink", "file:closed.log"]
            process = subprocess.Popen(closed, cwd=self.folder)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            wait_until(lambda: os.path.exists(self.path("closed.log")), "the sink open")
            links = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
            self.assertEqual(links, [os.devnull] * 3)
            process.terminate()
            self.assertIn(process.wait(PATIENCE), (-signal.SIGTERM, 0))
            os.unlink(self.path("closed.log"))
