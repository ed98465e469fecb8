"""
Lines over TLS: in bulk, a line for each record of TLS, handshakes, and what an idle connection takes.

    python benchmarks/tls.py [--quick] [--servers tlsloop,ours,rsyslog-gtls,rsyslog-ossl] [--workloads bulk-1,...]

Each server writes the lines to a file, which is held against what was sent by its length and its number of lines. What
counts is the ratio to `tlsloop.c`, run beside each other in the same round: CPU seconds of the server, then its rate.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from measure import Running, running_command
from report import markdown
from servers import Setting, UnavailableError, program
from tools import compiled

LIBRARIES = ("ssl", "crypto")
SIZE = 200
"""Bytes of a line."""
PATIENCE = 120.0
IDLE = 500
"""Connections that are held open to see what one takes."""


class Workload(NamedTuple):
    """What `tlsload.c` does: its mode, connections, and how many lines or handshakes each makes."""

    mode: str
    connections: int
    count: int

    @property
    def lines(self) -> int:
        """Lines that are written."""
        return self.connections * self.count


WORKLOADS = {
    "bulk-1": Workload("bulk", 1, 4_000_000),
    "bulk-16": Workload("bulk", 16, 250_000),
    "lines-1": Workload("lines", 1, 500_000),
    "lines-16": Workload("lines", 16, 40_000),
    "handshakes": Workload("handshakes", 16, 100),
}


def ours(setting: Setting, certificate: str, key: str) -> list[str]:
    """Make the command of this project's server."""
    listen = ("--listen-tls", f"tcp:{setting.port}:interface=127.0.0.1", "--admin", "off", "--framing", "newline")
    files = ("--tls-certificate", certificate, "--tls-key", key, "--sink", f"file:{setting.output}")
    return [sys.executable, "-m", "twisted_ingest", *listen, *files]


def tlsloop(setting: Setting, certificate: str, key: str) -> list[str]:
    """Make the command of the C loop."""
    path = compiled("tlsloop", setting.folder, *LIBRARIES)
    if path is None:
        raise UnavailableError("needs a C compiler and OpenSSL's headers (Debian package libssl-dev)")
    return [path, str(setting.port), setting.output, certificate, key]


def rsyslog(driver: str) -> Callable[[Setting, str, str], list[str]]:
    """Make the command of rsyslog with one of its drivers: imtcp into a file."""

    def command(setting: Setting, certificate: str, key: str) -> list[str]:
        lines = [
            f'global(workDirectory="{setting.folder}" net.enableDNS="off"',
            '  parser.escapeControlCharactersOnReceive="off"',
            f'  defaultNetstreamDriver="{driver}" defaultNetstreamDriverCAFile="{certificate}"',
            f'  defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")',
            f'module(load="imtcp" maxSessions="2000" streamDriver.name="{driver}" streamDriver.mode="1"',
            '  streamDriver.authMode="anon")',
            'template(name="asSent" type="string" string="%rawmsg%\\n")',
            'ruleset(name="received" queue.type="FixedArray" queue.size="100000" queue.dequeueBatchSize="1024"',
            '        queue.timeoutEnqueue="3600000") {',
            f'  action(type="omfile" file="{setting.output}" template="asSent" ioBufferSize="128k")',
            "}",
            f'input(type="imtcp" port="{setting.port}" address="127.0.0.1" ruleset="received")',
        ]
        config = setting.write("rsyslog.conf", "\n".join(lines) + "\n")
        return [program("rsyslogd"), "-n", "-f", config, "-i", os.path.join(setting.folder, "pid")]

    return command


SERVERS: dict[str, Callable[[Setting, str, str], list[str]]] = {
    "tlsloop": tlsloop,
    "ours": ours,
    "rsyslog-gtls": rsyslog("gtls"),
    "rsyslog-ossl": rsyslog("ossl"),
}


class Numbers(NamedTuple):
    """What was measured once: lines (or handshakes) a second, CPU seconds of the server, lines that are not there."""

    rate: float
    cpu: float
    missing: int


def make_certificate(folder: str) -> tuple[str, str]:
    """Make a self-signed certificate with a key on P-256; gives the paths of both."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    paths = os.path.join(folder, "server.pem"), os.path.join(folder, "server.key")
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    for path, data in zip(paths, (certificate.public_bytes(encoding), private), strict=True):
        with open(path, "wb") as stream:
            stream.write(data)
        os.chmod(path, 0o600)
    return paths


def load_command(load: str, server: Running, workload: Workload) -> list[str]:
    """Make the command of the load."""
    words = (workload.mode, server.port, workload.connections, workload.count, SIZE)
    return [load, *map(str, words)]


def once(name: str, workload: Workload, load: str, files: tuple[str, str], place: str) -> Numbers:
    """Run one workload against one server."""
    with running_command(name, lambda setting: SERVERS[name](setting, *files), place) as server:
        cpu, began = server.cpu(), time.time()
        done = subprocess.run(load_command(load, server, workload), timeout=PATIENCE, check=False)
        server.wait_written(workload.lines * SIZE, 1.0, PATIENCE)
        seconds = server.written_at() - began
        cpu = server.cpu() - cpu
        with open(server.output, "rb") as stream:
            written = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    if done.returncode:
        print(f"{name}: a connection failed", file=sys.stderr)
    return Numbers(workload.lines / max(seconds, 1e-6), cpu, workload.lines - written)


def idle(name: str, load: str, files: tuple[str, str], place: str) -> float:
    """Give the KiB that an idle connection takes."""
    with running_command(name, lambda setting: SERVERS[name](setting, *files), place) as server:
        command = load_command(load, server, Workload("idle", IDLE, 0))
        warm = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        said = warm.stdout.readline() if warm.stdout else b""
        before = server.rss()
        more = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        said += more.stdout.readline() if more.stdout else b""
        time.sleep(1.0)
        found = (server.rss() - before) / IDLE / 1024
        for process in (warm, more):
            process.communicate()
    if said != b"open\n" * 2:
        raise UnavailableError("the connections could not be opened")
    return found


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure lines over TLS.")
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", default=tempfile.gettempdir(), help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="does it work, not how fast is it")
    return parser.parse_args()


def row(name: str, found: list[Numbers], limit: list[Numbers] | None) -> list[str]:
    """Lay out one server, and how it stands beside the loop in C: medians."""
    rate, cpu = (statistics.median(getattr(each, key) for each in found) for key in ("rate", "cpu"))
    ratios = ["", ""]
    if limit:
        ratios[0] = f"{rate / statistics.median(each.rate for each in limit):.2f}"
        ratios[1] = f"{cpu / max(statistics.median(each.cpu for each in limit), 0.01):.2f}"
    missing = sum(each.missing for each in found)
    return [name, f"{rate:,.0f}", ratios[0], f"{cpu:.2f}", ratios[1], str(missing)]


def main() -> int:
    """Print the tables; the exit status is 1 when our server has lost a line."""
    chosen = options()
    lost = False
    with tempfile.TemporaryDirectory(prefix="ingest-bench-", dir=chosen.place) as folder:
        load = compiled("tlsload", folder, *LIBRARIES)
        if load is None:
            print("no C compiler, or no headers of OpenSSL (libssl-dev): nothing is measured")
            return 0
        files = make_certificate(folder)
        names = chosen.servers.split(",")
        for title in chosen.workloads.split(","):
            workload = WORKLOADS[title]
            if chosen.quick:
                workload = workload._replace(count=max(10, workload.count // 50))
            found: dict[str, list[Numbers]] = {}
            for _ in range(1 if chosen.quick else chosen.rounds):
                for name in names:
                    try:
                        found.setdefault(name, []).append(once(name, workload, load, files, chosen.place))
                    except UnavailableError as error:
                        print(f"{name}: {error}")
            lost = lost or any(each.missing for each in found.get("ours", []))
            head = [title, "a second", "of tlsloop", "CPU s", "x tlsloop", "missing"]
            print(markdown(head, [row(name, each, found.get("tlsloop")) for name, each in found.items() if each]))
        print(markdown(["idle", "KiB a connection"], idle_rows(names, load, files, chosen.place)))
    return int(lost)


def idle_rows(names: list[str], load: str, files: tuple[str, str], place: str) -> list[list[str]]:
    """Measure what an idle connection takes, of each server that can run."""
    rows = []
    for name in names:
        try:
            rows.append([name, f"{idle(name, load, files, place):.1f}"])
        except UnavailableError as error:
            print(f"{name}: {error}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
